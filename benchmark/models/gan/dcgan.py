"""Deep convolutional generative adversarial network.

Paper: Radford, Metz and Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks", ICLR 2016, arXiv:1511.06434, with the loss of Goodfellow and others, "Generative Adversarial Nets", NeurIPS
2014, arXiv:1406.2661, that does not saturate.

Differences: both networks have a layer of stride 1 at full size, since small images halve but once or twice; latents
are normal. In evaluation, G's batch normalisation has the statistics of fixed latents under the weights at hand, and
D's those of the batch that it judges, as in training: there are no running ones. Of a few coordinates in place of an
image, both networks are linear layers, with torch's own initial weights: small ones learn no narrow modes. Remedies
against collapse (`benchmark/nn/remedies.py`) are options; with them, D has as many parameters as without, to within
5 %.

Shapes: x [B, C, H, W] or [B, D] integer levels; y the same in [-1, 1]; z [B, Z] latents. No likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.adversarial import (
    Augmentation,
    Referenced,
    ReferenceNorm,
    adam_each,
    fixed,
    halvings,
    logistic_discriminator,
    logistic_generator,
)
from benchmark.nn.latents import interpolated
from benchmark.nn.levels import binned, unbinned
from benchmark.nn.remedies import Remedies, feature_matching, gradient_penalty, matched
from benchmark.spec import (
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    Interpolates,
    NonNegative,
    Sampler,
    Share,
    Size,
)

Norm = Literal["batch", "none"]
Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.ConvTranspose2d)


class DCGAN(GenerativeModel, Interpolates, Diagnosable):
    """x = round(G(z)), z ~ N(0, I). Images halve until their side is odd or 4, and channels double."""

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 64,  # dimensions of z
        generator_width: Size = 32,  # channels at full size, or hidden units
        discriminator_width: Size = 32,  # the same, without remedies that have parameters
        discriminator_norm: Norm = "batch",  # batch: the paper's, not in the first layer
        spectral: bool = False,  # remedy: spectral normalisation of D
        minibatch_kernels: Count = 0,  # remedy: mini-batch discrimination in so many projections
        minibatch_deviation: Count = 0,  # remedy: examples in a group whose standard deviation D sees
        feature_matching: bool = False,  # remedy: G matches means of D's features instead of fooling D
        packing: Size = 1,  # remedy: examples that D judges at once
        r1: NonNegative = 0.0,  # remedy: γ, weight of D's squared gradient at real examples
        translation: Count = 0,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 2e-4,
        discriminator_learning_rate: NonNegative = 2e-4,
        beta1: Share = 0.5,  # of Adam
        beta2: Share = 0.999,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two optimisers
        self.latent = latent
        self.feature_matching, self.r1 = feature_matching, r1
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        self.remedies = Remedies(spectral, minibatch_kernels, minibatch_deviation, packing)
        self.augment = Augmentation(translation, cutout)
        make_generator, make_discriminator = (
            (generator, discriminator) if len(spec.shape) > 1 else (point_generator, point_discriminator)
        )
        self.generator = Referenced(make_generator(spec.shape, latent, generator_width), latent)
        with refusing("dcgan"):
            self.augment.check(spec.shape)
            self.discriminator = matched(
                partial(make_discriminator, spec.shape, discriminator_norm), discriminator_width, self.remedies
            )
        self.to(memory_format=torch.channels_last)

    # Promises ------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.noise(n))

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, self.generate)

    def generate(self, z: Tensor) -> Tensor:
        """x `[B, *shape]` for z [B, Z]."""
        return unbinned(self.generator(z), self.spec.levels)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """By how many nats of log odds D tells real from generated, and how often it is right."""
        real = self.remedies.whole(self.to_unit(x))
        on_real, on_fake = self.discriminator(real), self.discriminator(self.generator(self.noise(len(real))))
        right = torch.cat([on_real > 0, on_fake < 0])
        return {
            "discriminator_gap": float(on_real.mean() - on_fake.mean()),
            "discriminator_accuracy": float(right.float().mean()),
        }

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, I), [n, Z]."""
        return torch.randn(n, self.latent, device=self.device)

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        return binned(x, self.spec.levels)

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with refusing("dcgan"):
            self.remedies.check(len(batch.x))
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        real = self.to_unit(batch.x)
        fake = self.generator(self.noise(len(real)))

        seen = self.augment(real).requires_grad_(self.r1 > 0)
        on_real = self.discriminator(seen)  # real and generated examples are never in one batch
        on_fake = self.discriminator(self.augment(fake.detach()))
        loss_d = logistic_discriminator(on_real, on_fake)
        logs = {"loss": loss_d, "real": on_real.mean(), "fake": on_fake.mean()}
        if self.r1:
            logs["penalty"] = gradient_penalty(on_real, seen)
            loss_d = loss_d + self.r1 / 2 * logs["penalty"]
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()

        with fixed(self.discriminator):
            loss_g = self.loss_g(real, fake)
        optimizer_g.zero_grad()
        self.manual_backward(loss_g)
        optimizer_g.step()
        logs["generator"] = loss_g
        return {name: value.detach() for name, value in logs.items()}

    def loss_g(self, real: Tensor, fake: Tensor) -> Tensor:
        """What G minimises, a scalar."""
        if not self.feature_matching:
            return logistic_generator(self.discriminator(self.augment(fake)))
        f = self.discriminator[:-2]  # all but the last layer
        return feature_matching(f(self.augment(real)), f(self.augment(fake)))

    def configure_optimizers(self) -> list[Optimizer]:
        return adam_each(self.generator, self.discriminator, self.learning_rates, self.betas)


# Private parts: images ---------------------------------------------------------------------------------------------


def generator(shape: Sequence[int], latent: int, width: int) -> nn.Sequential:
    """[B, Z] to [B, C, H, W] in [-1, 1]: transposed convolutions double the sides and halve the channels."""
    times, height, side = halvings(shape[1], shape[2])
    channels = [width * 2**i for i in range(times, -1, -1)]
    return nn.Sequential(
        drawn(nn.Linear(latent, channels[0] * height * side, bias=False)),
        nn.Unflatten(1, (channels[0], height, side)),
        *(ReferenceNorm(channels[0]), nn.ReLU()),
        *(
            part
            for i, o in pairwise(channels)
            for part in (drawn(nn.ConvTranspose2d(i, o, 4, 2, 1, bias=False)), ReferenceNorm(o), nn.ReLU())
        ),
        drawn(nn.ConvTranspose2d(width, shape[0], 3, padding=1)),
        nn.Tanh(),
    )


def discriminator(shape: Sequence[int], norm: Norm, width: int, remedies: Remedies) -> nn.Sequential:
    """[B, C, H, W] to logits [B / packing]: strided convolutions halve the sides and double the channels."""
    times, height, side = halvings(shape[1], shape[2])
    channels = [width * 2**i for i in range(times + 1)]
    last, features = remedies.last(channels[-1] * height * side)
    return nn.Sequential(
        *remedies.first(),
        *(remedies.layer(drawn(nn.Conv2d(shape[0] * remedies.packing, width, 3, padding=1))), nn.LeakyReLU(0.2)),
        *(
            part
            for i, o in pairwise(channels)
            for part in (
                remedies.layer(drawn(nn.Conv2d(i, o, 4, 2, 1, bias=norm == "none"))),
                nn.BatchNorm2d(o, track_running_stats=False) if norm == "batch" else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
        ),
        nn.Flatten(),
        *last,
        remedies.layer(drawn(nn.Linear(features, 1))),
        nn.Flatten(0),
    )


# Private parts: points -----------------------------------------------------------------------------------------------


def point_generator(shape: Sequence[int], latent: int, width: int) -> nn.Sequential:
    """[B, Z] to [B, D] in [-1, 1] through two hidden layers."""
    return nn.Sequential(
        *(nn.Linear(latent, width, bias=False), ReferenceNorm(width), nn.ReLU()),
        *(nn.Linear(width, width, bias=False), ReferenceNorm(width), nn.ReLU()),
        nn.Linear(width, shape[0]),
        nn.Tanh(),
    )


def point_discriminator(shape: Sequence[int], norm: Norm, width: int, remedies: Remedies) -> nn.Sequential:
    """[B, D] to logits [B / packing] through two hidden layers."""
    last, features = remedies.last(width)
    return nn.Sequential(
        *remedies.first(),
        *(remedies.layer(nn.Linear(shape[0] * remedies.packing, width)), nn.LeakyReLU(0.2)),
        remedies.layer(nn.Linear(width, width, bias=norm == "none")),
        nn.BatchNorm1d(width, track_running_stats=False) if norm == "batch" else nn.Identity(),
        nn.LeakyReLU(0.2),
        *last,
        remedies.layer(nn.Linear(features, 1)),
        nn.Flatten(0),
    )


def drawn(layer: Layer) -> Layer:
    """The same layer with weights from N(0, 0.02²) (section 3) and no bias at first."""
    nn.init.normal_(layer.weight, 0.0, 0.02)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
