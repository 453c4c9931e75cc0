"""What an extractor is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

CPU = torch.device("cpu")

Network = Callable[[Tensor], tuple[Tensor, Tensor]]  # levels [B, C, H, W] -> features [B, d], logits [B, classes]


@dataclass(frozen=True)
class Features:
    """What an extractor sees in a set of images."""

    features: Tensor  # [n, d] float64
    logits: Tensor  # [n, classes] float64


@dataclass(frozen=True)
class Verdicts:
    """What a judge takes each image for."""

    classes: Tensor  # [n]
    probability: Tensor  # [n] that it gives that class


@dataclass(frozen=True)
class Extractor:
    """A frozen network that turns images into features. The name, with the hash of its weights, is part of a protocol.

    Images go through in chunks of one fixed size, the last one filled up with blank images, so that an image's
    features do not depend on how many others came with it.
    """

    name: str  # such as digits-v1@1a2b3c4d
    sha256: str  # of the file of weights
    network: Network
    chunk: int = 250
    device: torch.device = CPU  # where the network is

    def on(self, device: torch.device) -> Extractor:
        """The same, working on `device`; the network itself moves."""
        network = self.network.to(device) if isinstance(self.network, nn.Module) else self.network
        return replace(self, network=network, device=device)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Features:
        """Features of images `x` `[n, C, H, W]`, integers in the data's own levels; computed in float32."""
        found = []
        with torch.autocast(self.device.type, enabled=False):
            for images in x.split(self.chunk):
                part = images.to(self.device)
                blank = part.new_zeros(self.chunk - len(part), *part.shape[1:])
                features, logits = self.network(torch.cat([part, blank]))
                found.append((features[: len(part)], logits[: len(part)]))
        features, logits = (torch.cat(parts).cpu().double() for parts in zip(*found, strict=True))
        return Features(features, logits)

    def classify(self, x: Tensor) -> Verdicts:
        """The likeliest class of each of images `x` `[n, C, H, W]`."""
        probability, classes = self(x).logits.softmax(1).max(1)
        return Verdicts(classes, probability)


@dataclass(frozen=True)
class OfChannels(Extractor):
    """A network of images with one channel that looks at each of several by itself.

    Of K classes each, a, b and c are class (aK + b)K + c of three channels, with the probability of the least sure one.
    """

    def __call__(self, x: Tensor) -> Features:
        """Features and logits of the channels side by side, `[n, C · d]` and `[n, C · K]`."""
        seen = super().__call__(x.flatten(0, 1)[:, None])
        features, logits = (y.unflatten(0, x.shape[:2]).flatten(1) for y in (seen.features, seen.logits))
        return Features(features, logits)

    def classify(self, x: Tensor) -> Verdicts:
        channels = x.shape[1]
        logits = self(x).logits.unflatten(1, (channels, -1))  # [n, C, K]
        probability, classes = logits.softmax(2).max(2)  # [n, C]
        places = logits.shape[2] ** torch.arange(channels - 1, -1, -1)  # K², K, 1
        return Verdicts((classes * places).sum(1), probability.min(1).values)
