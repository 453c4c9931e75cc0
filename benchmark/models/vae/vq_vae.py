"""VQ-VAE: an autoencoder whose latents are codes from a learnt codebook, with a learnt prior over the codes.

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", NeurIPS 2017, arXiv:1711.00937

Differences: the codebook follows the encoder by moving averages (their appendix A.1), and dead codes are restarted; the
prior is a small transformer instead of a PixelCNN, and is trained along with the rest, on codes that hand it no
gradient, instead of afterwards; p(x | z) is a normalised distribution over levels instead of a squared error, so that
log p(x | z) + log p(z) at the codes z of x is a bound on log p(x): it leaves out all other codes that make x too.
The commitment term holds the encoder to the codes, not the codes to the encoder, and nothing but training sees it.

Shapes: x [B, C, H, W] integer levels; z [B, T] codes of T = h w places, each one of K; e [B, D, h, w] their vectors.
Unit: nats.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.conv import Residual
from benchmark.nn.distributions import independent_pixels, mean_level, pixel_numbers
from benchmark.nn.layers import Positions
from benchmark.nn.levels import centred
from benchmark.nn.optim import adamw
from benchmark.nn.quantise import Codebook, straight_through
from benchmark.nn.sampling import draw
from benchmark.nn.transformer import Block, Cache, RMSNorm
from benchmark.spec import (
    BadInput,
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    LikelihoodBound,
    NonNegative,
    Reconstructs,
    Sampler,
    Share,
    Size,
)


class VQVAE(GenerativeModel, LikelihoodBound, Reconstructs, Diagnosable):
    """p(x) = Σ_z p(x | z) p(z) over grids of codes, bounded by its term at the z that the encoder chooses."""

    prior: Transformer | Histogram

    def __init__(
        self,
        spec: DataSpec,
        codes: Size = 64,  # K
        latent: Size = 8,  # D, numbers of a code
        patch: Size = 2,  # pixels on a side of what the networks see as one place
        halvings: Count = 1,  # of the sides after that: a code stands for patch · 2^halvings pixels on a side
        width: Size = 64,  # channels of encoder and decoder
        depth: Size = 1,  # their residual blocks at each resolution
        likelihood: Literal["bernoulli", "categorical", "logistics"] = "categorical",  # of one pixel given z
        components: Size = 2,  # of the mixture of discretised logistics
        commitment: NonNegative = 0.25,  # β, weight of the squared distance of the encoder's vectors to their codes
        decay: Share = 0.99,  # of the codebook's moving averages, a step
        dead: Share = 0.1,  # share of the fair count below which a code starts anew
        prior: Literal["autoregressive", "histogram"] = "autoregressive",  # histogram: codes are independent
        prior_layers: Size = 2,
        prior_heads: Size = 2,
        prior_width: Size = 64,
        prior_dropout: Share = 0.1,
        dropout: Share = 0.1,
        learning_rate: NonNegative = 2e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        channels, *sides = spec.shape
        if likelihood == "bernoulli" and spec.levels != 2:
            raise BadInput(f"likelihood 'bernoulli' needs 2 levels, the data has {spec.levels}: choose 'logistics'")
        if any(side % patch for side in sides):
            size = "x".join(map(str, sides))
            raise BadInput(f"vq_vae: sides of {size} are not divisible by patch={patch}: choose patch=1")
        if prior_width % prior_heads:
            raise BadInput(f"vq_vae: prior_width={prior_width} is not a multiple of prior_heads={prior_heads}")
        self.likelihood, self.commitment = likelihood, commitment
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        sizes = [[-(-side // patch // 2**i) for side in sides] for i in range(halvings + 1)]  # the finest first
        self.size = sizes[-1]  # h, w

        def blocks() -> list[nn.Module]:
            return [Residual(width, dropout) for _ in range(depth)]

        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(patch), nn.Conv2d(channels * patch**2, width, 3, padding=1), *blocks()
        )
        for _ in range(halvings):
            self.encoder.extend([nn.SiLU(), nn.Conv2d(width, width, 3, stride=2, padding=1), *blocks()])
        self.encoder.extend([nn.SiLU(), nn.Conv2d(width, latent, 1)])
        self.codebook = Codebook(codes, latent, decay, dead)
        self.decoder = nn.Sequential(nn.Conv2d(latent, width, 1), Positions(width, *self.size), *blocks())
        for height_and_width in sizes[-2::-1]:
            self.decoder.extend([nn.Upsample(tuple(height_and_width)), *blocks()])
        numbers = channels * pixel_numbers(likelihood, spec.levels, components)
        self.decoder.extend([nn.SiLU(), nn.Conv2d(width, numbers * patch**2, 3, padding=1), nn.PixelShuffle(patch)])
        self.to(memory_format=torch.channels_last)
        places = math.prod(self.size)
        self.prior = (
            Transformer(codes, places, prior_layers, prior_heads, prior_width, prior_dropout)
            if prior == "autoregressive"
            else Histogram(codes, places)
        )

    # The model -------------------------------------------------------------------------------------------------------

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder makes of x, vectors [B T, D], and the codes z [B, T] that are nearest (eq. 1)."""
        outputs: Tensor = self.encoder(centred(x, self.spec.levels)).float()  # [B, D, h, w]
        vectors = outputs.flatten(2).mT.flatten(0, 1)
        return vectors, self.codebook.nearest(vectors).view(len(x), -1)

    def decode(self, e: Tensor) -> Distribution:
        """p(x | z) over [B, C, H, W] for the codes' vectors e [B T, D]."""
        grid = e.unflatten(0, (-1, math.prod(self.size))).mT.unflatten(2, self.size)  # [B, D, h, w]
        outputs: Tensor = self.decoder(grid).float().unflatten(1, (-1, self.spec.shape[0]))
        return independent_pixels(outputs, self.likelihood, self.spec.levels)

    def elbo(self, x: Tensor) -> Tensor:
        """log p(x | z) + log p(z): the same at each draw."""
        _, z = self.encode(x)
        pixels = self.decode(self.codebook(z.flatten()))
        return pixels.log_prob(x.float()).flatten(1).sum(1) + self.prior.log_prob(z)

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=self.prior.evaluations + 1)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        z = self.prior.sample(n)
        return self.decode(self.codebook(z.flatten())).sample().long()

    def reconstruct(self, x: Tensor) -> Tensor:
        """The mean of p(x | z) at the codes of x, rounded to a level."""
        _, z = self.encode(x)
        return mean_level(self.decode(self.codebook(z.flatten())), x, self.spec.levels)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Perplexity of the codebook in training, share of the codes that x uses, and what its codes cost in nats."""
        _, z = self.encode(x)
        return {
            "codebook_perplexity": float(self.codebook.perplexity()),
            "codes_used": len(z.unique()) / len(self.codebook.codes),
            "prior_nats": -float(self.prior.log_prob(z).mean()),
        }

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        x = batch.x
        vectors, z = self.encode(x)
        codes = self.codebook(z.flatten())
        pixels = self.decode(straight_through(vectors, codes))
        reconstruction = -pixels.log_prob(x.float()).flatten(1).sum(1).mean()
        distance = (vectors - codes).square().sum() / len(x)
        rate = -self.prior.log_prob(z).mean()
        self.codebook.follow(vectors, z.flatten())  # after it has served this batch
        return {
            "loss": reconstruction + self.commitment * distance + rate,  # eq. 3, and the prior's own
            "reconstruction": reconstruction,
            "commitment": distance,
            "rate": rate,
        }

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


# Priors over the codes z [B, T] -------------------------------------------------------------------------------------


class Transformer(nn.Module):
    """p(z) = Π p(z_t | z_<t), places in raster order, by causal attention."""

    blocks: Sequence[Block]

    def __init__(self, codes: int, places: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.begin, self.evaluations = codes, places
        self.code, self.place = nn.Embedding(codes + 1, width), nn.Embedding(places, width)
        self.blocks = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads, dropout) for _ in range(layers)
        )
        self.head = nn.Sequential(RMSNorm(width), nn.Linear(width, codes))

    def forward(self, before: Tensor, start: int = 0, caches: Sequence[Cache] | None = None) -> Tensor:
        """Logits `[B, t, K]` of the codes from place `start` on, from the code before each, `before` [B, t]."""
        x: Tensor = self.code(before) + self.place.weight[start : start + before.shape[1]]
        for i, block in enumerate(self.blocks):
            x = block(x, None, caches[i] if caches else None)
        logits: Tensor = self.head(x).float()
        return logits

    def log_prob(self, z: Tensor) -> Tensor:
        """`[B]`."""
        logits = self(F.pad(z[:, :-1], (1, 0), value=self.begin))
        return -F.cross_entropy(logits.mT, z, reduction="none").sum(1)

    def sample(self, n: int) -> Tensor:
        """`[n, T]`, keys and values computed once."""
        z = self.place.weight.new_full((n, 1), self.begin, dtype=torch.long)
        caches = [block.attention.cache(n, self.evaluations) for block in self.blocks]
        for t in range(self.evaluations):
            z = torch.cat([z, draw(self(z[:, -1:], t, caches)[:, 0])[:, None]], 1)
        return z[:, 1:]


class Histogram(nn.Module):
    """p(z) = Π p(z_t): how often each code stands at each place."""

    evaluations = 0

    def __init__(self, codes: int, places: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(places, codes))

    def log_prob(self, z: Tensor) -> Tensor:
        """`[B]`."""
        logits = self.logits.expand(len(z), -1, -1)
        return -F.cross_entropy(logits.mT, z, reduction="none").sum(1)

    def sample(self, n: int) -> Tensor:
        """`[n, T]`."""
        return draw(self.logits.expand(n, -1, -1))
