"""Studies and the board's runs to the page that says which models are stable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from benchmark.leaderboard import pictures
from benchmark.leaderboard.markdown import escape, page, table
from benchmark.leaderboard.rows import Row
from benchmark.leaderboard.sensitivity import GENERATED
from benchmark.sweep.stability import Rates, Sign, Spread, rates, signs, sources, spread
from benchmark.sweep.studies import Studied, Study, Trial, by_model

_HOW_TO_READ = """\
Every run is watched by one light callback: the norm of the gradient and the loss at 400 steps, evenly spaced, and at
each validation the score and whatever sign of collapse the model itself can give. Scores are of the validation split.

- **Unstable** runs diverged (a loss or score that is not finite) or were worse at the end than before training.
- **Spikes**: watched steps whose loss lies more than 6 robust standard deviations above its surroundings (median and
  median absolute deviation over 41 watched steps), for each 1,000.
- **Gradient tail**: the 99th percentile of the gradient's norm over its median; the median over runs.
- **Space** are the settings of the study that searches the space, **learning rates** those of 0.03 to 32 times the
  tuned ones. **Tuned, short** are all runs of the tuned setting under the trial's budget, whatever seeds; **board** are
  the seeds of the leaderboard, under its budget.
- **Initialisation and data order** were varied apart, each with each; standard deviations by variance components. The
  rest is what their combination does: a run with the same seeds repeats bit for bit.
- **Signs of collapse**, at the end of training. VAE: share of latents in use. GAN and flow matching: recall, and the
  total variation distance between the classes of samples and of held-out images. Flow: error of the inverse. Diffusion:
  nats a dimension lost at the ends of the noise schedule. Transformers: largest logits of attention and of the output,
  before training and at its end. LSTM: share of saturated outputs. Everywhere that a likelihood selects: how much worse
  held-out data scores than training data.
"""


@dataclass(frozen=True)
class _Model:
    """Everything that was run of one model on one dataset, in groups."""

    of: Studied
    unit: str
    groups: Mapping[str, Sequence[Trial]]
    board: Sequence[float]

    @property
    def title(self) -> str:
        return self.of.title

    @property
    def alike(self) -> Mapping[str, Sequence[Trial]]:
        """The groups whose trials had the same length."""
        rates = self.of.rates
        apart = rates is not None and rates not in self.of.together
        return {name: trials for name, trials in self.groups.items() if not (apart and name == "learning rates")}


def stability_page(studies: Mapping[Path, Study], rows: Sequence[Row]) -> tuple[str, dict[str, bytes]]:
    """The page, and its picture by file name below `pictures/`. Empty where there is no study.

    `rows` are the board's: the spread over their seeds stands beside the studies'.
    """
    models = _models(list(studies.values()), rows)
    if not models:
        return "", {}
    name = "stability.svg"
    images = {name: pictures.seeds_and_space({model.title: shares for model in models if (shares := _shares(model))})}
    parts = [
        "# Which models are stable",
        GENERATED,
        _overview(models),
        f"![Scores over seeds, learning rates and the search space]({PurePosixPath('pictures', name)})",
        _HOW_TO_READ.strip(),
        "## Spread over seeds",
        _spreads(models),
        _sources(models),
        "## What goes wrong, and how often",
        _rates(models),
        "## Signs of collapse",
        _signs(models),
    ]
    return page(parts), images


def _models(studies: Sequence[Study], rows: Sequence[Row]) -> list[_Model]:
    found = []
    for of in by_model(studies):
        together = of.together
        if not together:
            continue
        groups = {
            "space": of.search.proposed if of.search is not None else [],
            "learning rates": of.rates.trials if of.rates is not None else [],
            "tuned, short": [trial for study in together for trial in _at_the_tuned_setting(study)],
        }
        found.append(_Model(of, together[0].header.measure, groups, _of_the_board(of, rows)))
    return found


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
        if (row.runs[0].record.data, row.runs[0].record.model) == (of.data, of.model) and row.budget[1] == "standard"
        for run in row.scored
    ]
    scores = [run.record.scores.get("selection") for run in runs]
    return [score.value for score in scores if score is not None and score.value is not None]


def _values(trials: Sequence[Trial]) -> list[float]:
    return [trial.value for trial in trials if trial.value is not None]


def _shares(model: _Model) -> dict[str, list[float]]:
    """Scores of each group on one scale: 0 before training, 1 the best that was seen."""
    everything = [trial for trials in model.alike.values() for trial in trials]
    caps = sorted(trial.cap for trial in everything if trial.cap is not None)
    values = _values(everything)
    if not caps or not values or (best := min(values)) >= (start := caps[len(caps) // 2]):
        return {}
    return {
        name: [(start - value) / (start - best) for value in _values(trials)] for name, trials in model.alike.items()
    }


# Tables --------------------------------------------------------------------------------------------------------------


def _overview(models: Sequence[_Model]) -> str:
    """A row a model, the most robust first: the share of settings that get most of what there is to learn."""

    def robust(model: _Model) -> float:
        shares = _shares(model).get("space", [])
        return sum(share >= 0.95 for share in shares) / len(shares) if shares else -1.0

    lines = []
    for model in sorted(models, key=lambda model: (-robust(model), model.title)):
        space, rate = (rates(model.groups[name]) for name in ("space", "learning rates"))
        seeds = spread(_values(model.groups["tuned, short"]))
        lines.append(
            [
                escape(model.of.model),
                escape(model.of.family),
                escape(model.of.data),
                "—" if robust(model) < 0 else f"{robust(model):.0%}",
                _share(space),
                _share(rate),
                "—" if seeds is None or seeds.n < 2 else f"{seeds.iqr:.2g} {escape(model.unit)}",
                "—" if space.tail is None else f"{space.tail:.1f}",
            ]
        )
    header = ["model", "family", "data", "settings that learn 95 % of the best", "unstable over the space"]
    return table([*header, "over learning rates", "IQR over seeds", "gradient tail"], lines, left=3)


def _share(found: Rates) -> str:
    return f"{found.unstable:.0%} of {found.trials - found.failed}" if found.trials else "—"


def _spreads(models: Sequence[_Model]) -> str:
    lines = []
    for model in models:
        for name, values in (("tuned, short", _values(model.groups["tuned, short"])), ("board", model.board)):
            if (found := spread(values)) is not None:
                lines.append([escape(model.title), name, *_spread(found), escape(model.unit)])
    return table(["model", "runs", "seeds", "median", "IQR", "worst", "unit"], lines, left=2)


def _spread(found: Spread) -> list[str]:
    return [str(found.n), f"{found.median:.4g}", f"{found.iqr:.2g}" if found.n > 1 else "—", f"{found.worst:.4g}"]


def _sources(models: Sequence[_Model]) -> str:
    lines = []
    for model in models:
        if model.of.crossed is not None and (found := sources(model.of.crossed)) is not None:
            lines.append(
                [
                    escape(model.title),
                    f"{found.initialisation:.2g}",
                    f"{found.data:.2g}",
                    f"{found.rest:.2g}",
                    f"{found.inits} × {found.orders}",
                    escape(model.unit),
                ]
            )
    if not lines:
        return ""
    return table(["model", "initialisation, s.d.", "data order, s.d.", "the rest, s.d.", "runs", "unit"], lines)


def _rates(models: Sequence[_Model]) -> str:
    lines = []
    for model in models:
        for name in model.groups:
            if trials := model.groups.get(name):
                found = rates(trials)
                lines.append(
                    [
                        escape(model.title),
                        name,
                        str(found.trials),
                        str(found.diverged),
                        str(found.worse),
                        str(found.failed),
                        "—" if found.spikes is None else f"{found.spikes:.1f}",
                        "—" if found.tail is None else f"{found.tail:.1f}",
                    ]
                )
    header = ["model", "runs", "n", "not finite", "worse than at the start", "failed", "spikes", "gradient tail"]
    return table(header, lines, left=2)


def _signs(models: Sequence[_Model]) -> str:
    lines = []
    for model in models:
        for name in ("tuned, short", "space"):
            lines += [[escape(model.title), name, *_sign(sign)] for sign in signs(model.groups[name])]
    header = ["model", "runs", "sign", "before training", "lowest", "median", "highest"]
    return table(header, lines, left=3)


def _sign(found: Sign) -> list[str]:
    values = (found.start, found.low, found.median, found.high)
    return [escape(found.name.replace("_", " ")), *("—" if value is None else f"{value:.3g}" for value in values)]
