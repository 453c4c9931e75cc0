"""A study runs here: Optuna proposes, child processes train, and nothing that dies can lose a trial.

This process alone speaks with Optuna's storage; its children only train. A trial that is running has a heartbeat. One
without (its sweep was killed, on this machine or another) is told to Optuna as failed and enqueued once more, and goes
on from its last checkpoint. Several sweeps of one study may run at once, on one machine or many.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import optuna
import yaml
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from benchmark.config import Experiment, compose
from benchmark.launch import Display, import_once
from benchmark.record import Record, is_running, read_record, write_atomic
from benchmark.server import Children, Event, Task
from benchmark.spec import BadInput, unknown
from benchmark.sweep.space import Design, Space, identity
from benchmark.sweep.studies import Header, Study, Trial, collect, continued

SEED = 0  # of the sampler
BEAT = 15.0  # seconds between heartbeats of a running trial
GRACE = 60.0  # seconds without one after which its sweep counts as dead; clocks of machines may differ by less
POLL = 2.0  # seconds between looks at what other sweeps of the study are doing
OPENINGS = 6  # of a database, before what it says counts
ATTEMPTS = 3  # a trial whose process dies so often is not unlucky

SAMPLERS = ("qmc", "random", "tpe", "cmaes", "gp")
PRUNERS = ("none", "median", "halving")
_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)

warnings.filterwarnings("ignore", category=ExperimentalWarning)
warnings.filterwarnings(
    "ignore", "The reported value is ignored"
)  # a resumed trial repeats the validation where it stopped
optuna.logging.set_verbosity(optuna.logging.ERROR)


@dataclass(frozen=True)
class Plan:
    """What a study is: the same plan continues the same study."""

    base: Experiment
    space: Space
    design: Design
    settings: tuple[str, ...]  # that compose `base`; a trial adds its own
    trials: int  # proposed by the sampler, beside the points of the design
    sampler: str = "qmc"
    pruner: str | None = None  # `None`: the median rule for samplers that learn, none for designs
    name: str | None = None
    confirms: dict[str, Any] = field(default_factory=dict)  # of the design `confirm`: what is confirmed
    continues: Study | None = None  # whose trials count, as if they had been trained here

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise unknown("sampler", self.sampler, SAMPLERS)
        if self.pruner is not None and self.pruner not in PRUNERS:
            raise unknown("pruner", self.pruner, PRUNERS)

    @property
    def fingerprint(self) -> str:
        return identity(self.design, self.base, self.sampler if self.design.name == "space" else "grid")

    @property
    def title(self) -> str:
        """`digits-vae-qmc-1a2b3c4d`, unless a name was given."""
        how = self.sampler if self.design.name == "space" else self.design.name
        return self.name or f"{self.base.data.name}-{self.base.model.name}-{how}-{self.fingerprint[:8]}"

    @property
    def folder(self) -> Path:
        return Path(self.base.runtime.runs) / "studies" / self.title

    @property
    def pruned_by(self) -> str:
        learns = self.design.name == "space" and self.sampler in ("tpe", "cmaes", "gp")
        return self.pruner or ("median" if learns else "none")

    @property
    def wanted(self) -> int:
        return len(self.design.points) + (self.trials if self.design.name == "space" else 0)


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


# Optuna --------------------------------------------------------------------------------------------------------------


def open_storage(where: str) -> BaseStorage:
    """A journal file, or any storage URL that Optuna takes."""
    if "://" not in where:
        return open_journal(Path(where))
    from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

    try:
        for _ in range(OPENINGS - 1):
            with suppress(IntegrityError, ProgrammingError):  # another sweep is creating the same tables just now
                return RDBStorage(where, engine_kwargs={"pool_pre_ping": True})
            time.sleep(0.5)
        return RDBStorage(where, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError) as error:
        raise BadInput(f"storage={where.split('@')[-1]} does not open: {str(error).splitlines()[0]}") from error


class _Lock:
    """Optuna's lock on a journal by the system's own lock, which ends with its process."""

    def __init__(self, file: Path) -> None:
        self._lock = FileLock(file)

    def acquire(self) -> bool:
        self._lock.acquire()
        return True

    def release(self) -> None:
        self._lock.release()


def open_journal(file: Path) -> JournalStorage:
    """A study's journal. Half a line at its end, where a writer was killed, would stop every reader: it is cut off."""
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = _Lock(file.with_name(f"{file.name}.flock"))  # Optuna's own programs lock by a link named .lock
    lock.acquire()
    try:
        content = file.read_bytes() if file.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            with file.open("r+b") as journal:
                journal.truncate(len(whole))
    finally:
        lock.release()
    return JournalStorage(JournalFileBackend(str(file), lock_obj=cast(Any, lock)))


def default_storage(runs: str) -> str:
    """One journal for all studies of a folder of runs, so that one dashboard shows them."""
    return str(Path(runs) / "studies" / "journal.log")


def make_sampler(name: str, proposed: int) -> BaseSampler:
    """A seeded sampler. One that draws at random continues with another seed after `proposed` trials.

    A quasi-random sequence counts its points in the study itself.
    """
    seed = SEED + proposed
    if name == "qmc":
        return QMCSampler(qmc_type="sobol", scramble=True, seed=SEED, warn_independent_sampling=False)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return GPSampler(seed=seed)
    return TPESampler(seed=seed) if name == "tpe" else RandomSampler(seed=seed)


def make_pruner(name: str) -> BasePruner:
    """By validations, which every trial of a study has at the same shares of its length."""
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    return SuccessiveHalvingPruner() if name == "halving" else NopPruner()


# A sweep -------------------------------------------------------------------------------------------------------------


class _Sweep:
    """One command's work on a study."""

    def __init__(self, plan: Plan, workers: int, storage: str | None, display: Display) -> None:
        self.plan, self.workers, self.display = plan, workers, display
        self.opened = open_storage(storage or default_storage(plan.base.runtime.runs))
        self.lock = threading.RLock()  # around everything that asks or changes the study
        self.mine: dict[int, optuna.Trial] = {}
        self.children = Children()
        self.stopping = threading.Event()

    def run(self) -> Summary:
        self.study = self._open()
        self._recover()
        if self._plan_display():
            import_once(self.display)
        pool = ThreadPoolExecutor(self.workers)
        threading.Thread(target=self._beat, daemon=True).start()
        try:
            ended, _ = wait([pool.submit(self._work) for _ in range(self.workers)], None, FIRST_EXCEPTION)
            for one in ended:
                one.result()
        finally:
            self.stopping.set()
            self.children.stop()
            pool.shutdown(cancel_futures=True)
            for trial in self.mine.values():
                trial.set_user_attr("beat", 0.0)  # whoever comes next need not wait
        return self.summary()

    def _open(self) -> optuna.Study:
        """The study, created once with its points, or the one that is there."""
        plan = self.plan
        how = (plan.sampler, plan.pruned_by, plan.settings, plan.confirms)
        header = Header.of(plan.title, plan.base, plan.space, plan.design, *how)
        try:
            study = optuna.create_study(storage=self.opened, study_name=plan.title, direction="minimize")
            self._fill(study)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=self.opened, study_name=plan.title)
            self._wait_until_ready(study)
            if plan.continues is not None:
                self._fill(study)
        if study.user_attrs["fingerprint"] != plan.fingerprint and not self._began(header):
            raise BadInput(
                f"study {plan.title!r} exists with another space, design, sampler or base setting: give another name="
            )
        study.sampler = make_sampler(plan.sampler, len(study.get_trials(deepcopy=False)))
        study.pruner = make_pruner(plan.pruned_by)
        write_atomic(plan.folder / "study.yaml", yaml.safe_dump(header.model_dump(mode="json"), sort_keys=False))
        return study

    def _wait_until_ready(self, study: optuna.Study) -> None:
        """Another sweep may just be creating the study; if it died over that, finish its work."""
        for _ in range(20):
            if study.user_attrs.get("ready"):
                return
            time.sleep(0.5)
        self._fill(study)

    def _fill(self, study: optuna.Study) -> None:
        """What a new study begins with: trials that it continues, and the other points of its design."""
        plan = self.plan
        study.set_user_attr("fingerprint", study.user_attrs.get("fingerprint", plan.fingerprint))
        known = [dict(trial.params) for trial in study.get_trials(deepcopy=False)]
        if plan.continues is not None:
            continued(plan.continues, plan.folder)
            earlier = plan.continues.trials
            offset = max((trial.number + 1 for trial in earlier), default=0) - len(earlier)
            study.set_user_attr("offset", study.user_attrs.get("offset", offset))
            new = [trial for trial in earlier if trial.params not in known]
            study.add_trials([_told(trial, plan.design) for trial in new])
            known += [trial.params for trial in earlier]
        for point in plan.design.points:
            if dict(point) not in known:
                study.enqueue_trial(dict(point), skip_if_exists=True)
        study.set_user_attr("ready", True)

    def _began(self, header: Header) -> bool:
        """Whether the study of this name, begun under an older rule of identity, asks what this one does."""
        file = self.plan.folder / "study.yaml"
        return file.is_file() and collect(self.plan.folder).header.asks_the_same(header)

    def _beat(self) -> None:
        while not self.stopping.wait(BEAT):
            with self.lock:
                for trial in self.mine.values():
                    trial.set_user_attr("beat", time.time())

    # Which trial is next ---------------------------------------------------------------------------------------------

    def _trials(self) -> list[FrozenTrial]:
        """All trials, but for attempts that were given up and are, or will be, enqueued once more, and repetitions."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not (_given_up(trial) or "repeats" in trial.user_attrs)]

    def _next(self) -> optuna.Trial | None:
        """The next trial to carry out; waits while others may still die. `None`: the study is complete."""
        while not self.stopping.is_set():
            with self.lock:
                self._reclaim()
                trials = self._trials()
                waiting = any(trial.state == TrialState.WAITING for trial in trials)
                if waiting or len(trials) < self.plan.wanted:
                    return self._ask(waiting)
                others = [t for t in trials if t.state == TrialState.RUNNING and t.number not in self.mine]
            if not others:
                return None
            self.stopping.wait(POLL)
        return None

    def _ask(self, waiting: bool) -> optuna.Trial:
        sampler = self.study.sampler
        if waiting:  # an enqueued point must not use up one of the sampler's
            self.study.sampler = RandomSampler(seed=SEED)
        trial = self.study.ask(self.plan.design.distributions)
        while not waiting and (known := self._known(trial)) is not None:
            for name, value in {"failure": f"repeats trial {known}", "repeats": known}.items():
                trial.set_user_attr(name, value)
            self.study.tell(trial, state=TrialState.FAIL)
            trial = self.study.ask(self.plan.design.distributions)
        self.study.sampler = sampler
        trial.set_user_attr("beat", time.time())
        if "run" not in trial.user_attrs:
            trial.set_user_attr("run", trial.number + self.study.user_attrs.get("offset", 0))
        self.mine[trial.number] = trial
        return trial

    def _known(self, trial: optuna.Trial) -> int | None:
        """The trial of the continued study that a sequence, which begins anew, has come to again."""
        sequence = self.plan.design.name == "space" and self.plan.sampler == "qmc"
        earlier = self.plan.continues.trials if sequence and self.plan.continues is not None else ()
        return next((one.number for one in earlier if one.params == trial.params), None)

    def _reclaim(self) -> None:
        """Give up what no process is carrying on any more, and enqueue it once more."""
        for trial in self.study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if trial.number not in self.mine and self._is_dead(trial):
                try:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                except ValueError:  # another sweep was quicker
                    continue
                self._enqueue_again(trial)

    def _is_dead(self, trial: FrozenTrial) -> bool:
        assert trial.datetime_start is not None
        beat = trial.user_attrs.get("beat", trial.datetime_start.timestamp())
        return time.time() - beat > GRACE and not is_running(self.plan.folder / self._name(_run_of(trial)))

    def _recover(self) -> None:
        """Enqueue what was given up by a sweep that died before it could."""
        trials = self.study.get_trials(deepcopy=False)
        newest = {_run_of(trial): trial for trial in trials}
        for trial in newest.values():
            if _given_up(trial):
                self._enqueue_again(trial)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        if trial.params:  # else it died before it had any: nothing is lost
            self.study.enqueue_trial(dict(trial.params), user_attrs={"run": _run_of(trial)})

    # A trial ---------------------------------------------------------------------------------------------------------

    def _name(self, run: int) -> str:
        return f"{self.plan.title}-{run:04d}"

    def _work(self) -> None:
        """What each of the sweep's threads does: one trial after another, each in a process of its own."""
        while (trial := self._next()) is not None and self._carry_out(trial):
            with self.lock:
                del self.mine[trial.number]

    def _carry_out(self, trial: optuna.Trial) -> bool:
        """Train, and tell Optuna what came of it. False where the sweep was stopped before that.

        Raises `BadInput` where a point of the design, such as the tuned setting, is refused.
        """
        run = _run_of(trial)
        folder = self.plan.folder / self._name(run)
        self.display.begin(_title(run))
        refused = None
        if not (folder / "record.json").is_file():  # else a sweep died between the record and telling Optuna of it
            tuned = self.plan.design.name == "space" and run < len(self.plan.design.points)
            content = {"number": run, "params": trial.params, "tuned": tuned}
            write_atomic(folder / "trial.yaml", yaml.safe_dump(content, sort_keys=False))
            try:
                with self.lock:  # Hydra composes one at a time
                    settings = [*self.plan.settings, *self.plan.design.settings(trial.params, run)]
                    experiment = compose(settings, self.plan.base.trust)
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
        with self.lock:
            ended = self._tell(trial, record, refused)
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
                    child.answer(self._judge(trial, experiment, event))
                elif "phase" in event and self.display.console.is_terminal and event["phase"] not in _ENDS:
                    self.display.show(_title(_run_of(trial)), event)
            if child.refused is not None:
                raise BadInput(child.refused)
            if (folder / "record.json").is_file():  # also where it failed, and said so there
                return None
            problem = child.problem
            self.stopping.wait(0.5)  # what stops all processes of a job may reach this one last
        return f"its process died {ATTEMPTS} times: {problem}"

    def _judge(self, trial: optuna.Trial, experiment: Experiment, event: Event) -> bool:
        """Report a validation score to the pruner. Trials are compared after equal shares of their length."""
        share = event["examples"] / experiment.budget.examples
        with self.lock:
            trial.report(event["score"], step=round(share * experiment.training.validations))
            return not trial.should_prune()

    def _tell(self, trial: optuna.Trial, record: Record | None, refused: str | None) -> str:
        """What Optuna hears, and in a few words what came of the trial.

        A setting that diverged counts as one that learnt nothing: left out, instability would look like no effect.
        """
        score, cap = (None, None) if record is None else (result(record), record.stability.get("initial"))
        if record is None or record.status == "failed" or (score is None and cap is None):
            reason = refused if record is None else record.reason
            trial.set_user_attr("failure", reason or "no score")
            self.study.tell(trial, state=TrialState.FAIL)
            return f"failed: {reason}"
        value = min(found for found in (score, cap) if found is not None)
        for name, shown in {"status": record.status, "reason": record.reason, **record.stability}.items():
            trial.set_user_attr(name, shown)
        if record.status == "pruned":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)
        return f"{record.status}, {value:.4g}"

    # What is shown ---------------------------------------------------------------------------------------------------

    def _plan_display(self) -> bool:
        """Whether there is anything to do."""
        self.display.jobs = self.workers
        trials = [trial for trial in self._trials() if trial.state in _UNFINISHED]
        new = self.plan.wanted - len(self._trials())
        first = len(self.study.get_trials(deepcopy=False)) + self.study.user_attrs.get("offset", 0)
        runs = [_run_of(trial) for trial in trials] + list(range(first, first + max(0, new)))
        for run in runs:
            self.display.plan(_title(run), self.plan.title, self.plan.base.budget.minutes * 60)
        return bool(runs)

    def summary(self) -> Summary:
        trials = self._trials()
        counts = Counter(trial.state.name.lower() for trial in trials)
        counts["diverged"] = sum(trial.user_attrs.get("status") == "diverged" for trial in trials)
        learnt = [trial for trial in trials if trial.state == TrialState.COMPLETE and _learnt(trial)]
        best = min(learnt, key=lambda trial: cast(float, trial.value), default=None)
        found = (None, {}, "") if best is None else (best.value, dict(best.params), self._name(_run_of(best)))
        return Summary(self.plan.title, self.plan.folder, dict(counts), *found)


_ENDS = ("finished", "diverged", "truncated", "pruned", "failed")


def result(record: Record) -> float | None:
    """The validation score that a trial is judged by, lower is better; `None` where it has none."""
    score = record.scores.get("selection")
    return None if score is None else score.value


def _run_of(trial: optuna.Trial | FrozenTrial) -> int:
    """The number under which a trial was begun: its folder's name and its seed, also when it was enqueued again."""
    return int(trial.user_attrs.get("run", trial.number))


def _told(trial: Trial, design: Design) -> FrozenTrial:
    """What Optuna has of a trial that ended elsewhere."""
    about = {"run": trial.number, "status": trial.status, "reason": trial.reason, **trial.stability}
    if trial.value is None:
        about["failure"] = trial.reason or "no score"
    state = TrialState.FAIL if trial.value is None else TrialState.COMPLETE
    return optuna.trial.create_trial(
        state=TrialState.PRUNED if trial.status == "pruned" else state,
        value=trial.value if trial.status != "pruned" else None,
        params=trial.params,
        distributions=design.distributions,
        user_attrs=about,
        intermediate_values={step: score for step, (_, score) in enumerate(trial.validations)},
    )


def _given_up(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL and "failure" not in trial.user_attrs


def _learnt(trial: FrozenTrial) -> bool:
    """Whether a trial's value, which is capped at the score before training, is better than that."""
    return cast(float, trial.value) < float(trial.user_attrs.get("initial", math.inf))


def _title(run: int) -> str:
    return f"trial {run}"


def _note(summary: Summary) -> str:
    if summary.best is None:
        return ""
    counts = "".join(f", {summary.counts[name]} {name}" for name in ("pruned", "diverged") if summary.counts.get(name))
    return f"best {summary.best:.4g} ({summary.trial.rpartition('-')[2]}){counts}"
