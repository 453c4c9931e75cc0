"""Inception-v3 as torch-fidelity has it: the features that published Fréchet distances stand on."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmark.metrics.extractors.base import Extractor
from benchmark.spec import BadInput, DataSpec, sha256

LAYERS = ["2048", "logits_unbiased"]  # as torch-fidelity chooses for the Fréchet distance and for inception score


def cached_weights() -> Path | None:
    """Where torch-fidelity's own download lies, if it was made."""
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    path = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rpartition("/")[2]
    return path if path.is_file() else None


def load_inception(weights: Path, spec: DataSpec) -> Extractor:
    """Inception-v3 with the weights at `weights`. Raises `BadInput` where they are missing, not plain, or do not fit.

    Levels are rescaled to 0..255, and grey is repeated to three channels.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    if not weights.is_file():
        raise BadInput(f"no Inception weights at {weights}: give the path of torch-fidelity's file, or leave it out")
    if spec.shape[0] not in (1, 3):
        raise BadInput(f"Inception sees grey or RGB images, not {spec.shape[0]} channels: leave its weights out")
    try:
        torch.load(weights, map_location="cpu", weights_only=True)  # torch-fidelity loads without this guard
        network = FeatureExtractorInceptionV3("inception-v3-compat", LAYERS, str(weights))
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(f"{weights} does not hold Inception weights as torch-fidelity publishes them") from error

    digest = sha256(weights)
    return Extractor(f"inception-v3@{digest[:8]}", digest, _Inception(network, spec.levels), chunk=10)


class _Inception(nn.Module):
    """The network of torch-fidelity, for images in the data's own levels."""

    def __init__(self, network: nn.Module, levels: int) -> None:
        super().__init__()
        self.network, self.levels = network, levels

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (x.double() * (255 / (self.levels - 1))).round().to(torch.uint8)  # [B, C, H, W]
        pooled, logits = self.network(pixels.expand(-1, 3, -1, -1))
        return pooled, logits
