"""Wasserstein generative adversarial network with a gradient penalty.

Paper: Arjovsky, Chintala and Bottou, "Wasserstein Generative Adversarial Networks", ICML 2017, arXiv:1701.07875 (the
distance), and Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved Training of Wasserstein GANs", NeurIPS
2017, arXiv:1704.00028 (the penalty; sections and equations are theirs).

Differences: both networks have one width at all sizes, and a layer and a block at the smallest, since small images
halve but once or twice. The step of G takes the latents of the last step of D. In evaluation, G's batch normalisation
has the statistics of fixed latents under the weights at hand: there are no running ones. D's last layer has no bias,
which no loss would see. Of a few coordinates in place of an image, both networks have three hidden layers, G without
normalisation. Augmentation and remedies against collapse (`benchmark/nn/remedies.py`) are options; with them, D has as
many parameters as without, to within 5 %.

The penalty is of the gradient at one example, or at one pack, so D must be a function of that alone (section 4): it has
layer normalisation or none. Remedies that show D a batch, mini-batch discrimination and standard deviation, are not
offered for the same reason.

Shapes: x [B, C, H, W] or [B, D] integer levels; y the same in [-1, 1]; z [B, Z] latents. No likelihood.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.adversarial import (
    Augmentation,
    DownBlock,
    Referenced,
    ReferenceNorm,
    UpBlock,
    adam_each,
    fixed,
    halvings,
    wasserstein,
)
from benchmark.nn.latents import interpolated
from benchmark.nn.levels import binned, unbinned
from benchmark.nn.remedies import (
    Remedies,
    between,
    feature_matching,
    gradient_norms,
    gradient_penalty,
    lipschitz_penalty,
    matched,
)
from benchmark.spec import Batch, Count, DataSpec, Diagnosable, Interpolates, NonNegative, Sampler, Share, Size

Norm = Literal["layer", "none"]
NORMS: dict[Norm, Callable[[int], nn.Module]] = {"layer": partial(nn.GroupNorm, 1), "none": nn.Identity}


class WGANGP(GenerativeModel, Interpolates, Diagnosable):
    """x = round(G(z)), z ~ N(0, I); D, the critic, has slopes of about 1. Images halve until their side is odd or 4."""

    #: The penalty differentiates D twice.
    eager = ("discriminator",)

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 64,  # dimensions of z
        generator_width: Size = 32,  # channels, or hidden units
        discriminator_width: Size = 32,  # the same, without packing
        discriminator_norm: Norm = "none",  # layer: over all of an example; the paper has either
        discriminator_steps: Size = 5,  # for one step of the generator; each sees a batch of its own
        penalty: NonNegative = 10.0,  # λ, weight of the gradient penalty
        spectral: bool = False,  # remedy: spectral normalisation of D
        feature_matching: bool = False,  # remedy: G matches means of D's features instead of raising D
        packing: Size = 1,  # remedy: examples that D judges at once
        r1: NonNegative = 0.0,  # remedy: γ, weight of D's squared gradient at real examples
        translation: Count = 0,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 1e-4,
        discriminator_learning_rate: NonNegative = 1e-4,
        beta1: Share = 0.0,  # of Adam
        beta2: Share = 0.9,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two optimisers
        self.latent = latent
        self.discriminator_steps, self.penalty = discriminator_steps, penalty
        self.feature_matching, self.r1 = feature_matching, r1
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        self.remedies = Remedies(spectral, packing=packing)
        self.augment = Augmentation(translation, cutout)
        make_generator, make_discriminator = (
            (generator, discriminator) if len(spec.shape) > 1 else (point_generator, point_discriminator)
        )
        self.generator = make_generator(spec.shape, latent, generator_width)
        with refusing("wgan_gp"):
            self.augment.check(spec.shape)
            self.discriminator = matched(
                partial(make_discriminator, spec.shape, NORMS[discriminator_norm]), discriminator_width, self.remedies
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
        """D's estimate of the Wasserstein distance in units of y, and the mean norm of its gradient between real and
        generated examples, both held out. A D that is weak, or has learnt training examples by heart, says too little.
        """
        real = self.remedies.whole(self.to_unit(x))
        fake = self.generator(self.noise(len(real)))
        distance = wasserstein(self.discriminator(real), self.discriminator(fake))
        with torch.enable_grad():
            y = between(real, fake, self.remedies.packing)
            norm = gradient_norms(self.discriminator(y), y).mean()
        return {"distance": float(distance), "slope": float(norm.detach())}

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, I), [n, Z]."""
        return torch.randn(n, self.latent, device=self.device)

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        return binned(x, self.spec.levels)

    # How it learns (algorithm 1) -----------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with refusing("wgan_gp"):
            self.remedies.check(len(batch.x))
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        moves_g = (batch_idx + 1) % self.discriminator_steps == 0
        real = self.to_unit(batch.x)
        with torch.set_grad_enabled(moves_g):
            fake = self.generator(self.noise(len(real)))

        seen_real, seen_fake = self.augment(real).requires_grad_(self.r1 > 0), self.augment(fake.detach())
        on_real, on_fake = self.discriminator(torch.cat([seen_real, seen_fake])).chunk(2)  # D compares no examples
        distance = wasserstein(on_real, on_fake)
        logs = {"loss": -distance, "distance": distance}
        if self.penalty:
            y = between(seen_real, seen_fake, self.remedies.packing)
            logs["penalty"] = lipschitz_penalty(self.discriminator(y), y)
            logs["loss"] = logs["loss"] + self.penalty * logs["penalty"]  # eq. 3
        loss_d = logs["loss"]
        if self.r1:
            logs["r1"] = gradient_penalty(on_real, seen_real)
            loss_d = loss_d + self.r1 / 2 * logs["r1"]
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()

        if moves_g:
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
            score: Tensor = self.discriminator(self.augment(fake))
            return -score.float().mean()
        f = self.discriminator[:-2]  # all but the last layer
        return feature_matching(f(self.augment(real)), f(self.augment(fake)))

    def configure_optimizers(self) -> list[Optimizer]:
        return adam_each(self.generator, self.discriminator, self.learning_rates, self.betas)


# Private parts: images ---------------------------------------------------------------------------------------------


def generator(shape: Sequence[int], latent: int, width: int) -> nn.Module:
    """[B, Z] to [B, C, H, W] in [-1, 1]."""
    times, height, side = halvings(shape[1], shape[2])
    network = nn.Sequential(
        nn.Linear(latent, width * height * side),
        nn.Unflatten(1, (width, height, side)),
        UpBlock(width, 1, ReferenceNorm),
        *(UpBlock(width, 2, ReferenceNorm) for _ in range(times)),
        *(ReferenceNorm(width), nn.ReLU()),
        nn.Conv2d(width, shape[0], 3, padding=1),
        nn.Tanh(),
    )
    return Referenced(network, latent)


def discriminator(
    shape: Sequence[int], norm: Callable[[int], nn.Module], width: int, remedies: Remedies
) -> nn.Sequential:
    """[B, C, H, W] to [B / packing]."""
    times, _, _ = halvings(shape[1], shape[2])
    return nn.Sequential(
        *remedies.first(),
        remedies.layer(nn.Conv2d(shape[0] * remedies.packing, width, 3, padding=1)),
        *(DownBlock(width, 2, remedies.layer, norm) for _ in range(times)),
        DownBlock(width, 1, remedies.layer, norm),
        nn.ReLU(),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        remedies.layer(nn.Linear(width, 1, bias=False)),
        nn.Flatten(0),
    )


# Private parts: points -----------------------------------------------------------------------------------------------


def point_generator(shape: Sequence[int], latent: int, width: int) -> nn.Module:
    """[B, Z] to [B, D] in [-1, 1]."""
    return nn.Sequential(
        *(nn.Linear(latent, width), nn.ReLU()),
        *(nn.Linear(width, width), nn.ReLU()),
        *(nn.Linear(width, width), nn.ReLU()),
        *(nn.Linear(width, shape[0]), nn.Tanh()),
    )


def point_discriminator(
    shape: Sequence[int], norm: Callable[[int], nn.Module], width: int, remedies: Remedies
) -> nn.Sequential:
    """[B, D] to [B / packing]."""
    return nn.Sequential(
        *remedies.first(),
        *(remedies.layer(nn.Linear(shape[0] * remedies.packing, width)), nn.ReLU()),
        *(remedies.layer(nn.Linear(width, width)), norm(width), nn.ReLU()),
        *(remedies.layer(nn.Linear(width, width)), norm(width), nn.ReLU()),
        remedies.layer(nn.Linear(width, 1, bias=False)),
        nn.Flatten(0),
    )
