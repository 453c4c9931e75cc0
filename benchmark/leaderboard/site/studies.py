"""What committed studies say, of all models for a page of their own, and of one model for its page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from benchmark.leaderboard import sensitivity, stability
from benchmark.leaderboard.sensitivity import Sensitivity
from benchmark.leaderboard.site.plots import Line, loss_plot, rate_plot
from benchmark.leaderboard.site.tables import Entry, Head, Table, dressed
from benchmark.leaderboard.stability import Stability
from benchmark.sweep.sensitivity import expected_loss, good_values
from benchmark.sweep.stability import rates
from benchmark.sweep.studies import Study

# All models ----------------------------------------------------------------------------------------------------------


def studies_page(
    sensitive: Sequence[Sensitivity], stable: Sequence[Stability], pages: Mapping[str, str], colours: Mapping[str, int]
) -> dict[str, Any]:
    """What the page shows; `pages` are the links of models, `colours` those of families."""

    def shown(table: Table) -> Table:
        return dressed(table, pages, colours)

    return {
        "answers": [*sensitivity.answers(sensitive), *stability.answers(stable)],
        "tune": shown(sensitivity.overview(sensitive)),
        "robust": shown(stability.overview(stable)),
        "sources": shown(stability.sources_table(stable)),
        "data": [
            {
                "name": data,
                "plots": list(_plots(data, [one for one in sensitive if one.of.data == data], colours)),
                "rates": shown(sensitivity.rates_table([one for one in sensitive if one.of.data == data])),
            }
            for data in sorted({one.of.data for one in sensitive})
        ],
        "spread": shown(stability.spread_table(stable)),
        "wrong": shown(stability.rates_table(stable)),
        "signs": shown(stability.signs_table(stable)),
    }


def _plots(data: str, models: Sequence[Sensitivity], colours: Mapping[str, int]) -> Iterator[dict[str, Any]]:
    """What all models of a dataset lose by wrong learning rates, and by trying few settings."""
    wrong, few = [], []
    for mark, model in enumerate(sorted(models, key=lambda model: model.of.model)):
        name, colour = model.of.model, colours[model.of.family]
        if (found := model.rates) is not None:
            means = [float(np.mean(seeds)) for seeds in found.lost]
            ends = [min(seeds) for seeds in found.lost], [max(seeds) for seeds in found.lost]
            wrong.append(Line(name, colour, mark, found.factors, means, ends))
        if model.search is not None and (lost := expected_loss(model.search, model.of.start)):
            tried = [2**k for k in range(len(lost).bit_length())]
            few.append(Line(name, colour, mark, tried, [lost[n - 1] for n in tried]))
    if wrong:
        plot = loss_plot(f"Learning rates on {data}", "learning rates, times the tuned ones", wrong)
        yield {
            "caption": "A wrong learning rate: the mean over seeds, the band from the best to the worst",
            "plot": plot,
        }
    if few:
        plot = loss_plot(f"Best of n settings on {data}", "settings tried, n", few)
        yield {"caption": "Few settings: what the best of n is expected to lose against the best of all", "plot": plot}


# One model -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Studied:
    """Parts are `None` where no study speaks of them."""

    importances: Table | None
    rate_plot: Markup | None
    stability: Table


def studied(model: Sensitivity, colour: int) -> Studied:
    """What studies say of one model on one dataset."""
    of, plot = model.of, None
    if of.rates is not None and model.rates is not None:
        title = f"{of.title}: validation score against learning rate"
        plot = rate_plot(title, of.rates.header.measure, model.rates, colour)
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
    table = Table(
        "Stability over", [Head("over"), *(Head(title, number=True) for title in titles)], lines, titled=False
    )
    return Studied(None if of.search is None else _importances(model, of.search), plot, table)


def _importances(model: Sensitivity, study: Study) -> Table | None:
    lines = []
    for importance in model.found:
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
