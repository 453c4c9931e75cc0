"""What each step of a bound costs that is a sum over steps: where a diffusion model spends its bits."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session, sample_chunk
from benchmark.metrics.units import NATS_PER_BIT
from benchmark.spec import Estimate, StepwiseBound

EXAMPLES = 64  # at most: every step of each is evaluated


class StepCosts(Probe[Tensor]):
    """Bits a dimension of each step `[S]`, on average over a few examples."""

    key = "step_costs"
    says = ("split", "examples")
    promises = (StepwiseBound,)

    def collect(self, session: Session) -> Found[Tensor]:
        x = session.split.x[session.subset(len(session.split.x), EXAMPLES, "step_costs")]
        total = torch.zeros((), dtype=torch.float64)
        for index, chunk in enumerate(x.split(sample_chunk(session.spec))):
            with session.keyed("step_costs", index):
                costs = session.model.step_costs(chunk.to(session.device).long())
            total = total + len(chunk) / len(x) * costs.double().cpu()
        bits = total / (session.spec.dims * NATS_PER_BIT)
        protocol = {"split": session.protocol.split, "examples": len(x), "how": {"likelihood": "bound"}}
        return Found(bits, protocol, curves={"bits_per_dim": bits})


@metric(StepCosts)
def bits_of_steps(bits: Tensor) -> Estimate:
    """All steps together: the bound by one draw of each, where `bits_per_dim` draws few of them for each example."""
    return Estimate(float(bits.sum()), None, len(bits))
