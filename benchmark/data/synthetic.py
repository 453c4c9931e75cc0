"""Data whose source is known: its entropy is computed, not estimated, so that no score can hide behind the data.

No model may report less than the entropy, and a model that can represent the source should reach it. Everything is
made when it is asked for, from numpy's legacy generator, whose stream is frozen (NEP 19). Probabilities of images and
text are ratios of small integers, so that no rounding of a logarithm decides what is drawn; points have a file of their
own.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, InMemory, Split, SplitName
from benchmark.data.images import check_split, visits
from benchmark.data.text import Order, Text
from benchmark.data.tokens import Characters
from benchmark.spec import Batch, DataSpec


class Source(Protocol):
    """What data are drawn from."""

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p `[N]` in nats of images, points `[N, D]`, or the symbols of a stream `[N]`."""

    def entropy(self) -> float:
        """What it expects each of them to cost, in nats."""


class PixelNetwork:
    """A random Bayesian network over the pixels of a small image, in raster order.

    The parents of a pixel are at most `parents` of its neighbours left, above left, above and above right, picked at
    random; each of their values has its own random distribution over levels.
    """

    def __init__(self, height: int, side: int, levels: int, parents: int, seed: int) -> None:
        random = np.random.RandomState(seed)
        self.levels = levels
        self.parents: list[tuple[int, ...]] = []  # of each pixel, in ascending order
        self.tables: list[np.ndarray] = []  # p(level | parents), an axis for each parent and one for the level
        for i in range(height * side):
            row, column = divmod(i, side)
            near = [(row, column - 1), (row - 1, column - 1), (row - 1, column), (row - 1, column + 1)]
            inside = [r * side + c for r, c in near if r >= 0 and 0 <= c < side]
            chosen = random.permutation(inside)[:parents]
            self.parents.append(tuple(sorted(int(parent) for parent in chosen)))
            self.tables.append(distributions(random, len(chosen), levels))

    def sample(self, n: int, seed: int) -> np.ndarray:
        """`n` images `[n, D]`, pixel after pixel."""
        u = np.random.RandomState(seed).random_sample((n, len(self.tables)))
        x = np.zeros(u.shape, dtype=np.uint8)
        for i, (parents, table) in enumerate(zip(self.parents, self.tables, strict=True)):
            given = table[tuple(x[:, parent] for parent in parents)]  # [n, L], or [L] without parents
            x[:, i] = (u[:, i, None] >= given.cumsum(-1)[..., :-1]).sum(-1)
        return x

    def log_prob(self, x: np.ndarray) -> np.ndarray:
        """log p `[N]` in nats of images `[N, D]`."""
        terms = [  # [N] each
            np.log(table[(*(x[:, parent] for parent in parents), x[:, i])])
            for i, (parents, table) in enumerate(zip(self.parents, self.tables, strict=True))
        ]
        return np.stack(terms, 1).sum(1)  # type: ignore[no-any-return]

    def entropy(self) -> float:
        """H(x) = Σ_i H(x_i | parents of x_i) in nats an image (Cover and Thomas 2006, theorem 2.5.1), exactly.

        The joint distribution of the pixels that later ones may look back at is carried along the raster.
        """
        reach = max(i - parents[0] for i, parents in enumerate(self.parents) if parents)
        joint = np.ones(())  # of the last `reach` pixels, an axis each
        total = 0.0
        for i, (parents, table) in enumerate(zip(self.parents, self.tables, strict=True)):
            oldest = i - joint.ndim
            shape = [self.levels if oldest + axis in parents else 1 for axis in range(joint.ndim)]
            p = table.reshape(*shape, self.levels)
            joint = joint[..., None] * p
            total -= float((joint * np.log(p)).sum())
            if joint.ndim > reach:
                joint = joint.sum(0)
        return total


class MarkovChain:
    """A random stationary Markov chain over symbols: each depends on the `order` symbols before it."""

    def __init__(self, symbols: int, order: int, seed: int) -> None:
        self.symbols, self.order = symbols, order
        self.table = distributions(np.random.RandomState(seed), order, symbols)  # p(next | before), [V, ..., V]

    def sample(self, n: int, seed: int) -> list[int]:
        """A stream of `n` symbols. It starts long before the first that is kept, so that it is stationary."""
        cumulative = self.table.cumsum(-1)[..., :-1].reshape(-1, self.symbols - 1).tolist()  # by state, then symbol
        states = self.symbols**self.order
        state, stream = 0, []
        for u in np.random.RandomState(seed).random_sample(1_000 + n).tolist():
            symbol = sum(u >= edge for edge in cumulative[state])
            stream.append(symbol)
            state = (state * self.symbols + symbol) % states
        return stream[1_000:]

    def stationary(self) -> np.ndarray:
        """π over `order` symbols in a row, `[V, ..., V]`: the solution of π P = π, Σ π = 1."""
        states = self.symbols**self.order
        P = np.zeros((states, states))
        for state, row in enumerate(self.table.reshape(states, self.symbols)):
            first = state * self.symbols % states
            P[state, first : first + self.symbols] = row
        equations = np.concatenate([P.T - np.eye(states), np.ones((1, states))])
        solution, *_ = np.linalg.lstsq(equations, np.eye(states + 1)[-1], rcond=None)
        return np.reshape(solution, self.table.shape[:-1])

    def log_prob(self, stream: np.ndarray) -> np.ndarray:
        """log p(symbol | symbols before it) `[N]` in nats of a stream `[N]`; the first ones follow from π."""
        marginal = self.stationary()
        first = [
            math.log(marginal.sum(tuple(range(t + 1, self.order)))[tuple(stream[: t + 1])]) for t in range(self.order)
        ]
        lagged = tuple(stream[lag : len(stream) - self.order + lag] for lag in range(self.order + 1))
        return np.concatenate([np.diff([0.0, *first]), np.log(self.table[lagged])])

    def entropy(self) -> float:
        """The entropy rate Σ_s π(s) H(next | s) in nats a symbol (Cover and Thomas 2006, theorem 4.2.4)."""
        return -float((self.stationary()[..., None] * self.table * np.log(self.table)).sum())


def distributions(random: np.random.RandomState, givens: int, levels: int) -> np.ndarray:
    """A random distribution over levels for every value of `givens` variables, `[L, ..., L, L]`: some levels are rare,
    none is impossible."""
    weights: np.ndarray = 1 + random.randint(0, 5, size=[levels] * (givens + 1)) ** 3
    p: np.ndarray = weights / weights.sum(-1, keepdims=True)
    return p


class SyntheticImages(InMemory):
    """Images of 4×4 pixels and 4 levels from a fixed `PixelNetwork` with at most two parents; `root` goes unused."""

    card = Card(
        name="synthetic_images",
        source="a random Bayesian network over pixels, drawn when needed (benchmark.data.synthetic, seed 0)",
        licence="none needed",
        citation="Cover and Thomas 2006, Elements of Information Theory",
        note="the entropy of the source is known, and no likelihood can be better",
    )
    sizes: ClassVar[dict[SplitName, int]] = {"train": 200_000, "validation": 2_000, "test": 5_000}
    split_sha256: ClassVar[str] = "1bff98e82d1d5584daae252ea4cd3c849114d5a8979dc310e8008a5dc9de7819"  # of the pixels

    def __init__(self, root: Path) -> None:
        self.source = PixelNetwork(4, 4, levels=4, parents=2, seed=0)
        splits = {
            name: Split(torch.from_numpy(self.source.sample(self.sizes[name], seed)).view(-1, 1, 4, 4))
            for seed, name in enumerate(SPLITS, start=1)
        }
        check_split(self.card.name, self.split_sha256, *(splits[name].x for name in SPLITS))
        super().__init__(DataSpec((1, 4, 4), 4, "grid"), splits)

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        x = self.split("train").x
        return Batch(x=x[visits(len(x), seed, step * batch_size, batch_size).to(x.device)].long())

    def truth(self, name: SplitName) -> dict[str, Tensor]:
        return truth(self.source, self.split(name).x.flatten(1).numpy())

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"entropy": self.source.entropy()}  # nats an image


class SyntheticText(Text):
    """A stream of eight letters from a fixed `MarkovChain` of order two; `root` goes unused."""

    card = Card(
        name="synthetic_text",
        source="a random Markov chain of order two, drawn when needed (benchmark.data.synthetic, seed 0)",
        licence="none needed",
        citation="Cover and Thomas 2006, Elements of Information Theory",
        note="the entropy of the source is known, and no likelihood can be better",
    )
    sizes: ClassVar[dict[SplitName, int]] = {"train": 500_000, "validation": 50_000, "test": 100_000}
    shortest = 50_000
    kinds = ("characters",)
    split_sha256: ClassVar[str] = "1c8e99b49fc704a3b144ef076cb44e8732a91f87f13c55e6f5c337c1b182dd84"  # of the tokens

    def __init__(self, root: Path, context: int = 64, order: Order = "random") -> None:
        letters = "abcdefgh"
        self.source = MarkovChain(len(letters), order=2, seed=0)
        texts = {
            name: ["".join(letters[symbol] for symbol in self.source.sample(self.sizes[name], seed))]
            for seed, name in enumerate(SPLITS, start=1)
        }
        super().__init__(texts, Characters(tuple(letters), self.card.name), context, order)
        check_split(self.card.name, self.split_sha256, *(self.split(name).x for name in SPLITS))

    def truth(self, name: SplitName) -> dict[str, Tensor]:
        return truth(self.source, self.own.split(name).x.numpy())

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"entropy": self.source.entropy()}  # nats a character


def truth(source: Source, x: np.ndarray) -> dict[str, Tensor]:
    """What `DataModule.truth` says of data `x` from a source."""
    entropy = torch.full((len(x),), -source.entropy(), dtype=torch.float64)
    return {"entropy": entropy, "source": torch.from_numpy(source.log_prob(x))}
