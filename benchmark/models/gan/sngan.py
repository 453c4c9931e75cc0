"""Spectrally normalised generative adversarial network.

Paper: Miyato and others, "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, arXiv:1802.05957

Differences: both networks see differentiably augmented images (Zhao and others, "Differentiable Augmentation for
Data-Efficient GAN Training", NeurIPS 2020, arXiv:2006.10738), one discriminator step per generator step by default, and
group normalisation in the generator, whose moving average needs no statistics of its own.

Shapes: x [B, C, H, W] integer levels; y [B, C, H, W] the same images in [-1, 1]; z [B, Z] latents. No likelihood.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Adam, Optimizer

from benchmark.models.base import GenerativeModel, interpolated
from benchmark.spec import BadInput, Batch, Count, DataSpec, Interpolates, NonNegative, Sampler, Share, Size, Watched


class SNGAN(GenerativeModel, Interpolates, Watched):
    """x = round(G(z)), z ~ N(0, I); D is 1-Lipschitz, layer by layer. Images halve until their side is odd or 4."""

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 64,  # dimensions of z
        generator_width: Size = 32,  # channels
        discriminator_width: Size = 32,  # channels
        discriminator_steps: Size = 1,  # for one step of the generator; each sees a batch of its own
        translation: Count = 1,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 2e-3,
        discriminator_learning_rate: NonNegative = 2e-3,
        beta1: Share = 0.0,  # of Adam: no momentum in a game
        beta2: Share = 0.9,
    ) -> None:
        super().__init__(spec)
        sides = spec.shape[1:]
        if translation >= min(sides) or cutout >= min(sides):
            raise BadInput(
                f"sngan: translation={translation} and cutout={cutout} leave nothing of {sides[0]}x{sides[1]} images: "
                f"give less than {min(sides)}"
            )
        self.automatic_optimization = False  # two optimisers
        self.latent = latent
        self.discriminator_steps = discriminator_steps
        self.translation, self.cutout = translation, cutout
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        self.generator = generator(spec, latent, generator_width)
        self.discriminator = discriminator(spec, discriminator_width)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

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

    def signs(self, x: Tensor) -> dict[str, float]:
        """By how much D tells real from generated: above 2, the hinge's two margins, D learns nothing more."""
        on_real, on_fake = self.discriminator(self.to_unit(x)), self.discriminator(self.generator(self.noise(len(x))))
        return {"discriminator_gap": float(on_real.mean() - on_fake.mean())}

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, I), [n, Z]."""
        return torch.randn(n, self.latent, device=self.device)

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        y = (x + torch.rand_like(x, dtype=torch.float32)) * (2 / self.spec.levels) - 1
        return y.contiguous(memory_format=torch.channels_last)

    def to_levels(self, y: Tensor) -> Tensor:
        """[-1, 1] to the level whose bin it lies in: the inverse of `to_unit`."""
        return ((y + 1) * (self.spec.levels / 2)).floor().long().clamp(0, self.spec.levels - 1)

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        real = self.to_unit(batch.x)
        fake = self.generator(self.noise(len(real)))

        on_real, on_fake = self.discriminator(self.augment(torch.cat([real, fake.detach()]))).chunk(2)
        loss_d = F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()  # eq. 16
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()
        logs = {"loss": loss_d, "real": on_real.mean(), "fake": on_fake.mean()}

        if (batch_idx + 1) % self.discriminator_steps == 0:
            self.discriminator.requires_grad_(False)
            loss_g = -self.discriminator(self.augment(fake)).mean()  # eq. 17
            self.discriminator.requires_grad_(True)
            optimizer_g.zero_grad()
            self.manual_backward(loss_g)
            optimizer_g.step()
            logs["generator"] = loss_g
        return {name: value.detach() for name, value in logs.items()}

    def configure_optimizers(self) -> list[Optimizer]:
        return [
            Adam(network.parameters(), lr=learning_rate, betas=self.betas, fused=True)
            for network, learning_rate in zip((self.generator, self.discriminator), self.learning_rates, strict=True)
        ]

    def augment(self, y: Tensor) -> Tensor:
        """DiffAugment: a random shift and a painted square, both filled with the lowest level."""
        n, _, height, side = y.shape
        row, column = torch.arange(height, device=y.device), torch.arange(side, device=y.device)
        if self.translation:
            t = self.translation
            down, right = torch.randint(2 * t + 1, (2, n, 1), device=y.device)
            padded = F.pad(y, (t, t, t, t), value=-1.0).movedim(1, -1)  # [B, H+2t, W+2t, C]
            example = torch.arange(n, device=y.device)[:, None, None]
            y = padded[example, (row + down)[:, :, None], (column + right)[:, None, :]].movedim(-1, 1)
        if self.cutout:
            top = torch.randint(1 - self.cutout, height, (n, 1), device=y.device)
            left = torch.randint(1 - self.cutout, side, (n, 1), device=y.device)
            rows, columns = ((i >= start) & (i < start + self.cutout) for i, start in ((row, top), (column, left)))
            y = y.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], -1.0)  # [B, 1, H, W]
        return y


# Networks ----------------------------------------------------------------------------------------------------------


def halvings(spec: DataSpec) -> tuple[int, int, int]:
    """How often both sides can be halved before one is odd or at most 4, and the sides that remain."""
    _, height, side = spec.shape
    times = 0
    while height % 2 == side % 2 == 0 and min(height, side) > 4:
        height, side, times = height // 2, side // 2, times + 1
    return times, height, side


def generator(spec: DataSpec, latent: int, width: int) -> nn.Sequential:
    """[B, Z] to [B, C, H, W] in [-1, 1]."""
    times, height, side = halvings(spec)
    return nn.Sequential(
        nn.Linear(latent, width * height * side),
        nn.Unflatten(1, (width, height, side)),
        GeneratorBlock(width, scale=1),
        *(GeneratorBlock(width, scale=2) for _ in range(times)),
        nn.GroupNorm(8, width),
        nn.ReLU(),
        nn.Conv2d(width, spec.shape[0], 3, padding=1),
        nn.Tanh(),
    )


def discriminator(spec: DataSpec, width: int) -> nn.Sequential:
    """[B, C, H, W] to [B]. No bias at the end: inside the hinge's margin it would have no gradient."""
    times, _, _ = halvings(spec)
    return nn.Sequential(
        spectral_norm(nn.Conv2d(spec.shape[0], width, 3, padding=1)),
        *(DiscriminatorBlock(width, scale=2) for _ in range(times)),
        DiscriminatorBlock(width, scale=1),
        nn.ReLU(),
        SumPool(),
        spectral_norm(nn.Linear(width, 1, bias=False)),
        nn.Flatten(0),
    )


class GeneratorBlock(nn.Module):
    """Residual block (appendix B.4, figure 8), enlarging by `scale`."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.norm1, self.norm2 = nn.GroupNorm(8, width), nn.GroupNorm(8, width)
        self.conv1, self.conv2 = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        if self.scale > 1:
            x, h = (F.interpolate(t, scale_factor=float(self.scale), mode="nearest") for t in (x, h))
        h = self.conv2(F.relu(self.norm2(self.conv1(h))))
        return x + h  # type: ignore[no-any-return]


class DiscriminatorBlock(nn.Module):
    """Residual block without normalisation, shrinking by `scale`."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.conv1 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))
        self.conv2 = spectral_norm(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv2(F.relu(self.conv1(F.relu(x))))
        return F.avg_pool2d(x + h, self.scale) if self.scale > 1 else x + h


class SumPool(nn.Module):
    """[B, C, H, W] to [B, C]: sums over positions."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3))
