"""The trials of a study in Optuna's storage: which one is next, and what came of it. No trial is lost.

A trial that is running has a heartbeat. One without (its sweep was killed, on this machine or another) is told to
Optuna as failed and enqueued once more, and resumes from its last checkpoint. Several sweeps of one study may run at
once, on one machine or many; threads of one sweep share a queue.
"""

from __future__ import annotations

import math
import threading
import time
import warnings
from typing import cast

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from benchmark.config import Experiment, dump_yaml
from benchmark.record import Record, is_running, write_atomic
from benchmark.server import Event
from benchmark.spec import BadInput
from benchmark.sweep.plan import Plan
from benchmark.sweep.proposals import make_pruner, make_sampler, random_sampler
from benchmark.sweep.space import Design
from benchmark.sweep.studies import Header, Trial, collect, continued

BEAT = 15.0  # seconds between heartbeats of a running trial
GRACE = 60.0  # seconds without one after which its sweep counts as dead; clocks of machines may differ by less
POLL = 2.0  # seconds between looks at what other sweeps of the study are doing

_UNFINISHED = (TrialState.RUNNING, TrialState.WAITING)

warnings.filterwarnings("ignore", category=ExperimentalWarning)
# A resumed trial repeats the validation where it stopped.
warnings.filterwarnings("ignore", "The reported value is ignored")
optuna.logging.set_verbosity(optuna.logging.ERROR)


class Queue:
    """The study of `plan`, created in `storage` or found there. Methods may be called from several threads.

    Raises `BadInput` if the storage holds another study of that name.
    """

    def __init__(self, plan: Plan, storage: BaseStorage, stopping: threading.Event) -> None:
        self.plan, self.stopping = plan, stopping
        self.lock = threading.RLock()  # around everything that asks or changes the study
        self.mine: dict[int, optuna.Trial] = {}  # carried out by this sweep, by Optuna's number
        self.study = self._open(storage)
        self._recover()

    def _open(self, storage: BaseStorage) -> optuna.Study:
        """The study, created once with its points, or the one that is there."""
        plan = self.plan
        how = (plan.sampler, plan.pruned_by, plan.settings, plan.confirms)
        header = Header.of(plan.title, plan.base, plan.space, plan.design, *how)
        try:
            study = optuna.create_study(storage=storage, study_name=plan.title, direction="minimize")
            self._fill(study)
        except optuna.exceptions.DuplicatedStudyError:
            study = optuna.load_study(storage=storage, study_name=plan.title)
            self._wait_until_ready(study)
            if plan.continues is not None:
                self._fill(study)
        if study.user_attrs["fingerprint"] != plan.fingerprint and not self._began(header):
            raise BadInput(
                f"study {plan.title!r} exists with another space, design, sampler or base setting: give another name="
            )
        study.sampler = make_sampler(plan.sampler, len(study.get_trials(deepcopy=False)))
        study.pruner = make_pruner(plan.pruned_by)
        write_atomic(plan.folder / "study.yaml", dump_yaml(header.model_dump(mode="json")))
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
            study.add_trials([_from_elsewhere(trial, plan.design) for trial in new])
            known += [trial.params for trial in earlier]
        for point in plan.design.points:
            if dict(point) not in known:
                study.enqueue_trial(dict(point), skip_if_exists=True)
        study.set_user_attr("ready", True)

    def _began(self, header: Header) -> bool:
        """Whether the study of this name, begun under an older rule of identity, asks what this one does."""
        file = self.plan.folder / "study.yaml"
        return file.is_file() and collect(self.plan.folder).header.asks_the_same(header)

    # Which trial is next ---------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """All trials, but for attempts that were given up and are, or will be, enqueued once more, and repetitions."""
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if not (_given_up(trial) or "repeats" in trial.user_attrs)]

    def ahead(self) -> list[int]:
        """The numbers of the runs that are begun, enqueued, or still to be proposed."""
        trials = self.trials()
        begun = [run_of(trial) for trial in trials if trial.state in _UNFINISHED]
        first = len(self.study.get_trials(deepcopy=False)) + self.study.user_attrs.get("offset", 0)
        return begun + list(range(first, first + max(0, self.plan.wanted - len(trials))))

    def next(self) -> optuna.Trial | None:
        """The next trial to carry out; waits while others may still die. `None`: the study is complete."""
        while not self.stopping.is_set():
            with self.lock:
                self._reclaim()
                trials = self.trials()
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
            self.study.sampler = random_sampler()
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
        return time.time() - beat > GRACE and not is_running(self.plan.folder / self.plan.run_name(run_of(trial)))

    def _recover(self) -> None:
        """Enqueue what was given up by a sweep that died before it could."""
        trials = self.study.get_trials(deepcopy=False)
        newest = {run_of(trial): trial for trial in trials}
        for trial in newest.values():
            if _given_up(trial):
                self._enqueue_again(trial)

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        if trial.params:  # else it died before it had any: nothing is lost
            self.study.enqueue_trial(dict(trial.params), user_attrs={"run": run_of(trial)})

    # A trial ---------------------------------------------------------------------------------------------------------

    def judge(self, trial: optuna.Trial, experiment: Experiment, event: Event) -> bool:
        """Report a validation score to the pruner. Trials are compared after equal shares of their length."""
        share = event["examples"] / experiment.budget.examples
        with self.lock:
            trial.report(event["score"], step=round(share * experiment.training.validations))
            return not trial.should_prune()

    def tell(self, trial: optuna.Trial, record: Record | None, refused: str | None) -> str:
        """Tell Optuna how a trial ended; returns that in a few words.

        A setting that diverged counts as one that learnt nothing: left out, instability would look like no effect.
        """
        with self.lock:
            ended = self._tell(trial, record, refused)
            del self.mine[trial.number]
            return ended

    def _tell(self, trial: optuna.Trial, record: Record | None, refused: str | None) -> str:
        score, cap = (None, None) if record is None else (_result(record), record.stability.get("initial"))
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

    def beat(self) -> None:
        """Say that the trials of this sweep are alive, until it stops."""
        while not self.stopping.wait(BEAT):
            with self.lock:
                for trial in self.mine.values():
                    trial.set_user_attr("beat", time.time())

    def let_go(self) -> None:
        """Give up what is running: whoever comes next need not wait for a heartbeat."""
        with self.lock:
            for trial in self.mine.values():
                trial.set_user_attr("beat", 0.0)


def _result(record: Record) -> float | None:
    """The validation score that a trial is judged by, lower is better; `None` where it has none."""
    score = record.scores.get("selection")
    return None if score is None else score.value


def run_of(trial: optuna.Trial | FrozenTrial) -> int:
    """The number under which a trial was begun: its folder's name and its seed, also when it was enqueued again."""
    return int(trial.user_attrs.get("run", trial.number))


def _from_elsewhere(trial: Trial, design: Design) -> FrozenTrial:
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


def learnt(trial: FrozenTrial) -> bool:
    """Whether a trial's value, which is capped at the score before training, is better than that."""
    return cast(float, trial.value) < float(trial.user_attrs.get("initial", math.inf))
