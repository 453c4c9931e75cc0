"""Kneser-Ney against its own arithmetic by hand, against sums to one, and against known sources."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from benchmark.modalities import ngram
from benchmark.modalities.ngram import KneserNey, best_order

TEXT = "abracadabra, abracadabra; a brace and a barb. bad cab, abba and a crab: a dab and a card. " * 3


def numbers(text: str) -> tuple[torch.Tensor, int]:
    letters = sorted(set(TEXT))
    return torch.tensor([letters.index(letter) for letter in text], dtype=torch.uint8), len(letters)


@pytest.mark.parametrize("order", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("context", ["abrac", "zz", "a da", "ddddddddd", ""])
def test_probabilities_of_the_next_token_sum_to_one(order: int, context: str) -> None:
    train, levels = numbers(TEXT)
    model = KneserNey(train, levels)
    before, _ = numbers("".join(letter for letter in context if letter in TEXT))
    after = [
        model.log_prob(torch.cat([before, torch.tensor([v], dtype=torch.uint8)]), order)[-1] for v in range(levels)
    ]
    assert float(torch.stack(after).exp().sum()) == pytest.approx(1, abs=1e-12)


def slowly(train: str, context: str, token: str, order: int) -> float:
    """p(token | context) by the definition: Chen and Goodman 1999, eqs. 20 and 26, with dictionaries."""
    grams = {k: Counter(train[i : i + k] for i in range(len(train) - k + 1)) for k in range(1, order + 2)}

    def p(k: int, longest: bool) -> float:
        if k == 0:
            return 1 / len(set(TEXT))
        counts = grams[k] if longest else Counter(dict.fromkeys(grams[k], 0))
        if not longest:
            for gram in grams[k + 1]:
                counts[gram[1:]] += 1
        c = context[len(context) - k + 1 :]
        if len(c) < k - 1 or (total := sum(n for gram, n in counts.items() if gram[:-1] == c)) == 0:
            return p(k - 1, False)
        d = ngram._discounts(np.array(list(counts.values())))
        left = sum(d[min(n, 3)] for gram, n in counts.items() if gram[:-1] == c)
        own = counts.get(c + token, 0)
        return float((own - d[min(own, 3)] + left * p(k - 1, False)) / total)

    return p(order, True)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_are_those_of_the_definition(order: int) -> None:
    train, levels = numbers(TEXT)
    text = "abad crab. card;"
    found = KneserNey(train, levels).log_prob(numbers(text)[0], order).exp()
    expected = [slowly(TEXT, text[:i], text[i], order) for i in range(len(text))]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_a_gram_lies_in_one_part_alone() -> None:
    """In training, "ab" is never one; in the scored stream, nothing stands before the first token of a part."""
    train, levels = numbers("a" * 20 + "b" * 20)
    model = KneserNey(train, levels, (20,))
    a, b = (int(numbers(letter)[0]) for letter in "ab")
    assert model.orders[1].number(np.array([0]), np.array([b]), levels).item() == -1
    stream = torch.tensor([a, a, b, b])
    apart, whole = model.log_prob(stream, 3, (2,)), model.log_prob(stream, 3)
    assert apart[2] == model.log_prob(stream[2:], 3)[0]
    assert whole[2] != apart[2]


def test_the_source_of_a_markov_chain_is_found() -> None:
    """Two thousandths of a nat above the entropy, and the order of the source is the best."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(5), size=25)  # [context of two, next]
    stream = [0, 1]
    for u in generator.random(60_000):
        stream.append(int(np.searchsorted(p[5 * stream[-2] + stream[-1]].cumsum()[:-1], u)))
    x = torch.tensor(stream)
    train, validation, test = x[:40_000], x[40_000:50_000], x[50_000:]
    model = KneserNey(train, 5)
    order = best_order(model, validation)
    assert order == 3
    truth = np.mean([math.log(p[5 * a + b][c]) for a, b, c in zip(test[:-2], test[1:-1], test[2:], strict=True)])
    assert -float(model.log_prob(test, order)[2:].mean()) == pytest.approx(-truth, abs=0.003)


def test_a_long_stream_is_counted_from_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ngram, "LATEST", 100)
    train, levels = numbers(TEXT)
    test, _ = numbers("abracadabra")
    assert torch.equal(KneserNey(train, levels).log_prob(test, 3), KneserNey(train[-100:], levels).log_prob(test, 3))
