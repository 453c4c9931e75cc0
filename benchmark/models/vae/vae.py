"""Variational autoencoder.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114

Differences: dropout and decoupled weight decay against overfitting; the networks are residual convolutions where the
images allow it. Training may use more importance samples (Burda and others, "Importance Weighted Autoencoders", ICLR
2016, arXiv:1509.00519) or a weight beta on the KL term (Higgins and others, "beta-VAE", ICLR 2017).

Shapes: x [B, C, H, W] integer levels; z [B, Z] latents; k importance samples; P decoder outputs per pixel. Unit: nats.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Distribution, Normal, kl_divergence
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.conv import decoder, encoder
from benchmark.nn.distributions import DiscretisedLogistics, importance_bound
from benchmark.nn.latents import interpolated
from benchmark.nn.layers import mlp
from benchmark.nn.levels import centred
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
    Reconstructs,
    Sampler,
    Share,
    Size,
    Steps,
)


class VAE(GenerativeModel, ImportanceBound, Reconstructs, Autoencodes, Interpolates, Diagnosable):
    """p(x) = E_{z ~ N(0, I)} p(x | z), with a diagonal Gaussian posterior q(z | x) and pixels independent given z."""

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
        likelihood: Literal["bernoulli", "categorical", "logistics"] = "logistics",  # of one pixel given z
        components: Size = 2,  # of the mixture of discretised logistics
        beta: NonNegative = 1.0,  # weight of the KL term, in training only
        importance_samples: Steps = 1,  # k of the training objective; above 1: the importance-weighted bound
        dropout: Share = 0.2,
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        channels, *sides = spec.shape
        if likelihood == "bernoulli" and spec.levels != 2:
            raise BadInput(f"likelihood 'bernoulli' needs 2 levels, the data has {spec.levels}: choose 'logistics'")
        if network == "conv" and any(side % 4 for side in sides):
            size = "x".join(map(str, sides))
            raise BadInput(f"network 'conv' needs sides divisible by 4, the data has {size}: choose 'mlp'")
        self.likelihood = likelihood
        self.beta, self.importance_samples = beta, importance_samples
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("prior_mean", torch.zeros(latent), persistent=False)
        outputs = {"bernoulli": 1, "categorical": spec.levels, "logistics": 3 * components}[likelihood]
        if network == "mlp":
            self.encoder = mlp(spec.dims, 2 * latent, width, depth, dropout)
            self.decoder = mlp(latent, outputs * spec.dims, width, depth, dropout)
        else:
            self.encoder = encoder(spec.shape, 2 * latent, width, depth, dropout)
            self.decoder = decoder(latent, (outputs * channels, *sides), width, depth, dropout)

    def prior(self) -> Normal:
        """p(z), over [Z]."""
        return Normal(self.prior_mean, torch.ones_like(self.prior_mean), validate_args=False)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return tuple(self.prior_mean.shape)

    def encode(self, x: Tensor) -> Normal:
        """q(z | x), over [B, Z]."""
        outputs: Tensor = self.encoder(centred(x, self.spec.levels))
        mu, log_sigma = outputs.float().chunk(2, dim=1)  # [B, Z] each, not in bfloat16
        return Normal(mu, log_sigma.exp(), validate_args=False)

    def decode(self, z: Tensor) -> Distribution:
        """p(x | z) over [..., C, H, W] for z [..., Z]."""
        outputs = self.decoder(z.flatten(0, -2)).float()
        outputs = outputs.reshape(*z.shape[:-1], -1, *self.spec.shape)  # [..., P, C, H, W]
        if self.likelihood == "bernoulli":
            return Bernoulli(logits=outputs.squeeze(-4), validate_args=False)
        if self.likelihood == "categorical":
            return Categorical(logits=outputs.movedim(-4, -1), validate_args=False)
        return DiscretisedLogistics(outputs, self.spec.levels)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) `[..., B]` for x [B, C, H, W] and z [..., B, Z]."""
        return self.decode(z).log_prob(x.float()).flatten(-3).sum(-1)

    # Promises ------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.prior().sample((n,)))

    def interpolate(self, n: int, steps: int) -> Tensor:
        first, last = self.prior().sample((2, n))  # [B, Z] each
        return interpolated(first, last, steps, self.generate)

    def generate(self, z: Tensor) -> Tensor:
        """x ~ p(x | z), [B, C, H, W]."""
        return self.decode(z).sample().long()

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the posterior's mean, rounded to a level."""
        pixel = self.decode(self.encode(x).mean)
        mean = sum(
            level * pixel.log_prob(torch.full_like(x, level, dtype=torch.float32)).exp()
            for level in range(self.spec.levels)
        )
        return torch.as_tensor(mean).round().to(x.dtype)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Share of latents whose posterior mean moves with x: Burda and others, section 5.2, with their threshold."""
        active = self.encode(x).mean.var(0) > 0.01  # [Z]
        return {"active_units": float(active.float().mean())}

    def elbo(self, x: Tensor) -> Tensor:
        q = self.encode(x)
        return self.log_likelihood(x, q.rsample()) - kl_divergence(q, self.prior()).sum(1)  # eq. 3

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        q = self.encode(x)
        draw = partial(self.log_weights, x, q)
        return importance_bound(draw, importance_samples, max(1, self.chunk // len(x)))

    def log_weights(self, x: Tensor, q: Normal, k: int, beta: float = 1.0) -> Tensor:
        """log p(x, z) / q(z | x) for k draws of z, `[k, B]`; the prior over the posterior is raised to `beta`."""
        z = q.rsample((k,))  # [k, B, Z]
        log_ratio: Tensor = (self.prior().log_prob(z) - q.log_prob(z)).sum(-1)  # [k, B]
        return self.log_likelihood(x, z) + beta * log_ratio

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x, k = batch.x, self.importance_samples
        q = self.encode(x)
        kl = kl_divergence(q, self.prior()).sum(1)  # [B]
        if k == 1:
            reconstruction = -self.log_likelihood(x, q.rsample())
            loss = reconstruction + self.beta * kl
            return {"loss": loss.mean(), "kl": kl.mean(), "reconstruction": reconstruction.mean()}
        log_weights = self.log_weights(x, q, k, self.beta)
        loss = math.log(k) - log_weights.logsumexp(0)  # Burda and others, eq. 8
        return {"loss": loss.mean(), "kl": kl.mean(), "reconstruction": -log_weights.mean() - self.beta * kl.mean()}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
