"""Data of which everything is known: synthetic sources by name, and one stream in the place of every split."""

from __future__ import annotations

from functools import cache

from torch import Tensor

from benchmark.build import build_data
from benchmark.config import load_data
from benchmark.data.base import SPLITS, Card, DataModule, InMemory, Split
from benchmark.evaluate import Protocol
from benchmark.spec import Batch, DataSpec

#: With few samples: what is looked at here is the likelihood.
PROTOCOL = Protocol("test", 0, sample_draws=1, sample_examples=20)


@cache
def data_of(name: str) -> DataModule:
    return build_data(load_data(name), root=None)


class Stream(InMemory):
    """One stream in the place of every split."""

    card = Card("stream", "random tokens", "none needed", "none")

    def __init__(self, stream: Tensor, spec: DataSpec) -> None:
        super().__init__(spec, dict.fromkeys(SPLITS, Split(stream, characters=len(stream), bytes=len(stream))))

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        return Batch(self.split("test").x[None])
