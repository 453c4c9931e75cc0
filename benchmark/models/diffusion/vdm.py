"""Variational diffusion: a deep hierarchy of noisy images, in continuous time, with a learnt noise schedule.

Paper: Kingma, Salimans, Poole and Ho, "Variational Diffusion Models", NeurIPS 2021, arXiv:2107.00630

Differences: with `output: levels` the network predicts a distribution over each pixel's levels, not the noise; the
likelihood of the noisy pixel itself is added to it in closed form, so that the network need only know what the other
pixels say, and is exact wherever there is little noise. Learnt positions, and 2x2 patches for larger images, keep it
affordable on a CPU.

Shapes: B images x [B, C, H, W] of L integer levels; f [B, C, H, W] the same on [-1, 1]; z_t, a noisy f; γ [B] minus its
log signal-to-noise ratio, which rises with the time t in [0, 1]; P features. Unit: nats an image.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.dit import OfPixels
from benchmark.nn.isotropic import Isotropic
from benchmark.nn.optim import adamw
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    LikelihoodBound,
    NonNegative,
    Sampler,
    SamplesWithin,
    Share,
    Size,
    Steps,
)


class VDM(GenerativeModel, LikelihoodBound, SamplesWithin, Diagnosable):
    """q(z_t | x) = N(α f, σ²) with α² = sigmoid(-γ(t)) and σ² = sigmoid(γ(t)), undone step by step from z_1 to z_0."""

    values: Tensor

    def __init__(
        self,
        spec: DataSpec,
        output: Literal["levels", "noise"] = "levels",  # what the network predicts; noise: as in the paper
        width: Size = 32,  # P
        depth: Size = 2,  # residual blocks; one layer of attention stands between the halves
        patch: Size = 1,  # pixels on a side of what the network sees as one place
        positions: bool = True,  # the network knows where in the image it is
        network: Literal["isotropic", "dit"] = "isotropic",  # dit: a transformer over patches (Peebles and Xie 2023)
        heads: Size = 4,  # of the transformer, whose `depth` blocks stand one after the other
        fourier: Count = 2,  # of the highest frequencies of a pixel's value shown to the network
        dropout: Share = 0.1,
        steps: Steps = 50,  # of the sampler; the bound has infinitely many
        learning_rate: NonNegative = 2e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        sides = spec.shape[1:]
        if any(side % patch for side in sides):
            size = "x".join(map(str, sides))
            raise BadInput(f"vdm: patch={patch} does not divide {size} images: use a divisor of both sides")
        self.output, self.steps = output, steps
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        levels = (2 * torch.arange(spec.levels) + 1) / spec.levels - 1  # [L], centres of L bins on [-1, 1]
        self.register_buffer("values", levels, persistent=False)
        self.schedule = Schedule(first=-2 * math.log(3 * spec.levels), last=5.0)
        outputs = spec.levels if output == "levels" else 1
        highest = round(math.log2(spec.levels))  # its period is about the distance of two levels
        waves = math.pi * 2.0 ** (highest - torch.arange(fourier))  # appendix C
        times = torch.logspace(-4, 2, 16, base=2)  # frequencies of γ
        see = (patch, positions, waves, times, dropout)
        with refusing("vdm"):
            self.network = (
                OfPixels(spec.shape, outputs, width, depth, heads, *see)
                if network == "dit"
                else Isotropic(spec.shape, outputs, width, depth, *see)
            )

    # The model -------------------------------------------------------------------------------------------------------

    def log_likelihood(self, z: Tensor, gamma: Tensor) -> Tensor:
        """log q(z_i | v) `[B, C, H, W, L]` of each pixel under each level v, but for a constant."""
        unit = (2 * torch.sigmoid(gamma)).rsqrt()  # [B]; what follows is large, so few operations touch it
        scaled = (unit.view(-1, 1, 1, 1) * z).unsqueeze(-1)
        return -(scaled - (alpha(gamma) * unit).view(-1, 1, 1, 1, 1) * self.values).square()

    def denoise(self, z: Tensor, gamma: Tensor) -> Tensor:
        """The mean of f under the model's p(x | z_t), `[B, C, H, W]`."""
        outputs = self.network(z, gamma).float()  # [B, C, H, W, L or 1], not in bfloat16
        if self.output == "noise":
            epsilon = z + outputs.squeeze(-1)
            f: Tensor = (z - sigma(gamma).view(-1, 1, 1, 1) * epsilon) / alpha(gamma).view(-1, 1, 1, 1)
            return f
        mean: Tensor = ((outputs + self.log_likelihood(z, gamma)).softmax(-1) * self.values).sum(-1)
        return mean

    def diffuse(self, f: Tensor, gamma: Tensor) -> Tensor:
        """z ~ q(z_t | x), eq. 1."""
        return alpha(gamma).view(-1, 1, 1, 1) * f + sigma(gamma).view(-1, 1, 1, 1) * torch.randn_like(f)

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        """The three terms of the negative bound, `[B]` each (eq. 11)."""
        f = self.values[x]  # [B, C, H, W]
        first, last = self.schedule.first.expand(len(x)), self.schedule.last.expand(len(x))

        variance = torch.sigmoid(last).view(-1, 1, 1, 1)
        prior = 0.5 * ((1 - variance) * f.square() + variance - 1 - variance.log())  # KL(q(z_1 | x) || N(0, I))

        log_p = self.log_likelihood(self.diffuse(f, first), first).log_softmax(-1)  # p(x | z_0), appendix B.1
        reconstruction = -log_p.gather(-1, x.unsqueeze(-1))  # [B, C, H, W, 1]

        t = (torch.rand((), device=x.device) + torch.arange(len(x), device=x.device) / len(x)) % 1  # appendix I.1
        share, speed = self.schedule.interior(t)
        gamma, slope = self.schedule.between(share, speed)
        error = (f - self.denoise(self.diffuse(f, gamma), gamma)).square().flatten(1).sum(1)  # [B]
        diffusion = 0.5 * slope * (-gamma).exp() * error  # eq. 17: -SNR'(t) = γ'(t) exp(-γ(t))
        # The bound moves the schedule's ends, its variance the path between them (appendix I.2): the gradient of a
        # square l² is 2 l times that of l. A hook that held the loss itself would keep its graph alive for ever.
        weight = 2 * diffusion.detach() / self.spec.dims
        for part in (share, speed):
            if part.requires_grad:
                part.register_hook(lambda gradient: weight * gradient)
        return {
            "prior": prior.flatten(1).sum(1),
            "reconstruction": reconstruction.flatten(1).sum(1),
            "diffusion": diffusion,
        }

    # Promises --------------------------------------------------------------------------------------------------------

    def elbo(self, x: Tensor) -> Tensor:
        return -torch.stack(list(self.losses(x).values())).sum(0)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Nats a dimension that are lost at the ends of the noise schedule: near zero while it spans all noise."""
        losses = self.losses(x)
        return {"ends_of_schedule": float((losses["prior"] + losses["reconstruction"]).mean()) / self.spec.dims}

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=self.steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.steps)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        """p(z_s | z_t) = q(z_s | z_t, x = the denoised z_t), eq. 32 to 34, then p(x | z_0)."""
        z = torch.randn(n, *self.spec.shape, device=self.device)
        gammas, _ = self.schedule(torch.linspace(1, 0, evaluations + 1, device=self.device))
        for gamma_t, gamma_s in pairwise(gammas):
            f = self.denoise(z, gamma_t.expand(n))
            c = -torch.expm1(gamma_s - gamma_t)  # σ²(t|s) / σ²(t)
            mean = (1 - c) * alpha(gamma_s) / alpha(gamma_t) * z + c * alpha(gamma_s) * f
            z = mean + (torch.sigmoid(gamma_s) * c).sqrt() * torch.randn_like(z)
        p = self.log_likelihood(z, gammas[-1].expand(n)).softmax(-1)  # [n, C, H, W, L]
        return torch.multinomial(p.flatten(0, -2), 1).view(n, *self.spec.shape)

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        terms = {name: value.mean() / self.spec.dims for name, value in self.losses(batch.x).items()}
        return {"loss": torch.stack(list(terms.values())).sum(), **terms}  # nats a dimension

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def alpha(gamma: Tensor) -> Tensor:
    """What is left of f at γ: α² + σ² = 1 (eq. 3, variance preserving)."""
    return torch.sigmoid(-gamma).sqrt()


def sigma(gamma: Tensor) -> Tensor:
    """The standard deviation of the noise at γ."""
    return torch.sigmoid(gamma).sqrt()


class Schedule(nn.Module):
    """γ(t), a monotone network of t between two learnt ends (appendix H)."""

    def __init__(self, first: float, last: float, units: int = 64) -> None:
        super().__init__()
        self.first, self.last = nn.Parameter(torch.tensor(first)), nn.Parameter(torch.tensor(last))
        self.line = nn.Parameter(torch.tensor(0.0))
        self.height = nn.Parameter(torch.full((units,), -math.log(units) - 2))
        self.steepness = nn.Parameter(torch.full((units,), math.log(8.0)))
        self.centre = nn.Parameter(torch.linspace(0, 1, units))

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """γ and dγ/dt, `[B]` each, for t [B]."""
        return self.between(*self.interior(t))

    def between(self, share: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        """γ and dγ/dt from the share of the way and its derivative."""
        distance = self.last - self.first
        return self.first + distance * share, distance * speed

    def interior(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The share of the way from the first end to the last, and its derivative: a line and a sum of sigmoids."""
        height, steepness = self.height.exp(), self.steepness.exp()
        ends = torch.tensor([0.0, 1.0], device=t.device)
        s = torch.sigmoid(steepness * (torch.cat([ends, t])[:, None] - self.centre))  # [2 + B, units]
        rise = torch.cat([ends, t]) * self.line.exp() + (height * s).sum(1)
        slope = self.line.exp() + (height * steepness * s * (1 - s)).sum(1)
        total = rise[1] - rise[0]
        return (rise[2:] - rise[0]) / total, slope[2:] / total
