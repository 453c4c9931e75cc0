"""What a dataset is to the rest of the house."""

from __future__ import annotations

import copy
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor

from benchmark.spec import BadInput, Batch, DataSpec

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """One fixed split in memory, in the data's own levels.

    `x` holds examples `[N, *shape]`, or is one stream of tokens `[N]`, in order.
    """

    x: Tensor  # int64, or a smaller type where the levels fit
    labels: Tensor | None = None  # [N] int64
    condition: Tensor | None = None  # [N, *condition.shape] of each example, where it is no label
    sizes: Tensor | None = None  # [N] int64: of each example that is a text, its UTF-8 bytes
    characters: int | None = None  # of a stream of text: its length in characters
    bytes: int | None = None  # and in UTF-8 bytes
    unseen: int | None = None  # the place from which a stream is of a work that training has nothing of
    cuts: tuple[int, ...] = ()  # places in a stream where it does not go on with what stands before

    def examples(self, shape: tuple[int, ...]) -> Tensor:
        """The examples `[n, *shape]`; each part of a stream is cut into whole windows."""
        if self.x.ndim == len(shape) + 1:
            return self.x
        size = math.prod(shape)
        return torch.cat([part[: len(part) // size * size] for part in self.parts()]).view(-1, *shape)

    def parts(self) -> list[Tensor]:
        """The parts of a stream, of which each goes on from its beginning to its end."""
        return list(self.x.tensor_split(self.cuts))


@dataclass(frozen=True)
class Modes:
    """Where the examples of a dataset are known to gather: K modes, and how one tells which mode an example is of.

    `assign` gives the mode `[n]` of examples `[n, *shape]`, 0 to K - 1, or -1 where it is of none, and `near` says, in
    a protocol, what makes an example one of a mode. Without them modes are the classes that the judge of the dataset
    tells apart.
    """

    weights: Tensor  # [K] float64: each mode's share of the data
    near: str = ""
    assign: Callable[[Tensor], Tensor] | None = None


class DataModule(ABC):
    """A dataset with one fixed split and checksum each.

    The constructor takes the data root and the options of `configs/data/<name>.yaml`, reads the files (fetching what
    is missing) and verifies them.
    """

    spec: DataSpec

    #: Whether training batches hold examples of the validation split, which then cannot choose weights.
    trains_on_validation: bool = False

    @classmethod  # noqa: B027 (a dataset without options refuses none)
    def check(cls, **options: Any) -> None:
        """Raises `BadInput` for options that no data can be made with, before a file is read or a run begins.

        The constructor refuses them too, and what only the data itself can tell.
        """

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """The split as evaluation sees it: the same tensors at every call."""

    @abstractmethod
    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Training batch number `step`: a pure function of its arguments, which is what makes resuming exact.

        What is random about it is drawn on the CPU.
        """

    def on(self, device: torch.device) -> Self:
        """The same data, to make training batches where the model trains: itself, where that gains nothing."""
        return self

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the record: name, source, licence, fingerprint (SHA-256) and size of each split."""

    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[T]`. Raises `TypeError` where the data is not text."""
        raise TypeError(f"{type(self).__name__} is not text")

    @property
    def modes(self) -> Modes | None:
        """The modes of the data; `None` where it is not known that there are any."""
        return None

    @property
    def choice_of_tokens(self) -> str | None:
        """What protocols call the tokens of a text; `None` where there is no choice."""
        return None

    @property
    def said_of_tokens(self) -> dict[str, str]:
        """The part of a protocol that names them; empty where there is no choice."""
        return {} if self.choice_of_tokens is None else {"tokens": self.choice_of_tokens}

    @property
    def labels_in_front(self) -> int:
        """How many labels there are, of which the first token of each sequence is one; 0: it is not a label."""
        return 0

    @property
    def own(self) -> DataModule:
        """The same data in its own words."""
        return self

    def in_words_of(self, other: DataModule) -> DataModule:
        """The same data as a model of `other` knows it, to tune that model. Raises `BadInput` where it cannot."""
        if (self.spec.shape, self.spec.levels) == (other.spec.shape, other.spec.levels):
            return self
        raise BadInput(
            f"a model of {other.describe()['name']} has {other.spec.levels} levels and shape {other.spec.shape}, "
            f"{self.describe()['name']} has {self.spec.levels} and {self.spec.shape}: start from a model of such data"
        )

    def truth(self, name: SplitName) -> dict[str, Tensor]:
        """Log-probabilities in nats `[N]` of a split's examples (text: tokens) where their source is known, else none.

        "entropy": what the source expects of every one; "source": what it scores on these very ones.
        """
        return {}

    def batches(self, seed: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Training batches without end, from number `start` on."""
        step = start
        while True:
            yield self.batch(seed, step, batch_size)
            step += 1


@dataclass(frozen=True)
class Card:
    """Where a dataset comes from, and on what terms."""

    name: str
    source: str
    licence: str
    citation: str
    publishable: bool = True  # whether records on it may be compared with those of others
    note: str = ""  # what else a reader of a score must know


class InMemory(DataModule):
    """A dataset whose splits are tensors in memory: what images and text share."""

    card: ClassVar[Card]

    def __init__(self, spec: DataSpec, splits: dict[SplitName, Split]) -> None:
        for name in SPLITS:
            if not len(splits[name].x):
                raise BadInput(f"the {name} split of {self.card.name} is empty: give data that fill all three splits")
        self.spec = spec
        self._splits = splits

    def split(self, name: SplitName) -> Split:
        return self._splits[name]

    def on(self, device: torch.device) -> Self:
        """With the training split on `device`, in its own small type, if that has room for it beside all else there:
        indices alone are sent to it then."""
        train = self.split("train")
        if device.type == "cpu" or not _has_room(device, train.x):
            return self
        there = copy.copy(self)
        labels, condition = (None if x is None else x.to(device) for x in (train.labels, train.condition))
        moved = replace(train, x=train.x.to(device), labels=labels, condition=condition)
        there._splits = self._splits | {"train": moved}
        return there

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        splits = ((name, self.split(name)) for name in SPLITS)
        return {name: {"n": len(split.x), "sha256": fingerprint(split.x, split.labels)} for name, split in splits}

    def describe(self) -> dict[str, Any]:
        return {**asdict(self.card), "splits": self._fingerprints}


def _has_room(device: torch.device, x: Tensor) -> bool:
    """Whether `x` takes at most a quarter of the memory of a GPU that nobody uses."""
    return device.type != "cuda" or 4 * x.nbytes <= torch.cuda.mem_get_info(device)[0]


def fingerprint(*tensors: Tensor | None) -> str:
    """SHA-256 of the tensors' bytes, one after another."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if tensor is not None:
            digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def generator(*key: int) -> torch.Generator:
    """A fresh random stream for a key of non-negative integers such as (seed, step); nearby keys share nothing."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))


def data_root(given: str | None = None) -> Path:
    """The folder that holds datasets: `given`, else `BENCHMARK_DATA`, else `data/`."""
    import os

    return Path(given or os.environ.get("BENCHMARK_DATA") or "data")
