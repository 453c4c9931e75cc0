"""The data room: fixed splits, pure batches, downloads that start again cleanly."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmark.data.base import SPLITS, InMemory
from benchmark.data.images import Digits, Images


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits(Path("unused"))


def same(one, other) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def check_batches(data: InMemory) -> None:
    """What every dataset promises of its training batches."""
    x = data.batch(seed=3, step=7, batch_size=5).x
    assert x.shape == (5, *data.spec.shape)
    assert x.dtype == torch.int64
    assert x.min() >= 0
    assert x.max() < data.spec.levels
    assert same(data.batch(3, 7, 5), data.batch(3, 7, 5))
    assert not torch.equal(x, data.batch(3, 8, 5).x)
    assert not torch.equal(x, data.batch(4, 7, 5).x)
    whole = list(islice(data.batches(seed=1, batch_size=4), 6))
    resumed = list(islice(data.batches(seed=1, batch_size=4, start=2), 4))
    assert all(same(a, b) for a, b in zip(whole[2:], resumed, strict=True))


def check_description(data: InMemory) -> None:
    """What every dataset tells a record."""
    described = json.loads(json.dumps(data.describe()))
    assert {"name", "source", "licence", "citation", "publishable"} <= described.keys()
    for name in SPLITS:
        assert described["splits"][name]["n"] == len(data.split(name).x)
        assert len(described["splits"][name]["sha256"]) == 64


def check_visits(data: Images, batch_size: int) -> None:
    """Batches that straddle the ends of epochs visit every training example equally often, give or take the last epoch."""
    n = len(data.split("train").x)
    data.split("train").labels.copy_(torch.arange(n))  # names the examples
    seen: Counter = Counter()
    for batch in islice(data.batches(seed=0, batch_size=batch_size), 3 * n // batch_size):
        seen.update(batch.condition.tolist())
    assert len(seen) == n
    assert max(seen.values()) - min(seen.values()) <= 1


def test_digits_split(digits):
    described = digits.describe()["splits"]
    assert {name: split["n"] for name, split in described.items()} == {"train": 1437, "validation": 180, "test": 180}
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "8f5bffd8c5d47e8d",
        "dced0b443d2ab81f",
        "f1c8c7950617b8d4",
    ]
    assert digits.spec.dims == 64
    assert torch.cat([digits.split(name).x for name in SPLITS]).max() == digits.spec.levels - 1


def test_digits_is_partitioned_and_stratified(digits):
    from sklearn.datasets import load_digits

    splits = [digits.split(name) for name in SPLITS]
    ours = Counter(bytes(image.numpy()) for split in splits for image in split.x)
    assert ours == Counter(image.astype("uint8").tobytes() for image in load_digits().images)
    totals = sum(torch.bincount(split.labels, minlength=10) for split in splits)
    for split in splits:
        expected = totals * len(split.x) / totals.sum()
        assert (torch.bincount(split.labels, minlength=10) - expected).abs().max() <= 1.5


def test_digits_keeps_the_promises(digits):
    check_batches(digits)
    check_description(digits)
    assert digits.batch(0, 0, 64).condition.shape == (64,)


@pytest.mark.parametrize("batch_size", [64, 1000, 2000])
def test_every_example_is_visited_equally_often(batch_size):
    check_visits(Digits(Path("unused")), batch_size)
