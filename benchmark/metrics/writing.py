"""Samples of text beside real text: how varied they are, how much of what they say is also said elsewhere, and whether
they copy.

All of it is counted over windows of the model's context, decoded, as many samples as windows of held-out text; in a
dialogue over replies, as many as held-out ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import DataModule, Split
from benchmark.metrics.fidelity import over_draws
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import conditioned
from benchmark.metrics.session import Session, draw_samples, how_drawn
from benchmark.spec import Absence, Conditional, Estimate

WINDOWS = 100  # of held-out text, or replies, and samples in a draw
LOOKED_AT = 8  # replies that are shown
COPIED = 20  # characters of a string that is looked for in the training text
WORDS = 2  # of a gram that is looked for elsewhere


@dataclass(frozen=True)
class Writing:
    """Texts, draw by draw, and the real texts that they are compared with."""

    drawn: tuple[Sequence[str], ...]
    held_out: str  # the whole split
    train: str


class Written(Probe[Writing]):
    """A few independent draws of samples, as text."""

    key = "written"
    says = ("split", "generated", "length", "how")

    def collect(self, session: Session) -> Found[Writing] | Absence:
        model, data = session.model, session.data
        if model is None:
            return Absence("does not apply", f"{session.name} has no samples")
        if session.split.x.ndim > 1:
            return Absence("does not apply", f"{data.describe()['name']} is no stream of text")
        n = len(windows(session, session.split))
        draws = [draw_samples(model, n, session.protocol.seed, draw) for draw in range(session.protocol.sample_draws)]
        texts = tuple([data.decode(x) for x in draw] for draw in draws)
        return written(session, texts, {"how": how_drawn(model, len(draws))})


class Replied(Probe[Writing]):
    """A few independent draws of a reply to each of some held-out speeches, as text."""

    key = "replied"
    says = ("split", "generated", "length", "how")
    promises = (Conditional,)

    def collect(self, session: Session) -> Found[Writing] | Absence:
        data, split = session.data, session.split
        if split.condition is None:
            return Absence("does not apply", f"{data.describe()['name']} is no dialogue")
        chosen = replies(session, split)
        said = split.condition[chosen].long()
        draws = [conditioned(session, said, draw) for draw in range(session.protocol.sample_draws)]
        texts = tuple([data.decode(x) for x in draw] for draw in draws)
        found = written(session, texts, {"how": how_drawn(session.model, len(draws))})
        beside = torch.cat([said, draws[0], split.x[chosen].long()], 1)  # [n, S + 2 T]
        return replace(found, pictures={"replies": beside[:LOOKED_AT]})


def written(session: Session, texts: tuple[Sequence[str], ...], how: dict[str, object]) -> Found[Writing]:
    """Texts, draw by draw, beside real ones."""
    name = session.protocol.split
    evidence = Writing(texts, *(whole_text(session.data, split) for split in (session.split, session.train)))
    (context,) = session.spec.shape
    protocol = {"split": name, "generated": len(texts[0]), "length": context} | session.data.said_of_tokens | how
    return Found(evidence, protocol)


def whole_text(data: DataModule, split: Split) -> str:
    """All parts of a split, one after another; of a dialogue all replies, an empty line between two."""
    if split.x.ndim > 1:
        return "\n\n".join(data.decode(x) for x in split.x)
    return "".join(data.decode(part) for part in split.parts())


def replies(session: Session, split: Split) -> Tensor:
    """Which of the replies of a split `[n]` are looked at: `WINDOWS` of them at most, at random."""
    return session.subset(len(split.x), WINDOWS, "replied")


def windows(session: Session, split: Split) -> Tensor:
    """Windows `[n, T]` of the model's context that do not overlap, `WINDOWS` of them at most, spread over the split."""
    whole = split.examples(session.spec.shape)
    return whole[session.subset(len(whole), WINDOWS, "written")].long()


@metric(Written, Replied, protocol={"words": WORDS})
def distinct_words(texts: Writing) -> Estimate:
    """Different pairs of words over all pairs in a draw's samples (Li and others 2016). The error is over draws."""
    shares = []
    for draw in texts.drawn:
        grams = [gram for text in draw for gram in _grams(text)]
        _some(grams, "two words")
        shares.append(len(set(grams)) / len(grams))
    return over_draws(shares, len(texts.drawn[0]))


@metric(Written, Replied, protocol={"words": WORDS})
def overlap(texts: Writing) -> Estimate:
    """Share of the pairs of words in samples that stand in the held-out text. The error is over draws."""
    known = set(_grams(texts.held_out))
    shares = []
    for draw in texts.drawn:
        grams = [gram for text in draw for gram in _grams(text)]
        _some(grams, "two words")
        shares.append(sum(gram in known for gram in grams) / len(grams))
    return over_draws(shares, len(texts.drawn[0]))


@metric(Written, Replied, protocol={"characters": COPIED})
def copied_text(texts: Writing) -> Estimate:
    """Share of strings of `COPIED` characters in samples that stand in the training text. The error is over draws."""
    known = np.unique(_hashes(texts.train))
    shares = []
    for draw in texts.drawn:
        found = np.concatenate([_hashes(text) for text in draw])
        _some(found, f"{COPIED} characters")
        place = np.searchsorted(known, found).clip(max=len(known) - 1)
        shares.append(float((known[place] == found).mean()))
    return over_draws(shares, len(texts.drawn[0]))


def _grams(text: str) -> list[tuple[str, ...]]:
    """All runs of `WORDS` words."""
    words = text.split()
    return list(zip(*(words[i:] for i in range(WORDS)), strict=False))


def _hashes(text: str) -> np.ndarray:
    """A number `[N - COPIED + 1]` for each string of `COPIED` characters: a polynomial of its code points modulo 2^64,
    which two different strings among millions share once in a million texts."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64) + np.uint64(1)
    n = max(0, len(codes) - COPIED + 1)
    found = np.zeros(n, dtype=np.uint64)
    for i in range(COPIED):
        found = found * np.uint64(0x9E3779B97F4A7C15) + codes[i : i + n]
    return found


def _some(found: Sequence[object] | np.ndarray, what: str) -> None:
    if not len(found):
        raise ValueError(f"no sample has {what}")
