"""Vector quantisation: vectors as the nearest of a few, which follow them.

Shapes: K codes of D numbers; z [N, D] vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Codebook(nn.Module):
    """K vectors that are moving averages of what is mapped to them: nothing here is learnt by gradients.

    van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, arXiv:1711.00937,
    appendix A.1. The averages are kept as sums and counts, so that a code that is rarely met keeps its place. A code
    that is met far less than others starts anew at a vector of the batch (Dhariwal and others, "Jukebox", 2020,
    arXiv:2005.00341, section 3.1); so do all in the first batch.
    """

    codes: Tensor  # [K, D]
    counts: Tensor  # [K], how often a batch meets each code, on average
    sums: Tensor  # [K, D], of the vectors met, on average

    def __init__(self, codes: int, size: int, decay: float, dead: float) -> None:
        """`decay` of the averages; a code is dead below that share of the fair count, a K-th of the batch."""
        super().__init__()
        self.decay, self.dead = decay, dead
        self.register_buffer("codes", torch.randn(codes, size))
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, size))

    def nearest(self, z: Tensor) -> Tensor:
        """Which code is nearest to each vector, `[N]` for z [N, D]."""
        with torch.autocast(z.device.type, enabled=False):
            distance = self.codes.square().sum(1) - 2 * z.float() @ self.codes.T  # [N, K], short of |z|²
        return distance.argmin(1)

    def forward(self, index: Tensor) -> Tensor:
        """The codes `[..., D]` of these numbers [...]."""
        return self.codes[index]

    @torch.no_grad()
    def follow(self, z: Tensor, index: Tensor) -> None:
        """Moves the codes towards the mean of the vectors z [N, D] that were mapped to them, `index` [N] (eqs. 6-8)."""
        z = z.float()
        met = torch.zeros_like(self.counts).index_add_(0, index, torch.ones_like(z[:, 0]))
        self.counts.lerp_(met, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, index, z), 1 - self.decay)
        self.codes.copy_(self.sums / self.counts.clamp(min=1e-6)[:, None])
        self.restart(z)

    def restart(self, z: Tensor) -> None:
        """Puts dead codes at vectors of z [N, D], as if a fair number had been met there."""
        fair = torch.full_like(self.counts, len(z) / len(self.codes))
        which = self.counts < self.dead * fair  # [K]
        somewhere = z[torch.randint(len(z), (len(self.codes),), device=z.device)]  # [K, D]
        self.codes.copy_(torch.where(which[:, None], somewhere, self.codes))
        self.counts.copy_(torch.where(which, fair, self.counts))
        self.sums.copy_(self.codes * self.counts[:, None])

    def perplexity(self) -> Tensor:
        """exp of the entropy of how often codes have been met, within 1 and K: over the last 1 / (1 - decay) batches.

        That of one batch would depend on its size.
        """
        p = (self.counts + 1e-6) / (self.counts + 1e-6).sum()
        return (-(p * p.log()).sum()).exp()


def straight_through(z: Tensor, code: Tensor) -> Tensor:
    """The code, with the gradient of z: what a code gets from above is handed to the vector that chose it."""
    return z + (code - z).detach()
