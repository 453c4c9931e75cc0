"""Spectrally normalised generative adversarial network.

Paper: Miyato and others, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957

Differences: both networks see differentiably augmented images (Zhao and others, "Differentiable Augmentation for
Data-Efficient GAN Training", NeurIPS 2020, arXiv:2006.10738), one discriminator step per generator step, and group
normalisation in the generator, whose moving average of weights needs no statistics of its own. All are options.
Further remedies against collapse (`benchmark/nn/remedies.py`) are options too; with them, D has as many parameters as
without, to within 5 %.

Shapes: x [B, C, H, W] integer levels; y [B, C, H, W] the same images in [-1, 1]; z [B, Z] latents. No likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.adversarial import (
    Augmentation,
    DownBlock,
    SumPool,
    UpBlock,
    adam_each,
    fixed,
    halvings,
    hinge_discriminator,
    hinge_generator,
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

NORMS: dict[str, Callable[[int], nn.Module]] = {"group": partial(nn.GroupNorm, 8), "batch": nn.BatchNorm2d}


class SNGAN(GenerativeModel, Interpolates, Diagnosable):
    """x = round(G(z)), z ~ N(0, I); D is 1-Lipschitz, layer by layer. Images halve until their side is odd or 4."""

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 64,  # dimensions of z
        generator_width: Size = 32,  # channels
        generator_norm: Literal["group", "batch"] = "group",  # batch: the paper's
        discriminator_width: Size = 32,  # channels
        discriminator_steps: Size = 1,  # for one step of the generator; each sees a batch of its own
        minibatch_kernels: Count = 0,  # remedy: mini-batch discrimination in so many projections
        minibatch_deviation: Count = 0,  # remedy: examples in a group whose standard deviation D sees
        feature_matching: bool = False,  # remedy: G matches means of D's features instead of fooling D
        packing: Size = 1,  # remedy: examples that D judges at once
        r1: NonNegative = 0.0,  # remedy: γ, weight of D's squared gradient at real examples
        translation: Count = 1,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 2e-3,
        discriminator_learning_rate: NonNegative = 2e-3,
        beta1: Share = 0.0,  # of Adam: no momentum in a game
        beta2: Share = 0.9,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two optimisers
        self.latent = latent
        self.discriminator_steps = discriminator_steps
        self.feature_matching, self.r1 = feature_matching, r1
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        self.generator = generator(spec.shape, latent, generator_width, NORMS[generator_norm])
        self.remedies = Remedies(kernels=minibatch_kernels, deviation=minibatch_deviation, packing=packing)
        self.augment = Augmentation(translation, cutout)
        with refusing("sngan"):
            self.augment.check(spec.shape)
            self.discriminator = matched(partial(discriminator, spec.shape), discriminator_width, self.remedies)
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
        """x `[B, C, H, W]` for z [B, Z]."""
        return self.to_levels(self.generator(z))

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """By how much D tells real from generated: above 2, the hinge's two margins, D learns nothing more."""
        real = self.remedies.whole(self.to_unit(x))
        on_real, on_fake = self.discriminator(real), self.discriminator(self.generator(self.noise(len(real))))
        return {"discriminator_gap": float(on_real.mean() - on_fake.mean())}

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, I), [n, Z]."""
        return torch.randn(n, self.latent, device=self.device)

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        return binned(x, self.spec.levels).contiguous(memory_format=torch.channels_last)

    def to_levels(self, y: Tensor) -> Tensor:
        """[-1, 1] to the level whose bin it lies in: the inverse of `to_unit`."""
        return unbinned(y, self.spec.levels)

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with refusing("sngan"):
            self.remedies.check(len(batch.x))
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        real = self.to_unit(batch.x)
        fake = self.generator(self.noise(len(real)))

        seen = self.augment(torch.cat([real, fake.detach()])).requires_grad_(self.r1 > 0)
        on_real, on_fake = self.judge(seen)
        loss_d = hinge_discriminator(on_real, on_fake)  # eq. 16
        logs = {"loss": loss_d, "real": on_real.mean(), "fake": on_fake.mean()}
        if self.r1:
            logs["penalty"] = gradient_penalty(on_real, seen)
            loss_d = loss_d + self.r1 / 2 * logs["penalty"]
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()

        if (batch_idx + 1) % self.discriminator_steps == 0:
            with fixed(self.discriminator):
                loss_g = self.loss_g(real, fake)
            optimizer_g.zero_grad()
            self.manual_backward(loss_g)
            optimizer_g.step()
            logs["generator"] = loss_g
        return {name: value.detach() for name, value in logs.items()}

    def judge(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """D of the first half of y [2 B, C, H, W], which is real, and of the second: apart, if D compares examples."""
        if self.remedies.kernels:
            real, fake = y.chunk(2)
            return self.discriminator(real), self.discriminator(fake)
        on_real, on_fake = self.discriminator(y).chunk(2)
        return on_real, on_fake

    def loss_g(self, real: Tensor, fake: Tensor) -> Tensor:
        """What G minimises, a scalar."""
        if not self.feature_matching:
            return hinge_generator(self.discriminator(self.augment(fake)))  # eq. 17
        f = self.discriminator[:-2]  # all but the last layer
        return feature_matching(f(self.augment(real)), f(self.augment(fake)))

    def configure_optimizers(self) -> list[Optimizer]:
        return adam_each(self.generator, self.discriminator, self.learning_rates, self.betas)


# Private parts -----------------------------------------------------------------------------------------------------


def generator(shape: Sequence[int], latent: int, width: int, norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """[B, Z] to [B, C, H, W] in [-1, 1]."""
    times, height, side = halvings(shape[1], shape[2])
    return nn.Sequential(
        nn.Linear(latent, width * height * side),
        nn.Unflatten(1, (width, height, side)),
        UpBlock(width, 1, norm),
        *(UpBlock(width, 2, norm) for _ in range(times)),
        norm(width),
        nn.ReLU(),
        nn.Conv2d(width, shape[0], 3, padding=1),
        nn.Tanh(),
    )


def discriminator(shape: Sequence[int], width: int, remedies: Remedies) -> nn.Sequential:
    """[B, C, H, W] to [B / packing]. No bias at the end: inside the hinge's margin it would have no gradient."""
    times, _, _ = halvings(shape[1], shape[2])
    last, features = remedies.last(width)
    return nn.Sequential(
        *remedies.first(),
        spectral_norm(nn.Conv2d(shape[0] * remedies.packing, width, 3, padding=1)),
        *(DownBlock(width, 2) for _ in range(times)),
        DownBlock(width, 1),
        nn.ReLU(),
        SumPool(),
        *last,
        spectral_norm(nn.Linear(features, 1, bias=False)),
        nn.Flatten(0),
    )
