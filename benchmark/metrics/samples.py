"""Draws of samples beside real examples, and what the extractor and the judge see of both.

`Draws` come first; other probes look at the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from benchmark.data.base import DataModule
from benchmark.metrics.cost import clock
from benchmark.metrics.extractors.base import CPU, Extractor, Features, Verdicts
from benchmark.metrics.probe import Found, Probe
from benchmark.metrics.session import Session, draw_samples, how_drawn, sample_chunk
from benchmark.spec import Absence, Conditional

DRAWN = ("split", "generated", "held_out", "reference", "how")  # what the protocol of draws says


@dataclass(frozen=True)
class SampleSets:
    """Independent draws of samples beside real examples, in data units."""

    generated: tuple[Tensor, ...]  # [n, *shape] each
    held_out: Tensor  # [n, *shape]
    reference: Tensor  # [N, *shape]: the training split
    seconds: float | None = None  # that 1,000 samples took
    device: torch.device = CPU  # where comparisons are made; the tensors are on the CPU


@dataclass(frozen=True)
class SampleFeatures:
    """The same draws through one extractor."""

    generated: tuple[Features, ...]  # each draw holds as many samples as there are held-out images
    held_out: Features
    reference: Features  # the training split
    device: torch.device = CPU  # where comparisons are made; the tensors are on the CPU


@dataclass(frozen=True)
class SampleClasses:
    """What a judge, another network than the extractor, takes each image for."""

    generated: tuple[Verdicts, ...]  # draw by draw
    held_out: Verdicts


@dataclass(frozen=True)
class Labelled:
    """Images with the class of each."""

    x: Tensor  # [n, *shape]
    labels: Tensor  # [n]


@dataclass(frozen=True)
class LabelledSamples:
    """Draws of samples with labels (their condition, or what the judge says), beside real images with their own."""

    generated: tuple[Labelled, ...]
    held_out: Labelled
    reference: Labelled  # the training split
    levels: int


def held_out(session: Session) -> Tensor:
    """Which examples of the split `[n]` samples are compared with."""
    return session.subset(len(session.split.x), session.protocol.sample_examples, "samples")


def beside(session: Session, generated: tuple[Tensor, ...], how: Mapping[str, Any]) -> Found[SampleSets]:
    """Draws beside the real examples that they are compared with."""
    real, train = session.split.x[held_out(session)], session.train.x
    protocol: dict[str, Any] = {
        "split": session.protocol.split,
        "generated": len(generated[0]),
        "held_out": len(real),
        "reference": f"train, {len(train)}",
    }
    return Found(SampleSets(generated, real, train, device=session.experts.device), {**protocol, **how})


class Draws(Probe[SampleSets]):
    """As many independent samples as there are held-out examples, several times over."""

    key = "samples"
    says = DRAWN

    def collect(self, session: Session) -> Found[SampleSets] | Absence:
        model, protocol = session.model, session.protocol
        if model is None:
            return Absence("does not apply", f"{session.name} has no samples")
        n = len(held_out(session))
        started = clock(session.device)
        draws = tuple(draw_samples(model, n, protocol.seed, draw) for draw in range(protocol.sample_draws))
        seconds = (clock(session.device) - started) / (len(draws) * n) * 1000
        found = beside(session, draws, {"how": how_drawn(model, len(draws))})
        return replace(found, evidence=replace(found.evidence, seconds=seconds))


class SeenFeatures(Probe[SampleFeatures]):
    """What the extractor sees in samples, in held-out images and in the training split."""

    key = "features"
    says = (*DRAWN, "extractor")

    def collect(self, session: Session) -> Found[SampleFeatures] | Absence:
        extractor = session.experts.extractor
        if isinstance(extractor, Absence):
            return extractor
        if isinstance(draws := session[Draws], Absence):
            return draws
        sets = draws.evidence
        generated = tuple(extractor(draw) for draw in sets.generated)
        held_out, reference = extractor(sets.held_out), train_features(extractor, session.data)
        seen = SampleFeatures(generated, held_out, reference, sets.device)
        return Found(seen, {**draws.protocol, "extractor": extractor.name})


class JudgedSamples(Probe[tuple[Verdicts, ...]]):
    """What the judge takes the samples of each draw for."""

    key = "judged"
    says = (*DRAWN, "judge")

    def collect(self, session: Session) -> Found[tuple[Verdicts, ...]] | Absence:
        judge = session.experts.judge
        if isinstance(judge, Absence):
            return judge
        if isinstance(draws := session[Draws], Absence):
            return draws
        verdicts = tuple(map(judge.classify, draws.evidence.generated))
        return Found(verdicts, {**draws.protocol, "judge": judge.name})


class JudgedClasses(Probe[SampleClasses]):
    """What the judge takes samples and held-out images for."""

    key = "classes"
    says = JudgedSamples.says

    def collect(self, session: Session) -> Found[SampleClasses] | Absence:
        judge, draws = session.experts.judge, session[Draws]
        if isinstance(judge, Absence):
            return judge
        if isinstance(draws, Absence):
            return draws
        if isinstance(judged := session[JudgedSamples], Absence):
            return judged
        return Found(SampleClasses(judged.evidence, judge.classify(draws.evidence.held_out)), judged.protocol)


class Conditioned(Probe[LabelledSamples]):
    """Samples under the labels of held-out images, as many draws as there are of others."""

    key = "conditioned"
    says = DRAWN
    promises = (Conditional,)

    def collect(self, session: Session) -> Found[LabelledSamples] | Absence:
        real = real_labels(session)
        if isinstance(real, Absence):
            return real
        if isinstance(draws := session[Draws], Absence):
            return draws
        exam, reference = real
        generated = tuple(
            Labelled(conditioned(session, exam.labels, draw), exam.labels)
            for draw in range(len(draws.evidence.generated))
        )
        protocol = {**draws.protocol, "how": {**draws.protocol.get("how", {}), "labels": "condition"}}
        return Found(LabelledSamples(generated, exam, reference, session.spec.levels), protocol)


class Lessons(Probe[LabelledSamples]):
    """Samples with a class each: the condition under which they were drawn, else what the judge says."""

    key = "labelled"
    says = (*DRAWN, "judge")

    def collect(self, session: Session) -> Found[LabelledSamples] | Absence:
        judge, real = session.experts.judge, real_labels(session)
        if isinstance(judge, Absence):
            return judge
        if isinstance(real, Absence):
            return real
        if Conditioned.asks(session.model):
            if isinstance(conditioned := session[Conditioned], Absence):
                return conditioned
            return Found(conditioned.evidence, {**conditioned.protocol, "judge": judge.name})
        draws, judged = session[Draws], session[JudgedSamples]
        if isinstance(draws, Absence):
            return draws
        if isinstance(judged, Absence):
            return judged
        generated = tuple(
            Labelled(draw, verdicts.classes)
            for draw, verdicts in zip(draws.evidence.generated, judged.evidence, strict=True)
        )
        protocol = dict(judged.protocol)
        if "how" in protocol:
            protocol["how"] = {**protocol["how"], "labels": "judge"}
        return Found(LabelledSamples(generated, *real, session.spec.levels), protocol)


def real_labels(session: Session) -> tuple[Labelled, Labelled] | Absence:
    """The held-out images that samples are compared with, and the training split, with the labels that are a model's
    condition; or why there are none."""
    split, train = session.split, session.train
    if split.labels is None or train.labels is None or session.spec.classes is None:
        return Absence("does not apply", f"{session.data.describe()['name']} has no labels")
    chosen = held_out(session)
    return Labelled(split.x[chosen], split.labels[chosen]), Labelled(train.x, train.labels)


def conditioned(session: Session, condition: Tensor, draw: int) -> Tensor:
    """One sample under each entry of `condition` `[n, *condition.shape]`."""
    pieces = []
    for index, chunk in enumerate(condition.split(sample_chunk(session.spec))):
        with session.keyed("conditioned", draw, index):
            pieces.append(session.model.sample_given(chunk.to(session.device)))
    return torch.cat(pieces).cpu()


_TRAIN_FEATURES: dict[tuple[str, str, str], Features] = {}


def train_features(extractor: Extractor, data: DataModule) -> Features:
    """Features of the training split, extracted once a process."""
    key = (extractor.name, str(extractor.device), str(data.describe()["splits"]["train"]["sha256"]))
    if key not in _TRAIN_FEATURES:
        _TRAIN_FEATURES[key] = extractor(data.split("train").x)
    return _TRAIN_FEATURES[key]
