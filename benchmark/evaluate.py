"""Checkpoint and split to scores: the one loop. It sees capabilities, never a concrete model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.build import DataModule, Examination, GenerativeModel, Measure, extractor_folders
from benchmark.metrics import cost, extractors
from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.keyed import keyed_randomness
from benchmark.metrics.probe import Found, Probe
from benchmark.metrics.samples import Draws
from benchmark.metrics.session import Earlier, Experts, Protocol, Reader, Session, draw_samples
from benchmark.metrics.truth import impossible
from benchmark.spec import Absence, DataSpec, Estimate, Score

__all__ = [
    "Earlier",
    "Experts",
    "Protocol",
    "Reader",
    "Result",
    "cost",
    "draw_samples",
    "evaluate",
    "keyed_randomness",
    "load_extractor",
    "load_judge",
    "references",
    "selection_metric",
]


@dataclass
class Result:
    """Scores, and what they were computed from."""

    scores: dict[str, Score]
    per_example: dict[str, Tensor] = field(default_factory=dict)  # nats, float32, in the order of the split
    examples: dict[str, Tensor] = field(default_factory=dict)  # which of the split `per_example` is about, by index
    samples: Tensor | None = None  # the first draw
    pictures: dict[str, Tensor] = field(default_factory=dict)  # other samples worth a look, by name
    curves: dict[str, Tensor] = field(default_factory=dict)  # numbers over steps of the model, by name
    sampling_seconds: float | None = None  # for 1,000 samples
    impossible: str | None = None  # why its numbers cannot be right, where the source of the data is known


def evaluate(
    model: GenerativeModel,
    data: DataModule,
    protocol: Protocol,
    examination: Examination,
    experts: Experts,
    names: Sequence[str] | None = None,
) -> Result:
    """Score `model` on one split under `protocol`: every metric of the examination, or those with `names`.

    Only the evidence that these need is collected. A metric that does not apply, or fails, is an `Absence` with its
    reason, never a number.
    """
    session = Session(model, data, protocol, experts)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            scores = _scores(session, examination.metrics, names)
    finally:
        model.train(was_training)
    found = {probe: one for probe, one in session.found.items() if isinstance(one, Found)}
    result = Result(scores)
    for probe, one in found.items():
        result.pictures |= one.pictures
        result.curves |= one.curves
        if one.per_example is not None:
            result.per_example[probe.key], result.examples[probe.key] = one.per_example
    if Draws in found:
        result.samples = found[Draws].evidence.generated[0]
        result.sampling_seconds = found[Draws].evidence.seconds
    result.impossible = _impossible(result, data, protocol)
    return result


def references(
    data: DataModule, protocol: Protocol, examination: Examination, experts: Experts
) -> dict[str, dict[str, Score]]:
    """What no model is needed for, under the same protocol: simple baselines with their own samples, the entropy where
    the source of the data is known, and real examples in place of samples."""
    table = {}
    for name, given in examination.modality.references(Session(None, data, protocol, experts)).items():
        scores = _scores(Session(None, data, protocol, experts, given, name), examination.metrics)
        table[name] = {metric: score for metric, score in scores.items() if score.absent is None}
    return table


def selection_metric(model: GenerativeModel, examination: Examination) -> str:
    """The validation score that chooses the checkpoint: the first of the modality's for which the model promises the
    evidence."""
    for name in examination.fact.select:
        if any(probe.asks(model) for probe in examination.metrics[name].metric.probes):
            return name
    return examination.fact.select[-1]


def load_extractor(data_name: str, spec: DataSpec, inception: Path | None = None) -> Extractor | Absence:
    """The extractor of a dataset's images, a user's own first, or why there is none."""
    return extractors.load_extractor(data_name, spec, inception, extractor_folders())


def load_judge(data_name: str, spec: DataSpec) -> Extractor | Absence:
    """The classifier that says what class an image is of, a user's own first, or why there is none."""
    return extractors.load_judge(data_name, spec, extractor_folders())


def _scores(session: Session, measures: Mapping[str, Measure], names: Sequence[str] | None = None) -> dict[str, Score]:
    return {name: _score(session, measure) for name, measure in measures.items() if names is None or name in names}


def _score(session: Session, measure: Measure) -> Score:
    fact, metric = measure.fact, measure.metric
    found = _evidence(session, metric.probes)
    if isinstance(found, Absence):
        return Score(fact.unit, fact.version, absent=found)
    shown = {**found.protocol, **metric.protocol}
    try:
        estimate = metric(found.evidence)
    except (ArithmeticError, ValueError, IndexError, MemoryError, RuntimeError) as error:  # of degenerate samples, say
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
        return Score(fact.unit, fact.version, protocol=shown, absent=Absence("failed", reason))
    return _value(measure, estimate, shown)


def _evidence(session: Session, probes: Sequence[type[Probe[Any]]]) -> Found[Any] | Absence:
    """What the first probe found that found anything, or why none did."""
    if not any(probe in session.found or probe.asks(session.model) for probe in probes):
        names = dict.fromkeys(promise.__name__ for probe in probes for promise in probe.promises)
        return Absence("does not apply", f"{session.name} promises no {' or '.join(names)}")
    absences = []
    for probe in probes:
        if not isinstance(found := session[probe], Absence):
            return found
        absences.append(found)
    return next((one for one in absences if one.kind != "does not apply"), absences[0])


def _value(measure: Measure, estimate: Estimate, shown: dict[str, Any]) -> Score:
    fact = measure.fact
    if not math.isfinite(estimate.value):
        absent = Absence("failed", f"the value is {estimate.value}")
        return Score(fact.unit, fact.version, n=estimate.n, protocol=shown, absent=absent)
    stderr = estimate.stderr
    if stderr is not None and not math.isfinite(stderr):  # the number stands, and says why it has no error
        shown = shown | {"how": shown.get("how", {}) | {"stderr": f"left out, since it is {stderr}"}}
        stderr = None
    return Score(fact.unit, fact.version, estimate.value, stderr, estimate.n, shown)


def _impossible(result: Result, data: DataModule, protocol: Protocol) -> str | None:
    """Whether a likelihood, exact or a bound, beats the source of the data, where that is known."""
    source = data.truth(protocol.split).get("source") if result.per_example else None
    if source is None:
        return None
    verdicts = (
        impossible(ours, source[result.examples[promise]], data.spec.dims, promise)
        for promise, ours in result.per_example.items()
    )
    return next((verdict for verdict in verdicts if verdict is not None), None)
