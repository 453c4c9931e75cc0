"""Figures: as plain numbers, and as SVG. The same numbers always give the same bytes.

matplotlib draws with placeholder colours. Inside a page they become its CSS variables, so that one picture is legible
in light and in dark; in a file of its own they are dark on white.
"""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from markupsafe import Markup, escape

from benchmark.leaderboard.columns import quantity
from benchmark.leaderboard.statistics import pareto_front
from benchmark.sweep.sensitivity import EPSILON, LearningRates
from benchmark.traces import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COLOURS = 8  # of families: `--c0` to `--c7` in the style sheet

_TEXT, _MUTED, _LINE = "#00ff00", "#00ff01", "#00ff02"
_FAMILY = tuple(f"#00fe0{index}" for index in range(COLOURS))
_PLACEHOLDERS = re.compile("|".join((_TEXT, _MUTED, _LINE, *_FAMILY)))
_CSS = {_TEXT: "currentColor", _MUTED: "var(--muted)", _LINE: "var(--line)"}
_CSS |= {placeholder: f"var(--c{index})" for index, placeholder in enumerate(_FAMILY)}
_PALETTE = ("#2f68b0", "#b04a24", "#1f7f5c", "#a3336f", "#6f4fb0", "#8f6a0a", "#1d7f91", "#6a6a6a")  # of the light page
_ON_WHITE = {_TEXT: "#1c1d1f", _MUTED: "#5d6167", _LINE: "#dcdcd7", **dict(zip(_FAMILY, _PALETTE, strict=True))}

_STYLE: Any = {
    "svg.fonttype": "none",  # words stay words
    "text.parse_math": False,  # names are not formulas
    "font.family": "DejaVu Sans",  # wider than what browsers will take, so that nothing overlaps there
    "font.size": 10.5,
    "text.color": _TEXT,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "figure.dpi": 72,
}
_MARKERS = "osD^vPX"  # models of one family differ by them
_WIDTH = 5.0  # inches of 72 units

#: Where a label may stand beside its point, in points, the best place first.
_PLACES = (
    *((7, 0, "left"), (-7, 0, "right"), (0, 10, "center"), (0, -10, "center")),
    *((6, 9, "left"), (-6, 9, "right"), (6, -9, "left"), (-6, -9, "right"), (0, 20, "center"), (0, -20, "center")),
)
_BEFORE = {"left": 0.0, "center": 0.5, "right": 1.0}  # how much of a name lies left of its place, by its alignment


@dataclass(frozen=True)
class Point:
    """A row in a figure: quality with the ends of its interval, cost where there is one."""

    name: str
    colour: int
    value: float
    low: float
    high: float
    exact: bool = True
    cost: float = 0.0
    seeds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Line:
    """A model in a figure of many: `y` over `x`, with the ends of its seeds where there are some."""

    name: str
    colour: int
    mark: int  # its number among the models of all figures
    x: Sequence[float]
    y: Sequence[float]
    ends: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class Plot(ABC):
    """A figure as numbers, which `drawn` makes a picture of. The title is its name for those who hear a page."""

    title: str

    @property
    @abstractmethod
    def height(self) -> float:
        """In inches."""

    @property
    def width(self) -> float:
        return _WIDTH

    @abstractmethod
    def draw(self, figure: Figure) -> None: ...


@dataclass(frozen=True)
class Intervals(Plot):
    """Each row's value with its interval and its seeds, one below the other; reference values as vertical lines."""

    unit: str
    points: Sequence[Point]
    floors: Mapping[str, float]
    log: bool

    @property
    def height(self) -> float:
        return 0.9 + 0.33 * (len(self.points) + 0.55 * len(self.floors))

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, point in enumerate(self.points):
            colour = _FAMILY[point.colour]
            axes.plot([point.low, point.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(point.seeds, [y] * len(point.seeds), "|", color=colour, markersize=9, markeredgewidth=1)
            _marker(axes, point.value, y, point)
        axes.set_yticks(range(len(self.points)), [point.name for point in self.points])
        axes.tick_params(axis="y", length=0, labelcolor=_TEXT)
        axes.set_ylim(len(self.points) - 0.4, -0.6 - 0.55 * len(self.floors))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(self.unit)
        _scale(axes, "x", self.log)
        for line, (name, value) in enumerate(sorted(self.floors.items(), key=lambda item: item[1])):
            axes.axvline(value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            axes.annotate(
                name,
                (value, -0.6 - 0.55 * (len(self.floors) - 1 - line)),
                (4, -1),
                textcoords="offset points",
                va="top",
            ).set_color(_MUTED)


@dataclass(frozen=True)
class Pareto(Plot):
    """Quality (lower is better) against cost on a log scale, with the rows that none beats in both."""

    quality: str
    cost: str
    points: Sequence[Point]
    log: bool

    @property
    def height(self) -> float:
        return 3.6

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        front = pareto_front([(point.cost, point.value) for point in self.points])
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for point in self.points:
            axes.plot([point.cost] * 2, [point.low, point.high], color=_FAMILY[point.colour], linewidth=1.5)
            _marker(axes, point.cost, point.value, point)
        axes.set_xlabel(self.cost)
        axes.set_ylabel(self.quality)
        axes.margins(0.18, 0.12)
        _scale(axes, "x", log=True)
        _scale(axes, "y", self.log)
        _label(figure, axes, self.points, front)


@dataclass(frozen=True)
class Curves(Plot):
    """One curve a seed, their mean, and the band from the lowest to the highest; a steep start may be cut off, unless
    the scale is logarithmic."""

    unit: str
    curves: Sequence[Curve]
    colour: int
    over: str = "examples seen"
    log: bool = False

    @property
    def height(self) -> float:
        return 2.8

    def draw(self, figure: Figure) -> None:
        start, end = max(curve[0][0] for curve in self.curves), min(curve[-1][0] for curve in self.curves)
        x = np.linspace(start, end, 100)
        seeds = np.stack([np.interp(x, *np.array(curve, dtype=float).T) for curve in self.curves])  # [seeds, 100]
        low, high = float(seeds.min()), float(seeds[:, 10:].max())
        cut = not self.log and float(seeds.max()) > high + (high - low)
        axes, colour = figure.add_subplot(), _FAMILY[self.colour]
        if len(self.curves) > 1:
            axes.fill_between(x, seeds.min(0), seeds.max(0), color=colour, alpha=0.22, linewidth=0)
        for seed in seeds:
            axes.plot(x, seed, color=colour, linewidth=0.7, alpha=0.6)
        axes.plot(x, seeds.mean(0), color=colour, linewidth=1.8)
        if cut:
            axes.set_ylim(low - 0.06 * (high - low), high + 0.5 * (high - low))
        axes.set_xlabel(self.over + (" (start cut off above)" if cut else ""))
        axes.set_ylabel(self.unit)
        axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        if self.log:
            _scale(axes, "y", log=True)


@dataclass(frozen=True)
class Rates(Plot):
    """Score against the factor on the tuned learning rates: a mark a seed, a line through means, the good window."""

    unit: str
    found: LearningRates
    colour: int

    @property
    def height(self) -> float:
        return 2.8

    def draw(self, figure: Figure) -> None:
        axes, found, colour = figure.add_subplot(), self.found, _FAMILY[self.colour]
        axes.axvspan(*found.window, color=colour, alpha=0.15, linewidth=0)
        axes.axhline(found.initial, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(found.factors, [sum(seeds) / len(seeds) for seeds in found.values], color=colour)
        for factor, seeds in zip(found.factors, found.values, strict=True):
            axes.plot([factor] * len(seeds), seeds, "o", color=colour, markersize=3.5)
        axes.set_xlabel("learning rates, times the tuned ones")
        axes.set_ylabel(f"validation, {self.unit}")
        _scale(axes, "x", log=True)


@dataclass(frozen=True)
class Losses(Plot):
    """Share of what there is to learn that each line loses, over a log scale; below the dotted line is good."""

    what: str
    lines: Sequence[Line]

    @property
    def height(self) -> float:
        return 3.5 + 0.22 * -(-len(self.lines) // 3)

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        for line in self.lines:
            colour, marker = _FAMILY[line.colour], _MARKERS[line.mark % len(_MARKERS)]
            axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=line.name)
            if line.ends is not None:
                axes.fill_between(line.x, *line.ends, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(EPSILON, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_yscale("symlog", linthresh=EPSILON)
        axes.set_ylim(-EPSILON / 4, 1.3)
        axes.set_yticks([0, EPSILON, 0.1, 1], ["0", f"{EPSILON:.0%}", "10%", "100%"])
        axes.set_yticks([], minor=True)
        axes.set_xlabel(self.what)
        axes.set_ylabel("lost of what there is to learn")
        _scale(axes, "x", log=True)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, handlelength=1.6)


@dataclass(frozen=True)
class Tradeoffs(Plot):
    """A score against what samplers vary after one training, on scales that may be logarithmic; what real data score
    as dotted lines."""

    score: str
    varied: str
    log: tuple[bool, bool]  # of what is varied, and of the score
    lines: Sequence[Line]
    floors: Mapping[str, float]

    @property
    def height(self) -> float:
        return 3.2 + 0.22 * -(-len(self.lines) // 3)

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        for line in self.lines:
            colour, marker = _FAMILY[line.colour], _MARKERS[line.mark % len(_MARKERS)]
            axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=line.name)
        ticks = sorted({x for line in self.lines for x in line.x})
        for name, value in self.floors.items():
            axes.axhline(value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            axes.annotate(name, (ticks[0], value), (0, 3), textcoords="offset points").set_color(_MUTED)
        axes.set_xlabel(self.varied)
        axes.set_ylabel(self.score)
        _scale(axes, "x", log=self.log[0])
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        _scale(axes, "y", log=self.log[1])
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, handlelength=1.6)


@dataclass(frozen=True)
class Spot:
    """A row in a figure of two scores: its means, and a pair for each seed."""

    name: str
    x: float
    y: float
    seeds: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Against(Plot):
    """One score against another: a mark a row, joined in the order of the first score, and a dot a seed; what else is
    known of the second as dotted lines."""

    first: str
    second: str
    colour: int
    spots: Sequence[Spot]
    floors: Mapping[str, float]

    @property
    def height(self) -> float:
        return 3.4

    def draw(self, figure: Figure) -> None:
        axes, colour = figure.add_subplot(), _FAMILY[self.colour]
        spots = sorted(self.spots, key=lambda spot: spot.x)
        axes.plot([spot.x for spot in spots], [spot.y for spot in spots], color=colour, linewidth=1.2, alpha=0.7)
        for spot in spots:
            axes.plot(*zip(*spot.seeds, strict=True), "o", color=colour, markersize=2.5, alpha=0.6)
            axes.plot([spot.x], [spot.y], "o", color=colour, markersize=6)
            axes.annotate(spot.name, (spot.x, spot.y), (7, -11), textcoords="offset points")
        where: Any = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right"}
        for name, value in self.floors.items():
            axes.axhline(value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            axes.annotate(name, (1, value), (0, 3), **where).set_color(_MUTED)
        axes.set_xlabel(self.first)
        axes.set_ylabel(self.second)
        axes.margins(0.18, 0.12)
        _scale(axes, "x", log=False)
        _scale(axes, "y", log=False)


@dataclass(frozen=True)
class Shares(Plot):
    """For each model the scores of each group of runs, as shares of the way from knowing nothing to the best.

    A row a model, a colour a group; right is good.
    """

    scores: Mapping[str, Mapping[str, Sequence[float]]]

    @property
    def height(self) -> float:
        return 1.0 + 0.5 * len(self.scores)

    @property
    def width(self) -> float:
        return 1.5 * _WIDTH

    def draw(self, figure: Figure) -> None:
        axes = figure.add_subplot()
        groups = sorted({group for of in self.scores.values() for group in of})
        for row, (_, of) in enumerate(sorted(self.scores.items())):
            for index, group in enumerate(groups):
                values = list(of.get(group, ()))
                y = np.full(len(values), row + 0.22 * (index - (len(groups) - 1) / 2))
                axes.scatter(values, y, s=16, alpha=0.6, color=_FAMILY[index], label=group if row == 0 else None)
        axes.set_yticks(range(len(self.scores)), sorted(self.scores))
        axes.tick_params(axis="y", length=0, labelcolor=_TEXT)
        axes.invert_yaxis()
        axes.set_xlim(-0.05, 1.02)
        axes.set_xlabel("share of the way from knowing nothing to the best that was seen")
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9.5)


@dataclass(frozen=True)
class Axis:
    """One hyperparameter of trials: where their values lie in its range, 0 to 1, and what stands at some places."""

    name: str
    positions: Sequence[float]
    ticks: Mapping[float, str]


@dataclass(frozen=True)
class Slices(Plot):
    """Score against each hyperparameter, and in the last panel the first two against each other.

    A point is a trial, and its colour its rank. × diverged, or ended no better than before training.
    """

    metric: str
    axes: Sequence[Axis]
    values: Sequence[float]
    lost: Sequence[bool]

    _COLUMNS: ClassVar[int] = 4

    @property
    def _rows(self) -> int:
        return -(-(len(self.axes) + 1) // self._COLUMNS)

    @property
    def height(self) -> float:
        return 2.8 * self._rows

    @property
    def width(self) -> float:
        return 2.4 * _WIDTH

    def draw(self, figure: Figure) -> None:
        values, lost = np.array(self.values), np.array(self.lost)
        ranks = np.argsort(np.argsort(values)) / max(1, len(values) - 1)
        panels = figure.subplots(self._rows, self._COLUMNS, squeeze=False).ravel()
        ranked: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": 1}  # the best are dark
        for panel, axis in zip(panels, self.axes, strict=False):
            x = np.array(axis.positions)
            for chosen, marker in ((~lost, "o"), (lost, "x")):
                panel.scatter(x[chosen], values[chosen], c=ranks[chosen], s=14, marker=marker, **ranked)
            panel.set_yscale("log" if values.min() > 0 and values.max() > 5 * values.min() else "linear")
            panel.set_xlabel(axis.name)
            panel.set_xticks(list(axis.ticks), list(axis.ticks.values()))
        panels[0].set_ylabel(f"validation {self.metric}")
        if len(self.axes) > 1:
            pair, (one, two) = panels[len(self.axes)], self.axes[:2]
            pair.scatter(one.positions, two.positions, c=ranks, s=22, **ranked)
            pair.set_xlabel(one.name)
            pair.set_ylabel(two.name)
            pair.set_xticks(list(one.ticks), list(one.ticks.values()))
            pair.set_yticks(list(two.ticks), list(two.ticks.values()))
            pair.set_title("ranks: dark is good", fontsize=9)
        for panel in panels[len(self.axes) + (len(self.axes) > 1) :]:
            panel.set_axis_off()


# How they are drawn --------------------------------------------------------------------------------------------------


def _marker(axes: Axes, x: float, y: float, point: Point) -> None:
    """Filled where the number is exact, hollow where it is a bound or an approximation."""
    colour = _FAMILY[point.colour]
    axes.plot([x], [y], "o", color=colour, markersize=6, markerfacecolor=colour if point.exact else "none")


def _scale(axes: Axes, which: str, log: bool) -> None:
    """Few round ticks, written as the tables write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axis = axes.xaxis if which == "x" else axes.yaxis
    if log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        low, high = axis.get_view_interval()
        subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
        axis.set_major_locator(LogLocator(subs=subs, numticks=8))
        axis.set_minor_formatter(NullFormatter())
        axis.set_tick_params(which="minor", length=0)
    else:
        axis.set_major_locator(MaxNLocator(6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: quantity(value) if log else f"{value:g}"))


def _label(figure: Figure, axes: Axes, points: Sequence[Point], front: Sequence[tuple[float, float]]) -> None:
    """Each point's name where it covers least of what is there already."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured now must not move
    taken: list[tuple[float, float, float, float]] = []  # left, bottom, right, top in pixels
    for point in points:
        x, y = axes.transData.transform((point.cost, point.value))
        bottom, top = (axes.transData.transform((point.cost, end))[1] for end in (point.low, point.high))
        taken += [(x - 5, y - 5, x + 5, y + 5), (x - 1, bottom, x + 1, top)]
    steps = axes.transData.transform(front)
    for (x, y), (right, below) in pairwise(steps):
        taken += [(x, y - 1, right, y + 1), (right - 1, below, right + 1, y)]
    frame = np.array([axes.get_window_extent(renderer).extents])
    pixels = figure.dpi / 72  # of an offset's unit
    for point in points:
        text = axes.annotate(
            point.name, (point.cost, point.value), (0, 0), textcoords="offset points", ha="left", va="center"
        )
        size = text.get_window_extent(renderer)  # once, since laying out a text is slow
        x, y = axes.transData.transform((point.cost, point.value))
        boxes = np.array(
            [
                (left, y + pixels * dy - size.height / 2, left + size.width, y + pixels * dy + size.height / 2)
                for dx, dy, side in _PLACES
                for left in [x + pixels * dx - size.width * _BEFORE[side]]
            ]
        )
        outside = size.width * size.height - _overlaps(boxes, frame)
        best = int((_overlaps(boxes, np.array(taken)) + outside).argmin())
        dx, dy, side = _PLACES[best]
        text.set(position=(dx, dy), horizontalalignment=side)
        taken.append(tuple(boxes[best]))


def _overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Area of each of `boxes` `[N, 4]` that `others` `[M, 4]` cover, those that overlap counted each: `[N]`."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area: np.ndarray = (high - low).clip(0).prod(2).sum(1)
    return area


def drawn(plot: Plot) -> str:
    """The figure as SVG in placeholder colours; `themed` and `standalone` give it real ones."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": plot.title}):
        figure = Figure(figsize=(plot.width, plot.height), layout="constrained")
        plot.draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return buffer.getvalue()


def themed(svg: str, title: str) -> Markup:
    """What stands inside a page: no prologue, no rules for the whole page, its colours, and a name for who hears it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # names of groups, the same in every figure
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{escape(title)}" ', 1)
    return Markup(_coloured(svg, _CSS))


def standalone(svg: str) -> str:
    """What stands in a file of its own: dark on white, wherever it is shown."""
    start = svg.index(">", svg.index("<svg")) + 1
    return _coloured(svg[:start] + '\n <rect width="100%" height="100%" fill="#ffffff"/>' + svg[start:], _ON_WHITE)


def _coloured(svg: str, colours: Mapping[str, str]) -> str:
    return _PLACEHOLDERS.sub(lambda found: colours[found[0]], svg)
