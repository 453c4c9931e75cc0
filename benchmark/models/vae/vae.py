"""Variational autoencoder.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114

Differences: dropout and decoupled weight decay against overfitting; the networks are residual convolutions where the
images allow it. Training may use more importance samples (Burda and others, "Importance Weighted Autoencoders", ICLR
2016, arXiv:1509.00519) or a weight beta on the KL term (Higgins and others, "beta-VAE", ICLR 2017). The prior may be
the mean of the posteriors of learnt pseudo-inputs (Tomczak and Welling, "VAE with a VampPrior", AISTATS 2018,
arXiv:1705.07120): then the KL term has no closed form and is estimated at the z that is drawn.

Shapes: x [B, C, H, W] integer levels, a few coordinates [B, D] being a grid of one row; z [B, Z] latents; k importance
samples; P decoder outputs per pixel; u [N, C, H, W] pseudo-inputs in -1..1. Unit: nats.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.conv import decoder, encoder
from benchmark.nn.distributions import importance_bound, independent_pixels, mean_level, pixel_numbers
from benchmark.nn.latents import interpolated
from benchmark.nn.layers import glorot, mlp
from benchmark.nn.levels import as_grid, centred
from benchmark.nn.optim import adamw
from benchmark.spec import (
    Autoencodes,
    BadInput,
    Batch,
    DataSpec,
    Diagnosable,
    ImportanceBound,
    Interpolates,
    NonNegative,
    Positive,
    Reconstructs,
    Sampler,
    Share,
    Size,
    Steps,
)

#: Logarithm of the scales with which logistics of coordinates begin, where levels lie on -1..1. From scales of 1, what
#: lies at the ends of the range pulls them further open, and the few means never learn to follow z.
NARROW = -3.0
ACTIVATIONS: dict[str, type[nn.Module]] = {"silu": nn.SiLU, "tanh": nn.Tanh}


class VAE(GenerativeModel, ImportanceBound, Reconstructs, Autoencodes, Interpolates, Diagnosable):
    """p(x) = E_{z ~ p(z)} p(x | z), with a diagonal Gaussian posterior q(z | x) and pixels independent given z.

    With `prior: vampprior` walks between samples move the choice of the pseudo-input, too: see `latents`.
    """

    prior_mean: Tensor

    #: Decoder passes held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 16,  # dimensions of z
        network: Literal["mlp", "conv"] = "mlp",  # conv: residual blocks at a half and a quarter of the image's sides
        width: Size = 256,  # hidden units, or channels at a quarter of the sides (half as many at a half)
        depth: Size = 2,  # hidden layers, or residual blocks at each of the two sizes
        activation: Literal["silu", "tanh"] = "silu",  # of mlp
        initial_weights: Literal["torch", "glorot"] = "torch",  # of mlp's layers
        likelihood: Literal["bernoulli", "categorical", "logistics"] = "logistics",  # of one pixel given z
        components: Size = 2,  # of the mixture of discretised logistics
        beta: NonNegative = 1.0,  # weight of the KL term, in training only
        importance_samples: Steps = 1,  # k of the training objective; above 1: the importance-weighted bound
        prior: Literal["normal", "vampprior"] = "normal",  # N(0, I), or the mean of the posteriors of pseudo-inputs
        pseudo_inputs: Size = 100,  # N of the VampPrior; each step encodes them, too
        dropout: Share = 0.2,
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
        adam_epsilon: Positive = 1e-8,
    ) -> None:
        super().__init__(spec)
        self.grid = channels, *sides = as_grid(spec.shape)
        if likelihood == "bernoulli" and spec.levels != 2:
            raise BadInput(f"likelihood 'bernoulli' needs 2 levels, the data has {spec.levels}: choose 'logistics'")
        if network == "conv" and (activation, initial_weights) != ("silu", "torch"):
            raise BadInput(
                f"vae: activation={activation} and initial_weights={initial_weights} are options of network=mlp: leave "
                "them out beside network=conv"
            )
        if network == "conv" and any(side % 4 for side in sides):
            size = "x".join(map(str, sides))
            raise BadInput(f"network 'conv' needs sides divisible by 4, the data has {size}: choose 'mlp'")
        self.likelihood = likelihood
        self.beta, self.importance_samples = beta, importance_samples
        self.learning_rate, self.weight_decay, self.adam_epsilon = learning_rate, weight_decay, adam_epsilon
        self.register_buffer("prior_mean", torch.zeros(latent), persistent=False)
        outputs = pixel_numbers(likelihood, spec.levels, components)
        if network == "mlp":
            layers = partial(mlp, width=width, depth=depth, dropout=dropout, activation=ACTIVATIONS[activation])
            self.encoder, self.decoder = layers(spec.dims, 2 * latent), layers(latent, outputs * spec.dims)
            if initial_weights == "glorot":
                glorot(self)
            if spec.structure == "coordinates" and likelihood == "logistics":
                last = self.decoder[-1]
                assert isinstance(last, nn.Linear)
                last.bias.detach().view(3, -1)[2] = NARROW
        else:
            self.encoder = encoder(self.grid, 2 * latent, width, depth, dropout)
            self.decoder = decoder(latent, (outputs * channels, *sides), width, depth, dropout)
        self.pseudo_inputs = None
        if prior == "vampprior":  # as one vector: weight decay, which is for matrices, would pull them to grey
            self.pseudo_inputs = nn.Parameter(torch.rand(pseudo_inputs * spec.dims) * 2 - 1)

    def prior(self) -> Distribution:
        """p(z), over vectors [Z]."""
        if self.pseudo_inputs is None:
            return Independent(self.normal(), 1, validate_args=False)
        posteriors = self.posterior(F.hardtanh(self.pseudo_inputs).view(-1, *self.spec.shape))  # of u, over [N, Z]
        alike = Categorical(logits=torch.zeros_like(posteriors.mean[:, 0]), validate_args=False)
        return MixtureSameFamily(alike, Independent(posteriors, 1), validate_args=False)  # Tomczak and Welling, eq. 9

    def normal(self) -> Normal:
        """N(0, I), over [Z]."""
        return Normal(self.prior_mean, torch.ones_like(self.prior_mean), validate_args=False)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple(self.prior_mean.shape)

    def encode(self, x: Tensor) -> Normal:
        """q(z | x), over [B, Z]."""
        return self.posterior(centred(x, self.spec.levels))

    def posterior(self, y: Tensor) -> Normal:
        """q(z | x), over [B, Z], for levels y [B, C, H, W] brought to -1..1."""
        outputs: Tensor = self.encoder(y)
        mu, log_sigma = outputs.float().chunk(2, dim=1)  # [B, Z] each, not in bfloat16
        return Normal(mu, log_sigma.exp(), validate_args=False)

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) over [..., C, H, W] for z [..., Z]."""
        outputs = self.decoder(z.flatten(0, -2)).float()
        outputs = outputs.reshape(*z.shape[:-1], -1, *self.grid)  # [..., P, C, H, W]
        return independent_pixels(outputs, self.likelihood, self.spec.levels)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) `[..., B]` for x [B, C, H, W] and z [..., B, Z]."""
        return self.decode(z).log_prob(x.float().reshape(-1, *self.grid)).flatten(-3).sum(-1)

    # Promises ------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.prior().sample((n,)))

    def interpolate(self, n: int, steps: int) -> Tensor:
        choices = 0 if self.pseudo_inputs is None else len(self.pseudo_inputs) // self.spec.dims
        first, last = torch.randn(2, n, len(self.prior_mean) + choices, device=self.device)
        return interpolated(first, last, steps, lambda noise: self.generate(self.latents(noise)))

    def latents(self, noise: Tensor) -> Tensor:
        """z ~ p(z) [B, Z] as a function of standard normal noise [B, Z], or [B, Z + N] under a VampPrior.

        There the largest of the last N numbers chooses the pseudo-input: each is the largest equally often.
        """
        prior = self.prior()
        if not isinstance(prior, MixtureSameFamily):
            return noise
        epsilon, choice = noise.split([len(self.prior_mean), noise.shape[1] - len(self.prior_mean)], dim=1)
        component, posteriors = choice.argmax(1), prior.component_distribution
        z: Tensor = posteriors.mean[component] + posteriors.stddev[component] * epsilon
        return z

    def generate(self, z: Tensor) -> Tensor:
        """x ~ p(x | z), [B, C, H, W]."""
        return self.decode(z).sample().long().reshape(-1, *self.spec.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the posterior's mean, rounded to a level."""
        pixels = self.decode(self.encode(x).mean)
        return mean_level(pixels, x.reshape(-1, *self.grid), self.spec.levels).reshape(x.shape)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Share of latents whose posterior mean moves with x: Burda and others, section 5.2, with their threshold."""
        active = self.encode(x).mean.var(0) > 0.01  # [Z]
        return {"active_units": float(active.float().mean())}

    def elbo(self, x: Tensor) -> Tensor:
        q = self.encode(x)
        z = q.rsample()
        return self.log_likelihood(x, z) - self.kl(q, z)  # eq. 3

    def kl(self, q: Normal, z: Tensor | None = None) -> Tensor:
        """KL(q(z | x) || p(z)) `[B]` in closed form; under a VampPrior estimated at z ~ q(z | x) [B, Z], drawn anew
        where none is given."""
        if self.pseudo_inputs is None:
            kl: Tensor = kl_divergence(q, self.normal()).sum(1)
            return kl
        return -self.log_ratio(q, q.rsample() if z is None else z)

    def log_ratio(self, q: Normal, z: Tensor) -> Tensor:
        """log p(z) / q(z | x) `[..., B]` for z [..., B, Z]."""
        if self.pseudo_inputs is None:
            ratio: Tensor = (self.normal().log_prob(z) - q.log_prob(z)).sum(-1)
        else:
            ratio = self.prior().log_prob(z) - q.log_prob(z).sum(-1)
        return ratio

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        q = self.encode(x)
        draw = partial(self.log_weights, x, q)
        return importance_bound(draw, importance_samples, max(1, self.chunk // len(x)))

    def log_weights(self, x: Tensor, q: Normal, k: int, beta: float = 1.0) -> Tensor:
        """log p(x, z) / q(z | x) for k draws of z, `[k, B]`; the prior over the posterior is raised to `beta`."""
        z = q.rsample((k,))  # [k, B, Z]
        log_ratio = self.log_ratio(q, z)  # [k, B]
        return self.log_likelihood(x, z) + beta * log_ratio

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x, k = batch.x, self.importance_samples
        q = self.encode(x)
        if k == 1:
            z = q.rsample()
            reconstruction, kl = -self.log_likelihood(x, z), self.kl(q, z)  # [B] each
            loss = reconstruction + self.beta * kl
            return {"loss": loss.mean(), "kl": kl.mean(), "reconstruction": reconstruction.mean()}
        log_weights = self.log_weights(x, q, k, self.beta)
        kl = self.kl(q)
        loss = math.log(k) - log_weights.logsumexp(0)  # Burda and others, eq. 8
        return {"loss": loss.mean(), "kl": kl.mean(), "reconstruction": -log_weights.mean() - self.beta * kl.mean()}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay, epsilon=self.adam_epsilon)
