"""Run experiments here: one in this process, or a suite in processes of its own, with one live table for both."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from benchmark.config import Experiment, read_yaml, stage_of, validate
from benchmark.record import (
    UNFINISHED,
    Record,
    code_identity,
    code_of,
    is_running,
    is_unfinished,
    name_skipped,
    read_record,
    read_records,
    started_with,
)
from benchmark.reference import reference_seconds
from benchmark.server import Children, Event, Task, begin
from benchmark.spec import BadInput
from benchmark.stages import at_hand, settled

DONE = ("finished", "pruned", "has a record")
FAILED = ("failed", "diverged", "truncated")


@dataclass
class _Row:
    """One run of the table."""

    kind: str = ""  # runs of one kind take about the same time
    event: Event | None = None
    started: float = 0.0
    seconds: float | None = None  # how long it took

    @property
    def state(self) -> str:
        if self.event is None:
            return "waiting"
        phase = str(self.event["phase"])
        return "done" if phase.startswith(DONE) else "failed" if phase.startswith(FAILED) else "running"


class Display:
    """What runs, what is done, what failed, time left: a live table. Without a terminal: a line now and then."""

    def __init__(self, console: Console | None = None, every: float = 10.0) -> None:
        self.console = console or Console(stderr=True)
        self.every = every
        self.jobs = 1
        self.note = ""  # what else the last line says
        self._rows: dict[str, _Row] = {}
        self._lines: dict[str, tuple[float, str]] = {}
        self._lock = threading.RLock()
        self._live = Live(console=self.console, get_renderable=self._table, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def expect(self, experiments: Sequence[Experiment], jobs: int) -> None:
        """These will run, `jobs` at a time."""
        self.jobs = jobs
        for experiment in experiments:
            kind = experiment.title.rpartition(", seed")[0]
            self.plan(experiment.title, kind, reference_seconds(experiment))

    def plan(self, title: str, kind: str, seconds: float) -> None:
        """One more will run, for so long at most."""
        self._rows[title] = _Row(kind, seconds=seconds)

    def say(self, note: str) -> None:
        """Say it in the last line until another note takes its place. Without a terminal: once, as a line."""
        self.note = note
        if note and not self.console.is_terminal:
            self.console.print(note, highlight=False, soft_wrap=True)

    def begin(self, title: str) -> None:
        """`title` runs from now on; nothing is printed yet."""
        with self._lock:
            row = self._rows.setdefault(title, _Row())
            row.event, row.started = {"phase": "starting", "examples": 0, "total": 1}, time.monotonic()

    def show(self, title: str, event: Event) -> None:
        """What `title` is doing now."""
        with self._lock:
            row = self._rows.setdefault(title, _Row())
            before, now = row.state, time.monotonic()
            if before == "waiting":
                row.started = now
            row.event = event
            if row.state in ("done", "failed"):
                row.seconds = now - row.started
            if not self.console.is_terminal:
                self._print(title, row, ended=before != row.state and row.state in ("done", "failed"))

    def _print(self, title: str, row: _Row, ended: bool) -> None:
        assert row.event is not None
        last, phase = self._lines.get(title, (0.0, ""))
        if row.event["phase"] == phase and time.monotonic() - last <= self.every:
            return
        self._lines[title] = (time.monotonic(), row.event["phase"])
        share = 100 * row.event["examples"] / max(1, row.event["total"])
        self.console.print(f"{title}: {share:3.0f} % {_state(row.event)}", highlight=False, soft_wrap=True)
        if ended and len(self._rows) > 1:
            self.console.print(self._summary(), highlight=False, soft_wrap=True)

    def _table(self) -> RenderableType:
        """Running rows first, and no more rows than the terminal has lines for."""
        with self._lock:
            order = ["running", "failed", "waiting", "done"]
            rows = sorted(self._rows.items(), key=lambda item: order.index(item[1].state))
            shown = rows[: max(1, self.console.height - 4)]
            table = Table.grid(padding=(0, 2))
            for title, row in shown:
                table.add_row(Text(title, style=_STYLES[row.state]), *_cells(row))
            hidden = [Text(f"… and {len(rows) - len(shown)} more")] if len(rows) > len(shown) else []
            summary = [Text(self._summary(), style="bold")] if len(rows) > 1 else []
            return Group(table, *hidden, *summary)

    def _summary(self) -> str:
        states = [row.state for row in self._rows.values()]
        counts = [f"{states.count(state)} {state}" for state in ("done", "running", "failed", "waiting")]
        left = self._seconds_left()
        note = f"; {self.note}" if self.note else ""
        return ", ".join(counts) + (f"; about {_clock(left)} left" if left > 0 else "") + note

    def _seconds_left(self) -> float:
        """Runs of a kind that has finished take what those took; of another, as long as their budget allows."""
        took: dict[str, list[float]] = {}
        for row in self._rows.values():
            if row.state == "done" and row.seconds and row.event and row.event["phase"] != "has a record":
                took.setdefault(row.kind, []).append(row.seconds)
        left = 0.0
        for row in self._rows.values():
            if row.state in ("waiting", "running"):
                known = took.get(row.kind)
                whole = sum(known) / len(known) if known else row.seconds or 0.0
                left += whole if row.state == "waiting" else max(0.0, whole - (time.monotonic() - row.started))
        return left / self.jobs


_STYLES = {"waiting": "dim", "running": "", "done": "green", "failed": "red"}


def _cells(row: _Row) -> list[RenderableType]:
    if row.event is None:
        return ["", "waiting"]
    bar = ProgressBar(total=max(1, row.event["total"]), completed=row.event["examples"], width=24)
    return [bar if row.state == "running" else "", Text(_state(row.event))]


def _state(event: Event) -> str:
    if event.get("rate") is None:
        return str(event["phase"])
    loss = "" if event["loss"] is None else f"loss {event['loss']:.4g}, "
    note = f"; {event['note']}" if event.get("note") else ""
    return f"{loss}{event['rate']:,.0f} examples/s, {_clock(event['left'])} left{note}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@dataclass(frozen=True)
class Outcome:
    """How one experiment of a suite ended."""

    experiment: Experiment
    folder: Path | None
    record: Record | None
    problem: str = ""  # why there is no record


def import_once(display: Display) -> None:
    """Have the server import what runs need, which takes some seconds. Raises `BadInput` where it cannot."""
    display.say("importing torch")
    begin()
    display.say("")


def default_jobs() -> int:
    """Processes at once: one a core, since one thread each is faster than many threads each; one where a GPU is."""
    return 1 if shutil.which("nvidia-smi") else cores()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def run_suite(
    experiments: Sequence[Experiment],
    jobs: int,
    display: Display,
    fresh: bool = False,
    trust: Sequence[str] = (),
) -> list[Outcome]:
    """Run every experiment that has no record yet, `jobs` at a time, and continue after failures.

    Each runs in a process of its own with its share of the cores. Unless `fresh`, a run of the same configuration,
    seed and code that has finished counts as done, and one that was stopped is resumed. `trust` lists
    packages outside the benchmark whose classes the experiments name.
    """
    if jobs < 1:
        raise BadInput(f"jobs={jobs} is not possible: give 1 or more")
    _carry_out_missing(experiments, jobs, display, trust)  # what needs one that does not finish says so below
    done, stopped = ({}, {}) if fresh else (_finished(experiments), _stopped(experiments))
    threads = max(1, cores() // jobs)
    display.expect(experiments, jobs)
    children = Children()

    def one(experiment: Experiment) -> Outcome:
        earlier = done.get(_identity(experiment))
        if earlier is None:
            try:
                experiment = settled(experiment, trust=trust)
            except BadInput as error:
                display.show(experiment.title, {"phase": f"failed: {error}", "examples": 0, "total": 1})
                return Outcome(experiment, None, None, str(error))
            return _in_process(experiment, stopped.get(_identity(experiment)), threads, display, trust, children)
        display.show(experiment.title, {"phase": "has a record", "examples": 1, "total": 1})
        return Outcome(experiment, earlier, read_record(earlier))

    if any(_identity(experiment) not in done for experiment in experiments):
        import_once(display)
    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(one, experiments))
    except KeyboardInterrupt:
        children.stop()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def with_stages(
    experiments: Sequence[Experiment], jobs: int, display: Display, trust: Sequence[str] = ()
) -> list[Experiment]:
    """The experiments with the runs whose weights they take over: those that are missing are carried out first.

    Raises `BadInput` where one does not finish.
    """
    for outcome in _carry_out_missing(experiments, jobs, display, trust):
        if outcome.record is None or outcome.record.status != "finished":
            why = outcome.problem or (outcome.record.status if outcome.record else "")
            raise BadInput(f"{outcome.experiment.title} was to be trained first, and did not finish: {why}")
    return [settled(experiment, trust=trust) for experiment in experiments]


def _carry_out_missing(
    experiments: Sequence[Experiment], jobs: int, display: Display, trust: Sequence[str]
) -> list[Outcome]:
    """Carry out each run that experiments take over and that is not there: once, whoever needs it."""
    missing: dict[Identity, Experiment] = {}
    for experiment in experiments:
        for name in experiment.stages:
            if at_hand(experiment, name, trust) is None:
                wanted = stage_of(experiment, name, trust)
                missing.setdefault(_identity(wanted), wanted)
    return run_suite(list(missing.values()), jobs, display, trust=trust) if missing else []


def _in_process(
    experiment: Experiment,
    stopped: Path | None,
    threads: int,
    display: Display,
    trust: Sequence[str],
    children: Children,
) -> Outcome:
    """Have one of `children` carry out the experiment, or resume the run in the folder `stopped`."""
    content = experiment.container()
    content["runtime"]["threads"] = content["runtime"]["threads"] or threads
    child = children.start(Task(content, tuple(trust), stopped))
    if child is None:
        return Outcome(experiment, stopped, None, "stopped")
    phase = "starting" if stopped is None else f"going on with {stopped.name}"
    display.show(experiment.title, {"phase": phase, "examples": 0, "total": experiment.budget.examples})
    folder: Path | None = None
    for event in child.events():
        if "folder" in event:
            folder = Path(event["folder"])
        elif "phase" in event:
            display.show(experiment.title, event)
    if child.refused is None and folder is not None and (folder / "record.json").is_file():
        return Outcome(experiment, folder, read_record(folder))
    phase = "stopped" if child.stopped else f"failed: {child.problem}"
    display.show(experiment.title, {"phase": phase, "examples": 0, "total": 1})
    return Outcome(experiment, folder, None, child.problem)


Identity = tuple[str, tuple[tuple[str, int], ...]]


def _identity(experiment: Experiment) -> Identity:
    return experiment.config_hash, tuple(sorted(experiment.seed.model_dump().items()))


def _finished(experiments: Sequence[Experiment]) -> dict[Identity, Path]:
    """The folders of the runs that today's code has finished."""
    found, codes = {}, {_identity(one): code_identity(one.targets) for one in experiments}
    for root in {experiment.runtime.runs for experiment in experiments}:
        for file, record in read_records(Path(root)).items():
            identity = record.identity, tuple(sorted(record.seed.items()))
            if record.status not in UNFINISHED and code_of(record) == codes.get(identity):
                found[identity] = file.parent
    return found


def _stopped(experiments: Sequence[Experiment]) -> dict[Identity, Path]:
    """The folders of the runs that today's code began, and that no process is carrying on."""
    found, codes = {}, {_identity(one): code_identity(one.targets) for one in experiments}
    for root, data in {(experiment.runtime.runs, experiment.data.name) for experiment in experiments}:
        for file in sorted(Path(root, data).glob("*/*/config.yaml")):
            folder = file.parent
            try:
                if is_unfinished(folder) and not is_running(folder):
                    identity = _identity(validate(read_yaml(file)))
                    if started_with(folder) == codes.get(identity):
                        found[identity] = folder
            except BadInput as error:  # one damaged run does not stop the others
                name_skipped(str(error))
    return found
