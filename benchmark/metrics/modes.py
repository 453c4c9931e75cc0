"""Whether samples reach all modes of the data, as often as the data do, and what lies between modes.

For data of which it is known where their modes are, or which a judge tells apart: `DataModule.modes` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.metrics.fidelity import over_draws
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import DRAWN, Draws, JudgedSamples
from benchmark.metrics.session import Session
from benchmark.spec import Absence, Estimate

SURE = 0.9  # probability above which a judge's class is more than a label that noise must be given too


@dataclass(frozen=True)
class SampleModes:
    """Which mode each sample is of, and whether it is near that mode."""

    generated: tuple[Tensor, ...]  # [n] each: 0 to K - 1, or -1 where a sample is of none
    near: tuple[Tensor, ...]  # [n] bool each
    weights: Tensor  # [K] float64: each mode's share of the data


class ReachedModes(Probe[SampleModes]):
    """The mode of each sample, as the dataset tells: one that is near none is of none. Or as its judge tells, who gives
    every sample some mode; near it is what the judge is sure of."""

    key = "modes"
    says = (*DRAWN, "modes", "near")

    def collect(self, session: Session) -> Found[SampleModes] | Absence:
        modes = session.data.modes
        if modes is None:
            return Absence("does not apply", f"no modes of {session.data.describe()['name']} are known")
        found = _judged(session) if modes.assign is None else _assigned(session, modes.assign)
        if isinstance(found, Absence):
            return found
        (generated, near), protocol = found.evidence, found.protocol
        shown = {"modes": len(modes.weights), "near": modes.near or f"called with probability above {SURE}"}
        return Found(SampleModes(generated, near, modes.weights), {**protocol, **shown})


Reached = tuple[tuple[Tensor, ...], tuple[Tensor, ...]]  # of each draw, modes [n] and what is near them [n]


def _judged(session: Session) -> Found[Reached] | Absence:
    if isinstance(judged := session[JudgedSamples], Absence):
        return judged
    verdicts = judged.evidence
    return Found((tuple(x.classes for x in verdicts), tuple(x.probability > SURE for x in verdicts)), judged.protocol)


def _assigned(session: Session, assign: Callable[[Tensor], Tensor]) -> Found[Reached] | Absence:
    if isinstance(draws := session[Draws], Absence):
        return draws
    modes = tuple(map(assign, draws.evidence.generated))
    return Found((modes, tuple(draw >= 0 for draw in modes)), draws.protocol)


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
    """Share of samples that are near a mode: "high quality" in Srivastava and others 2017. The error is over draws."""
    return over_draws([float(near.double().mean()) for near in found.near], len(found.generated[0]))


def _counts(found: SampleModes) -> list[Tensor]:
    """How many samples are of each mode, `[K]` float64, draw by draw."""
    return [torch.bincount(draw[draw >= 0], minlength=len(found.weights)).double() for draw in found.generated]
