"""An interpolated n-gram: what counting gives a text for nothing.

Modified Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman, "An Empirical Study of Smoothing Techniques for
Language Modeling", 1999, section 3): the longest grams are counted as they are, shorter ones by how many different
tokens stand before them, and discounts depend on the count. The order is chosen on validation.

A gram of k tokens has a number: that of its first k - 1 tokens, times V, plus its last, looked up among those seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

ORDERS = 9  # tokens of a gram at most
LATEST = 10_000_000  # tokens at the end of a longer training stream that are counted

Array = np.ndarray


@dataclass(frozen=True)
class Order:
    """What is known of all grams of k tokens, by their numbers from 0 on, and of what they begin with."""

    keys: Array  # [G] sorted: number of the first k - 1 tokens, times V, plus the last
    counts: Array  # [G] how often each was counted, as the longest gram
    before: Array  # [G] how many different tokens stand before each, as a shorter one
    prefix: Array  # [G] number of its first k - 1 tokens

    def number(self, prefix: Array, token: Array, levels: int) -> Array:
        """Numbers `[N]` of grams, -1 for those that were not seen."""
        key = prefix * levels + token
        place = np.searchsorted(self.keys, key).clip(max=len(self.keys) - 1)
        return np.where((prefix >= 0) & (self.keys[place] == key), place, -1)


class KneserNey:
    """All orders up to `ORDERS`, counted over a training stream `[N]` of tokens below `levels`, whose parts begin at
    the places `cuts`: no gram lies in two of them."""

    def __init__(self, train: Tensor, levels: int, cuts: tuple[int, ...] = ()) -> None:
        skipped = max(0, len(train) - LATEST)
        tokens = train[skipped:].numpy().astype(np.int64)
        since = _since(len(train), cuts)[skipped:].clip(max=np.arange(len(tokens)))
        self.levels, self.orders = levels, list(_orders(tokens, since, levels))

    def log_prob(self, stream: Tensor, order: int, cuts: tuple[int, ...] = ()) -> Tensor:
        """log p `[N]` in nats of each token given at most order - 1 before it in the same part."""
        *_, found = self.by_order(stream, cuts, order)
        return found

    def by_order(self, stream: Tensor, cuts: tuple[int, ...] = (), most: int = ORDERS) -> Iterator[Tensor]:
        """`log_prob` with each order from 1 to `most`."""
        tokens, since = stream.numpy().astype(np.int64), _since(len(stream), cuts)
        numbers = [np.zeros(len(tokens), dtype=np.int64)]  # of the gram of k tokens that ends at each place
        shorter = np.full(len(tokens), 1 / self.levels)  # p under the order below, counted as for a shorter gram
        for k, order in enumerate(self.orders[:most], 1):
            prefix = np.where(since >= k - 1, np.roll(numbers[-1], 1) if k > 1 else 0, -1)
            number = order.number(prefix, tokens, self.levels)
            numbers.append(number)
            longest = _interpolated(order.counts, order.prefix, prefix, number, shorter)
            shorter = _interpolated(order.before, order.prefix, prefix, number, shorter)
            yield torch.from_numpy(np.log(longest))


def best_order(model: KneserNey, validation: Tensor, cuts: tuple[int, ...] = ()) -> int:
    """The order under which validation is most likely."""
    means = [float(log_p.mean()) for log_p in model.by_order(validation, cuts)]
    return 1 + int(np.argmax(means))


def _since(n: int, cuts: tuple[int, ...]) -> Array:
    """How many tokens of the same part stand before each place `[n]`."""
    start = np.zeros(n, dtype=np.int64)
    start[list(cuts)] = list(cuts)
    since: Array = np.arange(n) - np.maximum.accumulate(start)
    return since


@dataclass(frozen=True)
class _Grams:
    """All grams of one length in a stream: sorted keys and how often each is there, a place where each ends, and the
    number of the gram that ends at each place, -1 where none does."""

    keys: Array
    counts: Array
    ends: Array
    numbers: Array


def _grams(tokens: Array, since: Array, levels: int) -> Iterator[_Grams]:
    """Those of one token, of two, and so on, as long as there are some."""
    numbers = np.zeros(len(tokens), dtype=np.int64)
    for k in range(1, ORDERS + 2):
        places = np.flatnonzero(since >= k - 1)
        if not len(places):
            return
        prefix = numbers[places - 1] if k > 1 else np.zeros(len(places), dtype=np.int64)
        keys, ends, inverse, counts = np.unique(prefix * levels + tokens[places], True, True, True)
        numbers = np.full(len(tokens), -1)
        numbers[places] = inverse
        yield _Grams(keys, counts, places[ends], numbers)


def _orders(tokens: Array, since: Array, levels: int) -> Iterator[Order]:
    """What stands before a gram is known from those that are longer by one token."""
    for grams, longer in pairwise(_grams(tokens, since, levels)):
        before = np.bincount(grams.numbers[longer.ends], minlength=len(grams.keys))
        yield Order(grams.keys, grams.counts, before, grams.keys // levels)


def _interpolated(counts: Array, prefixes: Array, prefix: Array, number: Array, shorter: Array) -> Array:
    """p `[N]` of tokens that make grams of these numbers out of these prefixes, -1 where one was never seen; `shorter`
    is p with a token less before them (Chen and Goodman, eq. 20)."""
    discount = _discounts(counts)[counts.clip(max=3)]  # [G]
    n = int(prefixes.max()) + 1
    total = np.bincount(prefixes, counts, n)  # [prefixes]
    left = np.bincount(prefixes, discount, n)  # what the discounts leave to the shorter grams
    known = (prefix >= 0) & (prefix < n)
    known &= np.where(known, total[np.where(known, prefix, 0)], 0) > 0
    at = np.where(known, prefix, 0)
    own = np.where(number >= 0, (counts - discount)[number], 0.0)
    mixed = (own + left[at] * shorter) / np.where(known, total[at], 1)
    found: Array = np.where(known, mixed, shorter)
    return found


def _discounts(counts: Array) -> Array:
    """What is taken off counts of 0, 1, 2 and more (Chen and Goodman, eq. 26); a half where too few grams are rare."""
    n1, n2, n3, n4 = (int((counts == n).sum()) for n in (1, 2, 3, 4))
    if not (n1 and n2 and n3):
        return np.array([0.0, 0.5, 0.5, 0.5])
    y = n1 / (n1 + 2 * n2)
    found = np.array([0.0, 1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return found.clip(0.0, [0.0, 1.0, 2.0, 3.0])
