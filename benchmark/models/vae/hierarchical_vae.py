"""Hierarchical variational autoencoder: a ladder of latents at several resolutions, inferred from the top down.

Paper: Child, "Very Deep VAEs Generalize Autoregressive Models and Can Outperform Them on Images", ICLR 2021,
arXiv:2011.10650

Inference shares the generator's path, as in Sønderby and others, "Ladder Variational Autoencoders", NeurIPS 2016,
arXiv:1602.02282. Posteriors are residual to the priors, as in Vahdat and Kautz, "NVAE: A Deep Hierarchical Variational
Autoencoder", NeurIPS 2020, arXiv:2007.03898. Both distributions of a layer see the same state h, in which its parents'
draws are: a KL against a prior with other parents is no bound.

Differences: a few layers and small networks, with dropout and decoupled weight decay; residual blocks as in this
benchmark's VAE, without batch normalisation, spectral regularisation or skipped updates; log scales are softly clamped
as in NVAE. Free bits (Kingma and others, "Improving Variational Inference with Inverse Autoregressive Flow", NeurIPS
2016, arXiv:1606.04934) and a warm-up of the KL term are options of training; every figure that is reported has the raw
KL. A softmax over levels learns sooner to use z than a mixture of logistics, which is better on few examples.

Shapes: x [B, C, H, W] integer levels; layer l = 1, ..., L from the top: z_l [B, Z, H_l, W_l]; h and the encoder's
features d [B, P, H_l, W_l]; k importance samples. Unit: nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import MinLen
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.conv import Residual
from benchmark.nn.distributions import importance_bound, independent_pixels, mean_level, pixel_numbers
from benchmark.nn.latents import interpolated
from benchmark.nn.layers import Positions
from benchmark.nn.levels import centred
from benchmark.nn.optim import adamw
from benchmark.spec import (
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
)

Stages = Annotated[Sequence[Size], MinLen(1)]

#: What a layer does with its state h [B, P, H_l, W_l] and its number: gives its draw z_l.
Choose = Callable[[int, Tensor], Tensor]


class HierarchicalVAE(GenerativeModel, ImportanceBound, Reconstructs, Interpolates, Diagnosable):
    """p(x) = E_z p(x | z) under p(z) = Π p(z_l | z_<l), inferred by q(z | x) = Π q(z_l | z_<l, x).

    Pixels are independent given z.
    """

    layers: Sequence[Layer]

    #: Passes through the decoder held in memory at once by `importance_bound`.
    chunk = 1024

    #: Nats an image above which a layer counts as active.
    active = 0.1

    def __init__(
        self,
        spec: DataSpec,
        stages: Stages = (2, 2),  # stochastic ones at each resolution, the coarsest first; its sides double to the next
        patch: Size = 2,  # pixels on a side of a place at the finest resolution
        latent: Size = 4,  # Z, channels of each z_l
        width: Size = 32,  # P
        depth: Size = 1,  # residual blocks at each resolution of the encoder, and at each layer of the decoder
        likelihood: Literal["bernoulli", "categorical", "logistics"] = "categorical",  # of one pixel given z
        components: Size = 2,  # of the mixture of discretised logistics
        free_bits: NonNegative = 0.0,  # nats of each layer's KL, averaged over the batch, that training does not charge
        warm_up: Share = 0.0,  # share of training over which the weight of the KL term rises from 0 to 1
        dropout: Share = 0.2,
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        channels, *sides = spec.shape
        if likelihood == "bernoulli" and spec.levels != 2:
            raise BadInput(f"likelihood 'bernoulli' needs 2 levels, the data has {spec.levels}: choose 'logistics'")
        if any(side % patch for side in sides):
            size = "x".join(map(str, sides))
            raise BadInput(f"hierarchical_vae: sides of {size} are not divisible by patch={patch}: choose patch=1")
        self.likelihood, self.free_bits, self.warm_up = likelihood, free_bits, warm_up
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        finest = [side // patch for side in sides]
        halvings = range(len(stages) - 1, -1, -1)
        sizes = [tuple(-(-side // 2**i) for side in finest) for i in halvings]  # rounded up, the coarsest first
        self.resolution = [i for i, n in enumerate(stages) for _ in range(n)]  # of each layer: which of the sizes
        self.shapes = [(latent, *sizes[i]) for i in self.resolution]

        self.encoder = nn.ModuleList(  # from the finest resolution on
            nn.Sequential(
                nn.Sequential(nn.PixelUnshuffle(patch), nn.Conv2d(channels * patch**2, width, 3, padding=1))
                if i == 0
                else nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 3, stride=2, padding=1)),
                *(Residual(width, dropout) for _ in range(depth)),
            )
            for i in range(len(stages))
        )
        self.layers = nn.ModuleList(  # type: ignore[assignment]
            Layer(width, latent, depth, dropout) for _ in self.resolution
        )
        self.places = nn.ModuleList(Positions(width, *size) for size in sizes)
        self.head = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(width, channels * pixel_numbers(likelihood, spec.levels, components) * patch**2, 3, padding=1),
            nn.PixelShuffle(patch),
        )
        self.width = width
        self.to(memory_format=torch.channels_last)

    # The model -------------------------------------------------------------------------------------------------------

    def descend(self, n: int, choose: Choose) -> Distribution:
        """p(x | z) over [n, C, H, W], each z_l in turn being what `choose` makes of l and h [n, P, H_l, W_l]."""
        h = torch.zeros(n, self.width, *self.shapes[0][1:], device=self.device)
        for number, (layer, shape) in enumerate(zip(self.layers, self.shapes, strict=True)):
            if number == 0 or self.resolution[number] != self.resolution[number - 1]:
                h = self.places[self.resolution[number]](F.interpolate(h, shape[1:]))
            h = layer.take(h, choose(number, h))
        outputs: Tensor = self.head(h).float().unflatten(1, (-1, self.spec.shape[0]))  # [n, numbers, C, H, W]
        return independent_pixels(outputs, self.likelihood, self.spec.levels)

    def features(self, x: Tensor) -> list[Tensor]:
        """What each layer's posterior sees of x: the encoder's features at its resolution."""
        d = centred(x, self.spec.levels)
        by_resolution: list[Tensor] = []
        for stage in self.encoder:
            d = stage(d)
            by_resolution.insert(0, d)
        return [by_resolution[i] for i in self.resolution]

    def infer(self, x: Tensor, choose: Callable[[int, Normal, Normal], Tensor], k: int = 1) -> Tensor:
        """log p(x | z) `[k B]`, each z_l being what `choose` makes of l, q(z_l | z_<l, x) and p(z_l | z_<l)."""
        features = [d.repeat(k, 1, 1, 1) for d in self.features(x)]

        def chosen(number: int, h: Tensor) -> Tensor:
            layer = self.layers[number]
            p = layer.prior(h)
            return choose(number, layer.posterior(h, features[number], p), p)

        pixels = self.descend(k * len(x), chosen)
        log_p: Tensor = pixels.log_prob(x.float().repeat(k, 1, 1, 1))  # [k B, C, H, W]
        return log_p.flatten(1).sum(1)

    def terms(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """One draw of log p(x | z) `[B]`, and the KL of each layer given those above `[B, L]`."""
        kl = []

        def choose(number: int, q: Normal, p: Normal) -> Tensor:
            kl.append(kl_divergence(q, p).flatten(1).sum(1))  # Vahdat and Kautz, eq. 2
            return q.rsample()

        return self.infer(x, choose), torch.stack(kl, 1)

    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """log p(x, z) / q(z | x) for k draws of z, `[k, B]`."""
        log_ratio = []

        def choose(number: int, q: Normal, p: Normal) -> Tensor:
            z = q.rsample()
            log_ratio.append((p.log_prob(z) - q.log_prob(z)).flatten(1).sum(1))
            return z

        log_likelihood = self.infer(x, choose, k)
        return (log_likelihood + torch.stack(log_ratio).sum(0)).view(k, len(x))

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def noise(self, n: int) -> Tensor:
        """What all layers' draws are made of, standard normal: `[n, E]`."""
        return torch.randn(n, sum(map(math.prod, self.shapes)), device=self.device)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.noise(n))

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, self.generate)

    def generate(self, noise: Tensor) -> Tensor:
        """x ~ p(x | z) `[B, C, H, W]` for the z that the priors make of the noise [B, E]."""
        return self.pixels(noise).sample().long()

    def pixels(self, noise: Tensor) -> Distribution:
        """p(x | z) over [B, C, H, W] for the z that each layer's prior makes of its share of the noise [B, E]."""
        shares = noise.split([math.prod(shape) for shape in self.shapes], 1)

        def choose(number: int, h: Tensor) -> Tensor:
            p = self.layers[number].prior(h)
            z: Tensor = p.mean + p.stddev * shares[number].view_as(p.mean)
            return z

        return self.descend(len(noise), choose)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) with each layer at its posterior's mean, rounded to a level."""
        features = self.features(x)

        def choose(number: int, h: Tensor) -> Tensor:
            layer = self.layers[number]
            return layer.posterior(h, features[number], layer.prior(h)).mean

        return mean_level(self.descend(len(x), choose), x, self.spec.levels)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Raw KL of each layer, from the top, in nats an image, and the share of layers that are active by it."""
        kl = self.terms(x)[1].mean(0)  # [L]
        signs = {f"kl_layer_{number}": float(nats) for number, nats in enumerate(kl, 1)}
        return {"active_layers": float((kl > self.active).float().mean())} | signs

    def elbo(self, x: Tensor) -> Tensor:
        log_likelihood, kl = self.terms(x)
        return log_likelihood - kl.sum(1)

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return importance_bound(partial(self.log_weights, x), importance_samples, max(1, self.chunk // len(x)))

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        log_likelihood, kl = self.terms(batch.x)
        reconstruction, kl = -log_likelihood.mean(), kl.mean(0)  # [], [L]
        charged = kl.clamp(min=self.free_bits).sum()  # Kingma and others, eq. 15: max(λ, mean of a layer's KL)
        weight = min(1.0, self.progress / self.warm_up) if self.warm_up else 1.0
        return {"loss": reconstruction + weight * charged, "kl": kl.sum(), "reconstruction": reconstruction}

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Private parts ------------------------------------------------------------------------------------------------------


class Layer(nn.Module):
    """One stochastic layer (Child, figure 3): prior from h, posterior from h and d, and how h takes in a draw."""

    def __init__(self, width: int, latent: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.from_above = nn.Sequential(nn.SiLU(), nn.Conv2d(width, 2 * latent, 3, padding=1))
        self.from_both = nn.Sequential(
            nn.SiLU(),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(width, 2 * latent, 1),
        )
        self.enter = nn.Conv2d(latent, width, 1)
        self.blocks = nn.Sequential(*(Residual(width, dropout) for _ in range(depth)))

    def prior(self, h: Tensor) -> Normal:
        """p(z_l | z_<l)."""
        mu, log_sigma = self.from_above(h).float().chunk(2, dim=1)  # [B, Z, H_l, W_l] each, not in bfloat16
        return Normal(mu, clamped(log_sigma).exp(), validate_args=False)

    def posterior(self, h: Tensor, d: Tensor, p: Normal) -> Normal:
        """q(z_l | z_<l, x): N(mu + Δmu, (sigma Δsigma)²), where the prior is N(mu, sigma²) (Vahdat and Kautz, 3.2)."""
        delta_mu, delta_log_sigma = self.from_both(torch.cat([h, d], 1)).float().chunk(2, dim=1)
        return Normal(p.mean + delta_mu, p.stddev * clamped(delta_log_sigma).exp(), validate_args=False)

    def take(self, h: Tensor, z: Tensor) -> Tensor:
        """The state below: what z_l was is in it."""
        return self.blocks(h + self.enter(z))  # type: ignore[no-any-return]


def clamped(log_sigma: Tensor) -> Tensor:
    """Softly within ±5 (Vahdat and Kautz, appendix A)."""
    return 5 * torch.tanh(log_sigma / 5)
