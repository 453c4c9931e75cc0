"""Denoising diffusion: noise is added in many small steps, and a network undoes one step after the other.

Paper: Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models", NeurIPS 2020, arXiv:2006.11239 [Ho]

With the cosine schedule, learned variances and steps drawn by importance of Nichol and Dhariwal, "Improved Denoising
Diffusion Probabilistic Models", ICML 2021, arXiv:2102.09672 [ND]; the quick sampler of Song, Meng and Ermon, "Denoising
Diffusion Implicit Models", ICLR 2021, arXiv:2010.02502 [S]; the output v of Salimans and Ho, "Progressive Distillation
for Fast Sampling of Diffusion Models", ICLR 2022, arXiv:2202.00512.

Differences: a schedule starts where the noise is a share of the distance between two levels, whatever their number
(`noise: 0`: where its paper starts). The average loss of a step forgets by a factor where [ND] keep ten values; until
losses are known, steps are drawn by what they would cost for Gaussian data. A sample is drawn from the last term of the
bound, p(x | x_1), or, by DDIM, is the level nearest to the predicted image.

Shapes: B images x [B, C, H, W] of L integer levels, a few coordinates [B, D] being a grid of one row; x_0 [B, C, H, W]
the same on [-1, 1]; x_t its noisy image after step t [B] of 1 to T; ᾱ [T + 1] with ᾱ_0 = 1. Unit: nats an image.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.denoisers import denoiser
from benchmark.nn.distributions import log_normal_bin, normal_kl
from benchmark.nn.levels import as_grid, centred
from benchmark.nn.optim import adamw
from benchmark.spec import (
    BadInput,
    Batch,
    DataSpec,
    Diagnosable,
    NonNegative,
    Sampler,
    SamplesWithin,
    Share,
    Size,
    Steps,
    StepwiseBound,
)

FORGET = 0.9  # a new loss of a step counts for the rest in the average from which steps are drawn


class DDPM(GenerativeModel, StepwiseBound, SamplesWithin, Diagnosable):
    """q(x_t | x_0) = N(√ᾱ_t x_0, 1 - ᾱ_t), undone by p(x_{t-1} | x_t), each a Gaussian; then x ~ p(x | x_1)."""

    alpha_bar: Tensor
    square: Tensor
    known: Tensor

    def __init__(
        self,
        spec: DataSpec,
        schedule: Literal["cosine", "linear"] = "cosine",
        diffusion_steps: Steps = 1000,  # T, at least two
        noise: NonNegative = 0.5,  # left at the first step, in distances between levels; 0: as in the paper
        output: Literal["v", "noise"] = "v",  # what the network predicts
        variances: Literal["learned", "large", "small"] = "learned",  # large: β_t; small: that of q(x_{t-1} | x_t, x_0)
        loss: Literal["bound", "simple", "hybrid"] = "bound",  # simple: squared error of the output
        width: Size = 16,  # channels at the first scale; twice as many at each further one
        blocks: Size = 1,  # residual blocks at each scale on either side
        scales: Size = 1,  # 1: full size only; 2: a U-Net that also works at half the sides; and so on
        patch: Size = 1,  # pixels on a side of what the network sees as one place
        positions: bool = True,  # the network knows where in the image it is
        network: Literal["unet", "dit"] = "unet",  # dit: a transformer over patches (Peebles and Xie 2023)
        heads: Size = 4,  # of the transformer, whose `blocks` stand one after the other
        dropout: Share = 0.1,
        sampler_name: Literal["ddim", "ancestral"] = "ddim",
        sampler_steps: Steps = 50,  # at most T, spread evenly over them
        learning_rate: NonNegative = 2e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        if sampler_steps > diffusion_steps or diffusion_steps < 2:
            raise BadInput(
                f"ddpm: sampler_steps={sampler_steps} of diffusion_steps={diffusion_steps}: the sampler takes at most "
                "all, of which there are at least two"
            )
        if loss == "simple" and variances == "learned":
            raise BadInput("ddpm: loss=simple teaches no variances: use variances=large or small, or loss=hybrid")
        self.output, self.variances, self.loss = output, variances, loss
        self.T, self.sampler_name, self.sampler_steps = diffusion_steps, sampler_name, sampler_steps
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("alpha_bar", noise_schedule(schedule, self.T, noise, spec.levels), persistent=False)
        self.register_buffer("square", torch.zeros(self.T))  # Σ L_t² of past draws, with weights that forget ...
        self.register_buffer("known", torch.zeros(self.T))  # ... and the sum of these weights
        self.outputs = 2 if variances == "learned" else 1
        self.grid = as_grid(spec.shape)
        sizes = (width, blocks, scales, heads, patch, positions, dropout)
        with refusing("ddpm"):
            self.network = denoiser(
                network, self.grid, self.outputs * self.grid[0], *sizes, frequencies=torch.logspace(0, 3, width)
            )

    # The model -------------------------------------------------------------------------------------------------------

    def at(self, t: Tensor) -> Tensor:
        """ᾱ_t `[B, 1, 1, 1]`, in double precision: differences of neighbours are small."""
        return self.alpha_bar[t].view(-1, 1, 1, 1)

    def predict(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's output at step t [B], and where it lets log σ² lie between two bounds, `[B, C, H, W]` each."""
        outputs = self.network(x_t, t / self.T).float().unflatten(1, (self.outputs, -1))
        return outputs[:, 0], (outputs[:, 1] + 1) / 2 if self.outputs == 2 else None

    def denoise(self, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """The x_0 that an output at step t stands for; scored and sampled within [-1, 1], where all images are."""
        alpha, sigma = self.at(t).sqrt().float(), (1 - self.at(t)).sqrt().float()
        x_0 = alpha * x_t - sigma * output if self.output == "v" else (x_t - sigma * output) / alpha
        return x_0 if self.training else x_0.clamp(-1, 1)

    def posterior(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean `[B, C, H, W]` of q(x_s | x_t, x_0) for s < t, its variance and that of q(x_t | x_s), `[B, 1, 1, 1]`.

        [Ho] eq. 7 for s = t - 1; for the steps of a shorter sampler [ND] eq. 19. Where s is 0 the variance would be
        zero: that of the step after it stands in ([ND] section 3.1).
        """
        a_t, a_s = self.at(t), self.at(s)
        beta = 1 - a_t / a_s
        mean = (a_s.sqrt() * beta / (1 - a_t)).float() * x_0
        mean = mean + ((a_t / a_s).sqrt() * (1 - a_s) / (1 - a_t)).float() * x_t
        first, second = self.alpha_bar[1], self.alpha_bar[2]
        least = (1 - first) / (1 - second) * (1 - second / first)
        small = torch.where(s.view(-1, 1, 1, 1) > 0, (1 - a_s) / (1 - a_t) * beta, least.clamp(max=beta))
        return mean, small.float(), beta.float()

    def log_variance(self, share: Tensor | None, small: Tensor, large: Tensor) -> Tensor:
        """log σ² of p(x_s | x_t): between both bounds as the network says ([ND] eq. 15), or one of them."""
        if share is None:
            return (large if self.variances == "large" else small).log()
        return share * large.log() + (1 - share) * small.log()

    def terms(self, x: Tensor, x_t: Tensor, t: Tensor, output: Tensor, share: Tensor | None) -> Tensor:
        """L_{t-1} `[B]`: the KL divergence from p(x_{t-1} | x_t), at t = 1 -log p(x | x_1) ([Ho] eq. 5 and 13)."""
        f = centred(x, self.spec.levels)
        mean, small, large = self.posterior(f, x_t, t, t - 1)
        ours, _, _ = self.posterior(self.denoise(x_t, t, output), x_t, t, t - 1)
        log_variance = self.log_variance(share, small, large)
        kl = normal_kl(mean, small.log(), ours, log_variance)
        last = -log_normal_bin(x, ours, (0.5 * log_variance).exp(), self.spec.levels)
        return torch.where(t.view(-1, 1, 1, 1) == 1, last, kl).flatten(1).sum(1)

    def diffuse(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """x_t ~ q(x_t | x_0), and the output that would be right there, `[B, C, H, W]` each."""
        f, alpha, sigma = centred(x, self.spec.levels), self.at(t).sqrt().float(), (1 - self.at(t)).sqrt().float()
        epsilon = torch.randn_like(f)
        return alpha * f + sigma * epsilon, alpha * epsilon - sigma * f if self.output == "v" else epsilon

    def prior_term(self, x: Tensor) -> Tensor:
        """L_T `[B]`: the KL divergence of q(x_T | x_0) from N(0, I)."""
        f, last = centred(x, self.spec.levels), self.alpha_bar[-1].float()
        zero = torch.zeros_like(f)
        return normal_kl(last.sqrt() * f, (1 - last).log(), zero, zero).flatten(1).sum(1)

    # Promises --------------------------------------------------------------------------------------------------------

    def elbo(self, x: Tensor) -> Tensor:
        """-(L_T + L_{t-1} / p(t)) at one step t ~ p(t) for each image: all T steps in expectation."""
        x, p = x.reshape(-1, *self.grid), self.probabilities()
        t = self.draw_steps(p, len(x))
        x_t, _ = self.diffuse(x, t)
        return -(self.prior_term(x) + self.terms(x, x_t, t, *self.predict(x_t, t)) / p[t - 1])

    def step_costs(self, x: Tensor) -> Tensor:
        """L_0, L_1, ..., L_T, `[T + 1]`, by one draw of each x_t."""
        x, costs = x.reshape(-1, *self.grid), []
        for t in torch.arange(1, self.T + 1, device=x.device).unsqueeze(1).expand(-1, len(x)):
            x_t, _ = self.diffuse(x, t)
            costs.append(self.terms(x, x_t, t, *self.predict(x_t, t)).mean())
        return torch.stack([*costs, self.prior_term(x).mean()])

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Bits a dimension of the bound's two ends: L_T is near zero while the schedule ends in noise."""
        x, t = x.reshape(-1, *self.grid), torch.ones(len(x), dtype=torch.long, device=x.device)
        x_1, _ = self.diffuse(x, t)
        first, nats = self.terms(x, x_1, t, *self.predict(x_1, t)), self.spec.dims * math.log(2)
        return {"first_term": float(first.mean()) / nats, "prior_term": float(self.prior_term(x).mean()) / nats}

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.sampler_name, evaluations=self.sampler_steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.sampler_steps)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        """From x_T ~ N(0, I) through so many of the T steps down to x."""
        x_t = torch.randn(n, *self.grid, device=self.device)
        steps = torch.linspace(self.T, 0, min(evaluations, self.T) + 1, dtype=torch.float64, device=self.device)
        for t, s in pairwise(steps.round().long().unsqueeze(1).expand(-1, n)):
            output, share = self.predict(x_t, t)
            x_0 = self.denoise(x_t, t, output)
            if self.sampler_name == "ddim":  # [S] eq. 12 with σ = 0
                epsilon = (x_t - self.at(t).sqrt().float() * x_0) / (1 - self.at(t)).sqrt().float()
                x_t = self.at(s).sqrt().float() * x_0 + (1 - self.at(s)).sqrt().float() * epsilon
            else:
                mean, small, large = self.posterior(x_0, x_t, t, s)
                x_t = mean + (0.5 * self.log_variance(share, small, large)).exp() * torch.randn_like(x_t)
        x = ((x_t + 1) * ((self.spec.levels - 1) / 2)).round().long().clamp(0, self.spec.levels - 1)
        return x.reshape(n, *self.spec.shape)

    # How it learns ---------------------------------------------------------------------------------------------------

    def probabilities(self) -> Tensor:
        """p(t) `[T]` ∝ √E[L_t²] ([ND] eq. 18), once ten losses or so of each step are known; no step is forgotten."""
        if self.known.min() > 1 - FORGET**10:
            cost = (self.square / self.known).sqrt()
        else:  # for pixels of unit variance, [Ho] eq. 8 is half of this; L_0 as if it halved the variance of the noise
            ratio = self.alpha_bar / (1 - self.alpha_bar)  # of signal to noise
            cost = (torch.cat([2 * ratio[1:2], ratio[1:-1]]) - ratio[1:]) * (1 - self.alpha_bar[1:])
        return (0.99 * cost / cost.sum() + 0.01 / self.T).float()

    def draw_steps(self, p: Tensor, n: int) -> Tensor:
        """Steps t `[n]` of 1 to T, each with probabilities p [T], and together evenly spread."""
        u = (torch.rand((), device=p.device) + torch.arange(n, device=p.device) / n) % 1
        return torch.searchsorted(p.cumsum(0), u).clamp(max=self.T - 1) + 1

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x, p = batch.x.reshape(-1, *self.grid), self.probabilities()
        if self.loss != "bound":  # all steps alike
            p = torch.full_like(p, 1 / self.T)
        t = self.draw_steps(p, len(x))
        x_t, right = self.diffuse(x, t)
        output, share = self.predict(x_t, t)
        error = (output - right).square().mean()  # L_simple, [Ho] eq. 14, a dimension
        of_means = output if self.loss == "bound" else output.detach()  # hybrid: the bound teaches variances alone
        nats = self.terms(x, x_t, t, of_means, share)
        bound = (nats / p[t - 1]).mean() / self.spec.dims
        self.remember(t, nats.detach())
        loss = {"bound": bound, "simple": error, "hybrid": error + 0.001 * bound}[self.loss]  # [ND] eq. 16
        return {"loss": loss, "simple": error, "bound": bound}

    def remember(self, t: Tensor, nats: Tensor) -> None:
        """Keeps the squares of the losses of steps t `[B]`."""
        count = torch.zeros_like(self.known).index_add_(0, t - 1, torch.ones_like(nats))
        total = torch.zeros_like(self.known).index_add_(0, t - 1, nats.square())
        kept = torch.pow(FORGET, count)
        self.square.mul_(kept).add_((1 - kept) * total / count.clamp(min=1))
        self.known.mul_(kept).add_(1 - kept)

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def noise_schedule(name: str, T: int, noise: float, levels: int) -> Tensor:
    """ᾱ_0, ..., ᾱ_T `[T + 1]`, float64: steps evenly spaced on a curve from where the noise beside the image is `noise`
    distances between two of the levels."""

    def curve(u: Tensor) -> Tensor:
        if name == "linear":  # β from 1e-4 to 0.02 in 1,000 steps ([Ho] section 4), in the limit of many steps
            return torch.exp(-(0.1 * u + 9.95 * u.square()))
        angle = (u + 0.008) / 1.008 * math.pi / 2
        return (angle.cos() / math.cos(0.008 / 1.008 * math.pi / 2)).square()  # [ND] eq. 17

    low, high = torch.tensor(1 / T, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    if noise:
        first = 1 / (1 + (2 * noise / (levels - 1)) ** 2)
        low = torch.zeros_like(low)
        for _ in range(60):  # halves the interval in which the curve passes it
            middle = (low + high) / 2
            low, high = (middle, high) if curve(middle) > first else (low, middle)
    u = low + (1 - low) * torch.arange(T, dtype=torch.float64) / (T - 1)
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), curve(u)])
    ratio = (alpha_bar[1:] / alpha_bar[:-1]).clamp(min=0.001)  # no step takes all that is left ([ND] section 3.2)
    return torch.cat([alpha_bar[:1], ratio.cumprod(0)])
