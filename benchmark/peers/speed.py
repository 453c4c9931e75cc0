"""How long ours and a peer's take for the same work, in turns in one process, so that their ratio means something on a
machine that others use."""

from __future__ import annotations

import math
import platform
import statistics
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmark.metrics import cost
from benchmark.peers.pair import Pair, Side, Task
from benchmark.record import hardware
from benchmark.tables import DASH, Entry, Head, Table, Tone, entries

SECONDS = 0.25  # about how long one's turn takes
CALLS = (1, 400)  # at least and at most so many in it
ALIKE = 0.05  # by how much FLOPs of the loss may differ, as a share of ours

Verdict = Literal["ours is faster", "as fast", "ours is slower", "not alike"]


@dataclass(frozen=True)
class Row:
    """One task of a pair; two numbers are ours and theirs."""

    pair: str
    task: Task
    milliseconds: tuple[float, float]  # medians over rounds
    ratio: float  # theirs to ours, the median over rounds of the ratio within a round
    ratios: tuple[float, float]  # its range over rounds
    mebibytes: tuple[float, float]  # most that the tensors of the task take at once, parameters left out
    flops: float  # of the loss, theirs to ours

    @property
    def verdict(self) -> Verdict:
        """Only what holds in every round is a difference."""
        low, high = self.ratios
        if abs(self.flops - 1) > ALIKE:
            return "not alike"
        return "ours is faster" if low > 1 else "ours is slower" if high < 1 else "as fast"

    @property
    def fails(self) -> bool:
        return self.verdict in ("ours is slower", "not alike")


def measure(pair: Pair, rounds: int, device: torch.device) -> list[Row]:
    """Time every task that both sides have. Raises `BadInput` where the peer is missing."""
    pair.require()
    ours, theirs = pair.build(device)
    flops = loss_flops(theirs) / loss_flops(ours)
    one, other = ours.tasks(), theirs.tasks()
    return [_timed(pair.name, task, (one[task], other[task]), rounds, device, flops) for task in one if task in other]


def loss_flops(side: Side) -> int:
    """Matrix products, convolutions and attention of the loss, forward."""
    counter = FlopCounterMode(display=False)
    with counter:
        side.loss()
    return int(counter.get_total_flops())


def _timed(
    name: str,
    task: Task,
    calls: tuple[Callable[[], Tensor], Callable[[], Tensor]],
    rounds: int,
    device: torch.device,
    flops: float,
) -> Row:
    mebibytes = (peak_bytes(calls[0]) / 2**20, peak_bytes(calls[1]) / 2**20)
    counts = [_calls_in_a_turn(call, device) for call in calls]
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):  # neither always comes after the other
            found[side].append(typical([seconds(calls[side], device) for _ in range(counts[side])]))
    ratios = [other / one for one, other in zip(*found, strict=True)]
    return Row(
        name,
        task,
        (1000 * statistics.median(found[0]), 1000 * statistics.median(found[1])),
        statistics.median(ratios),
        (min(ratios), max(ratios)),
        mebibytes,
        flops,
    )


def seconds(call: Callable[[], Tensor], device: torch.device) -> float:
    """How long one call takes."""
    before = cost.clock(device)
    call()
    return cost.clock(device) - before


def _calls_in_a_turn(call: Callable[[], Tensor], device: torch.device) -> int:
    return max(CALLS[0], min(CALLS[1], round(SECONDS / seconds(call, device))))


def typical(times: Sequence[float]) -> float:
    """The lower quartile: what others do on the machine only ever adds."""
    return sorted(times)[len(times) // 4]


# Memory --------------------------------------------------------------------------------------------------------------


def peak_bytes(call: Callable[[], Tensor]) -> int:
    """Most bytes that tensors made during a second call take at once: what a first one leaves for good, such as the
    states of an optimiser, does not count. What an operation needs inside and frees again is not seen."""
    call()
    live = _Live()
    with live:
        call()
    return live.peak


class _Live(TorchDispatchMode):
    """Adds up storages that operations make, until they are freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}  # where a storage lies -> its bytes

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {_key(value) for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)}
        made = function(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor) and _key(value) not in given | self.known.keys():
                storage = value.untyped_storage()
                self.known[_key(value)] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._free, _key(value))
        return made

    def _free(self, key: int) -> None:
        self.now -= self.known.pop(key)


def _key(value: Tensor) -> int:
    return int(value.untyped_storage()._cdata)


# Shown ---------------------------------------------------------------------------------------------------------------


def as_table(rows: Sequence[Row], pairs: Sequence[Pair], device: torch.device) -> Table:
    """The measurements, what each pair is, and under what conditions; pairs whose peer is missing stand below."""
    heads = [
        Head("pair", least=16),
        Head("task"),
        Head("ours, ms", number=True, rank=3),
        Head("theirs, ms", number=True, rank=3),
        Head("theirs / ours", number=True),
        Head("range", number=True, rank=5),
        Head("ours, MiB", number=True, rank=4),
        Head("theirs, MiB", number=True, rank=4),
        Head("verdict", rank=1),
    ]
    lines = []
    tones: dict[int, Tone] = {}
    for index, row in enumerate(rows):
        times = [three_digits(value) for value in row.milliseconds]
        sizes = [f"{value:.1f}" for value in row.mebibytes]
        span = f"{row.ratios[0]:.2f} to {row.ratios[1]:.2f}"
        lines.append(entries([row.pair, row.task, *times, f"{row.ratio:.2f}", span, *sizes, row.verdict]))
        if row.fails:
            tones[index] = "bad"
    absent = [
        [Entry(pair.name, head=True), Entry(f"absent: {pair.missing}"), *[DASH] * (len(heads) - 2)]
        for pair in pairs
        if pair.missing
    ]
    flops = {row.pair: row.flops for row in rows}
    about = [
        f"{pair.name}: {pair.about}. FLOPs of the loss, theirs / ours: {flops[pair.name]:.3f}."
        for pair in pairs
        if pair.name in flops
    ]
    measured = [pair for pair in pairs if pair.name in flops]
    return Table("", heads, lines, absent, [conditions(measured, device), *about] if about else [], tones=tones)


def three_digits(value: float) -> str:
    """At least so many of a positive number.

    >>> three_digits(1.0), three_digits(0.01234), three_digits(1234.5)
    ('1.00', '0.0123', '1,234')
    """
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


def conditions(pairs: Sequence[Pair], device: torch.device) -> str:
    """When, with which versions, on what."""
    versions = {pair.package: pair.version for pair in pairs} | {
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else hardware()["cpu"]
    threads = torch.get_num_threads()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}: {', '.join(f'{name} {number}' for name, number in versions.items())}, "
        f"{threads} {'thread' if threads == 1 else 'threads'}, {where}."
    )
