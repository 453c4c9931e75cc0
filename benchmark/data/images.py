"""Images: small sets in memory as one tensor, each with one fixed split."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import Card, InMemory, Split, SplitName, fingerprint, generator
from benchmark.spec import BadInput, Batch, DataSpec


class Images(InMemory):
    """Labelled images. A training batch is a stretch of an endless walk over the training split.

    The walk visits a fresh permutation each epoch, and a batch may straddle two epochs: after any number of steps no
    example was seen more than once oftener than another.
    """

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        train = self.split("train")
        assert train.labels is not None
        index = visits(len(train.x), seed, step * batch_size, batch_size)
        return Batch(x=train.x[index].long(), condition=train.labels[index])


class Digits(Images):
    """scikit-learn's digits: 1,797 images of 8×8 with 17 levels, embedded in that package, so `root` goes unused."""

    card = Card(
        name="digits",
        source="sklearn.datasets.load_digits: the test set of UCI's optical recognition of handwritten digits",
        licence="CC BY 4.0",
        citation="Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, doi:10.24432/C50P49",
    )

    def __init__(self, root: Path) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        x = torch.from_numpy(digits.images.astype(np.uint8))[:, None]  # [1797, 1, 8, 8]
        labels = torch.from_numpy(digits.target.astype(np.int64))  # [1797]
        kept, test = hold_out(labels, 180, seed=0)
        train, validation = hold_out(labels, 180, seed=1, among=kept)
        pinned = "970448c5cc2c2b324ad89ea96ae4866516fe0a61c5d8cf9f0abbc66669d985dd"
        check_split(self.card.name, pinned, train, validation, test)
        super().__init__(DataSpec((1, 8, 8), 17, "image", 10), divide(x, labels, train, validation, test))


def hold_out(labels: Tensor, n: int, seed: int, among: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Splits `among` (all examples, if None) into the rest and `n` examples stratified by `labels` `[N]`.

    Every class is shuffled, the classes are laid end to end, and the held-out examples are picked from that line at
    even distances, so that each class gives its share, rounded. Returns sorted indices. The draw uses numpy's legacy
    generator, whose stream is frozen (NEP 19).
    """
    line = np.arange(len(labels)) if among is None else among.numpy()
    line = np.random.RandomState(seed).permutation(line)
    line = line[np.argsort(labels.numpy()[line], kind="stable")]
    picked = np.arange(n) * len(line) // n
    rest = np.delete(line, picked)
    return torch.from_numpy(np.sort(rest)), torch.from_numpy(np.sort(line[picked]))


def check_split(name: str, pinned: str, *indices: Tensor) -> None:
    """Refuses a split that is not, index by index, the one that published numbers stand on."""
    found = fingerprint(*indices)
    if found != pinned:
        raise BadInput(f"the split of {name} has SHA-256 {found}, must be {pinned}: its source is not the known one")


def divide(x: Tensor, labels: Tensor, train: Tensor, validation: Tensor, test: Tensor) -> dict[SplitName, Split]:
    """The splits that three sets of indices cut out of one set of examples."""
    return {
        "train": Split(x[train], labels[train]),
        "validation": Split(x[validation], labels[validation]),
        "test": Split(x[test], labels[test]),
    }


@lru_cache(maxsize=4)
def permutation(n: int, seed: int, epoch: int) -> Tensor:
    """The order `[n]` in which one epoch visits the training examples."""
    return torch.randperm(n, generator=generator(seed, epoch))


def visits(n: int, seed: int, first: int, count: int) -> Tensor:
    """Entries `first` to `first + count` of the endless walk over `n` examples, `[count]`."""
    parts = []
    while count > 0:
        epoch, offset = divmod(first, n)
        part = permutation(n, seed, epoch)[offset : offset + count]
        parts.append(part)
        first += len(part)
        count -= len(part)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
