"""Variational autoencoder.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, arXiv:1312.6114

Differences: dropout and decoupled weight decay against overfitting; the networks are residual convolutions where the
images allow it. Training may use more importance samples (Burda and others, "Importance Weighted Autoencoders", ICLR
2016, arXiv:1509.00519) or a weight beta on the KL term (Higgins and others, "beta-VAE", ICLR 2017).

Shapes: x [B, C, H, W] integer levels; z [B, Z] latents; k importance samples; P decoder outputs per pixel. Unit: nats.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Normal, kl_divergence
from torch.nn import functional as F
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, adamw, interpolated
from benchmark.spec import (
    BadInput,
    Batch,
    DataSpec,
    ImportanceBound,
    Interpolates,
    NonNegative,
    Reconstructs,
    Sampler,
    Share,
    Size,
    Steps,
    Watched,
)


class VAE(GenerativeModel, ImportanceBound, Reconstructs, Interpolates, Watched):
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
        _, height, side = spec.shape
        if likelihood == "bernoulli" and spec.levels != 2:
            raise BadInput(f"likelihood 'bernoulli' needs 2 levels, the data has {spec.levels}: choose 'logistics'")
        if network == "conv" and (height % 4 or side % 4):
            raise BadInput(f"network 'conv' needs sides divisible by 4, the data has {height}x{side}: choose 'mlp'")
        self.likelihood = likelihood
        self.beta, self.importance_samples = beta, importance_samples
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.register_buffer("prior_mean", torch.zeros(latent), persistent=False)
        outputs = {"bernoulli": 1, "categorical": spec.levels, "logistics": 3 * components}[likelihood]
        if network == "mlp":
            self.encoder = mlp(spec.dims, 2 * latent, width, depth, dropout)
            self.decoder = mlp(latent, outputs * spec.dims, width, depth, dropout)
        else:
            self.encoder = conv_encoder(spec, 2 * latent, width, depth, dropout)
            self.decoder = conv_decoder(spec, latent, outputs, width, depth, dropout)

    def prior(self) -> Normal:
        """p(z), over [Z]."""
        return Normal(self.prior_mean, torch.ones_like(self.prior_mean), validate_args=False)

    def encode(self, x: Tensor) -> Normal:
        """q(z | x), over [B, Z]."""
        x = x.float() * (2 / (self.spec.levels - 1)) - 1  # [B, C, H, W] in [-1, 1]
        mu, log_sigma = self.encoder(x).float().chunk(2, dim=1)  # [B, Z] each, not in bfloat16
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

    def signs(self, x: Tensor) -> dict[str, float]:
        """Share of latents whose posterior mean moves with x: Burda and others, section 5.2, with their threshold."""
        active = self.encode(x).mean.var(0) > 0.01  # [Z]
        return {"active_units": float(active.float().mean())}

    def elbo(self, x: Tensor) -> Tensor:
        q = self.encode(x)
        return self.log_likelihood(x, q.rsample()) - kl_divergence(q, self.prior()).sum(1)  # eq. 3

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        q = self.encode(x)
        total = torch.full((len(x),), -math.inf, device=x.device)
        chunk = max(1, self.chunk // len(x))
        for start in range(0, importance_samples, chunk):
            log_weights = self.log_weights(x, q, min(chunk, importance_samples - start))
            total = torch.logaddexp(total, log_weights.logsumexp(0))
        return total - math.log(importance_samples)

    def log_weights(self, x: Tensor, q: Normal, k: int, beta: float = 1.0) -> Tensor:
        """log p(x, z) / q(z | x) for k draws of z, `[k, B]`; the prior over the posterior is raised to `beta`."""
        z = q.rsample((k,))  # [k, B, Z]
        log_ratio: Tensor = (self.prior().log_prob(z) - q.log_prob(z)).sum(-1)  # [k, B]
        return self.log_likelihood(x, z) + beta * log_ratio

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
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


class DiscretisedLogistics(Distribution):
    """Mixture of logistics integrated over the levels' bins; pixels and channels are independent.

    Salimans and others, "PixelCNN++", ICLR 2017, arXiv:1701.05517, eq. 2. Levels lie evenly on [-1, 1]; the outer bins
    reach to infinity, so that the levels' probabilities sum to one. `outputs` is [..., 3K, C, H, W]: K mixture logits,
    K means, K logarithms of scales.
    """

    arg_constraints = {}  # noqa: RUF012 (torch's own convention)

    def __init__(self, outputs: Tensor, levels: int) -> None:
        self.logits, self.mu, log_scale = outputs.chunk(3, dim=-4)  # [..., K, C, H, W] each
        self.scale = log_scale.clamp(-7.0, 7.0).exp()  # finite, also where a level never varies
        self.levels = levels
        super().__init__(outputs.shape[:-4] + outputs.shape[-3:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        x = value.unsqueeze(-4)  # [..., 1, C, H, W]
        width = 2 / (self.levels - 1)  # of one bin
        lower = (x * width - 1 - width / 2 - self.mu) / self.scale  # [..., K, C, H, W]
        upper = lower + width / self.scale
        # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for the sigmoid s: no cancellation. At the ends a factor becomes 1.
        first, last = x == 0, x == self.levels - 1
        log_p = (
            F.logsigmoid(upper).masked_fill(last, 0.0)
            + F.logsigmoid(-lower).masked_fill(first, 0.0)
            + torch.log(-torch.expm1(-width / self.scale)).masked_fill(first | last, 0.0)
        )
        return torch.logsumexp(self.logits.log_softmax(dim=-4) + log_p, dim=-4)  # eq. 2

    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        logits = self.logits.expand(*sample_shape, *self.logits.shape).movedim(-4, -1)  # [..., C, H, W, K]
        component = Categorical(logits=logits, validate_args=False).sample().unsqueeze(-4)  # [..., 1, C, H, W]
        mu, scale = (
            t.expand_as(logits.movedim(-1, -4)).gather(-4, component).squeeze(-4) for t in (self.mu, self.scale)
        )
        u = torch.rand_like(mu).clamp(1e-7, 1 - 1e-7)
        x = mu + scale * torch.logit(u)  # [..., C, H, W]
        return ((x + 1) * (self.levels - 1) / 2).round().clamp(0, self.levels - 1)


# Networks ----------------------------------------------------------------------------------------------------------


def mlp(inputs: int, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, ...] to [B, outputs] through `depth` hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.SiLU(), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


class Residual(nn.Module):
    """x + f(x), two 3x3 convolutions."""

    def __init__(self, channels: int, dropout: float) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.SiLU(),
            nn.Dropout(dropout),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)  # type: ignore[no-any-return]


def conv_encoder(spec: DataSpec, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, C, H, W] to [B, outputs]; patches of 2x2 pixels come in as channels, so that no layer works at full size."""
    channels, height, side = spec.shape
    return nn.Sequential(
        nn.PixelUnshuffle(2),  # [B, 4C, H/2, W/2]
        nn.Conv2d(4 * channels, width // 2, 3, padding=1),
        *(Residual(width // 2, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Conv2d(width // 2, width, 4, stride=2, padding=1),  # [B, width, H/4, W/4]
        *(Residual(width, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(width * height * side // 16, outputs),
    ).to(memory_format=torch.channels_last)


def conv_decoder(spec: DataSpec, latent: int, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """[B, Z] to [B, P C, H, W]: the encoder's mirror image."""
    channels, height, side = spec.shape
    return nn.Sequential(
        nn.Linear(latent, width * height * side // 16),
        nn.Unflatten(1, (width, height // 4, side // 4)),
        *(Residual(width, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.ConvTranspose2d(width, width // 2, 4, stride=2, padding=1),  # [B, width/2, H/2, W/2]
        *(Residual(width // 2, dropout) for _ in range(depth)),
        nn.SiLU(),
        nn.Conv2d(width // 2, 4 * outputs * channels, 3, padding=1),
        nn.PixelShuffle(2),
    ).to(memory_format=torch.channels_last)
