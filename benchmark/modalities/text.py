"""Text: samples to read, and baselines that count tokens and pairs of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmark.metrics.probe import Found
from benchmark.metrics.session import Session
from benchmark.metrics.text import TokenLogProb, TokenLogProbs
from benchmark.modalities.base import Given, Modality, Universe, log_frequencies
from benchmark.spec import DataSpec


class Texts(Modality):
    universe = Universe(
        ordinary=DataSpec((16,), 5, "sequence"),
        enumerable=DataSpec((4,), 3, "sequence"),
        build_only=DataSpec((128,), 65, "sequence"),
    )

    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """One file with all samples, one below another."""
        file = stem.with_suffix(".txt")
        texts = (f"--- sample {i + 1}\n{decode(row)}" for i, row in enumerate(x))
        file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        return file

    def references(self, session: Session) -> Mapping[str, Given]:
        name, data = session.protocol.split, session.data.own
        split, train, levels = data.split(name), data.split("train"), data.spec.levels
        known = {fn.__name__: fn(train.x, split.x, levels) for fn in (uniform, unigram, bigram)}
        protocol = {"split": name, "context": "own"}
        return {
            name: {TokenLogProb: Found(TokenLogProbs(nats, split.characters, split.bytes), protocol)}
            for name, nats in (known | data.truth(name)).items()
        }


def uniform(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every token is equally likely: `[N]` nats a token. `train` is not looked at."""
    return torch.full((len(test),), -math.log(levels), dtype=torch.float64)


def unigram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every token is an independent draw from one histogram: `[N]` nats a token."""
    return log_frequencies(torch.bincount(train.long(), minlength=levels))[test.long()]  # [N]


def bigram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every token depends on the one before it; the first is drawn from the unigram: `[N]` nats a token."""
    before, after = train[:-1].long(), train[1:].long()
    counts = torch.bincount(before * levels + after, minlength=levels * levels).view(levels, levels)
    pairs = log_frequencies(counts)[test[:-1].long(), test[1:].long()]  # [N-1]
    return torch.cat([unigram(train, test[:1], levels), pairs])
