"""EDM: a network that removes noise of any strength, seen through scales that keep its task alike at all of them.

Paper: Karras, Aittala, Aila and Laine, "Elucidating the Design Space of Diffusion-Based Generative Models", NeurIPS
2022, arXiv:2206.00364

Differences: noise ends where it is a share of the distance between two levels, so at their 0.002 for 256 of them. There
a normalised distribution over levels reads the image in place of the last step to σ = 0, so that noise of the path
itself dequantises the data, and the likelihood is a bound; solving the flow makes it approximate. No augmentation, and
the stochastic sampler is left out: it serves data much harder than these.

Shapes: B images x [B, C, H, W] of L integer levels; f [B, C, H, W] the same on [-1, 1]; y = f + σ ε, noisy; σ [B];
K probes. Unit: nats an image.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.denoisers import denoiser
from benchmark.nn.diffusion import divergence, heun, random_directions, runge_kutta
from benchmark.nn.distributions import log_normal
from benchmark.nn.latents import interpolated
from benchmark.nn.levels import centred
from benchmark.nn.optim import adamw
from benchmark.spec import (
    BadInput,
    Batch,
    DataSpec,
    Interpolates,
    NonNegative,
    Positive,
    Sampler,
    SamplesWithin,
    Share,
    Size,
    Solver,
    SolvesLikelihood,
    Steps,
)


class EDM(GenerativeModel, SolvesLikelihood, Interpolates, SamplesWithin):
    """y ~ N(0, σ_max²), carried to σ_min by dy/dσ = (y - D(y; σ)) / σ with D(y; σ) = E[f | y]; then x ~ p(x | y)."""

    sigma_data: Tensor
    measured: Tensor
    values: Tensor

    def __init__(
        self,
        spec: DataSpec,
        noise: Positive = 0.25,  # σ_min in distances between levels
        sigma_max: Positive = 80.0,
        sigma_mean: float = -1.2,  # P_mean: of log σ in training, in units of the data's spread, 0.5 in the paper
        sigma_spread: Positive = 1.2,  # P_std
        rho: Positive = 7.0,  # the sampler's levels of noise are even in σ^(1/ρ)
        width: Size = 16,  # channels at the first scale; twice as many at each further one
        blocks: Size = 1,  # residual blocks at each scale on either side
        scales: Size = 1,  # 1: full size only; 2: a U-Net that also works at half the sides; and so on
        patch: Size = 1,  # pixels on a side of what the network sees as one place
        positions: bool = True,  # the network knows where in the image it is
        network: Literal["unet", "dit"] = "unet",  # dit: a transformer over patches (Peebles and Xie 2023)
        heads: Size = 4,  # of the transformer, whose `blocks` stand one after the other
        dropout: Share = 0.1,
        steps: Steps = 18,  # of the sampler, two evaluations each
        likelihood_steps: Steps = 6,  # at so many levels of noise the divergence is evaluated
        probes: Steps = 1,  # groups of pixels in Hutchinson's estimator; as many as pixels: the exact divergence
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        self.sigma_min, self.sigma_max = noise * 2 / (spec.levels - 1), sigma_max
        if self.sigma_min >= sigma_max:
            raise BadInput(
                f"edm: noise={noise} is {self.sigma_min:g} on [-1, 1]: choose less than sigma_max={sigma_max}"
            )
        self.sigma_mean, self.sigma_spread, self.rho = sigma_mean, sigma_spread, rho
        self.steps, self.likelihood_steps, self.probes = steps, likelihood_steps, probes
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("values", torch.linspace(-1, 1, spec.levels), persistent=False)  # [L]
        self.register_buffer("sigma_data", torch.tensor(0.5))  # measured on the first batch
        self.register_buffer("measured", torch.tensor(False))
        sizes = (width, blocks, scales, heads, patch, positions, dropout)
        with refusing("edm"):
            self.network = denoiser(
                network, spec.shape, spec.shape[0], *sizes, frequencies=torch.logspace(-1, 1.5, width)
            )

    # The model -------------------------------------------------------------------------------------------------------

    def output(self, z: Tensor, sigma: Tensor) -> Tensor:
        """F(z; c_noise) `[B, C, H, W]` for z = c_in y, which has unit variance, and so has what F is to be."""
        output: Tensor = self.network(z, (sigma / self.sigma_data).log().float() / 4).float()
        return output

    def scales(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """c_skip, c_out and c_in (table 1), `[B, 1, 1, 1]` each."""
        s, d = sigma.view(-1, 1, 1, 1), self.sigma_data
        total = s.square() + d.square()
        return d.square() / total, s * d * total.rsqrt(), total.rsqrt()

    def denoise(self, y: Tensor, sigma: Tensor) -> Tensor:
        """D(y; σ) = c_skip y + c_out F(c_in y), in the precision of y (eq. 7)."""
        c_skip, c_out, c_in = self.scales(sigma)
        return c_skip * y + c_out * self.output((c_in * y).float(), sigma)

    def read(self, y: Tensor) -> Categorical:
        """p(x | y) at σ_min, over [B, C, H, W]: how likely each level makes the noisy pixel."""
        logits = -((y.unsqueeze(-1).float() - self.values) / self.sigma_min).square() / 2
        return Categorical(logits=logits, validate_args=False)

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("heun", 2 * self.steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.sampler.evaluations)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        return self.generate(self.noise(n), max(1, evaluations // 2))

    def noise(self, n: int) -> Tensor:
        """ε ~ N(0, I), [n, C, H, W]."""
        return torch.randn(n, *self.spec.shape, device=self.device)

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, partial(self.generate, steps=self.steps))

    @torch.no_grad()
    def generate(self, epsilon: Tensor, steps: int) -> Tensor:
        """x [B, C, H, W] from y = σ_max ε by so many steps of Heun's method (algorithm 1), in double precision but for
        the network."""
        ends = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        path = torch.linspace(*ends, steps + 1, dtype=torch.float64, device=self.device) ** self.rho  # eq. 5
        sample: Tensor = self.read(heun(self.slope, self.sigma_max * epsilon.double(), path)).sample()
        return sample

    def slope(self, y: Tensor, sigma: Tensor) -> Tensor:
        """dy/dσ at σ [B] (eq. 1 with σ(t) = t)."""
        return (y - self.denoise(y, sigma)) / sigma.view(-1, 1, 1, 1)

    def solver(self) -> Solver:
        return Solver("runge-kutta 4, gauss-legendre", 4 * self.likelihood_steps + 4)

    def elbo(self, x: Tensor) -> Tensor:
        return self.solve(x, self.solver().evaluations)

    def solve(self, x: Tensor, evaluations: int) -> Tensor:
        """log p(y) + log p(x | y) - log q(y | x) at σ_min for a draw of y from q.

        In z = c_in y the flow is dz/dφ = -F(z) with tan φ = σ / σ_d, so that log p(z) moves by ∫ div F dφ. It is
        followed in s = log(1 + σ_d / σ), which is finite at both ends: one step each of Runge and Kutta's method
        between the nodes of Gauss and Legendre, where the divergence is evaluated.
        """
        epsilon = torch.randn(x.shape, device=self.device)
        d, D = float(self.sigma_data), self.spec.dims
        y = centred(x, self.spec.levels) + self.sigma_min * epsilon  # ~ q(y | x)
        log_p: Tensor = self.read(y).log_prob(x).flatten(1).sum(1) - log_normal(epsilon) + D * math.log(self.sigma_min)
        z = y / math.hypot(self.sigma_min, d)
        log_p = log_p - D * math.log(math.hypot(self.sigma_min, d))
        first, last = (math.log1p(d / sigma) for sigma in (self.sigma_min, self.sigma_max))
        nodes, weights = np.polynomial.legendre.leggauss(max(1, evaluations // 4 - 1))  # on [-1, 1]
        path = ((first + last) / 2 + (last - first) / 2 * np.array([-1.0, *nodes, 1.0])).tolist()
        directions = random_directions(x, self.probes)
        slope = self.rate(z, path[0])
        for s, r, weight in zip(path[:-1], path[1:], [*weights, None], strict=True):
            z = runge_kutta(self.rate, z, s, r, slope)
            if weight is not None:
                slope, trace = divergence(partial(self.rate, s=r), z, directions)
                log_p = log_p + weight * (last - first) / 2 * trace
        z_std = self.sigma_max / math.hypot(self.sigma_max, d)  # of the prior N(0, σ_max²) of y
        return log_p + log_normal(z / z_std) - D * math.log(z_std)

    def rate(self, z: Tensor, s: float) -> Tensor:
        """dz/ds `[B, C, H, W]`: F(z) times -dφ/ds."""
        d = float(self.sigma_data)
        sigma = d / math.expm1(s)
        output = self.output(z, torch.full((len(z),), sigma, device=z.device))
        return sigma * (sigma + d) / (sigma**2 + d**2) * output

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        f = centred(batch.x, self.spec.levels)
        self.sigma_data.copy_(torch.where(self.measured, self.sigma_data, f.std().clamp(min=self.sigma_min)))
        self.measured.fill_(True)
        unit = 2 * self.sigma_data  # the paper's data have a standard deviation of 0.5
        sigma = unit * torch.exp(self.sigma_mean + self.sigma_spread * torch.randn(len(f), device=f.device))
        y = f + sigma.view(-1, 1, 1, 1) * torch.randn_like(f)
        c_skip, c_out, c_in = self.scales(sigma)
        error = self.output(c_in * y, sigma) - (f - c_skip * y) / c_out  # eq. 8: the weights λ(σ) make all σ alike
        return {"loss": error.square().mean()}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
