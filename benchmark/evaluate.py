"""Checkpoint and split to scores: the one loop. It sees capabilities, never a concrete model."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.build import DataModule, GenerativeModel, SplitName, extractor_folders
from benchmark.metrics import METRICS, anomaly, baselines, by_name, cost, extractors, interpolation, reconstruction
from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.memorisation import nearest_in_pixels
from benchmark.metrics.truth import impossible
from benchmark.spec import (
    Absence,
    AnomalyScores,
    Conditional,
    DataSpec,
    Estimate,
    Evidence,
    Features,
    ImportanceBound,
    Interpolates,
    Labelled,
    LabelledSamples,
    Likelihood,
    LikelihoodBound,
    Metric,
    Outliers,
    Reconstructions,
    Reconstructs,
    SampleClasses,
    SampleFeatures,
    SampleImages,
    Score,
    SolvesLikelihood,
    Stateful,
    TokenLikelihood,
)

__all__ = [
    "METRICS",
    "Protocol",
    "Result",
    "by_name",
    "cost",
    "draw_samples",
    "evaluate",
    "keyed_randomness",
    "load_extractor",
    "load_judge",
    "references",
    "selection_metric",
]

#: Examples scored, and samples drawn, at a time: fixed, so that random draws do not depend on anybody's batch size.
LIKELIHOOD_CHUNK = 64
SAMPLE_CHUNK = 256
SHOWN_NEIGHBOURS = 32  # samples in the picture that shows them beside training images


#: What is computed from draws of samples.
_SAMPLE_PARTS = frozenset({"samples", "images", "classes", "labelled"})

#: The judge of an evaluation that asks for nothing that a judge says.
NO_JUDGE = Absence("not run", "no judge of classes was given")


@dataclass(frozen=True)
class Protocol:
    """Under which conditions a split is scored. `None`: all of it, or not at all."""

    split: SplitName
    seed: int
    elbo_draws: int = 16
    importance_samples: int | None = None
    importance_examples: int | None = None
    solved_examples: int | None = None  # at most so many for a likelihood through an ODE
    sample_draws: int = 5
    sample_examples: int | None = None
    examples: int | None = None
    stride: int | None = None  # text: tokens scored in each window; None: whole windows


@dataclass
class Result:
    """Scores, and what they were computed from."""

    scores: dict[str, Score]
    per_example: dict[str, Tensor] = field(default_factory=dict)  # nats, float32, in the order of the split
    samples: Tensor | None = None  # the first draw
    neighbours: Tensor | None = None  # [2k, *shape]: its k samples nearest to training images, each before that image
    sampling_seconds: float | None = None  # for 1,000 samples
    examples: dict[str, Tensor] = field(default_factory=dict)  # which of the split `per_example` is about, by index
    impossible: str | None = None  # why its numbers cannot be right, where the source of the data is known


def evaluate(
    model: GenerativeModel,
    data: DataModule,
    protocol: Protocol,
    extractor: Extractor | Absence,
    names: Sequence[str] | None = None,
    judge: Extractor | Absence = NO_JUDGE,
    outliers: Outliers | None = None,
) -> Result:
    """Score `model` on one split under `protocol`: every metric, or those with `names`.

    `extractor` gives the features of images, `judge` their classes, and `outliers` are what a likelihood should tell
    from them (`None`: corrupted images). Only what these metrics need is computed.
    A metric that does not apply, or fails, is an `Absence` with its reason, never a number.
    """
    metrics = [metric for metric in METRICS if names is None or metric.name in names]
    needed = {part for metric in metrics for part in metric.needs if data.spec.modality in metric.modalities}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            evidence, result, protocols = _collect(model, data, protocol, extractor, judge, outliers, needed)
    finally:
        model.train(was_training)
    who, missing = type(model).__name__, _missing(extractor, judge)
    missing["anomalies"] = Absence("does not apply", f"{who} promises no log_prob or elbo")
    for metric in metrics:
        result.scores[metric.name] = _score(metric, evidence, protocols, who, missing)
    result.impossible = _impossible(result, data, protocol.split)
    return result


def load_extractor(data_name: str, spec: DataSpec, inception: Path | None = None) -> Extractor | Absence:
    """The extractor of a dataset's images, a user's own first, or why there is none."""
    return extractors.load_extractor(data_name, spec, inception, extractor_folders())


def load_judge(data_name: str, spec: DataSpec) -> Extractor | Absence:
    """The classifier that says what class an image is of, a user's own first, or why there is none."""
    return extractors.load_judge(data_name, spec, extractor_folders())


def _impossible(result: Result, data: DataModule, split: SplitName) -> str | None:
    """Whether a likelihood, exact or a bound, beats the source of the data, where that is known."""
    source = data.truth(split).get("source") if result.per_example else None
    if source is None:
        return None
    verdicts = (
        impossible(ours, source[result.examples[promise]], data.spec, promise)
        for promise, ours in result.per_example.items()
    )
    return next((verdict for verdict in verdicts if verdict is not None), None)


def selection_metric(model: GenerativeModel) -> str:
    """The validation score that chooses the checkpoint: the likelihood where one is promised, else samples."""
    if model.spec.modality == "text":
        return "nats_per_token"
    return "nll" if isinstance(model, (Likelihood, LikelihoodBound)) else "fid"


def references(
    data: DataModule, protocol: Protocol, extractor: Extractor | Absence, judge: Extractor | Absence = NO_JUDGE
) -> dict[str, dict[str, Score]]:
    """What no model is needed for, under the same protocol: simple baselines with their own samples, the entropy where
    the source of the data is known, and real images in place of samples."""
    train, held_out = data.split("train"), data.split(protocol.split)
    evidence: dict[str, Evidence] = {}
    spec, known = data.spec, data.truth(protocol.split)
    if spec.modality == "text":
        shown: Any = {"split": protocol.split, "context": "own"}
        for name, token_log_prob in (baselines.text(train.x, held_out.x, spec.levels) | known).items():
            evidence[name] = Evidence(
                spec, token_log_prob=token_log_prob, characters=held_out.characters, bytes=held_out.bytes
            )
    else:
        shown = {"split": protocol.split}
        for name, log_prob in (baselines.images(train.x, held_out.x, spec.levels) | known).items():
            evidence[name] = Evidence(spec, log_prob=log_prob)
    missing = _missing(extractor, judge)

    def scored(name: str, of: Evidence, protocols: dict[str, dict[str, Any]]) -> dict[str, Score]:
        found = {metric.name: _score(metric, of, protocols, name, missing) for metric in METRICS}
        return {metric: score for metric, score in found.items() if score.absent is None}

    table: dict[str, dict[str, Score]] = {}
    for name, of in evidence.items():
        table[name] = scored(name, of, {"log_prob" if of.log_prob is not None else "token_log_prob": shown})
    if spec.modality == "image" and isinstance(extractor, Extractor):
        chosen = _subset(len(held_out.x), protocol.sample_examples, protocol.seed, "samples")
        for name, draws in {
            "pixel_histogram": _drawn(train.x, len(chosen), spec.levels, protocol),
            "held-out data": [held_out.x[chosen]],  # one draw: the floor, without a standard error
            "training data": [train.x[index] for index in _resampled(len(train.x), len(chosen), protocol)],
        }.items():
            exam = name == "held-out data"  # from which no classifier may learn
            needed = _SAMPLE_PARTS - {"labelled"} if exam else _SAMPLE_PARTS
            parts, protocols = _of_samples(draws, data, protocol, extractor, judge, needed)
            table[name] = table.get(name, {}) | scored(name, Evidence(spec, **parts), protocols)
    return table


def _collect(
    model: GenerativeModel,
    data: DataModule,
    protocol: Protocol,
    extractor: Extractor | Absence,
    judge: Extractor | Absence,
    outliers: Outliers | None,
    needed: set[str],
) -> tuple[Evidence, Result, dict[str, dict[str, Any]]]:
    """Ask each promised capability for what the metrics need; say under which protocol."""
    split, seed = data.split(protocol.split), protocol.seed
    parts: dict[str, Any] = {}
    protocols: dict[str, dict[str, Any]] = {}
    result = Result({})
    base: dict[str, Any] = {"split": protocol.split}
    if data.spec.modality == "text":
        if "token_log_prob" in needed and isinstance(model, TokenLikelihood):
            log_prob, tokens, context, of = _stream_log_prob(model, split.x, protocol)
            scale = len(log_prob) / len(split.x)
            parts |= {"token_log_prob": log_prob}
            parts |= {"characters": _scaled(split.characters, scale), "bytes": _scaled(split.bytes, scale)}
            protocols["token_log_prob"] = base | context | of | {"how": {"likelihood": "exact"}}
            result.per_example["token_log_prob"], result.examples["token_log_prob"] = log_prob.float(), tokens
    else:
        chosen = _subset(len(split.x), protocol.examples, seed, "examples")
        x = split.x[chosen]
        base |= _named_subset(len(x), len(split.x))
        if "log_prob" in needed and isinstance(model, Likelihood):
            log_prob = _by_chunks(model.log_prob, x, model.device, seed, "log_prob")
            parts["log_prob"] = log_prob
            protocols["log_prob"] = base | {"how": {"likelihood": "exact"}}
            result.per_example["log_prob"], result.examples["log_prob"] = log_prob.float(), chosen
        if "elbo" in needed and isinstance(model, LikelihoodBound):
            at_most = protocol.solved_examples if isinstance(model, SolvesLikelihood) else None
            inner = _subset(len(x), at_most, seed, "elbo")
            draws = [
                _by_chunks(model.elbo, x[inner], model.device, seed, "elbo", draw)
                for draw in range(protocol.elbo_draws)
            ]
            parts["elbo"] = torch.stack(draws)  # [K, N]
            protocols["elbo"] = (
                {"split": protocol.split}
                | _named_subset(len(inner), len(split.x))
                | {"how": _how_bounded(model) | {"draws": protocol.elbo_draws}}
            )
            result.per_example["elbo"], result.examples["elbo"] = parts["elbo"].mean(0).float(), chosen[inner]
        if "importance_bound" in needed and protocol.importance_samples and isinstance(model, ImportanceBound):
            inner = _subset(len(x), protocol.importance_examples, seed, "importance_bound")
            k = protocol.importance_samples
            bound = _by_chunks(
                lambda chunk: model.importance_bound(chunk, k), x[inner], model.device, seed, "importance_bound"
            )
            parts["importance_bound"] = bound
            protocols["importance_bound"] = (
                {"split": protocol.split}
                | _named_subset(len(inner), len(split.x))
                | {"importance_samples": k, "how": {"likelihood": "bound"}}
            )
            result.per_example["importance_bound"] = bound.float()
            result.examples["importance_bound"] = chosen[inner]
        if "anomalies" in needed and isinstance(model, (Likelihood, LikelihoodBound)):
            parts["anomalies"], of = _anomalies(model, x, data.spec.levels, protocol, outliers)
            protocols["anomalies"] = {"split": protocol.split} | of
        if "reconstructions" in needed and isinstance(model, Reconstructs):
            images = x[_subset(len(x), reconstruction.EXAMPLES, seed, "reconstructions")].long()
            chunks = [model.reconstruct(chunk.to(model.device)).cpu() for chunk in images.split(LIKELIHOOD_CHUNK)]
            parts["reconstructions"] = Reconstructions(images, torch.cat(chunks))
            protocols["reconstructions"] = {"split": protocol.split} | _named_subset(len(images), len(split.x))
        if "interpolations" in needed and isinstance(model, Interpolates) and isinstance(extractor, Extractor):
            with keyed_randomness(model.device, seed, "interpolations"):
                paths = model.interpolate(interpolation.PATHS, interpolation.STEPS).cpu()  # [paths, steps, *shape]
            parts["interpolations"] = extractor(paths.flatten(0, 1)).features.unflatten(0, paths.shape[:2])
            protocols["interpolations"] = {"extractor": extractor.name, "how": {"sampler": model.sampler.name}}
    if needed & _SAMPLE_PARTS and isinstance(extractor, Extractor):
        n = len(_subset(len(split.x), protocol.sample_examples, seed, "samples"))
        started = time.perf_counter()
        draws = [draw_samples(model, n, seed, draw) for draw in range(protocol.sample_draws)]
        result.sampling_seconds = (time.perf_counter() - started) / (len(draws) * n) * 1000
        result.samples = draws[0]
        found, shown = _of_samples(draws, data, protocol, extractor, judge, needed)
        how = {"sampler": model.sampler.name, "evaluations": model.sampler.evaluations, "draws": len(draws)}
        parts |= found
        protocols |= {part: conditions | {"how": how} for part, conditions in shown.items()}
        if "labelled" in found:
            protocols["labelled"]["how"] = how | {"labels": "judge"}
        if "labelled" in parts and isinstance(model, Conditional):
            parts["labelled"] = _conditioned(model, parts["labelled"], seed)
            protocols["labelled"]["how"] = how | {"labels": "condition"}
        if "images" in needed:
            result.neighbours = _beside_neighbours(draws[0], data.split("train").x)
    return Evidence(data.spec, **parts), result, protocols


def _how_bounded(model: LikelihoodBound) -> dict[str, Any]:
    if isinstance(model, SolvesLikelihood):
        solver = model.solver()
        return {"likelihood": "approximate", "solver": solver.name, "evaluations": solver.evaluations}
    return {"likelihood": "bound"}


def _of_samples(
    draws: list[Tensor],
    data: DataModule,
    protocol: Protocol,
    extractor: Extractor,
    judge: Extractor | Absence,
    needed: Set[str],
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The parts of the evidence that come from draws of images, and under which protocol each stands."""
    split, train = data.split(protocol.split), data.split("train")
    chosen = _subset(len(split.x), protocol.sample_examples, protocol.seed, "samples")
    held_out = split.x[chosen]
    shown = {
        "split": protocol.split,
        "generated": len(draws[0]),
        "held_out": len(held_out),
        "reference": f"train, {len(train.x)}",
    }
    parts: dict[str, Any] = {}
    protocols: dict[str, dict[str, Any]] = {}
    if "samples" in needed:
        features = tuple(extractor(draw) for draw in draws)
        parts["samples"] = SampleFeatures(features, extractor(held_out), _train_features(extractor, data))
        protocols["samples"] = shown | {"extractor": extractor.name}
    if "images" in needed:
        parts["images"] = SampleImages(tuple(draws), held_out, train.x)
        protocols["images"] = shown
    if "classes" in needed and isinstance(judge, Extractor):
        parts["classes"] = SampleClasses(tuple(_judged(judge, draw) for draw in draws), _judged(judge, held_out))
        protocols["classes"] = shown | {"judge": judge.name}
    if "labelled" in needed and isinstance(judge, Extractor) and split.labels is not None:
        assert train.labels is not None
        lessons = tuple(Labelled(draw, _judged(judge, draw)) for draw in draws)
        exam, reference = Labelled(held_out, split.labels[chosen]), Labelled(train.x, train.labels)
        parts["labelled"] = LabelledSamples(lessons, exam, reference)
        protocols["labelled"] = shown | {"judge": judge.name}
    return parts, protocols


def _conditioned(model: Conditional, samples: LabelledSamples, seed: int) -> LabelledSamples:
    """Draws under the classes of the held-out images, in place of those that a judge must label."""
    assert isinstance(model, GenerativeModel)
    condition, draws = samples.held_out.labels, []
    for draw in range(len(samples.generated)):
        pieces = []
        for index, chunk in enumerate(condition.split(SAMPLE_CHUNK)):
            with keyed_randomness(model.device, seed, "conditioned", draw, index):
                pieces.append(model.sample_given(chunk.to(model.device)).cpu())
        draws.append(Labelled(torch.cat(pieces), condition))
    return replace(samples, generated=tuple(draws))


def _anomalies(
    model: GenerativeModel, x: Tensor, levels: int, protocol: Protocol, outliers: Outliers | None
) -> tuple[AnomalyScores, dict[str, Any]]:
    """How the model rates some images of the split and as many outliers, and under which protocol."""
    solved = protocol.solved_examples if isinstance(model, SolvesLikelihood) else None
    n = min(anomaly.EXAMPLES, solved or anomaly.EXAMPLES)
    inside = x[_subset(len(x), n, protocol.seed, "anomalies")].long()
    if outliers is None:
        outside, name = anomaly.corrupted(inside, levels), f"corrupted: {', '.join(anomaly.CORRUPTIONS)}"
    else:
        outside = outliers.x[_subset(len(outliers.x), len(inside), protocol.seed, "outliers")].long()
        name = outliers.name
    log_prob, outside_log_prob = (
        _log_likelihood(model, images, protocol.seed, kind)
        for images, kind in ((inside, "inside"), (outside, "outside"))
    )
    lengths = anomaly.code_length(inside), anomaly.code_length(outside)
    scores = AnomalyScores(log_prob, outside_log_prob, *lengths, paired=outliers is None)
    how: dict[str, Any] = {"by": "exact likelihood"}
    if not isinstance(model, Likelihood) and isinstance(model, LikelihoodBound):
        bounded = _how_bounded(model)  # what is computed from a bound is not one itself
        how = {"by": bounded.pop("likelihood")} | bounded | {"draws": _anomaly_draws(model)}
    return scores, {"inside": len(inside), "outliers": f"{len(outside)} {name}", "how": how}


def _log_likelihood(model: GenerativeModel, x: Tensor, seed: int, key: str) -> Tensor:
    """log p(x) `[N]` nats, exact or the mean of a few draws of a bound."""
    if isinstance(model, Likelihood):
        return _by_chunks(model.log_prob, x, model.device, seed, "anomalies", key)
    assert isinstance(model, LikelihoodBound)
    draws = range(_anomaly_draws(model))
    return torch.stack([_by_chunks(model.elbo, x, model.device, seed, "anomalies", key, draw) for draw in draws]).mean(
        0
    )


def _anomaly_draws(model: LikelihoodBound) -> int:
    return anomaly.SOLVED_DRAWS if isinstance(model, SolvesLikelihood) else anomaly.DRAWS


def _judged(judge: Extractor, x: Tensor) -> Tensor:
    """The class `[n]` that the judge takes each image for."""
    return judge(x).logits.argmax(1)


def _beside_neighbours(samples: Tensor, train: Tensor) -> Tensor:
    """The samples nearest to training images, nearest first, each followed by that image."""
    distance, index = nearest_in_pixels(samples, train)
    nearest = distance.argsort()[:SHOWN_NEIGHBOURS]
    return torch.stack([samples[nearest].long(), train[index[nearest]].long()], 1).flatten(0, 1)  # [2k, *shape]


def draw_samples(model: GenerativeModel, n: int, seed: int, draw: int = 0) -> Tensor:
    """`n` samples `[n, *shape]` on the CPU: the same for a seed and draw, whatever was drawn before."""
    chunks = []
    for index, start in enumerate(range(0, n, SAMPLE_CHUNK)):
        with keyed_randomness(model.device, seed, "samples", draw, index), torch.no_grad():
            chunks.append(model.sample(min(SAMPLE_CHUNK, n - start)).cpu())
    return torch.cat(chunks)


@contextmanager
def keyed_randomness(device: torch.device, *key: Any) -> Iterator[None]:
    """Inside, torch draws from a generator keyed by `key`; outside, its state is untouched."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest[:7], "big"))
        yield


def _by_chunks(fn: Callable[[Tensor], Tensor], x: Tensor, device: torch.device, seed: int, *key: Any) -> Tensor:
    """`fn` over `x` in fixed chunks, each with its own generator: `[N]` float64 on the CPU."""
    results = []
    for index, chunk in enumerate(x.split(LIKELIHOOD_CHUNK)):
        with keyed_randomness(device, seed, *key, index):
            results.append(fn(chunk.long().to(device)).double().cpu())
    return torch.cat(results)


def _stream_log_prob(
    model: TokenLikelihood, stream: Tensor, protocol: Protocol
) -> tuple[Tensor, Tensor, dict[str, Any], dict[str, Any]]:
    """Token by token over a stream: a recurrent model carries its state, others see a sliding window.

    Log-probabilities `[N]`, the places `[N]` of these tokens in the stream, and two parts of the protocol.
    """
    assert isinstance(model, GenerativeModel)
    (context,) = model.spec.shape
    if isinstance(model, Stateful):
        lanes, tokens, of = _lanes(stream, protocol.examples and protocol.examples * context)
        state = model.initial_state(len(lanes))
        pieces = [
            model.token_log_prob(piece.long().to(model.device), state).double().cpu()
            for piece in lanes.split(context, dim=1)
        ]
        return torch.cat(pieces, 1).flatten(), tokens.flatten(), {"context": "carried"}, of
    stride = min(protocol.stride or context, context)
    starts = list(range(0, len(stream) - context + 1, stride))
    if starts and starts[-1] + context < len(stream) and protocol.examples is None:
        starts.append(len(stream) - context)
    if protocol.examples is not None:
        kept = _subset(len(starts), protocol.examples, protocol.seed, "windows").tolist()
        of = _named_subset(len(kept), len(starts))
        starts = [starts[index] for index in kept]
    else:
        of = {}
    log_probs, places, scored = [], [], 0
    for chunk in torch.tensor(starts).split(LIKELIHOOD_CHUNK):
        windows = stream[chunk[:, None] + torch.arange(context)]  # [B, T]
        token_log_prob = model.token_log_prob(windows.long().to(model.device)).double().cpu()
        for start, row in zip(chunk.tolist(), token_log_prob, strict=True):
            new = start + context - scored if protocol.examples is None else context
            log_probs.append(row[-new:])
            places.append(torch.arange(start + context - new, start + context))
            scored = start + context
    return torch.cat(log_probs), torch.cat(places), {"context": context, "stride": stride}, of


def _lanes(stream: Tensor, at_most: int | None) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """The whole stream `[1, N]`, or at most so many tokens of it as excerpts that lie evenly over it; the place of each
    token; a part of the protocol."""
    if at_most is None:
        return stream[None], torch.arange(len(stream))[None], {}
    length = max(1, min(at_most, len(stream)) // LIKELIHOOD_CHUNK)
    excerpts = stream.unfold(0, length, 1)  # [N - length + 1, length], a view
    starts = torch.linspace(0, len(excerpts) - 1, LIKELIHOOD_CHUNK).long()
    places = starts[:, None] + torch.arange(length)
    return excerpts[starts], places, {"subset": f"{len(starts)} excerpts of {length} of {len(stream)} tokens"}


def _score(
    metric: Metric,
    evidence: Evidence,
    protocols: Mapping[str, Mapping[str, Any]],
    who: str,
    missing: Mapping[str, Absence],
) -> Score:
    if evidence.spec.modality not in metric.modalities:
        reason = f"{metric.name} is for {' and '.join(metric.modalities)}"
        return Score(metric.unit, metric.version, absent=Absence("does not apply", reason))
    part = next((part for part in metric.needs if part in protocols), None)
    if part is None:
        if metric.needs[0] in missing:  # and not for the model to promise
            return Score(metric.unit, metric.version, absent=missing[metric.needs[0]])
        reason = f"{who} promises no {' or '.join(metric.needs)}"
        return Score(metric.unit, metric.version, absent=Absence("does not apply", reason))
    shown = {**protocols[part], **metric.protocol}
    try:
        estimate = metric.compute(evidence)
    except (ArithmeticError, ValueError, IndexError, MemoryError, RuntimeError) as error:  # of degenerate samples, say
        reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".removesuffix(": ")
        return Score(metric.unit, metric.version, protocol=shown, absent=Absence("failed", reason))
    return _value(metric, estimate, shown)


def _value(metric: Metric, estimate: Estimate, shown: dict[str, Any]) -> Score:
    if not math.isfinite(estimate.value):
        absent = Absence("failed", f"the value is {estimate.value}")
        return Score(metric.unit, metric.version, n=estimate.n, protocol=shown, absent=absent)
    stderr = estimate.stderr
    if stderr is not None and not math.isfinite(stderr):  # the number stands, and says why it has no error
        shown = shown | {"how": shown.get("how", {}) | {"stderr": f"left out, since it is {stderr}"}}
        stderr = None
    return Score(metric.unit, metric.version, estimate.value, stderr, estimate.n, shown)


def _subset(total: int, at_most: int | None, seed: int, purpose: str) -> Tensor:
    """Indices of a fixed random subset, never a prefix: the first images of a file may be easier than the rest."""
    if at_most is None or at_most >= total:
        return torch.arange(total)
    with keyed_randomness(torch.device("cpu"), seed, "subset", purpose):
        return torch.randperm(total)[:at_most].sort().values


def _named_subset(n: int, total: int) -> dict[str, Any]:
    return {} if n == total else {"subset": f"{n} of {total}, random"}


def _resampled(total: int, n: int, protocol: Protocol) -> Iterator[Tensor]:
    """Independent draws of `n` training images, as indices: what sampling error alone costs, where held-out data is
    stratified."""
    for draw in range(protocol.sample_draws):
        with keyed_randomness(torch.device("cpu"), protocol.seed, "training data", draw):
            index = torch.randint(total, (n,))
        yield index


def _drawn(train: Tensor, n: int, levels: int, protocol: Protocol) -> list[Tensor]:
    """Independent draws of `n` images whose pixels know nothing of each other: what a sampler must beat."""
    draws = []
    for draw in range(protocol.sample_draws):
        with keyed_randomness(torch.device("cpu"), protocol.seed, "pixel histogram", draw):
            draws.append(baselines.draw_pixel_histogram(train, n, levels))
    return draws


def _missing(extractor: Extractor | Absence, judge: Extractor | Absence) -> dict[str, Absence]:
    """Why parts of the evidence are missing where that is not for the model to promise."""
    if isinstance(extractor, Absence):
        return dict.fromkeys((*_SAMPLE_PARTS, "interpolations"), extractor)
    return dict.fromkeys(("classes", "labelled"), judge) if isinstance(judge, Absence) else {}


def _scaled(count: int | None, scale: float) -> int | None:
    return None if count is None else round(count * scale)


_TRAIN_FEATURES: dict[tuple[str, str], Features] = {}


def _train_features(extractor: Extractor, data: DataModule) -> Features:
    """Features of the training split, extracted once a process."""
    key = (extractor.name, str(data.describe()["splits"]["train"]["sha256"]))
    if key not in _TRAIN_FEATURES:
        _TRAIN_FEATURES[key] = extractor(data.split("train").x)
    return _TRAIN_FEATURES[key]
