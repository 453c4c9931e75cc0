"""A dataset's own small classifier: features that know its images, under 1 MB, within seconds on one core.

Shapes: B images, C channels, H×W pixels, K classes.
"""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.metrics.extractors.base import Extractor
from benchmark.spec import BadInput, DataSpec, sha256

EXTRACTOR_WIDTH = 64  # channels, and numbers in a feature vector
JUDGE_WIDTH = 48


class Classifier(nn.Module):
    """Convolutions with stride 2 down to 4×4 or less, then `width` numbers, each standardised over training images,
    then classes."""

    def __init__(self, spec: DataSpec, width: int = EXTRACTOR_WIDTH, dropout: float = 0.3) -> None:
        super().__init__()
        if len(spec.shape) != 3 or not spec.classes:
            raise BadInput(f"a classifier is for images [C, H, W] with classes, not shape {spec.shape}: give such data")
        channels, height, side = spec.shape
        if height != side:
            raise BadInput(f"a classifier is for square images, not {height}×{side}: crop or pad them")
        self.highest = spec.levels - 1
        layers = convolution(channels, width // 2, stride=1)  # [B, 32, H, W]
        channels = width // 2
        while side > 4:
            layers += convolution(channels, width, stride=2)  # [B, 64, ⌈H/2⌉, ⌈W/2⌉]
            channels, side = width, (side + 1) // 2
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(dropout))
        self.project = nn.Linear(channels * side * side, width)
        self.standardise = nn.BatchNorm1d(width, affine=False)
        self.classify = nn.Sequential(nn.ReLU(), nn.Linear(width, spec.classes))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features `[B, width]` and logits `[B, K]` of images `x` `[B, C, H, W]` in the data's own levels."""
        x = x.float() * (2 / self.highest) - 1
        features = self.standardise(self.project(self.body(x)))
        return features, self.classify(features)


def convolution(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
    """3×3 convolution, normalisation, rectifier."""
    kernel = nn.Conv2d(channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False)
    return [kernel, nn.BatchNorm2d(channels_out), nn.ReLU()]


def load_classifier(path: Path, spec: DataSpec, width: int = EXTRACTOR_WIDTH) -> Extractor:
    """The classifier of this `width` whose weights lie at `path`.

    Raises `BadInput` where they are missing or do not fit `spec`.
    """
    if not path.is_file():
        raise BadInput(f"no weights at {path}: train them with scripts/train_extractor.py, or restore the shipped file")
    network = Classifier(spec, width)
    try:
        network.load_state_dict(load_file(path))
    except SafetensorError as error:
        raise BadInput(f"{path} is not a whole file of weights: {error}; train it anew or restore it") from error
    except RuntimeError as error:
        raise BadInput(f"the weights {path} are for other images than {spec.shape}: train an extractor") from error
    digest = sha256(path)
    return Extractor(f"{path.stem}@{digest[:8]}", digest, network.eval().requires_grad_(False))
