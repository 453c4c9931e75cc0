"""What committed studies say of one model on one dataset: tables and a figure for its page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from benchmark.leaderboard.site.plots import rate_plot
from benchmark.leaderboard.site.tables import Entry, Head, Table
from benchmark.sweep.sensitivity import LearningRates, good_values, importances, learning_rates
from benchmark.sweep.stability import rates
from benchmark.sweep.studies import Study, by_model


@dataclass(frozen=True)
class Studied:
    """Parts are `None` where no study speaks of them."""

    importances: Table | None
    rates: LearningRates | None
    rate_plot: Markup | None
    stability: Table


def studied(studies: Sequence[Study], data: str, model: str, colour: int) -> Studied | None:
    """What `studies` say of `model` on `data`; `None` where they say nothing."""
    of = next((of for of in by_model(studies) if (of.data, of.model) == (data, model)), None)
    if of is None or (of.search is None and of.rates is None):
        return None
    found = learning_rates(of.rates) if of.rates is not None else None
    plot = None
    if of.rates is not None and found is not None:
        title = f"{model} on {data}: validation score against learning rate"
        plot = rate_plot(title, of.rates.header.measure, found, colour)
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
    stability = Table(
        "Stability over", [Head("over"), *(Head(title, number=True) for title in titles)], lines, titled=False
    )
    return Studied(None if of.search is None else _importances(of.search), found, plot, stability)


def _importances(study: Study) -> Table | None:
    lines = []
    for importance in importances(study):
        low, high = good_values(study, importance.name)
        good = _value(low) if low == high else f"{_value(low)} to {_value(high)}"
        share = f"{importance.share:.0%} [{importance.low:.0%}, {importance.high:.0%}]"
        lines.append(
            [
                Entry(importance.name, head=True),
                Entry(f"{share}{', chance' if importance.chance else ''}", importance.share),
                Entry(good),
                Entry(_value(study.header.tuned.get(importance.name))),
            ]
        )
    heads = [Head("hyperparameter"), Head("importance", number=True), Head("good values"), Head("tuned")]
    caption = f"{len(study.proposed)} settings, {study.header.sampler}, judged by the validation score"
    return Table(caption, heads, lines) if lines else None


def _number(value: float | None) -> Entry:
    return Entry("—") if value is None else Entry(f"{value:.1f}", value)


def _value(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
