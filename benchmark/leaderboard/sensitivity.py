"""Studies to the page that says which hyperparameters matter, and what to tune first."""

from __future__ import annotations

import math
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any

from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.texts import listed
from benchmark.record import Record
from benchmark.spec import BadInput
from benchmark.sweep.confirmation import Confirmation, confirmation
from benchmark.sweep.remedies import asked_for
from benchmark.sweep.sensitivity import (
    Importance,
    LearningRates,
    agreement,
    at_the_edge,
    expected_best,
    good_values,
    importances,
    interaction,
    learning_rates,
    scored,
)
from benchmark.sweep.space import base_settings, load_space
from benchmark.sweep.studies import Header, Starts, Studied, Study, Trial, by_model
from benchmark.tables import Entry, Head, Table


@dataclass(frozen=True)
class Sensitivity:
    """All studies of one model on one dataset, and what follows from them."""

    of: Studied

    @property
    def search(self) -> Study | None:
        return self.of.search

    @cached_property
    def rates(self) -> LearningRates | None:
        return learning_rates(self.of.rates, self.of.start) if self.of.rates is not None else None

    @cached_property
    def found(self) -> tuple[Importance, ...]:
        return tuple(importances(self.search)) if self.search is not None else ()

    @property
    def tune(self) -> list[Importance]:
        """What is worth tuning, first things first: all that matters more than chance would have it."""
        return [importance for importance in self.found if not importance.chance]

    @cached_property
    def confirmed(self) -> Confirmation | None:
        searches = [study for study in (self.search, *self.of.others) if study is not None]
        pairs = ((parent, study) for study in self.of.confirms for parent in searches)
        return next((found for pair in pairs if (found := confirmation(*pair))), None)


def starts_of(records: Mapping[Path, Record]) -> dict[tuple[str, str], float]:
    """What knows nothing scores, by dataset and metric: the uniform distribution, where a likelihood judges."""
    return {
        (record.data, metric): score.value
        for path, record in sorted(records.items())
        for metric, score in Run(path, record).references.get("uniform", {}).items()
        if score.value is not None
    }


def sensitivities(studies: Sequence[Study], starts: Starts = MappingProxyType({})) -> list[Sensitivity]:
    """Each model whose space or learning rates were studied, the one that forgives wrong rates most first."""
    found = [Sensitivity(of) for of in by_model(studies, starts)]
    studied = [model for model in found if model.search is not None or model.rates is not None]
    return sorted(studied, key=lambda model: (-model.rates.decades if model.rates else 0.0, model.of.title))


# At one look ---------------------------------------------------------------------------------------------------------


def answers(models: Sequence[Sensitivity]) -> list[str]:
    """What to tune first, and who forgives wrong learning rates: a sentence each for a dataset."""
    lines = []
    for data in sorted({model.of.data for model in models}):
        here = [model for model in models if model.of.data == data]
        first: dict[str, list[str]] = defaultdict(list)
        for model in here:
            if model.tune:
                name = _short(model.tune[0].name)
                first["the learning rate" if "learning_rate" in name else name].append(model.of.model)
        if first:
            order = sorted(first.items(), key=lambda item: (-len(item[1]), item[0]))
            lines.append(f"{data}: tune first {'; '.join(f'{name} of {listed(who)}' for name, who in order)}")
        for measure in sorted({model.of.measure for model in here}):
            alike = [model for model in here if model.of.measure == measure]
            rated = [(model.of.model, model.rates) for model in alike if model.rates is not None]
            if len(rated) > 1:
                (most, wide), (least, narrow) = rated[0], rated[-1]
                lines.append(
                    f"{data}, judged by {measure}: {most} forgives a wrong learning rate most, over {decades(wide)} "
                    f"decades ({_window(wide)} times the tuned one); {least} least, over {decades(narrow)}"
                )
    return lines


def overview(models: Sequence[Sensitivity]) -> Table:
    """A row a model: what to tune first, and how much room there is for mistakes."""
    lines = []
    for model in models:
        tune = [Entry(_short(one.name), one.share, code=True, more=f"{one.share:.0%}") for one in model.tune[:2]]
        lines.append(
            [
                Entry(model.of.model, head=True),
                Entry(model.of.family),
                Entry(model.of.data),
                *tune,
                *[Entry("—")] * (2 - len(tune)),
                *_room(model.rates),
                _lost(model.search),
                _tuned_rank(model.search),
            ]
        )
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True), Head("tune first"), Head("then")]
    titles = ("good window, decades", "lost to wrong rates", "diverged", "tuned setting's place")
    heads += [Head(title, number=True) for title in titles]
    lengths = ", ".join(
        f"{model.of.model} {of.examples:,}" for model in models if (of := model.search or model.of.rates)
    )
    note = f"examples that a trial trained on, which makes models comparable only roughly: {lengths}"
    return Table("What to tune first", heads, lines, notes=[note], titled=False)


def _short(name: str) -> str:
    return name.partition(".")[2]


def _room(rates: LearningRates | None) -> list[Entry]:
    """The width of the good window, and what wrong rates cost."""
    if rates is None:
        return [Entry("—"), Entry("—")]
    share = Entry("—") if math.isnan(rates.regret) else Entry(f"{rates.regret:.1%}", rates.regret)
    return [Entry(decades(rates), rates.decades), share]


def decades(rates: LearningRates) -> str:
    """The width of the good window, with `≥` where it may extend beyond what was tried."""
    return f"{'≥ ' if any(rates.open_ends) else ''}{rates.decades:.1f}"


def _lost(study: Study | None) -> Entry:
    if study is None:
        return Entry("—")
    trials = [trial for trial in study.proposed if trial.status not in ("failed", "refused")]
    lost = sum(trial.diverged for trial in trials)
    return Entry(f"{lost} of {len(trials)}", lost / max(1, len(trials)))


def _tuned_rank(study: Study | None) -> Entry:
    """How many of the design's settings beat the tuned one under the trial's budget."""
    tuned = next((trial for trial in study.trials if trial.tuned), None) if study else None
    if study is None or tuned is None or tuned.value is None:
        return Entry("—")
    better = sum(trial.value < tuned.value for trial in scored(study) if trial.value is not None)
    return Entry(f"{better + 1} of {len(scored(study)) + 1}", better)


# Learning rates ------------------------------------------------------------------------------------------------------


def rates_table(models: Sequence[Sensitivity]) -> Table:
    """A row a model of one dataset: what wrong learning rates cost, and which are good."""
    lines = []
    for model in models:
        if (rates := model.rates) is None:
            continue
        width, share = _room(rates)
        lines.append(
            [
                Entry(model.of.model, head=True),
                Entry(f"{rates.sensitivity:.3g}", rates.sensitivity),
                share,
                Entry(_window(rates), rates.window[0]),
                width,
                Entry(f"{rates.diverged} of {rates.trials}", rates.diverged / rates.trials),
                Entry(f"{len(rates.factors)} × {max(len(values) for values in rates.values)}"),
            ]
        )
    titles = ("sensitivity", "as a share", "good factors", "decades", "diverged", "factors × seeds")
    heads = [Head("model"), *(Head(title, number=True) for title in titles)]
    return Table("Learning rates", heads, lines, titled=False)


def _window(rates: LearningRates) -> str:
    (low, high), (below, beyond) = rates.window, rates.open_ends
    return f"{'≤ ' if below else ''}{low:.2g} to {'≥ ' if beyond else ''}{high:.2g}"


# A model -------------------------------------------------------------------------------------------------------------


def importances_table(study: Study, found: Sequence[Importance]) -> Table:
    """A row a hyperparameter, the most important first."""
    edges = at_the_edge(study)
    rows = []
    for importance in found:
        option = study.header.options[importance.name]
        space = (
            ", ".join(map(_value, option.choices))
            if option.choices is not None
            else f"{_value(option.low)} to {_value(option.high)}{', log' if option.scale == 'log' else ''}"
        )
        low, high = good_values(study, importance.name)
        good = _value(low) if low == high else f"{_value(low)} to {_value(high)}"
        share = f"{importance.share:.0%} [{importance.low:.0%}, {importance.high:.0%}]"
        best_at_edge = importance.name in edges and not importance.chance
        rows.append(
            [
                Entry(importance.name, head=True, code=True),
                Entry(option.role),
                Entry(share, importance.share, more="chance" if importance.chance else ""),
                Entry(space),
                Entry(good, more="(best at the edge)" if best_at_edge else ""),
                Entry(_value(study.header.tuned.get(importance.name))),
            ]
        )
    heads = [Head("hyperparameter"), Head("role", filter=True), Head("importance", number=True)]
    heads += [Head("space"), Head("good values"), Head("tuned")]
    caption = f"{len(study.proposed)} settings, {study.header.sampler}, judged by the validation score"
    return Table(caption, heads, rows)


def facts(study: Study, model: Sensitivity) -> Iterator[str]:
    """What else its studies say, a sentence each; what stands between backticks is code."""
    yield from _facts(study, model)
    yield from _agreements(study, model.of.others)
    yield from _other_rates(model.of)


def spelled(text: object) -> str:
    """Code within a sentence: what it holds of backticks becomes apostrophes."""
    return "`" + str(text).replace("`", "'") + "`"


def _plain(text: str) -> str:
    return text.replace("`", "'")


def _value(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _facts(study: Study, model: Sensitivity) -> list[str]:
    header, budget = study.header, study.header.config["budget"]
    trials = scored(study)
    counts = {status: sum(trial.status == status for trial in study.proposed) for status in _STATUSES}
    shown = ", ".join(f"{n} {status}" for status, n in counts.items() if n)
    lines = [
        f"{len(study.proposed)} settings ({_plain(header.sampler)}): {shown}; "
        f"at most {budget['examples']:,} examples each"
    ]
    if len(trials) >= 2:
        values = [trial.value for trial in trials if trial.value is not None]
        best = min(trials, key=lambda trial: (trial.value, trial.number))
        expected = expected_best(values)
        steps = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= len(expected)]
        lines.append(f"best of n: {', '.join(f'{n}: {expected[n - 1]:.4g}' for n in steps)} {_plain(header.measure)}")
        setting = ", ".join(f"{_short(key)} {_value(value)}" for key, value in best.params.items())
        lines.append(f"best setting: {_plain(setting)}: {best.value:.4g}{_beside(study)}")
    if len(model.found) > 1:
        pair = interaction(study, model.found[0].name, model.found[1].name)
        lines.append(
            f"{spelled(pair.first)} and {spelled(pair.second)} explain {pair.additive:.0%} of the ranks' variance "
            f"apart; their product adds {pair.together:.0%}"
        )
    if (confirmed := model.confirmed) is not None:
        lines += confirmation_lines(confirmed)
    lines.append(f"to run it again: {spelled(command(study))}")
    return lines


_STATUSES = ("finished", "truncated", "diverged", "pruned", "failed", "refused")


def _beside(study: Study) -> str:
    tuned: Trial | None = next((trial for trial in study.trials if trial.tuned), None)
    return "" if tuned is None or tuned.value is None else f" (the tuned one: {tuned.value:.4g})"


def confirmation_lines(found: Confirmation) -> list[str]:
    """What fresh seeds say of a study's best setting."""
    gap = found.gap
    lines = [
        f"on {len(found.again)} fresh seeds and the same budget its best setting scores {found.mean:.4g} on average: "
        f"the study's {found.best:.4g} was {abs(gap):.2g} too {'good' if gap > 0 else 'bad'} (winner's curse)"
    ]
    if found.difference is not None:
        low, high = found.difference.low, found.difference.high
        interval = "" if low is None or high is None else f" [{low:+.2g}, {high:+.2g}]"
        lines.append(
            f"under budget {_plain(found.budget)}, paired by seed, it differs from the tuned setting by "
            f"{found.difference.centre:+.2g}{interval}: it {found.verdict}"
        )
    return lines


def command(study: Study) -> str:
    header = study.header
    how = f"sampler={header.sampler} trials={len(study.proposed)}"
    if header.design != "space":
        how = f"design={header.design}"
    if header.design == "remedies":
        how += f" seeds={len({trial.params['seed'] for trial in study.trials})}"
        if cases := asked_for(study):
            how += " " + shlex.quote("cases=" + ",".join(cases))
    own = [setting for setting in header.settings if setting not in _usual(header)]
    own = own if header.settings else [f"budget.examples={study.examples}"]
    return " ".join([f"python -m benchmark sweep model={header.model} data={header.data} {how}", *own])


def _usual(header: Header) -> list[str]:
    """The settings that a sweep starts from unasked."""
    try:
        return base_settings(header.data, header.model, load_space(header.model))
    except BadInput:  # a model, or data, that no search space of ours knows
        return []


def _agreements(study: Study, others: Sequence[Study]) -> list[str]:
    searches = [study, *(other for other in others if other.header.design == "space")]
    lines = []
    for short, long in combinations(sorted(searches, key=lambda one: one.examples), 2):
        if short.examples != long.examples and (found := agreement(short, long)) is not None:
            lines.append(
                f"{short.examples:,} and {long.examples:,} training examples rank {found.n} settings alike with "
                f"Spearman's ρ = {found.spearman:.2f} [{found.low:.2f}, {found.high:.2f}]"
            )
    return lines


def _other_rates(of: Studied) -> list[str]:
    """Where the window of good rates was at other budgets."""
    lines = []
    for study in of.others:
        rates = learning_rates(study, of.start) if study.header.design == "learning_rate" else None
        if rates is not None:
            lines.append(
                f"after {study.examples:,} training examples the good window of learning rates was {_window(rates)} "
                f"times the tuned ones, {decades(rates)} decades"
            )
    return lines
