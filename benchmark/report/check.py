"""Whether a record that is handed in is well-formed. It is read as data: nothing that it names is imported.

A record that passes is consistent with itself and with today's metrics. Whether its numbers are true, only running it
again can say (`benchmark.report.verify`).
"""

from __future__ import annotations

import glob
import math
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmark import facts
from benchmark.config import validate
from benchmark.facts import Fact, MetricFact
from benchmark.leaderboard.rows import Run
from benchmark.record import (
    Record,
    SaidOfExam,
    is_ours,
    model_targets,
    per_example_file,
    read_record,
    why_no_evidence,
)
from benchmark.spec import BadInput, Score
from benchmark.traces import pictures_beside, read_curves, read_picture

MOST_BYTES = 2**20  # of a record
MOST_LIKELIHOODS = 2**28  # bytes of per-example likelihoods, unpacked
MOST_CHARACTERS = 2000  # in one string
CLOSE = 1e-4  # relative: likelihoods of examples are float32
CORRECTED = 6.0  # standard errors by which a corrected score may lie from the mean of its subset

_ROUNDING = 1e-4  # by which a Fréchet distance of equal features may be off

_CONTROL = r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # those of writing direction too
_MARKUP = re.compile(rf"<\s*[a-z/!?]|&#?\w+;|(javascript|data|vbscript):|{_CONTROL}", re.IGNORECASE)
_NAME = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Required:
    """What a metric's protocol must hold: some entries whatever they say, and some with one value."""

    says: Sequence[str]
    fixed: Mapping[str, Any]


@dataclass(frozen=True)
class Known:
    """What this version of the benchmark measures, and with what."""

    metrics: Mapping[str, MetricFact]
    costs: Mapping[str, Fact]
    protocols: Mapping[str, Required]  # of the metrics whose code may be imported
    networks: Collection[str]  # extractors and judges, `digits-v1@f5bf0245`


def problems(file: Path, known: Known) -> list[str]:
    """What is wrong with the record in `file`, or in a run's folder, and with what lies beside it; a line each."""
    file = file / "record.json" if file.is_dir() else file
    beside = sorted({file, per_example_file(file), *file.parent.glob(f"{glob.escape(file.stem)}*")})
    if links := [str(one) for one in beside if one.is_symlink()]:  # to whatever this machine would show of itself
        return [f"{', '.join(links)}: a link is not evidence: submit the file itself"]
    if file.is_file() and file.stat().st_size > MOST_BYTES:
        return [f"{file} has {file.stat().st_size:,} bytes: at most {MOST_BYTES:,} are allowed"]
    try:
        record = read_record(file, as_stored=True)
    except BadInput as error:
        return [str(error)]
    found = [
        *_texts(record.model_dump(mode="json")),
        *_identity(file, record),
        *_exam(record),
        *_scores(file, record, known),
        *_likelihoods(per_example_file(file), record),
        *_traces(file),
    ]
    return list(dict.fromkeys(found))


def _texts(content: Any, place: str = "") -> Iterator[str]:
    """Strings that are long, or that a page or a terminal could take for more than text."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield from _texts(str(key), place)
            yield from _texts(value, f"{place}.{key}" if place else str(key))
    elif isinstance(content, list):
        for value in content:
            yield from _texts(value, place)
    elif isinstance(content, str):
        if len(content) > MOST_CHARACTERS:
            yield f"{place} has {len(content):,} characters: at most {MOST_CHARACTERS:,} are allowed"
        if match := _MARKUP.search(content):
            yield f"{place} holds {match[0]!r}: records hold text, no markup and no control characters"


def _identity(file: Path, record: Record) -> Iterator[str]:
    """Whether names, seeds and hash are those of the configuration that the record holds."""
    for name in (record.data, record.model, record.budget):
        if not _NAME.fullmatch(name):
            yield f"{name!r} cannot name a page: letters, digits, '_' and '-' can"
    try:
        experiment = validate(record.config)
    except BadInput as error:
        yield f"config: {error}"
        return
    held = {
        "model": (record.model, experiment.model.name),
        "data": (record.data, experiment.data.name),
        "budget": (record.budget, experiment.budget.name),
        "seed": (record.seed, experiment.seed.model_dump()),
        "config_hash": (record.config_hash, record.hash_by_its_rule),
    }
    for key, (said, is_) in held.items():
        if said != is_:
            yield f"{key} is {said}, but the configuration that the record holds says {is_}"
    for target in (experiment.data.target, experiment.model.target):
        package = target.split(".")[0]
        if package not in ("benchmark", *record.sources, *record.environment):
            yield f"its sources do not say which {package} defined {target}: run it with this version"
    stem = f"{record.seed.get('init')}-{record.config_hash[:8]}-"
    if file.name != "record.json" and not (file.stem.startswith(stem) and _NAME.fullmatch(file.stem)):
        yield f"the file is called {file.name}: it must be {stem}RUN.json, as `publish` calls it"
    if (why := why_no_evidence(record)) is not None:
        yield why


def _exam(record: Record) -> Iterator[str]:
    """Whether what a record says of an exam is about the code that made it; its form was looked at when it was read."""
    if record.exam is None:
        return
    outside = {target.split(".")[0] for target in model_targets(record.config) if not is_ours(target)}
    said = SaidOfExam.model_validate(record.exam)
    if not outside:
        yield "exam is of models from outside, and the record's are the benchmark's own: it must be null"
    elif said.sources != {package: record.sources.get(package) for package in outside}:
        yield "exam is of other sources than those that made the record: sit it again, then run again"


def _scores(file: Path, record: Record, known: Known) -> Iterator[str]:
    try:
        why = Run(file, record).impossible
    except BadInput as error:  # of its references
        yield str(error)
    else:
        if why is not None:
            yield f"its numbers cannot be right: {why}"
    for name, score in record.scores.items():
        yield from _score(name, score, record, known)


def _score(name: str, score: Score, record: Record, known: Known) -> Iterator[str]:
    """Whether a score is of a metric, version, unit and protocol that are measured today."""
    metric, required, protocol = known.metrics.get(name), known.protocols.get(name), score.protocol
    if metric is not None:
        if score.version != metric.version:
            yield f"{name} is version {score.version}, measured today is {metric.version}: run it again"
        if score.unit != metric.unit:
            yield f"{name} has unit {score.unit!r}, must be {metric.unit!r}"
        if score.value is not None and required is not None:
            for key in required.says:
                if key not in protocol:
                    yield f"{name} does not say its {key.replace('_', ' ')}: a score without its protocol means nothing"
            for key, value in required.fixed.items():
                if protocol.get(key) != value:
                    yield f"{name} has {key} {protocol.get(key)!r} in its protocol, must be {value!r}"
    elif name in known.costs or name == "selection":
        chosen = protocol.get("metric") if score.absent is None else None
        selected = known.metrics[str(chosen)].unit if chosen in known.metrics else ""
        fact = known.costs.get(name)
        must = {"unit": selected if fact is None else fact.unit, "stderr": None, "n": None}
        for key, value in must.items():
            if getattr(score, key) != value:
                yield f"{name} has {key} {getattr(score, key)!r}, must be {value!r}"
        newest = 1 if fact is None else fact.version  # boards count older ones again
        if not 1 <= score.version <= newest:
            yield f"{name} has version {score.version}, must be {newest}"
    else:
        yield f"{name} is not a metric of this version"
    limits = metric or known.costs.get(name)
    low, high = (-math.inf, math.inf) if limits is None else (limits.low, limits.high)
    if score.value is not None and not low - _ROUNDING <= score.value <= high + _ROUNDING:
        yield f"{name} is {score.value:.6g}: it lies between {low:g} and {high:g}"
    split = "validation" if name == "selection" else record.config["evaluation"]["split"]
    if protocol.get("split", split) != split:
        yield f"{name} was scored on the {protocol['split']} split, must be {split}"
    for key in ("extractor", "judge"):
        network = str(protocol.get(key, ""))
        if network and network not in known.networks and not network.startswith("inception-v3@"):
            yield f"{name} has {key} {network!r}, which is not shipped (allowed: {', '.join(sorted(known.networks))})"
    for key, value in {**protocol, **protocol.get("how", {})}.items():
        if key != "how" and not isinstance(value, (str, int, float, bool)):
            yield f"{name} has a {type(value).__name__} as {key} in its protocol: text and numbers are allowed"
    if score.stderr is not None and score.stderr < 0:
        yield f"{name} has a negative standard error"
    if score.n is not None and score.n < 1:
        yield f"{name} was computed from {score.n} examples"


def _likelihoods(file: Path, record: Record) -> Iterator[str]:
    """Whether the likelihoods of single examples are plain numbers whose means are the scores."""
    import numpy as np

    of = _means()
    means = {score for scores in of.values() for score in scores}
    expected = [name for name in means & set(record.scores) if record.scores[name].value is not None]
    if not file.is_file():
        if expected:
            yield f"{file.name} is missing: it holds the likelihood of each example"
        return
    try:
        with zipfile.ZipFile(file) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > MOST_LIKELIHOODS:
            yield f"{file.name} unpacks to {unpacked:,} bytes: at most {MOST_LIKELIHOODS:,} are allowed"
            return
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        yield f"{file.name} holds no plain arrays: {str(error).splitlines()[0]}"
        return
    for name, array in arrays.items():
        if name not in of or array.dtype != np.float32 or array.ndim != 1 or not np.isfinite(array).all():
            shape = f"{array.dtype} {list(array.shape)}"
            yield f"{file.name} holds {name}, {shape}: finite float32 [N] of {', '.join(of)} are allowed"
            continue
        for metric, sign in of[name].items():
            score = record.scores.get(metric)
            if score is None or score.value is None or (metric == "nll" and name == "elbo" and "log_prob" in arrays):
                continue
            values = array.astype(np.float64)
            mean, allowed = sign * float(values.mean()), CLOSE * max(1.0, abs(score.value))
            if "all_by" in score.protocol:  # corrected for what the subset differs from all by: about its own error
                allowed += CORRECTED * float(values.std()) / math.sqrt(len(values))
            if name == "elbo" and score.protocol.get("how", {}).get("likelihood") == "exact":
                yield f"{metric} is called exact, but {file.name} holds bounds"
            if score.n != len(array):
                yield f"{metric} was computed from {score.n} examples, {file.name} holds {len(array)}"
            elif abs(mean - score.value) > allowed:
                yield f"{metric} is {score.value:.6g}, but the mean of {name} in {file.name} is {mean:.6g}"
            expected = [one for one in expected if one != metric]
    if expected:
        yield f"{file.name} holds no likelihoods of {', '.join(sorted(expected))}"


def _means() -> dict[str, dict[str, int]]:
    """Likelihoods of single examples -> the scores in nats that are their mean, with sign."""
    known = facts.metrics().values()
    return {
        name: {
            fact.name: 1 if fact.better == "higher" else -1
            for fact in known
            if name in fact.terms and fact.unit.startswith("nats")
        }
        for name in dict.fromkeys(name for fact in known for name in fact.terms)
    }


def _traces(file: Path) -> Iterator[str]:
    """Whether curves and pictures beside the record can be read, as far as there are any."""
    pictures = [file.with_suffix(".png"), *pictures_beside(file).values()]
    for read, where in ((read_curves, file), *((read_picture, picture) for picture in pictures)):
        try:
            read(where)
        except BadInput as error:
            yield str(error)
