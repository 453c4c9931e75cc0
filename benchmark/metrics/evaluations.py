"""Quality against evaluations of the network, from one training: samples by fewer of them, and by more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from benchmark.metrics.fidelity import fid
from benchmark.metrics.probe import Found, Metric, Probe, metric
from benchmark.metrics.samples import SampleFeatures, SeenFeatures, held_out
from benchmark.metrics.session import Session, draw_samples
from benchmark.spec import Absence, Estimate, SamplesWithin

EVALUATIONS = (5, 10, 20, 50, 100)  # at most so many for one sample


class FeaturesWithin(Probe[Mapping[int, SampleFeatures]]):
    """One draw of samples within each number of `EVALUATIONS`, from the same noise as the first draw of all."""

    key = "features_within"
    says = SeenFeatures.says
    promises = (SamplesWithin,)

    def collect(self, session: Session) -> Found[Mapping[int, SampleFeatures]] | Absence:
        model, extractor = session.model, session.experts.extractor
        if isinstance(extractor, Absence):
            return extractor
        if isinstance(seen := session[SeenFeatures], Absence):
            return seen
        n, seed = len(held_out(session)), session.protocol.seed
        within = {
            most: draw_samples(model, n, seed, how=partial(model.sample_within, evaluations=most))
            for most in EVALUATIONS
        }
        features = {most: replace(seen.evidence, generated=(extractor(x),)) for most, x in within.items()}
        return Found(features, {**seen.protocol, "how": {"sampler": model.sampler.name, "draws": 1}})


def _fid_within(evaluations: int) -> Metric[Mapping[int, SampleFeatures]]:
    def within(evidence: Mapping[int, SampleFeatures]) -> Estimate:
        return fid(evidence[evaluations])

    within.__name__ = f"fid_within_{evaluations}"
    return metric(FeaturesWithin, protocol={"evaluations_at_most": evaluations})(within)


fid_within_5, fid_within_10, fid_within_20, fid_within_50, fid_within_100 = map(_fid_within, EVALUATIONS)
