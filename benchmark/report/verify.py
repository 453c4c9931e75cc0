"""Whether a record is reproduced: a re-run beside it, score by score.

What is expected of one more run follows from the spread over seeds of the same configuration: the record and the other
seeds predict the re-run, and the re-run and the other seeds predict the record, within its standard error at least (so
that neither a change of the code nor a change of the record can hide in a spread that it made itself). Where there are
fewer than three seeds, the standard error of the score has to do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmark.config import validate
from benchmark.facts import COSTS, facts
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.statistics import prediction_interval
from benchmark.leaderboard.texts import ended
from benchmark.record import Record
from benchmark.spec import BadInput, Score
from benchmark.tables import Head, Table, Tone, entries
from benchmark.traces import read_curves, thin

Verdict = Literal["agrees", "differs", "not comparable"]

EXIT_CODES: Mapping[Verdict, int] = {"agrees": 0, "differs": 3, "not comparable": 4}

#: Of each band. The scores of a run fall into half a dozen independent groups: 0.99 for each is about 0.95 for all.
CONFIDENCE = 0.99
SIGMAS = 2.576  # standard errors that hold as many
SEEDS = 3  # from which on a spread is known

#: Costs that depend on the machine and on what else it does: not judged.
OF_THE_MACHINE = frozenset(name for name, fact in COSTS.items() if fact.machine)
#: Facts of the model: equal or not.
OF_THE_MODEL = frozenset(COSTS) - OF_THE_MACHINE
_DONE = ("finished",)


@dataclass(frozen=True)
class Band:
    """Where the score of a re-run is expected, and from what that follows."""

    low: float
    high: float
    basis: str

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class ScoreVerdict:
    """One score of a record beside the same score of a re-run. Without a verdict there was no yardstick."""

    metric: str
    recorded: float
    again: float | None
    verdict: Verdict | None
    why: str = ""
    band: Band | None = None


@dataclass(frozen=True)
class Bits:
    """Two runs of one seed, bit for bit: `different` names what differs, `apart` why that need not surprise."""

    compared: tuple[str, ...]
    different: tuple[str, ...]
    apart: tuple[str, ...]

    @property
    def text(self) -> str:
        if not self.different:
            return f"bit for bit the same: {', '.join(self.compared)}"
        expected = (
            f"not expected to be, with {'; '.join(self.apart)}" if self.apart else "although nothing else differs"
        )
        return f"not bit for bit the same ({', '.join(self.different)}), {expected}"


@dataclass(frozen=True)
class Judgement:
    """A record, its re-run, and whether they agree."""

    run: Run
    again: Run
    verdict: Verdict
    reasons: tuple[str, ...]
    scores: tuple[ScoreVerdict, ...]
    bits: Bits


# Before --------------------------------------------------------------------------------------------------------------


def check_again(record: Record) -> str | None:
    """Why a record cannot be run again; `None` where it can."""
    if record.kind != "run":
        return f"a {record.kind} belongs to a study, which runs it again: verify a run"
    if record.status == "failed":
        return f"the run failed ({record.reason}): it has no scores to reproduce"
    validate(record.config)
    if (found := record.hash_by_its_rule) != record.config_hash:
        return f"config_hash is {record.config_hash[:8]}, but the configuration that it holds has {found[:8]}"
    return None


def runtime_of(record: Record) -> dict[str, Any]:
    """Device and threads as they were; paths are those of whoever runs it again."""
    held, hardware = record.config["runtime"], record.hardware
    device = "cpu" if hardware.get("device", "cpu") == "cpu" else "auto"
    return {**held, "device": device, "threads": hardware.get("threads", 0), "runs": "runs", "data_root": None}


# The judgement -------------------------------------------------------------------------------------------------------


def judge(run: Run, again: Run, records: Iterable[Record]) -> Judgement:
    """Whether `again` brings back what `run` reports. `records` may hold other seeds of the same configuration.

    Raises `BadInput` where the two are not the same experiment.
    """
    record, other = run.record, again.record
    if (record.identity, record.seed) != (other.identity, other.seed):
        raise BadInput(
            f"{again.path} is another experiment, configuration {other.identity[:8]}, seed {other.seed['init']}: "
            f"give a run of configuration {record.identity[:8]}, seed {record.seed['init']}"
        )
    bits = compare_bits(run, again)
    if (splits := _other_splits(record, other)) is not None:
        return Judgement(run, again, "not comparable", (splits,), (), bits)
    seeds = other_seeds(record, records)
    judged = [
        _judge(name, score, other.scores.get(name), [one.scores.get(name) for one in seeds])
        for name, score in record.scores.items()
        if score.value is not None and name not in OF_THE_MACHINE
    ]
    if record.trained_in != other.trained_in:
        judged = [_excused(one, record.trained_in, other.trained_in) for one in judged]
    scores = tuple(judged) if {record.status, other.status} <= set(_DONE) else ()
    verdict, reasons = _overall(record, other, scores)
    return Judgement(run, again, verdict, tuple(reasons), scores, bits)


def _excused(one: ScoreVerdict, there: str, here: str) -> ScoreVerdict:
    """A score outside its band where the two trained in different precisions: that may be the reason."""
    if one.verdict != "differs":
        return one
    return replace(one, verdict="not comparable", why=f"{one.why}; trained in {there} there, in {here} here")


def other_seeds(record: Record, records: Iterable[Record]) -> list[Record]:
    """One finished run for each other seed of the same configuration on the same data: with the same code if there is
    one, else the newest."""
    found: dict[tuple[int, int], Record] = {}
    for one in sorted(records, key=lambda one: (_trained_by(one) == _trained_by(record), one.started)):
        same = one.identity == record.identity and _other_splits(one, record) is None
        seed = one.seed["init"], one.seed["data"]
        if same and one.kind == "run" and one.status in _DONE and seed != (record.seed["init"], record.seed["data"]):
            found[seed] = one
    return [found[seed] for seed in sorted(found)]


def _overall(record: Record, other: Record, scores: Sequence[ScoreVerdict]) -> tuple[Verdict, list[str]]:
    if record.status == other.status == "diverged":
        return "agrees", [f"both diverged: {record.reason}; {other.reason}"]
    if "diverged" in (record.status, other.status):
        return "differs", [f"the record is {ended(record)}, the re-run {ended(other)}"]
    if "failed" in (record.status, other.status):
        return "differs", [f"the re-run {ended(other)}"]
    differ = [f"{one.metric}: {one.why}" for one in scores if one.verdict == "differs"]
    apart = [f"{one.metric}: {one.why}" for one in scores if one.verdict == "not comparable"]
    for name, one in (("record", record), ("re-run", other)):
        if one.status == "truncated":
            return "not comparable", [f"the {name} did not finish: {ended(one)}", *differ, *apart]
    if differ:
        return "differs", [*differ, *apart]
    return ("not comparable" if apart or not scores else "agrees"), apart


def _other_splits(record: Record, other: Record) -> str | None:
    """Which splits have another checksum; `None` where all are the same."""
    mine, theirs = (one.dataset.get("splits", {}) for one in (record, other))
    different = [name for name in mine if name in theirs and mine[name]["sha256"] != theirs[name]["sha256"]]
    return f"other data: the checksums of {', '.join(different)} differ" if different else None


def _judge(name: str, recorded: Score, again: Score | None, seeds: Sequence[Score | None]) -> ScoreVerdict:
    """One score. `seeds` are the same score of other seeds."""
    assert recorded.value is not None
    if again is None:
        return ScoreVerdict(name, recorded.value, None, "not comparable", "it is no longer measured")
    if (apart := _conditions_apart(recorded, again)) is not None:
        return ScoreVerdict(name, recorded.value, again.value, "not comparable", apart)
    if again.value is None:
        reason = again.absent.reason if again.absent is not None else "no reason given"
        return ScoreVerdict(name, recorded.value, None, "differs", f"the re-run has none: {reason}")
    if again.value == recorded.value:
        return ScoreVerdict(name, recorded.value, again.value, "agrees", "the same number")
    if name in OF_THE_MODEL:
        return ScoreVerdict(name, recorded.value, again.value, "differs", "it must be the same number")
    others = [
        score.value
        for score in seeds
        if score and score.value is not None and _conditions_apart(recorded, score) is None
    ]
    known = facts()
    log = name in known and known[name].log and min(recorded.value, again.value, *others) > 0
    expected, back = (_predicted(one, others, log) for one in (recorded.value, again.value))
    error = _by_stderr(recorded, again)
    if expected is None or back is None:
        expected = back = error
    if expected is None or back is None:
        return ScoreVerdict(name, recorded.value, again.value, None, "no three seeds that differ, no standard error")
    explained = error is not None and again.value in error  # seeds that happen to be close together convict no one
    inside = again.value in expected and (recorded.value in back or explained)
    expects = f"{'is' if inside else 'is not what is'} expected of {recorded.value:.6g}, by {expected.basis}"
    why = f"{again.value:.6g} {expects}"
    return ScoreVerdict(name, recorded.value, again.value, "agrees" if inside else "differs", why, expected)


def _conditions_apart(recorded: Score, again: Score) -> str | None:
    """What separates the conditions under which two scores stand; `None` where nothing does."""
    if recorded.version != again.version:
        return f"version {recorded.version} there, {again.version} here"
    if recorded.unit != again.unit:
        return f"unit {recorded.unit} there, {again.unit} here"
    if again.value is None:
        return None
    keys = sorted({*recorded.protocol, *again.protocol})
    different = [key for key in keys if recorded.protocol.get(key) != again.protocol.get(key)]
    if not different:
        return None
    there, here = (", ".join(f"{key} {score.protocol.get(key)}" for key in different) for score in (recorded, again))
    return f"{there} there, {here} here"


def _predicted(value: float, others: Sequence[float], log: bool) -> Band | None:
    """Where one more run lands beside `value` and other seeds; `None` where their spread is unknown or none."""
    values = [value, *others]
    if len(values) < SEEDS or min(values) == max(values):
        return None
    return Band(*prediction_interval(values, CONFIDENCE, log), f"{len(values)} seeds")


def _by_stderr(recorded: Score, again: Score) -> Band | None:
    if recorded.value is None or not recorded.stderr or not again.stderr:
        return None
    half = SIGMAS * math.hypot(recorded.stderr, again.stderr)
    return Band(recorded.value - half, recorded.value + half, "standard error, for want of three seeds")


# Bit for bit ---------------------------------------------------------------------------------------------------------


def compare_bits(run: Run, again: Run) -> Bits:
    """Whether two runs of one experiment and seed are the same to the last bit, in all that both have kept."""
    parts: dict[str, list[Any]] = {
        "scores": [_numbers(one.record) for one in (run, again)],
        "likelihoods": [_bytes(one) for one in (run, again)],
        "curves": [_curves(one.path) for one in (run, again)],
        "weights": [_weights(one.path) for one in (run, again)],
    }
    kept = {name: both for name, (mine, theirs) in parts.items() if all(both := _shared(mine, theirs))}
    different = tuple(name for name, (mine, theirs) in kept.items() if mine != theirs)
    return Bits(tuple(kept), different, tuple(_apart(run.record, again.record)))


def _shared(mine: Any, theirs: Any) -> tuple[Any, Any]:
    """What both have: a run of today may keep curves, or measure scores, that one of yesterday did not."""
    if not isinstance(mine, dict):
        return mine, theirs
    names = mine.keys() & theirs.keys()
    return {name: mine[name] for name in names}, {name: theirs[name] for name in names}


def _apart(record: Record, other: Record) -> list[str]:
    """In what two runs differ that may cost equality of bits."""
    found: list[str] = []
    for mine, theirs in ((_trained_by(record), _trained_by(other)), (record.code_hash, other.code_hash)):
        if (mine is None or mine != theirs) and not found:
            found.append(f"other code ({(mine or 'unknown')[:8]}, {(theirs or 'unknown')[:8]})")
    for here, there in ((record.hardware, other.hardware), (record.environment, other.environment)):
        for key in sorted({*here, *there}):
            if here.get(key) != there.get(key):
                found.append(f"{key} {here.get(key, 'unknown')} and {there.get(key, 'unknown')}")
    return found


def _trained_by(record: Record) -> str | None:
    """The code that trained: a renewed record has scores of later code."""
    return record.code_hash if record.renewed is None else record.renewed.get("code_hash")


def _numbers(record: Record) -> dict[str, tuple[float | None, float | None]]:
    scores = {name: score for name, score in record.scores.items() if name not in OF_THE_MACHINE}
    return {name: (score.value, score.stderr) for name, score in scores.items()}


def _bytes(run: Run) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in run.likelihoods.items()}


def _curves(record: Path) -> dict[str, list[tuple[int, str]]]:
    """As they are published: thinned and rounded, so that a run and a published record can be compared."""
    curves = thin(read_curves(record))
    return {name: [(examples, f"{value:.5g}") for examples, value in curve] for name, curve in curves.items()}


def _weights(record: Path) -> bytes:
    file = record.with_name("model.safetensors")
    return file.read_bytes() if record.name == "record.json" and file.is_file() else b""


# In words ------------------------------------------------------------------------------------------------------------


def as_table(judgement: Judgement) -> Table:
    """The scores for a terminal."""
    heads = [Head("score", least=16), Head("record", number=True)]
    heads += [Head(title, number=True, rank=rank) for rank, title in enumerate(("re-run", "difference", "expected"), 1)]
    heads += [Head("by", rank=4, least=16), Head("verdict")]
    tones: dict[int, Tone] = {}
    for index, one in enumerate(judgement.scores):
        if one.verdict in _TONES:
            tones[index] = _TONES[one.verdict]
    return Table("", heads, [entries(cells(one)) for one in judgement.scores], tones=tones)


_TONES: dict[Verdict | None, Tone] = {"differs": "bad", "not comparable": "unsure"}


def cells(one: ScoreVerdict) -> list[str]:
    """`score, record, re-run, difference, expected, by, verdict` as text."""
    difference = "—" if one.again is None else f"{one.again - one.recorded:+.3g}"
    band = "—" if one.band is None else f"{one.band.low:.5g} to {one.band.high:.5g}"
    basis = one.why if one.band is None else one.band.basis
    again = "—" if one.again is None else f"{one.again:.6g}"
    return [one.metric, f"{one.recorded:.6g}", again, difference, band, basis, one.verdict or "not judged"]


def as_lines(judgement: Judgement) -> list[str]:
    """The verdict, why, and whether it is the same bit for bit."""
    return [
        f"{judgement.verdict}: {judgement.run.path}",
        *(f"  {reason}" for reason in judgement.reasons),
        f"  re-run: {judgement.again.path}",
        f"  {judgement.bits.text}",
    ]
