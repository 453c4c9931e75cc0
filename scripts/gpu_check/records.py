"""Records made on a GPU: a suite at `quick`, then at `standard`, several runs at once, until the time is over.

Each finished run is published into the archive as soon as its record is there: unpacked over `leaderboards/`, they
stand where `benchmark publish` would have put them. A run that does not finish in time leaves nothing.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.build import data_of
from benchmark.config import load_suite
from benchmark.data.base import data_root
from benchmark.record import Record, publish, read_record
from benchmark.spec import BadInput
from scripts.gpu_check.results import Results

GRACE = 8.0  # seconds in which a suite that was told to stop is gone
EVERY = 1.0  # seconds between looks

#: How short a rehearsal is, on data that come with the dependencies.
REHEARSED = (
    *("evaluation.elbo_draws=2", "evaluation.sample_draws=2", "evaluation.importance_samples=4"),
    *("evaluation.solved_examples=32", "training.validations=2", "budget.examples=640", "seed=0"),
)


def check(results: Results, settings: Sequence[str] = (), jobs: int | None = None) -> None:
    """Run the suite under one budget after the other."""
    suite, budgets = ("digits", ("smoke",)) if results.rehearsed else ("mnist", ("quick", "standard"))
    settings = [*(REHEARSED if results.rehearsed else ()), *settings]
    experiments = load_suite(suite)
    together = jobs or min(len(experiments), os.cpu_count() or 1)
    results.note(
        f"Suite {suite}, {together} runs at once, data from {data_root()}. Unpack the archive over leaderboards/: "
        f"tar xzf {results.part}.tar.gz --strip-components 1 -C leaderboards {results.part}/records"
    )
    if results.about["git"] is None:
        results.note("No commit is known, so that nothing can be published: bring provenance.json (`stamp`).")
    data_of(experiments[0])  # what is missing is said once, and at once
    with tempfile.TemporaryDirectory() as folder:
        for budget in budgets:
            seen = _run(results, suite, [f"budget={budget}", f"jobs={together}", *settings], Path(folder), budget)
            if results.seconds_left < GRACE:
                results.note(f"Time was over at budget {budget}, with {seen} of its runs finished.")
                return
            results.note(f"Budget {budget}: {seen} runs finished.")


def _run(results: Results, suite: str, settings: Sequence[str], folder: Path, budget: str) -> int:
    """How many runs of a suite have a record when it, or the time, has ended."""
    runs = folder / budget
    command = [sys.executable, "-m", "benchmark", "suite", suite, *settings, f"runtime.runs={runs}"]
    seen: set[Path] = set()
    with (results.files / f"{budget}.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and results.seconds_left > GRACE:
                time.sleep(EVERY)
                _gather(results, runs, seen)
        finally:
            _stop(process)
    _gather(results, runs, seen)
    if process.returncode and results.seconds_left > GRACE:
        results.failed = True
        last = (results.files / f"{budget}.log").read_text(encoding="utf-8", errors="replace").split("\n")
        results.note(f"The suite ended with exit code {process.returncode}: {' '.join(last[-3:]).strip()}")
    return len(seen)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """As Ctrl-C does, and at once where that takes too long."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(GRACE - 2)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _gather(results: Results, runs: Path, seen: set[Path]) -> None:
    """Publish each record that is new, and say what it holds."""
    for file in sorted(runs.glob("*/*/*/record.json")):
        if file not in seen:
            seen.add(file)
            record = read_record(file)
            try:
                publish(file.parent, results.files / "records")
                said = "published"
            except BadInput as error:
                said = f"not published: {str(error).partition(': ')[2]}"
            results.add(_row(record) | {"evidence": said})


def _row(record: Record) -> dict[str, Any]:
    def value(name: str) -> float | None:
        score = record.scores.get(name)
        return None if score is None else score.value

    return {
        "model": record.model,
        "data": record.data,
        "budget": record.budget,
        "seed": record.seed["init"],
        "status": record.status,
        "bits/dim": value("bits_per_dim"),
        "FID": value("fid"),
        "examples/s": value("examples_per_second"),
        "training, s": value("wall_seconds"),
        "all, s": record.seconds,
        "memory, MiB": None if (memory := value("peak_memory")) is None else memory / 2**20,
    }
