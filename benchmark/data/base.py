"""What a dataset is to the rest of the house."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from benchmark.spec import Batch, DataSpec

SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Split:
    """One fixed split in memory, in the data's own levels.

    Images: `x` is `[N, C, H, W]`. Text: `x` is the token stream `[N]`, in order.
    """

    x: Tensor  # int64, or uint8 where the levels fit
    labels: Tensor | None = None  # [N] int64
    characters: int | None = None  # text: length of the stream in characters
    bytes: int | None = None  # text: and in UTF-8 bytes


class DataModule(ABC):
    """A dataset with one fixed split and checksum each.

    The constructor takes the data root and the options of `configs/data/<name>.yaml`, reads the files (fetching what
    is missing) and verifies them.
    """

    spec: DataSpec

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """The split as evaluation sees it: the same tensors at every call."""

    @abstractmethod
    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        """Training batch number `step`: a pure function of its arguments, which is what makes resuming exact."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """For the record: name, source, licence, fingerprint (SHA-256) and size of each split."""

    def batches(self, seed: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Training batches without end, from number `start` on."""
        step = start
        while True:
            yield self.batch(seed, step, batch_size)
            step += 1


def data_root(given: str | None = None) -> Path:
    """The folder that holds datasets: `given`, else `BENCHMARK_DATA`, else `data/`."""
    import os

    return Path(given or os.environ.get("BENCHMARK_DATA") or "data")
