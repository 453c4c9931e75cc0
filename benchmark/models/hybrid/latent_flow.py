"""A normalising flow over the latents of an autoencoder that was trained before.

Paper: Dai and Wipf, "Diagnosing and Enhancing VAE Models", ICLR 2019, arXiv:1903.05789

Differences: their second stage is another VAE; here it is a flow of affine couplings (Dinh, Sohl-Dickstein and Bengio,
"Density estimation using Real NVP", ICLR 2017, arXiv:1605.08803), whose density of the latents is exact, with
dropout and decoupled weight decay, as in this benchmark's VAE. As in the paper the first stage keeps its weights: the
flow replaces its prior, so that samples come from where its encoder puts images. Theirs has a learnt, shared variance
of the decoder; here the decoder is the first stage's own.

Shapes: x [B, C, H, W] integer levels; z [B, *S] latents of the first stage, e [B, Z] behind the flow, Z the product of
S; k importance samples. Unit: nats an image.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.distributions import DiscretisedLogistics, importance_bound, log_normal
from benchmark.nn.flows import Affine, Chain, Coupling
from benchmark.nn.latents import interpolated
from benchmark.nn.layers import mlp, zeroed
from benchmark.nn.levels import centred
from benchmark.nn.optim import adamw
from benchmark.spec import (
    Autoencodes,
    BadInput,
    Batch,
    DataSpec,
    ImportanceBound,
    Interpolates,
    NonNegative,
    Sampler,
    Share,
    Size,
)


class LatentFlow(GenerativeModel, ImportanceBound, Interpolates):
    """p(x) = E_{z ~ flow} p(x | z) with the decoder p(x | z) and the encoder q(z | x) of the first stage."""

    frozen = ("first_stage",)

    #: Decoder passes held in memory at once by `importance_bound`.
    chunk = 4096

    def __init__(
        self,
        spec: DataSpec,
        first_stage: Autoencodes | None = None,  # None: each pixel is its own latent, and nothing is learnt
        couplings: Size = 6,
        width: Size = 128,  # hidden units of a coupling's network
        depth: Size = 2,  # hidden layers of one
        dropout: Share = 0.1,
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.01,
    ) -> None:
        super().__init__(spec)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        stage = PixelCode(spec.shape, spec.levels) if first_stage is None else first_stage
        if not isinstance(stage, nn.Module) or not isinstance(stage, Autoencodes):
            raise BadInput(f"latent_flow: a {type(stage).__name__} does not promise Autoencodes: name a VAE, say")
        self.first_stage = stage.requires_grad_(False)
        self.latent_shape = stage.latent_shape
        latents = math.prod(self.latent_shape)
        if latents < 2:
            raise BadInput("latent_flow: one latent cannot be split by a coupling: give a first stage with two or more")
        place = torch.arange(latents)
        self.flow = Chain(
            *(coupling((place + i) % 2 == 0, width, depth, dropout) for i in range(couplings)),
        )

    # The model -------------------------------------------------------------------------------------------------------

    def log_prior(self, z: Tensor) -> Tensor:
        """log p(z) `[B]` for z [B, *S]."""
        e, log_det = self.flow(z.flatten(1))
        log_p: Tensor = log_normal(e) + log_det
        return log_p

    def log_weights(self, x: Tensor, k: int) -> Tensor:
        """log p(x, z) / q(z | x) for k draws of z, `[k, B]`."""
        with torch.no_grad():
            q = self.first_stage.encode(x)
            z = q.rsample((k,))  # [k, B, *S]
            log_q = q.log_prob(z).flatten(2).sum(2)  # [k, B]
            log_likelihood: Tensor = self.first_stage.log_likelihood(x, z)
        log_prior = self.log_prior(z.flatten(0, 1)).unflatten(0, (k, len(x)))
        log_weights: Tensor = log_likelihood + log_prior - log_q  # [k, B]
        return log_weights

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=2)

    def noise(self, n: int) -> Tensor:
        """e ~ N(0, I), [n, Z]."""
        return torch.randn(n, math.prod(self.latent_shape), device=self.device)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.noise(n))

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, self.generate)

    def generate(self, e: Tensor) -> Tensor:
        """x ~ p(x | z) `[B, C, H, W]` for the z that the flow sends to e [B, Z]."""
        return self.first_stage.generate(self.flow.inverse(e).unflatten(1, self.latent_shape))

    def elbo(self, x: Tensor) -> Tensor:
        return self.log_weights(x, 1).squeeze(0)

    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        return importance_bound(partial(self.log_weights, x), importance_samples, max(1, self.chunk // len(x)))

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self.first_stage.eval()  # whatever mode the rest is in
        with torch.no_grad():
            z = self.first_stage.encode(batch.x).rsample()
        return {"loss": -self.log_prior(z).mean()}  # the rest of the bound does not depend on the flow

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def coupling(mask: Tensor, width: int, depth: int, dropout: float) -> Coupling:
    """An affine coupling of [B, Z], the identity at first."""
    *hidden, last = mlp(len(mask), Affine.outputs * len(mask), width, depth, dropout)
    return Coupling(mask, nn.Sequential(*hidden, zeroed(last)), Affine(mask.shape))


class PixelCode(nn.Module, Autoencodes):
    """What stands in for a first stage: each pixel is a latent, centred on its level, with a little noise."""

    noise: Tensor

    def __init__(self, shape: tuple[int, ...], levels: int) -> None:
        super().__init__()
        self.shape, self.levels = shape, levels
        self.register_buffer("noise", torch.tensor(0.5 / (levels - 1)), persistent=False)  # a quarter of a step

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.shape

    def encode(self, x: Tensor) -> Normal:
        mu = centred(x, self.levels)
        return Normal(mu, self.noise.expand_as(mu), validate_args=False)

    def pixels(self, z: Tensor) -> DiscretisedLogistics:
        """p(x | z) over [..., C, H, W]: one logistic a pixel."""
        z = z.unsqueeze(-4)  # [..., 1, C, H, W]
        outputs = torch.cat([torch.zeros_like(z), z, torch.full_like(z, math.log(self.noise / 4))], -4)
        return DiscretisedLogistics(outputs, self.levels)

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        return self.pixels(z).log_prob(x.float()).flatten(-3).sum(-1)

    def generate(self, z: Tensor) -> Tensor:
        return self.pixels(z).sample().long()
