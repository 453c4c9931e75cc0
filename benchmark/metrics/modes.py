"""Whether samples reach all modes of the data, as often as the data do, and what lies between modes.

For data of which it is known where their modes are, or which a judge tells apart: `DataModule.modes` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from benchmark.metrics.fidelity import over_draws
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import DRAWN, Draws, judged
from benchmark.metrics.session import Session
from benchmark.spec import Absence, Estimate


@dataclass(frozen=True)
class SampleModes:
    """Which mode each sample is of."""

    generated: tuple[Tensor, ...]  # [n] each: 0 to K - 1, or -1 where a sample is of none
    weights: Tensor  # [K] float64: each mode's share of the data


class ReachedModes(Probe[SampleModes]):
    """The mode of each sample, as the dataset or its judge tells."""

    key = "modes"
    says = (*DRAWN, "modes", "near")

    def collect(self, session: Session) -> Found[SampleModes] | Absence:
        modes, judge = session.data.modes, session.experts.judge
        if modes is None:
            return Absence("does not apply", f"no modes of {session.data.describe()['name']} are known")
        assign: Callable[[Tensor], Tensor]
        if modes.assign is not None:
            assign, near = modes.assign, modes.near
        elif isinstance(judge, Absence):
            return judge
        else:
            assign, near = partial(judged, judge), f"{modes.near}, by {judge.name}"
        if isinstance(draws := session[Draws], Absence):
            return draws
        reached = SampleModes(tuple(assign(draw) for draw in draws.evidence.generated), modes.weights)
        return Found(reached, {**draws.protocol, "modes": len(modes.weights), "near": near})


@metric(ReachedModes)
def modes_covered(found: SampleModes) -> Estimate:
    """How many modes one sample or more is of (Srivastava and others 2017). The error is over draws."""
    return over_draws([float((counts > 0).sum()) for counts in _counts(found)], len(found.generated[0]))


@metric(ReachedModes)
def mode_kl(found: SampleModes) -> Estimate:
    """KL(p ‖ w) = Σ pₖ log(pₖ / wₖ) in nats, p the shares of modes among samples that are of one, w those of the data:
    the direction of Metz and others 2017 and Lin and others 2018. The error is over draws.

    Raises `ValueError` where no sample of a draw is of any mode.
    """
    values = []
    for counts in _counts(found):
        if not counts.any():
            raise ValueError(f"none of {len(found.generated[0])} samples is near a mode: no shares to compare")
        p = counts / counts.sum()
        values.append(float(torch.special.xlogy(p, p / found.weights).sum()))
    return over_draws(values, len(found.generated[0]))


@metric(ReachedModes)
def near_share(found: SampleModes) -> Estimate:
    """Share of samples that are of a mode at all: "high quality" in Srivastava and others 2017. The error is over
    draws."""
    return over_draws([float((draw >= 0).double().mean()) for draw in found.generated], len(found.generated[0]))


def _counts(found: SampleModes) -> list[Tensor]:
    """How many samples are of each mode, `[K]` float64, draw by draw."""
    return [torch.bincount(draw[draw >= 0], minlength=len(found.weights)).double() for draw in found.generated]
