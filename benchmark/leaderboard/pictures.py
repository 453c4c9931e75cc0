"""Pictures of studies as SVG. The same study always gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmark.sweep.sensitivity import EPSILON, LearningRates, position, scored
from benchmark.sweep.studies import Study

_STYLE: Any = {
    "svg.hashsalt": "generative-benchmark",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "figure.facecolor": "white",
}
_RANKS = "viridis"  # the best are dark


def slices(study: Study, names: Sequence[str]) -> bytes:
    """Score against each hyperparameter in `names`, and in the last panel the first two against each other.

    A point is a trial, and its colour its rank. × diverged, or ended no better than before training.
    """
    trials = scored(study)
    values = np.array([trial.value for trial in trials])
    ranks = np.argsort(np.argsort(values)) / max(1, len(values) - 1)
    lost = np.array([trial.diverged or trial.value == trial.cap for trial in trials])
    columns = 4
    rows = -(-(len(names) + 1) // columns)
    with _figure(rows, columns) as (figure, axes):
        for axis, name in zip(axes, names, strict=False):
            x = np.array([position(study, name, trial.params[name]) for trial in trials])
            for chosen, marker in ((~lost, "o"), (lost, "x")):
                axis.scatter(
                    x[chosen], values[chosen], c=ranks[chosen], cmap=_RANKS, vmin=0, vmax=1, s=14, marker=marker
                )
            axis.set_yscale("log" if values.min() > 0 and values.max() > 5 * values.min() else "linear")
            axis.set_xlabel(name)
            _ticks(axis.xaxis, study, name)
        axes[0].set_ylabel(f"validation {study.header.metric}")
        pair = axes[len(names)]
        if len(names) > 1:
            x, y = (np.array([position(study, name, trial.params[name]) for trial in trials]) for name in names[:2])
            pair.scatter(x, y, c=ranks, cmap=_RANKS, vmin=0, vmax=1, s=22)
            for axis, name in ((pair.xaxis, names[0]), (pair.yaxis, names[1])):
                axis.set_label_text(name)
                _ticks(axis, study, name)
            pair.set_title("ranks: dark is good", fontsize=9)
        for axis in axes[len(names) + (len(names) > 1) :]:
            axis.set_axis_off()
        return _svg(figure)


def _ticks(axis: Any, study: Study, name: str) -> None:
    """The values that stand at the positions: the choices, or the ends and the middle of the range."""
    option = study.header.options[name]
    if option.choices is not None:
        axis.set_ticks([i / (len(option.choices) - 1) for i in range(len(option.choices))], map(str, option.choices))
        return
    low, high = float(option.low or 0), float(option.high or 0)
    middle = (low * high) ** 0.5 if option.scale == "log" else (low + high) / 2
    axis.set_ticks([0, 0.5, 1], [f"{value:.2g}" for value in (low, middle, high)])


def learning_rate_curves(found: Mapping[str, LearningRates]) -> bytes:
    """Share of what there is to learn that is lost, against the factor on the tuned learning rates, a line a model."""
    with _figure(1, 1, width=7.5, height=3.6) as (figure, axes):
        for index, (name, rates) in enumerate(sorted(found.items())):
            means = [float(np.mean(seeds)) for seeds in rates.lost]
            line = axes[0].plot(rates.factors, means, label=name, marker="osD^vPX"[index % 7])
            low, high = ([end(seeds) for seeds in rates.lost] for end in (min, max))
            axes[0].fill_between(rates.factors, low, high, alpha=0.12, color=line[0].get_color())
        axes[0].set_xscale("log")
        axes[0].set_yscale("symlog", linthresh=EPSILON)
        axes[0].set_ylim(-EPSILON / 2, 1.3)
        axes[0].set_yticks([0, EPSILON, 0.1, 1], ["0", f"{EPSILON:.0%}", "10%", "100%"])
        axes[0].axhline(EPSILON, color="grey", linewidth=1, linestyle=":")
        axes[0].set_xlabel("learning rates, times the tuned ones")
        axes[0].set_ylabel("lost of what there is to learn")
        figure.legend(loc="outside right center", frameon=False, fontsize=8)
        return _svg(figure)


def seeds_and_space(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> bytes:
    """For each model the scores of each group of runs, as shares of the way from knowing nothing to the best.

    A row a model, a colour a group; right is good.
    """
    with _figure(1, 1, width=7.5, height=0.6 + 0.5 * len(scores)) as (figure, axes):
        groups = sorted({group for of in scores.values() for group in of})
        for row, (_, of) in enumerate(sorted(scores.items())):
            for index, group in enumerate(groups):
                values = list(of.get(group, ()))
                y = np.full(len(values), row + 0.22 * (index - (len(groups) - 1) / 2))
                axes[0].scatter(values, y, s=16, alpha=0.6, color=f"C{index}", label=group if row == 0 else None)
        axes[0].set_yticks(range(len(scores)), sorted(scores))
        axes[0].invert_yaxis()
        axes[0].set_xlim(-0.05, 1.02)
        axes[0].set_xlabel("share of the way from knowing nothing to the best that was seen")
        figure.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8)
        return _svg(figure)


class _figure:  # noqa: N801 (a context manager that reads as a verb)
    """A figure of `rows` × `columns` axes without a display."""

    def __init__(self, rows: int, columns: int, width: float = 11.0, height: float | None = None) -> None:
        self.shape, self.size = (rows, columns), (width, height or 2.6 * rows)

    def __enter__(self) -> tuple[Any, Any]:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.style = mpl.rc_context(_STYLE)
        self.style.__enter__()
        figure = Figure(figsize=self.size, layout="constrained")
        FigureCanvasSVG(figure)
        return figure, figure.subplots(*self.shape, squeeze=False).ravel()

    def __exit__(self, *error: Any) -> None:
        self.style.__exit__(*error)


def _svg(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
