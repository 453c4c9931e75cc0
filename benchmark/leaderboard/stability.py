"""Studies and the board's runs to the page that says which models are stable."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from benchmark.leaderboard.rows import Row
from benchmark.leaderboard.statistics import share_interval
from benchmark.leaderboard.texts import listed
from benchmark.sweep.stability import Rates, Sign, Spread, rates, signs, sources, spread
from benchmark.sweep.studies import Starts, Studied, Study, Trial, by_model
from benchmark.tables import Entry, Head, Table

MOST = 0.95  # of what the best setting learns: a setting that gets as far works


@dataclass(frozen=True)
class Stability:
    """Everything that was run of one model on one dataset, in groups."""

    of: Studied
    unit: str
    groups: Mapping[str, Sequence[Trial]]
    board: Sequence[float]  # validation scores of the board's seeds

    @property
    def title(self) -> str:
        return self.of.title

    @property
    def alike(self) -> Mapping[str, Sequence[Trial]]:
        """The groups whose trials had the same length."""
        rates = self.of.rates
        apart = rates is not None and rates not in self.of.together
        return {name: trials for name, trials in self.groups.items() if not (apart and name == "learning rates")}

    @cached_property
    def shares(self) -> dict[str, list[float]]:
        """Scores of each group on one scale: 0 who has learnt nothing, 1 the best that was seen."""
        everything = [trial for trials in self.alike.values() for trial in trials]
        caps = sorted(trial.cap for trial in everything if trial.cap is not None)
        start = self.of.start if self.of.start is not None else caps[len(caps) // 2] if caps else -math.inf
        values = _values(everything)
        if not values or (best := min(values)) >= start:
            return {}
        return {
            name: [max(0.0, (start - value) / (start - best)) for value in _values(trials)]
            for name, trials in self.alike.items()
        }

    @property
    def robust(self) -> float | None:
        """The share of the space's settings that work: that learn `MOST` of what the best one learns."""
        found = self.shares.get("space")
        return sum(share >= MOST for share in found) / len(found) if found else None

    @property
    def robust_interval(self) -> tuple[float, float] | None:
        """Where that share lies for all settings of the space, of which these are a draw: 95 %."""
        found = self.shares.get("space")
        return share_interval(sum(share >= MOST for share in found), len(found)) if found else None

    def rates(self, group: str) -> Rates:
        return rates(self.groups[group])


def stabilities(
    studies: Sequence[Study], rows: Sequence[Row], starts: Starts = MappingProxyType({})
) -> list[Stability]:
    """Each model that was studied, the most robust first; `rows` are the board's."""
    found = []
    for of in by_model(studies, starts):
        together = of.together
        if not together:
            continue
        groups = {
            "space": of.search.proposed if of.search is not None else [],
            "learning rates": of.rates.trials if of.rates is not None else [],
            "tuned, short": [trial for study in together for trial in _at_the_tuned_setting(study)],
        }
        found.append(Stability(of, together[0].header.measure, groups, _of_the_board(of, rows)))
    return sorted(found, key=lambda model: (1.0 if model.robust is None else -model.robust, model.title))


def _at_the_tuned_setting(study: Study) -> list[Trial]:
    if study.header.design == "space":
        return [trial for trial in study.trials if trial.tuned]
    if study.header.design == "learning_rate":
        return [trial for trial in study.trials if abs(float(trial.params["factor"]) - 1) < 1e-6]
    return list(study.trials)


def _of_the_board(of: Studied, rows: Sequence[Row]) -> list[float]:
    """Validation scores of the board's seeds under budget standard."""
    runs = [
        run
        for row in rows
        if (row.runs[0].record.data, row.runs[0].record.model) == (of.data, of.model) and row.budget == "standard"
        for run in row.scored
    ]
    scores = [run.record.scores.get("selection") for run in runs]
    return [score.value for score in scores if score is not None and score.value is not None]


def _values(trials: Sequence[Trial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


# At one look ---------------------------------------------------------------------------------------------------------


def answers(models: Sequence[Stability]) -> list[str]:
    """Whose settings work, and whose runs break: a sentence each for a dataset."""
    lines = []
    for data in sorted({model.of.data for model in models}):
        here = [model for model in models if model.of.data == data]
        for measure in sorted({model.of.measure for model in here}):
            alike = [model for model in here if model.of.measure == measure]
            if len(known := [model for model in alike if model.robust is not None]) > 1:
                first, names = as_robust(known), [model.of.model for model in known]
                learn = f"settings learn at least {MOST:.0%} of what the best one learns"
                if len(first) == len(known):
                    found = f"none is more robust beyond chance: of each, {percents(known)} of {learn}"
                else:
                    found = (
                        f"most robust {'is' if len(first) == 1 else 'are'} {listed(names[: len(first)])}, of which "
                        f"{percents(first)} of {learn}; least is {names[-1]}, with {percents(known[-1:])}"
                    )
                lines.append(f"{data}, judged by {measure}: {found}")
        unstable = {model.of.model: model.rates("space").unstable for model in here if model.groups["space"]}
        broken = sorted((name for name, share in unstable.items() if share), key=lambda name: (-unstable[name], name))
        if unstable:
            shown = ", ".join(f"{name} ({unstable[name]:.0%})" for name in broken)
            never = "no setting of any model" if not broken else f"some settings of {shown}, none of the others"
            lines.append(f"{data}: diverged, or ended worse than before training: {never}")
    return lines


def as_robust(models: Sequence[Stability]) -> list[Stability]:
    """The most robust of `models`, and those that chance may have placed behind it: their intervals overlap."""
    known = sorted(
        ((-model.robust, model.title, model, model.robust_interval) for model in models if model.robust is not None),
        key=lambda one: one[:2],
    )
    return [model for _, _, model, ends in known if ends and known[0][3] and ends[1] >= known[0][3][0]]


def percents(models: Sequence[Stability]) -> str:
    """`23%`, or `20% to 23%`."""
    shares = sorted(model.robust for model in models if model.robust is not None)
    low, high = (f"{share:.0%}" for share in (shares[0], shares[-1]))
    return low if low == high else f"{low} to {high}"


def overview(models: Sequence[Stability]) -> Table:
    """A row a model: how many of its settings get most of what there is to learn, and what goes wrong."""
    lines = []
    for model in models:
        space, rate = model.rates("space"), model.rates("learning rates")
        seeds = spread(_values(model.groups["tuned, short"]))
        lines.append(
            [
                Entry(model.of.model, head=True),
                Entry(model.of.family),
                Entry(model.of.data),
                _robust(model),
                _unstable(space),
                _unstable(rate),
                Entry("—") if seeds is None or seeds.n < 2 else Entry(f"{seeds.iqr:.2g} {model.unit}"),
                _tenths(space.tail),
            ]
        )
    works = f"settings that learn {MOST:.0%} of the best"
    titles = (works, "unstable over the space", "over learning rates", "IQR over seeds", "gradient tail")
    heads = [Head("model"), Head("family", filter=True), Head("data", filter=True)]
    return Table("Stability", [*heads, *(Head(title, number=True) for title in titles)], lines, titled=False)


def _robust(model: Stability) -> Entry:
    if model.robust is None or model.robust_interval is None:
        return Entry("—")
    low, high = model.robust_interval
    return Entry(f"{model.robust:.0%} [{low:.0%}, {high:.0%}]", model.robust)


def _unstable(found: Rates) -> Entry:
    if not found.trials:
        return Entry("—")
    return Entry(f"{found.unstable:.0%} of {found.trials - found.failed}", found.unstable)


def _tenths(value: float | None) -> Entry:
    return Entry("—") if value is None else Entry(f"{value:.1f}", value)


# In full -------------------------------------------------------------------------------------------------------------


def spread_table(models: Sequence[Stability]) -> Table:
    """Scores of the tuned setting over seeds, under the trial's budget and the board's."""
    lines = []
    for model in models:
        for name, values in (("tuned, short", _values(model.groups["tuned, short"])), ("board", model.board)):
            if (found := spread(values)) is not None:
                lines.append([*_who(model), Entry(name), Entry(model.unit), *_spread(found)])
    heads = [*_WHO, Head("runs", filter=True), Head("unit")]
    heads += [Head(title, number=True) for title in ("seeds", "median", "IQR", "worst")]
    return Table("Spread over seeds", heads, lines, titled=False)


_WHO = (Head("model", filter=True), Head("data", filter=True))


def _who(model: Stability) -> list[Entry]:
    return [Entry(model.of.model, head=True), Entry(model.of.data)]


def _spread(found: Spread) -> list[Entry]:
    iqr = Entry(f"{found.iqr:.2g}", found.iqr) if found.n > 1 else Entry("—")
    median, worst = (Entry(f"{value:.4g}", value) for value in (found.median, found.worst))
    return [Entry(str(found.n), found.n), median, iqr, worst]


def sources_table(models: Sequence[Stability]) -> Table:
    """Where the spread over seeds comes from, of each model whose seeds were crossed."""
    lines = []
    for model in models:
        if model.of.crossed is not None and (found := sources(model.of.crossed)) is not None:
            deviations = (found.initialisation, found.data, found.rest)
            parts = [Entry(f"{deviation:.2g}", deviation) for deviation in deviations]
            lines.append([*_who(model), Entry(model.unit), *parts, Entry(f"{found.inits} × {found.orders}")])
    titles = ("initialisation, s.d.", "data order, s.d.", "the rest, s.d.", "runs")
    heads = [*_WHO, Head("unit"), *(Head(title, number=True) for title in titles)]
    return Table("Initialisation against data order", heads, lines, titled=False)


def rates_table(models: Sequence[Stability]) -> Table:
    """What went wrong, how often, in each group of runs."""
    lines = []
    for model in models:
        for name, trials in model.groups.items():
            if trials:
                found = rates(trials)
                counts = (found.trials, found.diverged, found.worse, found.failed)
                numbers = [*(Entry(str(n), n) for n in counts), _tenths(found.spikes), _tenths(found.tail)]
                lines.append([*_who(model), Entry(name), *numbers])
    titles = ("n", "not finite", "worse than at the start", "failed", "spikes", "gradient tail")
    heads = [*_WHO, Head("runs", filter=True), *(Head(title, number=True) for title in titles)]
    return Table("What goes wrong", heads, lines, titled=False)


def signs_table(models: Sequence[Stability]) -> Table:
    """Every sign of collapse at the end of training, of the tuned setting and over the space."""
    lines = [
        [*_who(model), Entry(name), *_sign(sign)]
        for model in models
        for name in ("tuned, short", "space")
        for sign in signs(model.groups[name])
    ]
    heads = [*_WHO, Head("runs", filter=True), Head("sign", filter=True)]
    heads += [Head(title, number=True) for title in ("before training", "lowest", "median", "highest")]
    return Table("Signs of collapse", heads, lines, titled=False)


def _sign(found: Sign) -> list[Entry]:
    values = (found.start, found.low, found.median, found.high)
    shown = (Entry("—") if value is None else Entry(f"{value:.3g}", value) for value in values)
    return [Entry(found.name.replace("_", " ")), *shown]
