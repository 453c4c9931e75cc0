"""StyleGAN2, a generative adversarial network that generates by styles.

Paper: Karras and others, "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, arXiv:1912.04958

Differences: half the layers of the mapping network, and few channels, for small images, which halve until their side is
odd or 4. Both networks see images shifted by a pixel, always (adaptive augmentation is of the authors' next paper).
Both networks' steps take one batch of generated images. The crossover of mixed styles is drawn for each example. D's
minibatch standard deviation is over groups of 2 (4 there; the size must divide the batch), and one feature beside those
of its last convolution, not a channel before it. Path lengths are of the whole batch. Their running mean begins as a
plain one: from zero, where the authors' starts, it pulls all lengths down for as long as a short training takes, and
then images hardly depend on z. Further remedies against collapse (`benchmark/nn/remedies.py`) are options; with them, D
has as many parameters as without, to within 5 %. Spectral normalisation is not among them: it would undo the scale that
equalises learning rates.

In evaluation noise is drawn as in training: it is part of the sampler. The moving average of weights is the harness's.
It leaves buffers as they are, so that `w_average`, like the authors', is of recent weights, not of averaged ones.

Shapes: x [B, C, H, W] integer levels; y [B, C, H, W] the same images, real ones in [-1, 1]; z [B, Z] latents, w [B, Z]
what the mapping network makes of them, or [B, L, Z] for the L layers of the synthesis network. No likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from benchmark.models.base import GenerativeModel, refusing
from benchmark.nn.adversarial import Augmentation, fixed, halvings, logistic_discriminator, logistic_generator
from benchmark.nn.latents import interpolated
from benchmark.nn.levels import binned, unbinned
from benchmark.nn.remedies import Remedies, feature_matching, gradient_penalty, matched
from benchmark.nn.stylegan import (
    Activation,
    EqualConv,
    EqualLinear,
    Normalised,
    ResidualBlock,
    StyledLayer,
    ToImage,
    enlarged,
)
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
    Truncates,
)

PATH_DECAY = 0.01  # share of a batch in the running mean of path lengths (appendix B)


class StyleGAN2(GenerativeModel, Interpolates, Truncates, Diagnosable):
    """x = round(g(w, noise)), w = f(z), z ~ N(0, I)."""

    w_average: Tensor
    path_mean: Tensor

    def __init__(
        self,
        spec: DataSpec,
        latent: Size = 64,  # dimensions of z and of w
        mapping_layers: Count = 4,  # of f; 0: w is z, normalised
        generator_width: Size = 32,  # channels at full size, twice as many at each halving
        discriminator_width: Size = 32,  # the same, without remedies that have parameters
        most_channels: Size = 128,
        noise: bool = True,  # added after each convolution of g
        mixing: Share = 0.9,  # probability that training changes to another w between two layers
        average_decay: Share = 0.995,  # of the moving average of w, towards which truncation draws
        minibatch_kernels: Count = 0,  # remedy: mini-batch discrimination in so many projections
        minibatch_deviation: Count = 2,  # remedy: examples in a group whose standard deviation D sees
        feature_matching: bool = False,  # remedy: G matches means of D's features instead of fooling D
        packing: Size = 1,  # remedy: examples that D judges at once
        r1: NonNegative = 1.0,  # remedy: γ, weight of D's squared gradient at real examples
        r1_interval: Size = 16,  # steps of D, after which comes one for R1
        path_length: NonNegative = 2.0,  # weight of the variance of path lengths
        path_interval: Size = 8,  # steps of G, after which comes one for path lengths
        translation: Count = 1,  # augmentation: shifts by up to this many pixels
        cutout: Count = 0,  # augmentation: side of a square that is painted over, in pixels
        generator_learning_rate: NonNegative = 2e-3,
        discriminator_learning_rate: NonNegative = 2e-3,
        beta1: Share = 0.0,  # of Adam: no momentum in a game
        beta2: Share = 0.99,
    ) -> None:
        super().__init__(spec)
        self.automatic_optimization = False  # two optimisers
        self.latent, self.mixing, self.average_decay = latent, mixing, average_decay
        self.feature_matching = feature_matching
        self.r1, self.r1_interval = r1, r1_interval
        self.path_length, self.path_interval = path_length, path_interval
        self.learning_rates = (generator_learning_rate, discriminator_learning_rate)
        self.betas = (beta1, beta2)
        self.remedies = Remedies(kernels=minibatch_kernels, deviation=minibatch_deviation, packing=packing)
        self.augment = Augmentation(translation, cutout)
        self.mapping = mapping(latent, mapping_layers)  # f
        self.synthesis = Synthesis(spec.shape, latent, generator_width, most_channels, noise)  # g
        self.register_buffer("w_average", torch.zeros(latent))
        self.register_buffer("path_mean", torch.zeros(()))
        with refusing("stylegan2"):
            self.augment.check(spec.shape)
            self.discriminator = matched(
                partial(discriminator, spec.shape, most_channels), discriminator_width, self.remedies
            )
        self.to(memory_format=torch.channels_last)

    # Promises ------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", evaluations=1)

    def sample(self, n: int) -> Tensor:
        return self.generate(self.noise(n))

    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        return self.generate(self.noise(n), truncation)

    def interpolate(self, n: int, steps: int) -> Tensor:
        return interpolated(self.noise(n), self.noise(n), steps, self.generate)

    def generate(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """x `[B, C, H, W]` for z [B, Z]: by a w drawn towards the average one where `truncation` < 1."""
        w = torch.lerp(self.w_average, self.mapping(z), truncation)
        return unbinned(self.synthesis(self.for_each_layer(w)), self.spec.levels)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """By how many nats of log odds D tells real from generated, and how often it is right."""
        real = self.remedies.whole(self.to_unit(x))
        fake = self.synthesis(self.for_each_layer(self.mapping(self.noise(len(real)))))
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        right = torch.cat([on_real > 0, on_fake < 0])
        return {
            "discriminator_gap": float(on_real.mean() - on_fake.mean()),
            "discriminator_accuracy": float(right.float().mean()),
        }

    def noise(self, n: int) -> Tensor:
        """z ~ N(0, I), [n, Z]."""
        return torch.randn(n, self.latent, device=self.device)

    def for_each_layer(self, w: Tensor) -> Tensor:
        """[B, L, Z]: the same w [B, Z] for all layers."""
        return w[:, None].expand(-1, self.synthesis.layers, -1)

    def to_unit(self, x: Tensor) -> Tensor:
        """Levels to [-1, 1], with uniform noise that fills each level's bin: no grid for D to recognise."""
        return binned(x, self.spec.levels).contiguous(memory_format=torch.channels_last)

    # How it learns -------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        with refusing("stylegan2"):
            self.remedies.check(len(batch.x))
        optimizers: Any = self.optimizers()
        optimizer_g, optimizer_d = optimizers
        real = self.to_unit(batch.x)
        w = self.mixed(len(real))
        self.w_average.lerp_(w[:, 0].detach().float().mean(0), 1 - self.average_decay)
        fake = self.synthesis(w)

        on_real = self.discriminator(self.augment(real))  # real and generated examples are never in one batch
        on_fake = self.discriminator(self.augment(fake.detach()))
        loss_d = logistic_discriminator(on_real, on_fake)
        logs = {"loss": loss_d, "real": on_real.mean(), "fake": on_fake.mean()}
        self.step(optimizer_d, loss_d)
        if self.r1 and batch_idx % self.r1_interval == 0:
            logs["r1"] = self.r1_term(real)
            self.step(optimizer_d, logs["r1"])

        with fixed(self.discriminator):
            logs["generator"] = self.loss_g(real, fake)
        self.step(optimizer_g, logs["generator"])
        if self.path_length and batch_idx % self.path_interval == 0:
            share = max(PATH_DECAY, 1 / (1 + batch_idx // self.path_interval))
            logs["path_length"] = self.path_term(self.mixed(len(real)), share)
            self.step(optimizer_g, logs["path_length"])
        return {name: value.detach() for name, value in (logs | {"path_mean": self.path_mean}).items()}

    def step(self, optimizer: Any, loss: Tensor) -> None:
        """One step down the gradient of a scalar."""
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()

    def mixed(self, n: int) -> Tensor:
        """w [n, L, Z], of one z up to a layer and of another from there on, with probability `mixing`."""
        w = self.for_each_layer(self.mapping(self.noise(n)))
        if not self.mixing:
            return w
        other = self.for_each_layer(self.mapping(self.noise(n)))
        layers = self.synthesis.layers
        alone = torch.rand(n, 1, 1, device=self.device) >= self.mixing
        crossover = torch.randint(1, layers, (n, 1, 1), device=self.device).masked_fill(alone, layers)
        return torch.where(torch.arange(layers, device=self.device)[:, None] < crossover, w, other)

    def loss_g(self, real: Tensor, fake: Tensor) -> Tensor:
        """What G minimises, a scalar."""
        if not self.feature_matching:
            return logistic_generator(self.discriminator(self.augment(fake)))
        f = self.discriminator[:-2]  # all but the last layer
        return feature_matching(f(self.augment(real)), f(self.augment(fake)))

    def r1_term(self, real: Tensor) -> Tensor:
        """γ/2 E ‖∇D(y)‖² at real images, times the interval at whose end it comes: lazy (section 3.1)."""
        seen = self.augment(real).detach().requires_grad_()
        with torch.compiler.set_stance("force_eager"):  # no compiled code has second derivatives
            penalty = gradient_penalty(self.discriminator(seen), seen)
        return self.r1_interval * self.r1 / 2 * penalty

    def path_term(self, w: Tensor, share: float) -> Tensor:
        """E (‖Jᵀy‖ - a)², J the Jacobian of images by w [B, L, Z], y normal noise (eq. 4), times its weight and its
        interval; a is a running mean, which a batch moves by this share of its own.

        y is divided by √(H W), and a length is the root of a mean over layers. So the weight 2 is appendix B's
        ln 2 / (r² (ln r - ln 2)) for images of side r, which have 2 log₂ r - 2 layers.
        """
        with torch.compiler.set_stance("force_eager"):
            lengths = path_lengths(self.synthesis(w.requires_grad_()), w)
        self.path_mean.lerp_(lengths.detach().mean(), share)
        return self.path_interval * self.path_length * (lengths - self.path_mean).square().mean()

    def configure_optimizers(self) -> list[Optimizer]:
        """A lazy term makes k + 1 steps of k: rates and betas are those of shorter steps (appendix B)."""
        generator = [*self.mapping.parameters(), *self.synthesis.parameters()]
        intervals = (self.path_interval if self.path_length else 0, self.r1_interval if self.r1 else 0)
        optimizers: list[Optimizer] = []
        for parameters, rate, k in zip(
            (generator, self.discriminator.parameters()), self.learning_rates, intervals, strict=True
        ):
            c = k / (k + 1) if k else 1.0
            beta1, beta2 = self.betas
            optimizers.append(Adam(parameters, lr=c * rate, betas=(beta1**c, beta2**c), fused=True))
        return optimizers


def path_lengths(y: Tensor, w: Tensor) -> Tensor:
    """‖Jᵀn‖ [B], for n ~ N(0, I / H W): how far y [B, C, H, W] goes for a step of w [B, L, Z], of which it was made."""
    n = torch.randn_like(y) / math.sqrt(y[0, 0].numel())
    (gradient,) = torch.autograd.grad((y * n).sum(), w, create_graph=True)
    return gradient.float().square().sum(2).mean(1).sqrt()


# Private parts -----------------------------------------------------------------------------------------------------


def mapping(latent: int, layers: int) -> nn.Sequential:
    """f: z [B, Z] to w [B, Z], at a hundredth of the learning rate."""
    hidden = (part for _ in range(layers) for part in (EqualLinear(latent, latent, multiplier=0.01), Activation()))
    return nn.Sequential(Normalised(), *hidden)


class Synthesis(nn.Module):
    """g: w [B, L, Z] to y [B, C, H, W], the sum of an image at each size (figure 7b, section 4.1)."""

    def __init__(self, shape: Sequence[int], latent: int, width: int, most: int, noise: bool) -> None:
        super().__init__()
        times, height, side = halvings(shape[1], shape[2])
        channels = [min(most, width * 2**i) for i in range(times, -1, -1)]
        self.layers = 2 * times + 2  # L
        self.constant = nn.Parameter(torch.randn(1, channels[0], height, side))
        self.first = StyledLayer(channels[0], channels[0], latent, noise)
        self.enlarging = nn.ModuleList(StyledLayer(i, o, latent, noise, enlarge=True) for i, o in pairwise(channels))
        self.keeping = nn.ModuleList(StyledLayer(o, o, latent, noise) for o in channels[1:])
        self.images = nn.ModuleList(ToImage(o, shape[0], latent) for o in channels)

    def forward(self, w: Tensor) -> Tensor:
        first, second, *rest = w.unbind(1)
        x = self.first(self.constant.expand(len(w), -1, -1, -1), first)
        y: Tensor = self.images[0](x, second)
        for i, (enlarge, keep, image) in enumerate(zip(self.enlarging, self.keeping, self.images[1:], strict=True)):
            w1, w2, w3 = (second, *rest)[2 * i : 2 * i + 3]  # an image shares its w with the next convolution
            x = keep(enlarge(x, w1), w2)
            y = enlarged(y) + image(x, w3)
        return y


def discriminator(shape: Sequence[int], most: int, width: int, remedies: Remedies) -> nn.Sequential:
    """[B, C, H, W] to logits [B / packing]."""
    times, height, side = halvings(shape[1], shape[2])
    channels = [min(most, width * 2**i) for i in range(times + 1)]
    last, features = remedies.last(channels[-1] * height * side)
    return nn.Sequential(
        *remedies.first(),
        *(EqualConv(shape[0] * remedies.packing, channels[0], 1), Activation()),
        *(ResidualBlock(i, o) for i, o in pairwise(channels)),
        *(EqualConv(channels[-1], channels[-1], 3), Activation()),
        nn.Flatten(),
        *last,
        *(EqualLinear(features, channels[-1]), Activation()),
        EqualLinear(channels[-1], 1),
        nn.Flatten(0),
    )
