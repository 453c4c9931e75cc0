"""Figures as SVG inside a page: the same numbers always give the same bytes, and the page's colours are theirs.

matplotlib draws with placeholder colours, which become CSS variables: one picture is legible in light and in dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape

from benchmark.leaderboard.columns import quantity
from benchmark.leaderboard.statistics import pareto_front
from benchmark.sweep.sensitivity import EPSILON, LearningRates
from benchmark.traces import Curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

COLOURS = 8  # of families: `--c0` to `--c7` in the style sheet

_TEXT, _MUTED, _LINE = "#00ff00", "#00ff01", "#00ff02"
_FAMILY = tuple(f"#00fe0{index}" for index in range(COLOURS))
_CSS = {_TEXT: "currentColor", _MUTED: "var(--muted)", _LINE: "var(--line)"}
_CSS |= {placeholder: f"var(--c{index})" for index, placeholder in enumerate(_FAMILY)}

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


def interval_plot(title: str, unit: str, points: Sequence[Point], floors: Mapping[str, float], log: bool) -> Markup:
    """Each row's value with its interval and its seeds, one below the other; reference values as vertical lines."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for y, point in enumerate(points):
            colour = _FAMILY[point.colour]
            axes.plot([point.low, point.high], [y, y], color=colour, linewidth=2, solid_capstyle="round")
            axes.plot(point.seeds, [y] * len(point.seeds), "|", color=colour, markersize=9, markeredgewidth=1)
            _marker(axes, point.value, y, point)
        axes.set_yticks(range(len(points)), [point.name for point in points])
        axes.tick_params(axis="y", length=0, labelcolor=_TEXT)
        axes.set_ylim(len(points) - 0.4, -0.6 - 0.55 * len(floors))
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(unit)
        _scale(axes, "x", log)
        for line, (name, value) in enumerate(sorted(floors.items(), key=lambda item: item[1])):
            axes.axvline(value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
            axes.annotate(
                name, (value, -0.6 - 0.55 * (len(floors) - 1 - line)), (4, -1), textcoords="offset points", va="top"
            ).set_color(_MUTED)

    return _svg(draw, title, 0.9 + 0.33 * (len(points) + 0.55 * len(floors)))


def pareto_plot(title: str, quality: str, cost: str, points: Sequence[Point], log: bool) -> Markup:
    """Quality (lower is better) against cost on a log scale, with the rows that none beats in both."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        front = pareto_front([(point.cost, point.value) for point in points])
        axes.plot(*zip(*front, strict=True), drawstyle="steps-post", color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for point in points:
            axes.plot([point.cost] * 2, [point.low, point.high], color=_FAMILY[point.colour], linewidth=1.5)
            _marker(axes, point.cost, point.value, point)
        axes.set_xlabel(cost)
        axes.set_ylabel(quality)
        axes.margins(0.18, 0.12)
        _scale(axes, "x", log=True)
        _scale(axes, "y", log)
        _label(figure, axes, points, front)

    return _svg(draw, title, 3.6)


def curve_plot(title: str, unit: str, curves: Sequence[Curve], colour: int) -> Markup:
    """One curve a seed, their mean, and the band from the lowest to the highest; a steep start may be cut off."""
    start, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    x = np.linspace(start, end, 100)
    seeds = np.stack([np.interp(x, *np.array(curve, dtype=float).T) for curve in curves])  # [seeds, 100]
    low, high = float(seeds.min()), float(seeds[:, 10:].max())
    cut = float(seeds.max()) > high + (high - low)

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if len(curves) > 1:
            axes.fill_between(x, seeds.min(0), seeds.max(0), color=_FAMILY[colour], alpha=0.22, linewidth=0)
        for seed in seeds:
            axes.plot(x, seed, color=_FAMILY[colour], linewidth=0.7, alpha=0.6)
        axes.plot(x, seeds.mean(0), color=_FAMILY[colour], linewidth=1.8)
        if cut:
            axes.set_ylim(low - 0.06 * (high - low), high + 0.5 * (high - low))
        axes.set_xlabel("examples seen" + (" (start cut off above)" if cut else ""))
        axes.set_ylabel(unit)
        axes.xaxis.set_major_formatter(lambda value, _: quantity(value))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")

    return _svg(draw, title, 2.8)


def rate_plot(title: str, unit: str, found: LearningRates, colour: int) -> Markup:
    """Score against the factor on the tuned learning rates: a mark a seed, a line through means, the good window."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvspan(*found.window, color=_FAMILY[colour], alpha=0.15, linewidth=0)
        axes.axhline(found.initial, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)))
        axes.plot(found.factors, [sum(seeds) / len(seeds) for seeds in found.values], color=_FAMILY[colour])
        for factor, seeds in zip(found.factors, found.values, strict=True):
            axes.plot([factor] * len(seeds), seeds, "o", color=_FAMILY[colour], markersize=3.5)
        axes.set_xlabel("learning rates, times the tuned ones")
        axes.set_ylabel(f"validation, {unit}")
        _scale(axes, "x", log=True)

    return _svg(draw, title, 2.8)


def loss_plot(title: str, what: str, lines: Sequence[Line]) -> Markup:
    """Share of what there is to learn that each line loses, over a log scale; below the dotted line is good."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for line in lines:
            colour, marker = _FAMILY[line.colour], _MARKERS[line.mark % len(_MARKERS)]
            axes.plot(line.x, line.y, color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=line.name)
            if line.ends is not None:
                axes.fill_between(line.x, *line.ends, color=colour, alpha=0.12, linewidth=0)
        axes.axhline(EPSILON, color=_MUTED, linewidth=1, linestyle=(0, (1, 2)))
        axes.set_yscale("symlog", linthresh=EPSILON)
        axes.set_ylim(-EPSILON / 4, 1.3)
        axes.set_yticks([0, EPSILON, 0.1, 1], ["0", f"{EPSILON:.0%}", "10%", "100%"])
        axes.set_yticks([], minor=True)
        axes.set_xlabel(what)
        axes.set_ylabel("lost of what there is to learn")
        _scale(axes, "x", log=True)
        figure.legend(loc="outside upper left", ncols=3, frameon=False, fontsize=9.5, handlelength=1.6)

    return _svg(draw, title, 3.5 + 0.22 * -(-len(lines) // 3))


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
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # what is measured now must not move
    taken: list[Bbox] = []
    for point in points:
        x, y = axes.transData.transform((point.cost, point.value))
        bottom, top = (axes.transData.transform((point.cost, end))[1] for end in (point.low, point.high))
        taken += [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5), Bbox.from_extents(x - 1, bottom, x + 1, top)]
    steps = axes.transData.transform(front)
    for (x, y), (right, below) in pairwise(steps):
        taken += [Bbox.from_extents(x, y - 1, right, y + 1), Bbox.from_extents(right - 1, below, right + 1, y)]
    frame = axes.get_window_extent(renderer)
    for point in points:
        texts = [
            axes.annotate(
                point.name, (point.cost, point.value), (dx, dy), textcoords="offset points", ha=side, va="center"
            )
            for dx, dy, side in _PLACES
        ]
        boxes = [text.get_window_extent(renderer) for text in texts]
        covered = [sum(_overlap(box, other) for other in taken) + _outside(box, frame) for box in boxes]
        best = covered.index(min(covered))
        taken.append(boxes[best])
        for index, text in enumerate(texts):
            if index != best:
                text.remove()


def _overlap(a: Bbox, b: Bbox) -> float:
    width, height = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
    return float(max(0.0, width) * max(0.0, height))


def _outside(box: Bbox, frame: Bbox) -> float:
    return float(box.width * box.height) - _overlap(box, frame)


def _svg(draw: Callable[[Figure], None], title: str, height: float) -> Markup:
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    return _themed(buffer.getvalue(), title)


def _themed(svg: str, title: str) -> Markup:
    """What stands inside a page: no prologue, no rules for the whole page, its colours, and a name for who hears it."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' id="[\w.]+_\d+"', "", svg)  # names of groups, the same in every figure
    svg = re.sub(r'(<svg\b[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg\b[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg ", f'<svg class="plot" role="img" aria-label="{escape(title)}" ', 1)
    for placeholder, css in _CSS.items():
        svg = svg.replace(placeholder, css)
    return Markup(svg)
