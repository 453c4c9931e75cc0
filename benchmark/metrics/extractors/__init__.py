"""Feature extractors: small classifiers that scripts/train_extractor.py trained, shipped as package data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmark.metrics.extractors.base import Extractor, OfChannels
from benchmark.metrics.extractors.classifier import EXTRACTOR_WIDTH, JUDGE_WIDTH, load_classifier
from benchmark.metrics.extractors.inception import cached_weights, load_inception
from benchmark.spec import Absence, BadInput, DataSpec

FOLDER = Path(__file__).parent

#: SHA-256 of each file of weights. Retraining makes v2: numbers from different features never share a ranking.
PINNED: dict[str, str] = {
    "binary_mnist-judge-v1": "10797a0629c9171d3232e26f30373ab132588b22f4593e5cd2da0006c2a33ebc",
    "binary_mnist-v1": "c062a3a4e0dfd869239613bfcb3bd69f0fb0ece24d6fa26b68f6f42b1ccbb1e9",
    "digits-judge-v1": "2c8bca49484edce2deef6fae91d973073fd39be867eb2f31a35bc9528e7e7d62",
    "digits-v1": "f5bf0245d8d3c80d0ca42eb0f4770872220a4c20d5952731f0affeecf1edab3d",
    "mnist-judge-v1": "791fc729a795798cd50d44c2ee7595cfd84fc9fd77570270ef60ea4e8b62b0a7",
    "mnist-v1": "77e415159454ae5170794408f731001d79ea559ad11167e3366258fed41a9ad3",
}

#: Datasets whose channels are images of another one, with so many classes: its judge looks at each channel by itself.
CHANNELS_OF: dict[str, tuple[str, int]] = {"stacked_mnist": ("mnist", 10)}


def load_extractor(
    data_name: str, spec: DataSpec, inception: Path | None = None, folders: Sequence[Path] = ()
) -> Extractor | Absence:
    """The extractor of a dataset's images, or why there is none.

    That is the dataset's own classifier, a user's in one of `folders` before the shipped one, unless `inception` is the
    path of torch-fidelity's Inception-v3 weights, or `auto` and torch-fidelity has downloaded them. Raises `BadInput`
    where weights are missing, do not fit, or are not the shipped ones.
    """
    if spec.structure != "grid":
        return Absence("does not apply", f"features are for images, and {data_name} is a {spec.structure}")
    weights = cached_weights() if inception == Path("auto") else inception
    if weights is not None:
        return load_inception(weights, spec)
    command = f"scripts/train_extractor.py data={data_name}"
    reason = f"no extractor for {data_name}: train one with {command}, or give inception weights"
    return _classifier(data_name, spec, EXTRACTOR_WIDTH, folders) or Absence("does not apply", reason)


def load_judge(data_name: str, spec: DataSpec, folders: Sequence[Path] = ()) -> Extractor | Absence:
    """The classifier that says what class an image is of, or why there is none.

    It is another network than the extractor of the same data, of another width and seed, so that what pleases one does
    not please the other by itself.
    """
    if data_name in CHANNELS_OF:
        name, classes = CHANNELS_OF[data_name]
        channel = replace(spec, shape=(1, *spec.shape[1:]), condition=DataSpec.label(classes))
        judge = load_judge(name, channel, folders)
        return judge if isinstance(judge, Absence) else OfChannels(judge.name, judge.sha256, judge.network)
    found = _classifier(f"{data_name}-judge", spec, JUDGE_WIDTH, folders) if spec.structure == "grid" else None
    reason = f"no judge of {data_name}: train one with scripts/train_extractor.py data={data_name} role=judge"
    return found or Absence("does not apply", reason)


def _classifier(name: str, spec: DataSpec, width: int, folders: Sequence[Path]) -> Extractor | None:
    """The newest version in the first of a user's folders that has one, or the shipped one; its own hash names it."""
    for folder in folders:
        versions = {path.stem.rpartition("-v")[2]: path for path in folder.glob(f"{name}-v*.safetensors")}
        numbers = [version for version in versions if version.isdecimal()]
        if numbers:
            return load_classifier(versions[max(numbers, key=int)], spec, width)
    path = FOLDER / f"{name}-v1.safetensors"
    if path.stem not in PINNED:
        return None
    extractor = load_classifier(path, spec, width)
    if extractor.sha256 != PINNED[path.stem]:
        raise BadInput(f"{path} has SHA-256 {extractor.sha256}, must be {PINNED[path.stem]}: restore the shipped file")
    return extractor
