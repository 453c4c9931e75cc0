"""What committed studies say of a dataset's models: at one look, and of each model in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmark.leaderboard import sensitivity, stability
from benchmark.leaderboard.dataset import Dataset
from benchmark.leaderboard.plots import Axis, Line, Losses, Rates, Shares, Slices
from benchmark.leaderboard.sensitivity import Sensitivity
from benchmark.sweep.sensitivity import Importance, expected_loss, position, scored
from benchmark.sweep.stability import rates
from benchmark.sweep.studies import Study
from benchmark.tables import DASH, Entry, Head, Table, dressed


@dataclass(frozen=True, slots=True)
class StudiedModel:
    """All studies of one model on one dataset. Parts are `None` where no study speaks of them."""

    model: str
    title: str
    importances: Table | None
    slices: Slices | None
    facts: tuple[str, ...]  # words between backticks are code
    rates: Rates | None
    stability: Table


@dataclass(frozen=True, slots=True)
class Studies:
    """All studies on one dataset."""

    data: str
    tuning: tuple[str, ...]  # what to tune first, in sentences,
    breaking: tuple[str, ...]  # and who breaks
    tune: Table
    robust: Table
    wrong_rates: Losses | None
    few_settings: Losses | None
    rates: Table
    shares: Shares | None
    spread: Table
    sources: Table
    wrong: Table
    signs: Table
    models: tuple[StudiedModel, ...]


def studies_of(dataset: Dataset) -> Studies | None:
    """`None` where no study was made."""
    sensitive, stable = dataset.sensitive, dataset.stable
    if not sensitive and not stable:
        return None
    pages = {run.record.model: f"model/{run.record.model}.html" for run in dataset.runs}

    def shown(table: Table) -> Table:
        return dressed(table, pages, dataset.colours)

    scores = {model.title: model.shares for model in stable if model.shares}
    return Studies(
        dataset.name,
        tuple(sensitivity.answers(sensitive)),
        tuple(stability.answers(stable)),
        shown(sensitivity.overview(sensitive)),
        shown(stability.overview(stable)),
        _wrong_rates(dataset, sensitive),
        _few_settings(dataset, sensitive),
        shown(sensitivity.rates_table(sensitive)),
        Shares(f"Scores over seeds, learning rates and the search space on {dataset.name}", scores) if scores else None,
        shown(stability.spread_table(stable)),
        shown(stability.sources_table(stable)),
        shown(stability.rates_table(stable)),
        shown(stability.signs_table(stable)),
        tuple(_studied(dataset, model) for model in sorted(sensitive, key=lambda one: (one.of.family, one.of.model))),
    )


def _wrong_rates(dataset: Dataset, models: Sequence[Sensitivity]) -> Losses | None:
    """What models lose by wrong learning rates: the mean over seeds, the band from the best to the worst."""
    lines = []
    for mark, model in enumerate(sorted(models, key=lambda model: model.of.model)):
        if (found := model.rates) is not None:
            means = tuple(float(np.mean(seeds)) for seeds in found.lost)
            ends = tuple(min(seeds) for seeds in found.lost), tuple(max(seeds) for seeds in found.lost)
            colour = dataset.colours.get(model.of.family, 0)
            lines.append(Line(model.of.model, colour, mark, tuple(found.factors), means, ends))
    what = "learning rates, times the tuned ones"
    return Losses(f"Learning rates on {dataset.name}", what, tuple(lines)) if lines else None


def _few_settings(dataset: Dataset, models: Sequence[Sensitivity]) -> Losses | None:
    """What the best of n settings is expected to lose against the best of all."""
    lines = []
    for mark, model in enumerate(sorted(models, key=lambda model: model.of.model)):
        if model.search is not None and (lost := expected_loss(model.search, model.of.start)):
            tried = tuple(2**k for k in range(len(lost).bit_length()))
            losses = tuple(lost[n - 1] for n in tried)
            lines.append(Line(model.of.model, dataset.colours.get(model.of.family, 0), mark, tried, losses))
    return Losses(f"Best of n settings on {dataset.name}", "settings tried, n", tuple(lines)) if lines else None


# One model -----------------------------------------------------------------------------------------------------------


def _studied(dataset: Dataset, model: Sensitivity) -> StudiedModel:
    of, study = model.of, model.search
    plot = None
    if of.rates is not None and model.rates is not None:
        title = f"{of.title}: validation score against learning rate"
        plot = Rates(title, of.rates.header.measure, model.rates, dataset.colours.get(of.family, 0))
    importances = sensitivity.importances_table(study, model.found) if study is not None and model.found else None
    slices = None if importances is None or study is None else _slices(of.title, study, model.found)
    facts = () if study is None else tuple(sensitivity.facts(study, model))
    return StudiedModel(of.model, of.title, importances, slices, facts, plot, _stability(model))


def _slices(title: str, study: Study, found: Sequence[Importance]) -> Slices:
    """Validation score against each hyperparameter, the most important first."""
    trials = scored(study)
    axes = tuple(
        Axis(
            one.name,
            tuple(position(study, one.name, trial.params[one.name]) for trial in trials),
            dict(_ticks(study, one.name)),
        )
        for one in found
    )
    values = tuple(trial.value for trial in trials if trial.value is not None)
    lost = tuple(trial.diverged or trial.value == trial.cap for trial in trials)
    return Slices(f"Slices and ranks of {title}", study.header.metric, axes, values, lost)


def _ticks(study: Study, name: str) -> Iterator[tuple[float, str]]:
    """The values that stand at positions: the choices, or the ends and the middle of the range."""
    option = study.header.options[name]
    if option.choices is not None:
        for index, choice in enumerate(option.choices):
            yield index / (len(option.choices) - 1), str(choice)
        return
    low, high = float(option.low or 0), float(option.high or 0)
    middle = (low * high) ** 0.5 if option.scale == "log" else (low + high) / 2
    for place, value in ((0.0, low), (0.5, middle), (1.0, high)):
        yield place, f"{value:.2g}"


def _stability(model: Sensitivity) -> Table:
    """What went wrong over the search space, and over learning rates."""
    of = model.of
    runs = {
        "the search space": of.search.proposed if of.search is not None else (),
        "learning rates": of.rates.trials if of.rates is not None else (),
    }
    lines = []
    for where, trials in runs.items():
        if trials:
            seen = rates(trials)
            unstable = Entry(f"{seen.unstable:.0%}", seen.unstable)
            counts = [Entry(str(n), n) for n in (seen.trials, seen.diverged, seen.worse, seen.failed)]
            lines.append([Entry(where, head=True), unstable, *counts, _number(seen.spikes), _number(seen.tail)])
    titles = (
        "unstable",
        "trials",
        "not finite",
        "worse than untrained",
        "failed",
        "spikes a 1,000 steps",
        "gradient tail",
    )
    heads = [Head("over"), *(Head(title, number=True) for title in titles)]
    return Table("Stability over", heads, lines, titled=False)


def _number(value: float | None) -> Entry:
    return DASH if value is None else Entry(f"{value:.1f}", value)
