"""Quality against variety, from one training: samples from latents drawn towards their middle, more and less."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from benchmark.metrics import coverage, fidelity
from benchmark.metrics.probe import Found, Metric, Probe, metric
from benchmark.metrics.samples import SampleFeatures, SeenFeatures, held_out
from benchmark.metrics.session import Session, draw_samples
from benchmark.spec import Absence, Estimate, Truncates

TRUNCATIONS = (0.3, 0.5, 0.7, 1.0)


class TruncatedFeatures(Probe[Mapping[float, SampleFeatures]]):
    """One draw of samples under each of `TRUNCATIONS`, from the same noise as the first draw of all."""

    key = "features_truncated"
    says = SeenFeatures.says
    promises = (Truncates,)

    def collect(self, session: Session) -> Found[Mapping[float, SampleFeatures]] | Absence:
        model, extractor = session.model, session.experts.extractor
        if isinstance(extractor, Absence):
            return extractor
        if isinstance(seen := session[SeenFeatures], Absence):
            return seen
        n, seed = len(held_out(session)), session.protocol.seed
        truncated = {
            truncation: draw_samples(model, n, seed, how=partial(model.sample_truncated, truncation=truncation))
            for truncation in TRUNCATIONS
        }
        features = {
            truncation: replace(seen.evidence, generated=(extractor(x),)) for truncation, x in truncated.items()
        }
        return Found(features, {**seen.protocol, "how": {"sampler": model.sampler.name, "draws": 1}})


def _truncated(name: str, of: Metric[SampleFeatures], truncation: float) -> Metric[Mapping[float, SampleFeatures]]:
    """The metric `of` samples, of those under this truncation."""

    def truncated(evidence: Mapping[float, SampleFeatures]) -> Estimate:
        return of(evidence[truncation])

    truncated.__name__ = f"{name}_truncated_{round(100 * truncation)}"
    return metric(TruncatedFeatures, protocol={**of.protocol, "truncation": truncation})(truncated)


fid_truncated_30, fid_truncated_50, fid_truncated_70, fid_truncated_100 = (
    _truncated("fid", fidelity.fid, truncation) for truncation in TRUNCATIONS
)
precision_truncated_30, precision_truncated_50, precision_truncated_70, precision_truncated_100 = (
    _truncated("precision", coverage.precision, truncation) for truncation in TRUNCATIONS
)
recall_truncated_30, recall_truncated_50, recall_truncated_70, recall_truncated_100 = (
    _truncated("recall", coverage.recall, truncation) for truncation in TRUNCATIONS
)
