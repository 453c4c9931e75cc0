"""Flow matching: a velocity field that carries noise to images along straight lines.

Paper: Lipman, Chen, Ben-Hamu, Nickel and Le, "Flow Matching for Generative Modeling", ICLR 2023, arXiv:2210.02747

Differences: the lines end at the data (σ_min = 0), as in Liu, Gong and Liu, "Flow Straight and Fast: Learning to
Generate and Transfer Data with Rectified Flow", ICLR 2023, arXiv:2209.03003; with `times: logit_normal` they are drawn
as in Esser and others, "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", ICML 2024,
arXiv:2403.03206. With `output: levels` the network predicts a distribution over the levels of each pixel in place of
the velocity, which is then that of the mean (Eijkelboom and others, "Variational Flow Matching for Graph Generation",
NeurIPS 2024, arXiv:2406.04843), and to which the likelihood of the noisy pixel itself is added in closed form.

The flow is integrated up to a time T just before the data. There a normalised distribution over levels reads the image,
so that noise of the path itself dequantises the data, and the likelihood is a bound; solving the flow makes it
approximate.

Shapes: B images x [B, C, H, W] of L integer levels, a few coordinates [B, D] being a grid of one row; f [B, C, H, W]
the same on [-1, 1]; y a point of the path at time t [B]; K probes; P features. Unit: nats an image.
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
from benchmark.nn.levels import as_grid
from benchmark.nn.optim import adamw
from benchmark.spec import (
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


class FlowMatching(GenerativeModel, SolvesLikelihood, Interpolates, SamplesWithin):
    """y_t = (1 - t) ε + t f with ε ~ N(0, I), moved from t = 0 to T by dy/dt = v(y, t); then x ~ p(x | y_T)."""

    values: Tensor

    def __init__(
        self,
        spec: DataSpec,
        output: Literal["levels", "velocity"] = "levels",  # what the network predicts; velocity where levels are many
        width: Size = 16,  # P, channels at the first scale; twice as many at each further one
        blocks: Size = 1,  # residual blocks at each scale on either side
        scales: Size = 1,  # 1: full size only; 2: a U-Net that also works at half the sides; and so on
        patch: Size = 1,  # pixels on a side of what the network sees as one place
        positions: bool = True,  # the network knows where in the image it is
        network: Literal["unet", "dit"] = "unet",  # dit: a transformer over patches (Peebles and Xie 2023)
        heads: Size = 4,  # of the transformer, whose `blocks` stand one after the other
        dropout: Share = 0.1,
        noise: Positive = 0.5,  # left at time T, in distances between levels
        times: Literal["logit_normal", "uniform"] = "logit_normal",  # of training; uniform: as in the paper
        time_mean: float = 0.0,  # of the logit of logit-normal times
        time_spread: NonNegative = 1.0,
        steps: Steps = 20,  # of the sampler, two evaluations each
        likelihood_steps: Steps = 7,  # at so many times the divergence is evaluated
        probes: Steps = 1,  # groups of pixels in Hutchinson's estimator; as many as pixels: the exact divergence
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        self.read_evaluations = int(output == "levels")
        self.output, self.steps, self.likelihood_steps, self.probes = output, steps, likelihood_steps, probes
        self.times, self.time_mean, self.time_spread = times, time_mean, time_spread
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("values", torch.linspace(-1, 1, spec.levels), persistent=False)  # [L]
        self.last = 1 / (1 + noise * 2 / (spec.levels - 1))  # T, where the noise is (1 - T) / T in units of f
        self.grid = as_grid(spec.shape)
        outputs = self.grid[0] * (spec.levels if output == "levels" else 1)
        frequencies = torch.logspace(0, 3, width)
        sizes = (width, blocks, scales, heads, patch, positions, dropout)
        with refusing("flow_matching"):
            self.network = denoiser(network, self.grid, outputs, *sizes, frequencies)

    # The model -------------------------------------------------------------------------------------------------------

    def logits(self, y: Tensor, t: Tensor) -> Tensor:
        """log p(level | y_t) `[B, L, C, H, W]` of each pixel, but for a constant."""
        v, s = self.values.view(-1, 1, 1, 1), t.view(-1, 1, 1, 1, 1)
        logits: Tensor = (s * v * y.unsqueeze(1) - (s * v).square() / 2) / (1 - s).square()  # log N(y; t v, (1 - t)²)
        if self.output == "levels":
            logits = logits + self.network(y, t).float().unflatten(1, (-1, len(y[0])))
        return logits

    def denoise(self, y: Tensor, t: Tensor) -> Tensor:
        """E[f | y_t], `[B, C, H, W]`."""
        if self.output == "levels":
            return torch.einsum("blchw,l->bchw", self.logits(y, t).softmax(1), self.values)
        v: Tensor = self.network(y, t).float()
        return y + (1 - t).view(-1, 1, 1, 1) * v

    def velocity(self, y: Tensor, t: Tensor) -> Tensor:
        """E[f - ε | y_t] = (E[f | y_t] - y) / (1 - t), `[B, C, H, W]`."""
        v: Tensor = (self.denoise(y, t) - y) / (1 - t).view(-1, 1, 1, 1)
        return v

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("heun", 2 * self.steps + self.read_evaluations)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.sampler.evaluations)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        return self.generate(self.noise(n), max(1, (evaluations - self.read_evaluations) // 2))

    def noise(self, n: int) -> Tensor:
        """y_0 ~ N(0, I), [n, C, H, W]."""
        return torch.randn(n, *self.grid, device=self.device)

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, partial(self.generate, steps=self.steps))

    @torch.no_grad()
    def generate(self, y: Tensor, steps: int) -> Tensor:
        """x `[B, *shape]` from y_0 = ε by Heun's method, the noise falling by the same factor at each of so many
        steps."""
        times = -torch.expm1(torch.linspace(0, math.log(1 - self.last), steps + 1, device=self.device))
        sample: Tensor = self.read(heun(self.velocity, y, times)).sample()
        return sample.reshape(-1, *self.spec.shape)

    def read(self, y: Tensor) -> Categorical:
        """p(x | y_T), over [B, C, H, W]."""
        logits = self.logits(y, torch.full((len(y),), self.last, device=y.device))
        return Categorical(logits=logits.movedim(1, -1), validate_args=False)

    def solver(self) -> Solver:
        return Solver("runge-kutta 4, gauss-legendre", 4 * self.likelihood_steps + 4 + self.read_evaluations)

    def elbo(self, x: Tensor) -> Tensor:
        return self.solve(x, self.solver().evaluations)

    def solve(self, x: Tensor, evaluations: int) -> Tensor:
        """log p(y_T) + log p(x | y_T) - log q(y_T | x) for a draw of y_T from q.

        log p(y_T) = log N(y_0; 0, I) - ∫ div v dt (Chen and others, "Neural Ordinary Differential Equations", NeurIPS
        2018, eq. 8).

        In s = -log(1 - t) the flow is dy/ds = f̂ - y with f̂ = E[f | y], whose divergence is div f̂ - D: the second part
        is integrated exactly, the first by the rule of Gauss and Legendre, between whose nodes one step each of Runge
        and Kutta's method leads from T back to 0.
        """
        x = x.reshape(-1, *self.grid)
        epsilon = torch.randn(x.shape, device=self.device)
        y = self.last * self.values[x] + (1 - self.last) * epsilon  # ~ q(y_T | x)
        length = -math.log(1 - self.last)  # of the path in s
        log_p: Tensor = self.read(y).log_prob(x).flatten(1).sum(1)
        log_p -= log_normal(epsilon)  # both densities of y_T scale ...
        probes = random_directions(y, self.probes)
        nodes, weights = np.polynomial.legendre.leggauss(evaluations // 4 - 1)  # on [-1, 1]
        path = (length / 2 * (1 - np.array([-1.0, *nodes, 1.0]))).tolist()  # s, from T to 0
        slope = self.slope(y, path[0])
        for s, r, weight in zip(path[:-1], path[1:], [*weights, None], strict=True):
            y = runge_kutta(self.slope, y, s, r, slope)
            if weight is not None:
                denoised, trace = divergence(partial(self.denoised, s=r), y, probes)
                slope = denoised - y
                log_p -= weight * length / 2 * trace
        log_p += log_normal(y)  # ... by the same factor (1 - T)^-D
        return log_p

    def slope(self, y: Tensor, s: float) -> Tensor:
        """dy/ds where s = -log(1 - t), `[B, C, H, W]`."""
        return self.denoised(y, s) - y

    def denoised(self, y: Tensor, s: float) -> Tensor:
        """E[f | y] there."""
        return self.denoise(y, torch.full((len(y),), -math.expm1(-s), device=y.device))

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        f = self.values[batch.x.reshape(-1, *self.grid)]
        epsilon = torch.randn_like(f)
        if self.times == "uniform":
            t = self.last * torch.rand(len(f), device=f.device)
        else:
            t = self.last * torch.sigmoid(self.time_mean + self.time_spread * torch.randn(len(f), device=f.device))
        time = t.view(-1, 1, 1, 1)
        v = self.velocity((1 - time) * epsilon + time * f, t)
        loss = (v - (f - epsilon)).square().flatten(1).sum(1)  # eq. 23 with σ_min = 0
        return {"loss": loss.mean()}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
