"""Run experiments here: one in this process, or a suite in processes of its own, with one live display for both."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from benchmark.config import Experiment
from benchmark.record import Record, code_hash, read_record, read_records
from benchmark.spec import BadInput

#: glibc returns large blocks to the system after every step otherwise: up to 28 % of a training's time in page faults.
MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": "33554432",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
    "MALLOC_TOP_PAD_": "134217728",
}

Event = dict[str, Any]  # phase, examples, total, loss, rate (examples a second), left (seconds)


class Display:
    """Progress bars: loss, throughput and time left of each run. Without a terminal: a line now and then."""

    def __init__(self, console: Console | None = None, every: float = 10.0) -> None:
        self.console = console or Console(stderr=True)
        self.every = every
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[state]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        self._lines: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, title: str, event: Event) -> None:
        """What `title` is doing now."""
        state = _state(event)
        with self._lock:
            if self.console.is_terminal:
                if title not in self._tasks:
                    self._tasks[title] = self._bars.add_task(title, total=None, state="")
                self._bars.update(self._tasks[title], completed=event["examples"], total=event["total"], state=state)
            else:
                last, phase = self._lines.get(title, (0.0, ""))
                if event["phase"] != phase or time.monotonic() - last > self.every:
                    self._lines[title] = (time.monotonic(), event["phase"])
                    share = 100 * event["examples"] / max(1, event["total"])
                    self.console.print(f"{title}: {share:3.0f} % {state}", highlight=False, soft_wrap=True)


def _state(event: Event) -> str:
    if event.get("rate") is None:
        return str(event["phase"])
    loss = "" if event["loss"] is None else f"loss {event['loss']:.4g}, "
    minutes, seconds = divmod(round(event["left"]), 60)
    return f"{loss}{event['rate']:,.0f} examples/s, {minutes}:{seconds:02d} left"


@dataclass(frozen=True)
class Outcome:
    """How one experiment of a suite ended."""

    experiment: Experiment
    folder: Path | None
    record: Record | None
    problem: str = ""  # why there is no record


def default_jobs() -> int:
    """Processes at once: one a core, since one thread each is faster than many threads each; one where a GPU is."""
    return 1 if shutil.which("nvidia-smi") else cores()


def cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def run_suite(experiments: Sequence[Experiment], jobs: int, display: Display, fresh: bool = False) -> list[Outcome]:
    """Run every experiment that has no record yet, `jobs` at a time, and go on past failures.

    Each runs in a process of its own with its share of the cores. Unless `fresh`, a run of the same configuration,
    seed and code that has finished counts as done.
    """
    if jobs < 1:
        raise BadInput(f"jobs={jobs} is not possible: give 1 or more")
    done = {} if fresh else _finished(experiments)
    threads = max(1, cores() // jobs)

    def one(experiment: Experiment) -> Outcome:
        earlier = done.get(_identity(experiment.config_hash, experiment.seed.model_dump()))
        if earlier is None:
            return _in_process(experiment, threads, display)
        display.show(experiment.title, {"phase": "has a record", "examples": 1, "total": 1})
        return Outcome(experiment, earlier, read_record(earlier))

    pool = ThreadPoolExecutor(jobs)
    try:
        return list(pool.map(one, experiments))
    finally:
        pool.shutdown(cancel_futures=True)


def _in_process(experiment: Experiment, threads: int, display: Display) -> Outcome:
    """A child process that takes the experiment on standard input and reports progress as JSON lines on output."""
    content = experiment.container()
    content["runtime"]["threads"] = content["runtime"]["threads"] or threads
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmark", "work"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": str(threads), **MALLOC, **os.environ},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    errors: list[str] = []
    reader = threading.Thread(target=lambda: errors.extend(child.stderr or ()), daemon=True)
    reader.start()
    folder: Path | None = None
    display.show(experiment.title, {"phase": "starting", "examples": 0, "total": experiment.budget.examples})
    with child:
        with child.stdin:
            child.stdin.write(json.dumps(content))
        for line in child.stdout:
            event = json.loads(line)
            if "folder" in event:
                folder = Path(event["folder"])
            else:
                display.show(experiment.title, event)
    reader.join()
    if folder is not None and (folder / "record.json").is_file():
        return Outcome(experiment, folder, read_record(folder))
    problem = next((line.strip() for line in reversed(errors) if line.strip()), f"exit code {child.returncode}")
    display.show(experiment.title, {"phase": f"failed: {problem}", "examples": 0, "total": 1})
    return Outcome(experiment, folder, None, problem)


def _identity(config_hash: str, seed: dict[str, int]) -> tuple[str, tuple[tuple[str, int], ...]]:
    return config_hash, tuple(sorted(seed.items()))


def _finished(experiments: Sequence[Experiment]) -> dict[Any, Path]:
    """Identity to folder of the runs that today's code has finished."""
    found = {}
    for root in {experiment.runtime.runs for experiment in experiments}:
        for file, record in read_records(Path(root)).items():
            if record.status != "failed" and record.code_hash == code_hash():
                found[_identity(record.config_hash, record.seed)] = file.parent
    return found
