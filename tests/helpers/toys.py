"""Tiny models on which the laws themselves are tested: honest ones, and one broken variant for each way to lie.

In all of them D = spec.dims, L = spec.levels, and x is `[B, *shape]`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn import functional as F

from benchmark.models.base import GenerativeModel
from benchmark.nn.condition import condition_encoder
from benchmark.nn.latents import interpolated
from benchmark.spec import (
    Autoencodes,
    Batch,
    Conditional,
    ConditionalTokenLikelihood,
    DataSpec,
    Diagnosable,
    ImportanceBound,
    Interpolates,
    Likelihood,
    LikelihoodBound,
    PseudoLikelihood,
    Reconstructs,
    Rewarded,
    Sampler,
    SamplesWithin,
    Solver,
    SolvesLikelihood,
    State,
    Stateful,
    StepwiseBound,
    Truncates,
)


class Toy(GenerativeModel):
    """What all toys share."""

    learning_rate: ClassVar[float] = 0.05

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


def categorical(logits: Tensor) -> Tensor:
    """One draw `[...]` from each distribution of `logits` `[..., L]`."""
    drawn: Tensor = torch.distributions.Categorical(logits=logits, validate_args=False).sample()
    return drawn


def log_prob_of(x: Tensor, logits: Tensor) -> Tensor:
    """log softmax(logits)[x], `[B, D]`, for x `[B, D]` and logits `[B, D, L]`."""
    return logits.log_softmax(-1).expand(*x.shape, -1).gather(-1, x[..., None])[..., 0]


# An exact likelihood -------------------------------------------------------------------------------------------------


class Independent(Toy, Likelihood):
    """Every dimension has a categorical distribution of its own."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.logits = nn.Parameter(torch.randn(spec.dims, spec.levels))

    def log_prob(self, x: Tensor) -> Tensor:
        return log_prob_of(x.flatten(1), self.logits).sum(1)

    def sample(self, n: int) -> Tensor:
        return categorical(self.logits.expand(n, -1, -1)).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean()}


class KeepsEveryLoss(Independent):
    """A hook on what a loss is computed from holds the loss: a ring that nobody collects."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        inner = 1.0 * self.logits
        loss = -log_prob_of(batch.x.flatten(1), inner).sum(1).mean()
        inner.register_hook(lambda gradient: gradient * (loss.detach() / loss.detach()))
        return {"loss": loss}


class Introspective(Independent, Diagnosable):
    """Knows how far its distributions are from certain."""

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return {"certainty": float(self.logits.softmax(1).max(1).values.mean())}


class InfiniteSign(Introspective):
    def diagnostics(self, x: Tensor) -> dict[str, float]:
        return {"certainty": math.inf}


class MeddlingSign(Introspective):
    """Asking moves the model."""

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        signs = super().diagnostics(x)
        self.logits.mul_(0.9)
        return signs


class Pleased(Independent, Rewarded):
    """Learns to draw zeros, by the exact gradient of their share; and no data teach it."""

    before: Tensor

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.register_buffer("before", self.logits.detach().clone())

    @property
    def reward_name(self) -> str:
        return "zeros"

    def reward_of(self, x: Tensor) -> Tensor:
        return (x.flatten(1) == 0).double().mean(1)

    def log_prob_before(self, x: Tensor) -> Tensor:
        return log_prob_of(x.flatten(1), self.before).sum(1)

    def sample_before(self, n: int) -> Tensor:
        return categorical(self.before.expand(n, -1, -1)).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.logits.softmax(1)[:, 0].mean()}


class Displeased(Pleased):
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -super().training_step(batch, batch_idx)["loss"]}


class ForgetsItself(Pleased):
    """What it was moves with what it is."""

    def log_prob_before(self, x: Tensor) -> Tensor:
        return self.log_prob(x)


class DrawsAfter(Pleased):
    def sample_before(self, n: int) -> Tensor:
        return self.sample(n)


class MeanForSum(Independent):
    def log_prob(self, x: Tensor) -> Tensor:
        return super().log_prob(x) / self.spec.dims


class SharpSampler(Independent):
    """Draws at a lower temperature than the likelihood's."""

    def sample(self, n: int) -> Tensor:
        return categorical(self.logits.expand(n, -1, -1) / 0.7).reshape(n, *self.spec.shape)


class UnusedParameter(Independent):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.forgotten = nn.Linear(1, 1)


class UnsteppedParameter(Independent):
    """A parameter that is used, but that no optimiser knows."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.shift = nn.Parameter(torch.randn(spec.levels))

    def log_prob(self, x: Tensor) -> Tensor:
        return log_prob_of(x.flatten(1), self.logits + self.shift).sum(1)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam([self.logits], lr=self.learning_rate)


class InfiniteGradient(Independent):
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": super().training_step(batch, batch_idx)["loss"] + (self.logits * 0).sum().sqrt()}


class WrongDtype(Independent):
    def sample(self, n: int) -> Tensor:
        return super().sample(n).float()


class OutOfRange(Independent):
    def sample(self, n: int) -> Tensor:
        return super().sample(n) + 1


class Crashes(Independent):
    """Its code fails where it is asked for samples."""

    def sample(self, n: int) -> Tensor:
        nothing: dict[str, Tensor] = {}
        return nothing[f"{n} samples"]


class Leaves(Independent):
    """Ends the program where it is asked to learn."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        raise SystemExit(3)


class Interrupted(Independent):
    """Somebody presses Ctrl-C while it learns."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        raise KeyboardInterrupt


class SeedsItself(Independent):
    def sample(self, n: int) -> Tensor:
        torch.manual_seed(7)
        return super().sample(n)


class IgnoresSeed(Independent):
    def sample(self, n: int) -> Tensor:
        with torch.random.fork_rng(devices=[]):
            torch.seed()
            return super().sample(n)


class ForgetsBuffer(Independent):
    """Its samples depend on something learnt that the state dictionary does not hold."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.seen = torch.zeros(spec.dims, spec.levels)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self.seen += F.one_hot(batch.x.flatten(1), self.spec.levels).sum(0)
        return super().training_step(batch, batch_idx)

    def sample(self, n: int) -> Tensor:
        return categorical((self.seen + 1).log().expand(n, -1, -1)).reshape(n, *self.spec.shape)


class NeedsMoreThanSpec(Independent):
    def __init__(self, spec: DataSpec) -> None:
        super().__init__(DataSpec((1, 8, 8), spec.levels, spec.structure, spec.condition))


class ClimbsLoss(Independent):
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": self.log_prob(batch.x).mean()}


# Bounds --------------------------------------------------------------------------------------------------------------


class Latent(Toy, ImportanceBound, Reconstructs, Interpolates):
    """A VAE with one latent number: z ~ N(0, 1), x_d | z ~ Cat(w_d z + b_d), q(z | x) = N(mu(x), sigma²)."""

    beta_in_training: ClassVar[float] = 1.0

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.w = nn.Parameter(torch.randn(spec.dims, spec.levels))
        self.b = nn.Parameter(torch.zeros(spec.dims, spec.levels))
        self.mean = nn.Linear(spec.dims * spec.levels, 1)
        self.log_sigma = nn.Parameter(torch.zeros(()))

    def decode(self, z: Tensor) -> Tensor:
        """Logits `[..., D, L]` for z `[...]`."""
        return self.w * z[..., None, None] + self.b

    def mu(self, x: Tensor) -> Tensor:
        mu: Tensor = self.mean(F.one_hot(x.flatten(1), self.spec.levels).flatten(1).float())
        return mu[:, 0]  # [B]

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x | z) and log q(z | x) − log p(z) at one draw of z, each `[B]`."""
        mu, sigma = self.mu(x), self.log_sigma.exp()
        noise = torch.randn_like(mu)
        z = mu + sigma * noise
        reconstruction = log_prob_of(x.flatten(1), self.decode(z)).sum(1)
        return reconstruction, (z**2 - noise**2) / 2 - self.log_sigma

    def elbo(self, x: Tensor) -> Tensor:
        reconstruction, kl = self.terms(x)
        return reconstruction - kl

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        repeated = x.repeat(importance_samples, *[1] * (x.ndim - 1))
        reconstruction, kl = self.terms(repeated)
        return (reconstruction - kl).reshape(importance_samples, -1).logsumexp(0) - math.log(importance_samples)

    def log_prob_by_quadrature(self, x: Tensor) -> Tensor:
        """log ∫ N(z; 0, 1) p(x | z) dz on a grid, `[B]`: the truth that the bounds approach."""
        z = torch.linspace(-8, 8, 2001, dtype=torch.float64)
        logits = self.decode(z).log_softmax(-1)  # [Z, D, L]
        given_z = logits[:, torch.arange(self.spec.dims), x.flatten(1)].sum(-1)  # [Z, B]
        log_prior = -(z**2 + math.log(2 * math.pi)) / 2
        return (given_z + log_prior[:, None] + math.log(16 / 2000)).logsumexp(0)

    def prior(self, n: int) -> Tensor:
        return torch.randn(n)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.prior(n))

    def generate(self, z: Tensor) -> Tensor:
        return categorical(self.decode(z)).reshape(len(z), *self.spec.shape)

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.prior(n), self.prior(n), steps, self.generate)

    def reconstruct(self, x: Tensor) -> Tensor:
        mean = self.decode(self.mu(x)).softmax(-1) @ torch.arange(self.spec.levels, dtype=torch.float32)  # [B, D]
        return mean.round().long().reshape(x.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        reconstruction, kl = self.terms(batch.x)
        return {"loss": (self.beta_in_training * kl - reconstruction).mean()}


class LatentMeanForSum(Latent):
    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        reconstruction, kl = super().terms(x)
        return reconstruction / self.spec.dims, kl


class Jumps(Latent):
    """What is random beside the latent is drawn anew at each point of a path."""

    def interpolate(self, n: int, steps: int) -> Tensor:
        return torch.stack([self.sample(n) for _ in range(steps)], 1)


class StaysInside(Latent):
    """Paths keep to the middle of the prior."""

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.prior(n), self.prior(n), steps, lambda z: self.generate(0.2 * z))


class Wanders(Latent, StepwiseBound, SamplesWithin):
    """The latent takes several steps within the prior, each by a network; the bound has two."""

    steps: ClassVar[int] = 6
    frozen = ("shrink.",)

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.shrink = nn.Linear(1, 1, bias=False).requires_grad_(False)
        nn.init.constant_(self.shrink.weight, 0.8)

    @property
    def sampler(self) -> Sampler:
        return Sampler("steps", self.steps)

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.steps)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        z = self.prior(n)
        for _ in range(evaluations):
            z = self.shrink(z[:, None])[:, 0] + 0.6 * torch.randn(n)
        return self.generate(z)

    def step_costs(self, x: Tensor) -> Tensor:
        reconstruction, kl = self.terms(x)
        return torch.stack([-reconstruction.mean(), kl.mean()])


class WandersOn(Wanders):
    """However few evaluations it may have."""

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        return super().sample_within(n, self.steps)


class WandersElsewhere(Wanders):
    """Its own sampler takes fewer steps than it says."""

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, self.steps - 1)


class ForgetsStep(Wanders):
    """That of reading the data."""

    def step_costs(self, x: Tensor) -> Tensor:
        return super().step_costs(x)[1:]


class WeightInsideElbo(Latent):
    """A KL weight of training that reaches the reported bound."""

    beta_in_training: ClassVar[float] = 0.1

    def elbo(self, x: Tensor) -> Tensor:
        reconstruction, kl = self.terms(x)
        return reconstruction - self.beta_in_training * kl


class WeightInsideBoth(WeightInsideElbo):
    """... and the tightened bound too, so that the two agree."""

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        draws = torch.stack([self.elbo(x) for _ in range(importance_samples)])
        return draws.logsumexp(0) - math.log(importance_samples)


class SumOfWeights(Latent):
    """Forgets to divide by the number of importance samples."""

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return super().importance_bound(x, importance_samples) + math.log(importance_samples)


class MeanOfLogs(Latent):
    """Averages the logarithms: a bound, but no tighter one. Its posterior is trained to be a coarse proposal."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -Latent.importance_bound(self, batch.x, 32).mean()}

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return torch.stack([self.elbo(x) for _ in range(importance_samples)]).mean(0)


class OtherPrior(Latent):
    def prior(self, n: int) -> Tensor:
        return 2 * torch.randn(n)


class ReconstructsMean(Latent):
    """Gives back what the prior's mean decodes to, whatever it is shown."""

    def mu(self, x: Tensor) -> Tensor:
        return 0 * super().mu(x)


class Autoencoder(Latent, Autoencodes):
    """The same, for others to use its latents, one number each: S = (1,)."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (1,)

    def encode(self, x: Tensor) -> Normal:
        mu = self.mu(x)[:, None]  # [B, 1]
        return Normal(mu, self.log_sigma.exp().expand_as(mu), validate_args=False)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        logits = self.decode(z[..., 0]).log_softmax(-1)  # [..., B, D, L]
        x = x.flatten(1).expand(logits.shape[:-1])  # [..., B, D]
        return logits.gather(-1, x[..., None])[..., 0].sum(-1)

    def prior(self, n: int) -> Tensor:
        return super().prior(n)[:, None]

    def generate(self, z: Tensor) -> Tensor:
        return super().generate(z[:, 0])


class OtherLatents(Autoencoder):
    """Promises more latents than there are."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return (2,)


class NoSpread(Autoencoder):
    """A point in place of a distribution: no density."""

    def encode(self, x: Tensor) -> Normal:
        q = super().encode(x)
        return Normal(q.mean, 0 * q.stddev, validate_args=False)


class DecodesMean(Autoencoder):
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_likelihood(x, z) / self.spec.dims


class MixesLatents(Autoencoder):
    """What an example's latents say depends on the latents of others in the batch."""

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return super().log_likelihood(x, z + 1.0 * z.std())


class GeneratesSharply(Autoencoder):
    """Gives back what is likeliest more often than p(x | z) says."""

    def generate(self, z: Tensor) -> Tensor:
        return categorical(self.decode(z[:, 0]) / 0.5).reshape(len(z), *self.spec.shape)


class Dequantised(Toy, LikelihoodBound):
    """A flow on the unit cube: y = (x + u) / L with u uniform, and a histogram of 2L bins for the density of each y_d.

    Two bins share the cell of a level, so that the bound is strict wherever they differ.
    """

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.bins = 2 * spec.levels
        self.logits = nn.Parameter(torch.randn(spec.dims, self.bins))

    def elbo(self, x: Tensor) -> Tensor:
        y = (x.flatten(1) + torch.rand(len(x), self.spec.dims)) / self.spec.levels
        inside = (y * self.bins).long().clamp(max=self.bins - 1)
        log_density = log_prob_of(inside, self.logits) + math.log(self.bins)
        return (log_density - math.log(self.spec.levels)).sum(1)  # a cell has the volume L^-D

    def log_prob_by_cells(self, x: Tensor) -> Tensor:
        """The density integrated over each cell, `[B]`: the truth that the bound approaches."""
        return log_prob_of(x.flatten(1), self.logits.unflatten(1, (-1, 2)).logsumexp(-1)).sum(1)

    def sample(self, n: int) -> Tensor:
        return (categorical(self.logits.expand(n, -1, -1)) // 2).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.elbo(batch.x).mean()}


class ForgetsCells(Dequantised):
    """Reports the density on the unit cube as if it were the probability of the cell."""

    def elbo(self, x: Tensor) -> Tensor:
        return super().elbo(x) + self.spec.dims * math.log(self.spec.levels)


class Solved(Dequantised, SolvesLikelihood):
    """The same density, plus an integral over time that is zero: 20 (3 t² - 1) in every dimension, by midpoints."""

    evaluations: ClassVar[int] = 16

    def solver(self) -> Solver:
        return Solver("midpoint", self.evaluations)

    def elbo(self, x: Tensor) -> Tensor:
        return self.solve(x, self.evaluations)

    def solve(self, x: Tensor, evaluations: int) -> Tensor:
        t = (torch.arange(evaluations) + 0.5) / evaluations
        return super().elbo(x) + 20 * self.spec.dims * (3 * t.square() - 1).mean()


class SolvesCoarsely(Solved):
    evaluations: ClassVar[int] = 1


class ForgetsSolver(Solved):
    """Says one solver and uses another."""

    def elbo(self, x: Tensor) -> Tensor:
        return self.solve(x, 1)


# Tokens --------------------------------------------------------------------------------------------------------------


class Markov(Toy, Likelihood, Stateful):
    """A Markov chain: token t depends on token t − 1; row L of the table is what follows the begin token."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.table = nn.Parameter(torch.randn(spec.levels + 1, spec.levels))

    def initial_state(self, n: int) -> State:
        return {"last": torch.full((n,), self.spec.levels)}

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        x = x.flatten(1)  # [B, T]
        state = self.initial_state(len(x)) if state is None else state
        before = torch.cat([state["last"][:, None], x[:, :-1]], 1)  # [B, T]
        state["last"] = x[:, -1]
        return log_prob_of(x, self.table[before])

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def sample(self, n: int) -> Tensor:
        tokens = [self.initial_state(n)["last"]]
        for _ in range(self.spec.dims):
            tokens.append(categorical(self.table[tokens[-1]]))
        return torch.stack(tokens[1:], 1).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.log_prob(batch.x).mean()}


class Peeks(Markov):
    """Token t is predicted from token t + 1 too: a leak of one position."""

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        x = x.flatten(1)
        before = self.initial_state(len(x))["last"][:, None]
        around = self.table[torch.cat([before, x[:, :-1]], 1)] + self.table[torch.cat([x[:, 1:], before], 1)]
        return log_prob_of(x, around)


class SeesItself(Markov):
    """Token t is predicted from itself: causal by the letter, and no distribution."""

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        return log_prob_of(x.flatten(1), self.table[x.flatten(1)])


class Memoryless(Markov):
    """Every token is predicted from the begin token."""

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        return log_prob_of(x.flatten(1), self.table[torch.full_like(x.flatten(1), self.spec.levels)])


class LosesState(Markov):
    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        return super().token_log_prob(x, None)


class MeanOfTokens(Markov):
    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).mean(1)


class CountsFromEnd(Markov):
    """Its predictions depend on how much text is still to come."""

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        x = x.flatten(1)
        before = torch.cat([self.initial_state(len(x))["last"][:, None], x[:, :-1]], 1)
        to_come = torch.arange(x.shape[1], 0, -1)[:, None]  # [T, 1]
        return log_prob_of(x, self.table[before] / to_come)


class Masked(Toy, PseudoLikelihood):
    """Token t is predicted from both neighbours; samples are draws from the begin token alone."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.left = nn.Parameter(torch.randn(spec.levels, spec.levels))
        self.right = nn.Parameter(torch.randn(spec.levels, spec.levels))

    def logits(self, x: Tensor) -> Tensor:
        """Of each token of `x` `[B, T]`, `[B, T, V]`."""
        return self.left[x.roll(1, 1)] + self.right[x.roll(-1, 1)]

    def pseudo_log_probs(self, x: Tensor, places: Tensor) -> Tensor:
        return self.logits(x.flatten(1)).log_softmax(-1)[:, places]

    def sample(self, n: int) -> Tensor:
        return categorical(self.left.mean(0).expand(n, self.spec.dims, -1)).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.x.flatten(1)
        return {"loss": -log_prob_of(x, self.logits(x)).sum(1).mean()}


class Unmasked(Masked):
    """The token that is scored is among those that it is predicted from."""

    def logits(self, x: Tensor) -> Tensor:
        return self.left[x] + self.right[x.roll(-1, 1)]


# Conditions, and two optimisers --------------------------------------------------------------------------------------


class Conditioned(Toy, Likelihood, Conditional):
    """Independent dimensions, side by side p(x) and, where there is a condition c of whatever kind, p(x | c)."""

    learning_rate: ClassVar[float] = 0.02

    def __init__(self, spec: DataSpec, width: int = 16) -> None:
        super().__init__(spec)
        self.logits = nn.Parameter(torch.randn(spec.dims, spec.levels))  # of p(x)
        if spec.condition is not None:
            encode = condition_encoder(spec.condition.shape, spec.condition.levels, width)
            self.given = nn.Sequential(encode, nn.Linear(width, spec.dims * spec.levels))

    def logits_given(self, condition: Tensor) -> Tensor:
        """Logits `[B, D, L]` of p(x | c)."""
        logits: Tensor = self.given(condition).unflatten(1, (self.spec.dims, self.spec.levels))
        return logits

    def log_prob(self, x: Tensor) -> Tensor:
        return log_prob_of(x.flatten(1), self.logits).sum(1)

    def sample_given(self, condition: Tensor) -> Tensor:
        return categorical(self.logits_given(condition)).reshape(len(condition), *self.spec.shape)

    def sample(self, n: int) -> Tensor:
        return categorical(self.logits.expand(n, -1, -1)).reshape(n, *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        loss = -self.log_prob(batch.x).mean()
        if batch.condition is not None:
            loss = loss - log_prob_of(batch.x.flatten(1), self.logits_given(batch.condition)).sum(1).mean()
        return {"loss": loss}


class IgnoresCondition(Conditioned):
    def sample_given(self, condition: Tensor) -> Tensor:
        return self.sample(len(condition))


class Answers(Toy, ConditionalTokenLikelihood, Conditional):
    """A Markov chain up to its end, whose logits are moved by a condition of whatever kind."""

    learning_rate: ClassVar[float] = 0.02

    def __init__(self, spec: DataSpec, width: int = 16) -> None:
        super().__init__(spec)
        self.table = nn.Parameter(torch.randn(spec.levels + 1, spec.levels))
        if spec.condition is not None:
            encode = condition_encoder(spec.condition.shape, spec.condition.levels, width)
            self.given = nn.Sequential(encode, nn.Linear(width, spec.dims * spec.levels))

    def moved(self, n: int, condition: Tensor | None) -> Tensor:
        """What is added to logits, `[n, T, L]`."""
        if condition is None:
            return torch.zeros(n, self.spec.dims, self.spec.levels)
        logits: Tensor = self.given(condition).unflatten(1, (self.spec.dims, self.spec.levels))
        return logits

    def logits(self, x: Tensor, condition: Tensor | None) -> Tensor:
        """Of tokens `[B, T]`, `[B, T, L]`."""
        before = F.pad(x, (1, 0), value=self.spec.levels)[:, :-1]
        return self.table[before] + self.moved(len(x), condition)

    def token_log_prob_given(self, x: Tensor, condition: Tensor | None) -> Tensor:
        x = x.flatten(1)
        return log_prob_of(x, self.logits(x, condition)).masked_fill(~self.spec.counted(x), 0.0)

    def sample(self, n: int) -> Tensor:
        return self.drawn(n, None)

    def sample_given(self, condition: Tensor) -> Tensor:
        return self.drawn(len(condition), condition)

    def drawn(self, n: int, condition: Tensor | None) -> Tensor:
        moved, tokens = self.moved(n, condition), [torch.full((n,), self.spec.levels)]
        for t in range(self.spec.dims):
            token = categorical(self.table[tokens[-1]] + moved[:, t])
            tokens.append(self.after(tokens[-1], token))
        return torch.stack(tokens[1:], 1).reshape(n, *self.spec.shape)

    def after(self, before: Tensor, token: Tensor) -> Tensor:
        """What follows `before`: an end for ever, else what was drawn."""
        return token if self.spec.end is None else torch.where(before == self.spec.end, self.spec.end, token)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"loss": -self.token_log_prob_given(batch.x, batch.condition).sum(1).mean()}


class ScoresPads(Answers):
    """What fills a reply up counts as if it were said."""

    def token_log_prob_given(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return log_prob_of(x.flatten(1), self.logits(x.flatten(1), condition))


class EndsForNothing(Answers):
    """An end is not scored."""

    def token_log_prob_given(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return super().token_log_prob_given(x, condition) * (x.flatten(1) != self.spec.end)


class HearsItself(Answers):
    """Token t is predicted from token t + 1 too."""

    def logits(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return super().logits(x, condition) + self.table[F.pad(x, (0, 1), value=self.spec.levels)[:, 1:]]


class KnowsItself(Answers):
    """Token t is predicted from itself as well."""

    def logits(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return super().logits(x, condition) + self.table[x]


class Deaf(Answers):
    """Scores replies whatever was said."""

    def token_log_prob_given(self, x: Tensor, condition: Tensor | None) -> Tensor:
        return super().token_log_prob_given(x, None)


class TalksOn(Answers):
    """Its sampler goes on after an end."""

    def after(self, before: Tensor, token: Tensor) -> Tensor:
        return token


class Adversarial(Toy):
    """A one-layer GAN with two optimisers, stepped by hand."""

    def __init__(self, spec: DataSpec) -> None:
        super().__init__(spec)
        self.automatic_optimization = False
        self.generator = nn.Linear(8, spec.dims)
        self.critic = nn.Sequential(nn.Linear(spec.dims, 16), nn.ReLU(), nn.Linear(16, 1))

    def generate(self, n: int, truncation: float = 1.0) -> Tensor:
        logits: Tensor = self.generator(truncation * torch.randn(n, 8))
        return logits.sigmoid()  # [n, D] in (0, 1)

    def sample(self, n: int) -> Tensor:
        return self.quantise(self.generate(n))

    def quantise(self, x: Tensor) -> Tensor:
        return (x * (self.spec.levels - 1)).round().long().reshape(len(x), *self.spec.shape)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        optimizers = self.optimizers()
        assert isinstance(optimizers, list)
        generator_optimizer, critic_optimizer = optimizers
        real = batch.x.flatten(1) / (self.spec.levels - 1)
        fake = self.generate(len(real))
        critic_loss = F.softplus(-self.critic(real)).mean() + F.softplus(self.critic(fake.detach())).mean()
        critic_optimizer.zero_grad()
        self.manual_backward(critic_loss)
        critic_optimizer.step()
        generator_loss = F.softplus(-self.critic(fake)).mean()
        generator_optimizer.zero_grad()
        self.manual_backward(generator_loss)
        generator_optimizer.step()
        return {"loss": critic_loss.detach(), "generator": generator_loss.detach()}

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.critic)]


class ForgetsLayer(Adversarial):
    """One layer of the critic is in no optimiser."""

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=0.01) for part in (self.generator, self.critic[0])]


class Truncated(Adversarial, Truncates):
    """... whose latents can be drawn towards zero."""

    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        return self.quantise(self.generate(n, truncation))


class TruncatesNever(Truncated):
    """Whatever it is told."""

    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        return self.sample(n)


class TruncatesAlways(Truncated):
    """Its own sampler is the truncated one."""

    def sample(self, n: int) -> Tensor:
        return self.sample_truncated(n, 0.5)


class DeclaresFrozen(ForgetsLayer):
    """... and says so, which makes it honest."""

    frozen = ("critic.2.",)


HONEST: tuple[type[Toy], ...] = (
    Independent,
    Pleased,
    Introspective,
    Latent,
    Wanders,
    Autoencoder,
    Dequantised,
    Solved,
    Markov,
    Masked,
    Conditioned,
    Answers,
    Adversarial,
    Truncated,
    DeclaresFrozen,
)
