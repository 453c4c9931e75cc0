"""Class-conditional generative adversarial network with a split latent and truncation.

Paper: Brock, Donahue and Simonyan, "Large Scale GAN Training for High Fidelity Natural Image Synthesis", ICLR 2019,
arXiv:1809.11096, with the projection of Miyato and Koyama, "cGANs with Projection Discriminator", ICLR 2018,
arXiv:1802.05637, and the attention of Zhang and others, "Self-Attention Generative Adversarial Networks", ICML 2019,
arXiv:1805.08318.

Differences: as many channels at every resolution, and in both networks one block of stride 1 at the lowest, since small
images halve but once or twice; attention at half the full side. Generated images have the labels of the real batch. One
step of D for one of G, and larger learning rates in the same proportion for smaller batches, are options. In
evaluation, batch statistics are those of fixed latents and of all labels in turn under the weights at hand, never
truncated, so that G stays one function; the paper gathers its standing statistics from random batches.

`sample` draws labels as often as training has met them. Data without labels are of one class. Remedies against collapse
(`benchmark/nn/remedies.py`) are options; with them, D has as many parameters as without, to within 5 %. A pack has the
labels of all its images: each place in it has embeddings of its own, and their projections add up.

Shapes: x [B, C, H, W] integer levels; y [B, C, H, W] the same images in [-1, 1]; z [B, Z] latents, one chunk for the
first layer and one for each block; labels [B]; h [B, P] features of D. No likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.adversarial import (
    Augmentation,
    DownBlock,
    Referenced,
    ReferenceNorm,
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
    Conditional,
    Count,
    DataSpec,
    Diagnosable,
    Interpolates,
    NonNegative,
    Sampler,
    Share,
    Size,
    Truncates,
)

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d, nn.Embedding)
Wrap = Callable[[nn.Linear | nn.Conv2d], nn.Module]


class BigGAN(GenerativeModel, Conditional, Interpolates, Truncates, Diagnosable):
    """x = round(G(z, c)), z ~ N(0, I), c a label. Images halve until their side is odd or 4."""

    met: Tensor

    def __init__(
        self,
        spec: DataSpec,
        chunk: Size = 16,  # dimensions of z for the first layer, and as many for each block
        embedding: Size = 32,  # dimensions of a label, shared by all blocks
        generator_width: Size = 32,  # channels
        generator_spectral: bool = True,  # spectral normalisation of G: the paper's
        discriminator_width: Size = 32,  # channels
        discriminator_steps: Size = 1,  # for one step of the generator; each sees a batch of its own. The paper's: 2
        attention: bool = True,  # self-attention in both networks
        orthogonal: NonNegative = 1e-4,  # β, weight of the orthogonal regularisation of G
        minibatch_kernels: Count = 0,  # remedy: mini-batch discrimination in so many projections
        minibatch_deviation: Count = 0,  # remedy: examples in a group whose standard deviation D sees
        feature_matching: bool = False,  # remedy: G matches means of D's features instead of fooling D
        packing: Size = 1,  # remedy: examples that D judges at once
        r1: NonNegative = 0.0,  # remedy: γ, weight of D's squared gradient at real examples
        translation: Count = 0,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 5e-4,
        discriminator_learning_rate: NonNegative = 2e-3,
        beta1: Share = 0.0,  # of Adam: no momentum in a game
        beta2: Share = 0.999,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two optimisers
        self.classes = spec.classes or 1
        self.discriminator_steps = discriminator_steps
        self.orthogonal, self.feature_matching, self.r1 = orthogonal, feature_matching, r1
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        network = Generator(spec.shape, self.classes, chunk, embedding, generator_width, attention, generator_spectral)
        self.latent = network.latent
        self.generator = Referenced(network, self.latent, self.classes)
        self.remedies = Remedies(True, minibatch_kernels, minibatch_deviation, packing)  # D's spectral norms are 1
        self.augment = Augmentation(translation, cutout)
        with refusing("biggan"):
            self.augment.check(spec.shape)
            self.discriminator = matched(
                partial(Discriminator, spec.shape, self.classes, attention), discriminator_width, self.remedies
            )
        self.register_buffer("met", torch.zeros(self.classes, dtype=torch.long))  # how often, in training
        self.to(memory_format=torch.channels_last)

    # Promises ------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.sample_truncated(n, 1.0)

    def sample_given(self, condition: Tensor) -> Tensor:
        return self.generate(self.noise(len(condition)), condition)

    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        """x `[n, *shape]` from latents that are at most 2 · `truncation` in size; by 1 they are not truncated."""
        return self.generate(self.noise(n, truncation), self.labels(n))

    def interpolate(self, n: int, steps: int) -> Tensor:
        labels = self.labels(n)  # one for a whole path
        return interpolated(self.noise(n), self.noise(n), steps, lambda z: self.generate(z, labels))

    def generate(self, z: Tensor, labels: Tensor) -> Tensor:
        """x `[B, C, H, W]` for z [B, Z] and labels [B]."""
        return unbinned(self.generator(z, labels), self.spec.levels)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """By how much D tells real from generated: above 2, the hinge's two margins, D learns nothing more.

        Held-out examples come without labels: D judges both sides under the labels that it likes best.
        """
        real = self.remedies.whole(self.to_unit(x))
        fake = self.generator(self.noise(len(real)), self.labels(len(real)))
        on_real, on_fake = self.discriminator.at_best(real), self.discriminator.at_best(fake)
        return {"discriminator_gap": float(on_real.mean() - on_fake.mean())}

    def noise(self, n: int, truncation: float = 1.0) -> Tensor:
        """z ~ N(0, I), [n, Z]; below 1, given that no |z| is above 2 · `truncation` (section 3.1)."""
        if truncation == 1:
            return torch.randn(n, self.latent, device=self.device)
        return truncated_normal(torch.rand(n, self.latent, device=self.device), 2 * truncation)

    def labels(self, n: int) -> Tensor:
        """Labels [n], as often as training has met them; before training, each equally often."""
        weights = self.met if self.met.any() else torch.ones_like(self.met)
        return torch.multinomial(weights.float(), n, replacement=True)

    def labels_of(self, batch: Batch) -> Tensor:
        """Labels [B]; where data have none, all are of one class."""
        if self.spec.classes is None or batch.condition is None:
            return torch.zeros(len(batch.x), dtype=torch.long, device=batch.x.device)
        return batch.condition

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        return binned(x, self.spec.levels).contiguous(memory_format=torch.channels_last)

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with refusing("biggan"):
            self.remedies.check(len(batch.x))
        optimizer_g, optimizer_d = self.optimizers()  # type: ignore[attr-defined]
        real, labels = self.to_unit(batch.x), self.labels_of(batch)
        self.met += F.one_hot(labels, self.classes).sum(0)
        fake = self.generator(self.noise(len(real)), labels)

        seen = self.augment(torch.cat([real, fake.detach()])).requires_grad_(self.r1 > 0)
        on_real, on_fake = self.judge(seen, labels)
        loss_d = hinge_discriminator(on_real, on_fake)
        logs = {"loss": loss_d, "real": on_real.mean(), "fake": on_fake.mean()}
        if self.r1:
            logs["penalty"] = gradient_penalty(on_real, seen)
            loss_d = loss_d + self.r1 / 2 * logs["penalty"]
        optimizer_d.zero_grad()
        self.manual_backward(loss_d)
        optimizer_d.step()

        if (batch_idx + 1) % self.discriminator_steps == 0:
            with fixed(self.discriminator):
                loss_g = self.loss_g(real, fake, labels)
            if self.orthogonal:
                logs["overlap"] = overlap(filters(self.generator))
                loss_g = loss_g + self.orthogonal * logs["overlap"]
            optimizer_g.zero_grad()
            self.manual_backward(loss_g)
            optimizer_g.step()
            logs["generator"] = loss_g
        return {name: value.detach() for name, value in logs.items()}

    def judge(self, y: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """D of the first half of y [2 B, C, H, W], which is real, and of the second: apart, if D compares examples."""
        if self.remedies.kernels:
            real, fake = y.chunk(2)
            return self.discriminator(real, labels), self.discriminator(fake, labels)
        on_real, on_fake = self.discriminator(y, torch.cat([labels, labels])).chunk(2)
        return on_real, on_fake

    def loss_g(self, real: Tensor, fake: Tensor, labels: Tensor) -> Tensor:
        """What G minimises apart from its regularisation, a scalar."""
        if not self.feature_matching:
            return hinge_generator(self.discriminator(self.augment(fake), labels))
        f = self.discriminator.features
        return feature_matching(f(self.augment(real)), f(self.augment(fake)))

    def configure_optimizers(self) -> list[Optimizer]:
        return adam_each(self.generator, self.discriminator, self.learning_rates, self.betas)


# Private parts: latents and weights ----------------------------------------------------------------------------------


def truncated_normal(u: Tensor, most: float) -> Tensor:
    """Uniform numbers in [0, 1) through the inverse distribution function of N(0, 1) given |z| ≤ `most`."""
    inside = math.erf(most / math.sqrt(2))  # P(|z| ≤ most)
    return (math.sqrt(2) * torch.erfinv((2 * u - 1) * inside)).clamp(-most, most)


def drawn(layer: Layer, spectral: bool) -> nn.Module:
    """The same layer with orthogonal weights at first (Saxe and others 2014, arXiv:1312.6120), and spectral norm 1 if
    that is wanted."""
    nn.init.orthogonal_(layer.weight)
    return spectral_norm(layer) if spectral else layer


def filters(generator: nn.Module) -> list[Tensor]:
    """Weights that are to be orthogonal: all of G but the embedding."""
    return [p for name, p in generator.named_parameters() if p.ndim > 1 and "embedding" not in name]


def overlap(weights: Sequence[Tensor]) -> Tensor:
    """Σ over weights of ‖W Wᵀ ⊙ (1 - I)‖², the squared inner products of different filters, rows of W (eq. 3)."""
    total = torch.zeros((), device=weights[0].device)
    with torch.autocast(total.device.type, enabled=False):
        for weight in weights:
            W = weight.flatten(1)
            short = W if len(W) <= W.shape[1] else W.T
            gram = short @ short.T  # W Wᵀ or Wᵀ W: their norms are equal
            total = total + gram.square().sum() - W.square().sum(1).square().sum()
    return total


# Private parts: networks ---------------------------------------------------------------------------------------------


class ConditionalNorm(nn.Module):
    """Batch normalisation of [B, P, H, W] whose gain 1 + g(c) and bias b(c) are linear in a condition c [B, D]."""

    def __init__(self, given: int, layer: Wrap, channels: int) -> None:
        super().__init__()
        self.norm = ReferenceNorm(channels, affine=False)
        self.gain = layer(nn.Linear(given, channels, bias=False))
        self.bias = layer(nn.Linear(given, channels, bias=False))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        gain, bias = (t[:, :, None, None] for t in (1 + self.gain(c), self.bias(c)))
        y: Tensor = self.norm(x) * gain + bias
        return y


class Attention(nn.Module):
    """x + γ o, where o at one position sees all others (Zhang and others 2019, eqs. 1 to 3); γ is 0 at first."""

    def __init__(self, channels: int, layer: Wrap) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.f, self.g, self.h = (layer(nn.Conv2d(channels, inner, 1, bias=False)) for _ in range(3))
        self.v = layer(nn.Conv2d(inner, channels, 1, bias=False))
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, P, H, W]` to the same shape; N = H W positions."""
        f, g, h = (part(x).flatten(2).mT for part in (self.f, self.g, self.h))  # [B, N, P / 8]
        beta = (g @ f.mT).softmax(2)  # [B, N, N]: how much each position, a row, sees of the others (eq. 1)
        o = self.v((beta @ h).mT.unflatten(2, x.shape[2:]))  # eq. 2
        y: Tensor = x + self.gamma * o  # eq. 3
        return y


class Generator(nn.Module):
    """z [B, Z] and labels [B] to [B, C, H, W] in [-1, 1]. Each block is conditioned on a chunk of z and the label."""

    def __init__(
        self,
        shape: Sequence[int],
        classes: int,
        chunk: int,
        embedding: int,
        width: int,
        attention: bool,
        spectral: bool,
    ) -> None:
        super().__init__()
        times, height, side = halvings(shape[1], shape[2])
        scales = [1, *[2] * times]
        self.chunk, self.latent = chunk, chunk * (1 + len(scales))
        layer = partial(drawn, spectral=spectral)
        norm = partial(ConditionalNorm, embedding + chunk, layer)
        self.embedding = drawn(nn.Embedding(classes, embedding), spectral=False)
        self.first = nn.Sequential(
            layer(nn.Linear(chunk, width * height * side)), nn.Unflatten(1, (width, height, side))
        )
        self.blocks = nn.ModuleList(UpBlock(width, scale, norm, layer) for scale in scales)
        half = max(0, times - 1)  # the block that ends at half the full side
        self.attend = nn.ModuleList(
            Attention(width, layer) if attention and i == half else nn.Identity() for i in range(len(scales))
        )
        self.last = nn.Sequential(
            ReferenceNorm(width), nn.ReLU(), layer(nn.Conv2d(width, shape[0], 3, padding=1)), nn.Tanh()
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        c = self.embedding(labels)
        first, *chunks = z.split(self.chunk, 1)
        h = self.first(first)
        for block, attend, chunk in zip(self.blocks, self.attend, chunks, strict=True):
            h = attend(block(h, torch.cat([c, chunk], 1)))
        y: Tensor = self.last(h)
        return y


class Discriminator(nn.Module):
    """ψ(h) + ⟨v_c, h⟩ `[B / packing]` for features h of images [B, C, H, W] with labels c [B] (Miyato and Koyama 2018,
    eq. 3). No bias at the end: inside the hinge's margin it would have no gradient."""

    def __init__(self, shape: Sequence[int], classes: int, attention: bool, width: int, remedies: Remedies) -> None:
        super().__init__()
        times, _, _ = halvings(shape[1], shape[2])
        last, features = remedies.last(width)
        layer = partial(drawn, spectral=remedies.spectral)
        blocks: list[nn.Module] = [*(DownBlock(width, 2, layer) for _ in range(times)), DownBlock(width, 1, layer)]
        if attention:
            blocks.insert(min(times, 1), Attention(width, layer))  # at half the full side
        self.features = nn.Sequential(
            *remedies.first(),
            layer(nn.Conv2d(shape[0] * remedies.packing, width, 3, padding=1)),
            *blocks,
            nn.ReLU(),
            SumPool(),
            *last,
        )
        self.classes, self.packing = classes, remedies.packing
        self.psi = layer(nn.Linear(features, 1, bias=False))
        self.v = layer(nn.Embedding(remedies.packing * classes, features))  # places in a pack, one after the other

    def forward(self, y: Tensor, labels: Tensor) -> Tensor:
        h = self.features(y)  # [B / m, P]
        place = torch.arange(self.packing, device=labels.device)
        v = self.v(labels.unflatten(0, (-1, self.packing)) + self.classes * place)  # [B / m, m, P]
        score: Tensor = self.psi(h).flatten() + (v.sum(1) * h).sum(1)
        return score

    def at_best(self, y: Tensor) -> Tensor:
        """The same `[B / packing]` under the labels for which it is highest."""
        h = self.features(y)
        projections = (h @ self.v.weight.T).unflatten(1, (self.packing, self.classes))
        score: Tensor = self.psi(h).flatten() + projections.amax(2).sum(1)
        return score
