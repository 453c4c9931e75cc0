"""How stable a training was: a few numbers that are a pure function of its curves."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

Curves = Sequence[tuple[int, str, float]]  # examples seen, name, value

SPIKE = 6.0  # robust z of the detrended loss above which a step counts as a spike
WINDOW = 41  # watched steps, a tenth of a run, over which trend and spread of the loss are taken
GRADIENT = "watch/gradient_norm_"


def stability(curves: Curves, metric: str) -> dict[str, float]:
    """What the record says about how training went; what is not finite is left out.

    `initial`, `best` and `final` are validation scores in the unit of `metric`; `loss_spikes` counts among
    `watched_steps`; `gradient_tail` is the 99th percentile of the gradient's norm over its median, of the optimiser
    that is worse. Every number of the model's own (`spec.Diagnosable`) stands under its name, and as `<name>_start`
    before training.
    """
    series: dict[str, list[float]] = defaultdict(list)
    for _, name, value in curves:
        series[name].append(value)
    found: dict[str, float] = {}
    if validation := series.get(f"val/{metric}"):
        started = next(examples for examples, name, _ in curves if name == f"val/{metric}") == 0
        trained = validation[1:] if started else validation
        found |= {"initial": validation[0]} if started else {}
        found |= {"best": min(trained), "final": trained[-1]} if trained else {}
    if loss := series.get("train/loss"):
        found |= {"loss_spikes": spikes(loss), "watched_steps": len(loss)}
    tails = [tail(norms) for name, norms in series.items() if name.startswith(GRADIENT)]
    found |= {"gradient_tail": max(tails)} if tails else {}
    for name, values in series.items():
        if name.startswith("watch/") and not name.startswith(GRADIENT):
            sign = name.removeprefix("watch/")
            found |= {sign: values[-1], f"{sign}_start": values[0]}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def spikes(loss: Sequence[float]) -> int:
    """How many values lie more than `SPIKE` robust standard deviations above their surroundings.

    Trend and spread are the median and 1.4826 times the median absolute deviation over `WINDOW` neighbours. The first
    half window, where the loss falls steeply, is left out.
    """
    values = np.asarray(loss, dtype=float)
    half = WINDOW // 2
    count = 0
    for i in range(half, len(values)):
        around = values[i - half : i + half + 1]
        around = around[np.isfinite(around)]
        if len(around) < half or not math.isfinite(values[i]):
            continue
        median = float(np.median(around))
        spread = 1.4826 * float(np.median(np.abs(around - median)))
        count += values[i] - median > SPIKE * max(spread, 1e-9 * max(1.0, abs(median)))
    return count


def tail(norms: Sequence[float]) -> float:
    """99th percentile over median of the finite norms; `nan` where there are none or the median is zero.

    >>> tail([1.0, 1.0, 1.0, 1.0, math.inf])
    1.0
    """
    finite = np.asarray([norm for norm in norms if math.isfinite(norm)], dtype=float)
    if not len(finite) or not np.median(finite):
        return math.nan
    return float(np.percentile(finite, 99) / np.median(finite))
