"""Text: samples to read, and baselines that count tokens and pairs of them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmark.data.base import Split
from benchmark.metrics.probe import Found
from benchmark.metrics.reading import Read, of_windows
from benchmark.metrics.session import Session
from benchmark.metrics.text import TokenLogProb, TokenLogProbs
from benchmark.metrics.writing import Written, windows, written
from benchmark.modalities.base import Given, Modality, Universe, log_frequencies
from benchmark.modalities.ngram import KneserNey, best_order
from benchmark.spec import DataSpec

#: What few tokens say, so that a text of four can have a line of verse.
_SAID = (b"\n", b" Now is the winter of our discontent", b"!", b" Ay", b" O")
_LETTERS = (b"\n", *(bytes([letter]) for letter in range(ord(" "), ord("`"))))


class Texts(Modality):
    universe = Universe(
        ordinary=DataSpec((16,), 5, "sequence", pieces=_SAID),
        enumerable=DataSpec((4,), 3, "sequence", pieces=_SAID[:3]),
        build_only=DataSpec((128,), 65, "sequence", pieces=_LETTERS),
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
        known |= {"n_gram": n_gram(train, data.split("validation"), split, levels)}
        long = split.characters, split.bytes
        new = None if split.unseen is None else torch.arange(len(split.x)) >= split.unseen
        evidence = {name: TokenLogProbs(nats, *long, new=new) for name, nats in (known | data.truth(name)).items()}
        for codec, nats in compressed(data.decode(train.x).encode(), data.decode(split.x).encode()).items():
            evidence[codec] = TokenLogProbs(torch.tensor([nats], dtype=torch.float64), *long, tokens=len(split.x))
        protocol = {"split": name, "context": "own"} | data.said_of_tokens
        table: dict[str, Given] = {name: {TokenLogProb: Found(found, protocol)} for name, found in evidence.items()}
        for title, real in {"held-out data": session.split, "training data": session.train}.items():
            x = windows(session, real)
            texts = [session.data.decode(row) for row in x]  # in the words that models know
            table[title] = {Written: written(session, (texts,), {}), Read: of_windows(session, x)}
        return table


def n_gram(train: Split, validation: Split, test: Split, levels: int) -> Tensor:
    """An interpolated n-gram, whose order validation chooses: `[N]` nats a token."""
    model = KneserNey(train.x, levels, train.cuts)
    return model.log_prob(test.x, best_order(model, validation.x, validation.cuts), test.cuts)


CODECS: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, compresslevel=9, mtime=0),
    "bzip2": partial(bz2.compress, compresslevel=9),
    "lzma": partial(lzma.compress, preset=9 | lzma.PRESET_EXTREME),
}


def compressed(train: bytes, test: bytes) -> dict[str, float]:
    """Log-probability in nats of a whole text by what each codec of the standard library adds for it to the training
    text: size(train + test) - size(train). gzip looks back over 32 kB alone, bzip2 over 900 kB."""
    return {name: -(len(codec(train + test)) - len(codec(train))) * 8 * math.log(2) for name, codec in CODECS.items()}


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
