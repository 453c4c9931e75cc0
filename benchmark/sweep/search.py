"""A study runs here: Optuna proposes, child processes train, and nothing that dies can lose a trial.

This process is the only one that uses Optuna's storage; its children train.
"""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.trial import TrialState

from benchmark.config import Experiment, Stage, compose, dump_yaml
from benchmark.launch import Display, import_once, with_stages
from benchmark.record import read_record, write_atomic
from benchmark.server import Children, Task
from benchmark.spec import BadInput
from benchmark.sweep.plan import Plan
from benchmark.sweep.queue import Queue, learnt, run_of
from benchmark.sweep.storage import default_storage, open_storage

ATTEMPTS = 3  # a trial whose process dies so often is not unlucky

_ENDS = ("finished", "diverged", "truncated", "pruned", "failed")


@dataclass(frozen=True)
class Summary:
    """How a study stands; `best` is `None` where no trial learnt anything."""

    name: str
    folder: Path
    counts: dict[str, int]
    best: float | None
    params: dict[str, Any]
    trial: str


def sweep(plan: Plan, workers: int, storage: str | None, display: Display) -> Summary:
    """Run the study until it has all its trials; the same call continues one that was stopped.

    Raises `KeyboardInterrupt` after letting go of what was running, and `BadInput` where the storage does not open or
    holds another study of that name.
    """
    if workers < 1:
        raise BadInput(f"workers={workers} is not possible: give 1 or more")
    return _Sweep(plan, workers, storage, display).run()


class _Sweep:
    """One command's work on a study."""

    def __init__(self, plan: Plan, workers: int, storage: str | None, display: Display) -> None:
        self.plan, self.workers, self.display = plan, workers, display
        self.stopping = threading.Event()
        self.queue = Queue(plan, open_storage(storage or default_storage(plan.base.runtime.runs)), self.stopping)
        self.children = Children()
        self.composing = threading.Lock()  # Hydra composes one at a time
        self.stages: dict[str, Stage] = {}

    def run(self) -> Summary:
        self.display.jobs = self.workers
        ahead = self.queue.ahead()
        for run in ahead:
            self.display.plan(_title(run), self.plan.title, self.plan.base.budget.minutes * 60)
        if ahead:
            import_once(self.display)
            base = self.plan.base
            if base.stages:  # all trials take over the same weights
                (base,) = with_stages([base], self.workers, self.display, base.trust)
                self.stages = {name: getattr(base, name) for name in base.stages}
        pool = ThreadPoolExecutor(self.workers)
        threading.Thread(target=self.queue.beat, daemon=True).start()
        try:
            ended, _ = wait([pool.submit(self._work) for _ in range(self.workers)], None, FIRST_EXCEPTION)
            for one in ended:
                one.result()
        finally:
            self.stopping.set()
            self.children.stop()
            pool.shutdown(cancel_futures=True)
            self.queue.let_go()
        return self.summary()

    def _work(self) -> None:
        """What each of the sweep's threads does: one trial after another, each in a process of its own."""
        while (trial := self.queue.next()) is not None and self._carry_out(trial):
            pass

    def _carry_out(self, trial: optuna.Trial) -> bool:
        """Train, and tell Optuna what came of it. False where the sweep was stopped before that.

        Raises `BadInput` where a point of the design, such as the tuned setting, is refused.
        """
        run = run_of(trial)
        folder = self.plan.folder / self.plan.run_name(run)
        self.display.begin(_title(run))
        refused = None
        if not (folder / "record.json").is_file():  # else a sweep died between the record and telling Optuna of it
            tuned = self.plan.design.name == "space" and run < len(self.plan.design.points)
            content = {"number": run, "params": trial.params, "tuned": tuned}
            write_atomic(folder / "trial.yaml", dump_yaml(content))
            try:
                settings = [*self.plan.settings, *self.plan.design.settings(trial.params, run)]
                with self.composing:
                    experiment = compose(settings, self.plan.base.trust).model_copy(update=self.stages)
                refused = self._train(trial, experiment, folder)
            except BadInput as error:
                if run < len(self.plan.design.points):  # no proposal: what was asked for is itself impossible
                    raise
                refused = str(error)
        if self.stopping.is_set():
            return False
        record = read_record(folder) if (folder / "record.json").is_file() else None
        if record is None:
            write_atomic(folder / "refused.txt", f"{refused}\n")
        with self.queue.lock:
            ended = self.queue.tell(trial, record, refused)
            self.display.note = _note(self.summary())
        self.display.show(_title(run), {"phase": ended, "examples": 1, "total": 1})
        return True

    def _train(self, trial: optuna.Trial, experiment: Experiment, folder: Path) -> str | None:
        """Have a process train until there is a record; one that dies is replaced. Returns why there is no record.

        Raises `BadInput` where it refuses the experiment.
        """
        content = experiment.container()
        content["runtime"]["threads"] = content["runtime"]["threads"] or 1  # several fight where a machine is shared
        task = Task(content, experiment.trust, folder, self.plan.title)
        problem = "stopped"
        for _ in range(ATTEMPTS):
            if (child := self.children.start(task)) is None:
                break
            for event in child.events():
                if "score" in event:
                    child.answer(self.queue.judge(trial, experiment, event))
                elif "phase" in event and self.display.console.is_terminal and event["phase"] not in _ENDS:
                    self.display.show(_title(run_of(trial)), event)
            if child.refused is not None:
                raise BadInput(child.refused)
            if (folder / "record.json").is_file():  # also where it failed, and said so there
                return None
            problem = child.problem
            self.stopping.wait(0.5)  # what stops all processes of a job may reach this one last
        return f"its process died {ATTEMPTS} times: {problem}"

    def summary(self) -> Summary:
        trials = self.queue.trials()
        counts = Counter(trial.state.name.lower() for trial in trials)
        counts["diverged"] = sum(trial.user_attrs.get("status") == "diverged" for trial in trials)
        good = [trial for trial in trials if trial.state == TrialState.COMPLETE and learnt(trial)]
        best = min(good, key=lambda trial: cast(float, trial.value), default=None)
        found = (None, {}, "") if best is None else (best.value, dict(best.params), self.plan.run_name(run_of(best)))
        return Summary(self.plan.title, self.plan.folder, dict(counts), *found)


def _title(run: int) -> str:
    return f"trial {run}"


def _note(summary: Summary) -> str:
    if summary.best is None:
        return ""
    counts = "".join(f", {summary.counts[name]} {name}" for name in ("pruned", "diverged") if summary.counts.get(name))
    return f"best {summary.best:.4g} ({summary.trial.rpartition('-')[2]}){counts}"
