"""Labels in front of sequences: by what is hidden, and by Bayes' rule."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmark.data.base import Card, InMemory, Split
from benchmark.metrics.labels import Labels, LabelScores, label_accuracy, label_nats
from benchmark.metrics.probe import Found
from benchmark.metrics.session import Experts, Protocol, Session
from benchmark.modalities.labelled import bag_of_words
from benchmark.spec import Absence, Batch, DataSpec, Likelihood, PseudoLikelihood


class Labelled(InMemory):
    """Two labels, three tokens."""

    card = Card("labelled", "a test", "none", "none")

    def __init__(self, labels: int = 2) -> None:
        self.count = labels
        x = torch.tensor([[0, 3, 4], [1, 4, 4], [0, 4, 3], [1, 3, 3]])
        super().__init__(DataSpec((3,), 5, "sequence"), {"train": Split(x), "validation": Split(x), "test": Split(x)})

    @property
    def labels_in_front(self) -> int:
        return self.count

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        return Batch(self.split("train").x[:batch_size])


JOINT = torch.tensor([[0.3, 0.1], [0.2, 0.4]])  # p(label, second token is 3 or 4); the third is a coin


class Whole(Likelihood):
    device = torch.device("cpu")

    def log_prob(self, x: Tensor) -> Tensor:
        return (JOINT[x[:, 0], x[:, 1] - 3] / 2).log()


class Hidden(PseudoLikelihood):
    """The same conditionals, but for half of the mass, which is on tokens that are no label."""

    device = torch.device("cpu")

    def pseudo_log_probs(self, x: Tensor, places: Tensor) -> Tensor:
        assert places.tolist() == [0]
        given = (JOINT / JOINT.sum(0) / 2)[:, x[:, 1] - 3].T  # [B, 2]
        rest = torch.full((len(x), 3), 0.5 / 3)
        return torch.cat([given, rest], 1).log()[:, None]


@pytest.mark.parametrize("model", [Whole(), Hidden()], ids=["by the likelihood of the whole", "by what is hidden"])
def test_a_label_is_told_by_what_follows_it(model: Any) -> None:
    found = Session(model, Labelled(), Protocol("test", 0), Experts())[Labels]
    assert isinstance(found, Found)
    given = JOINT / JOINT.sum(0)
    expected = torch.stack([given[:, 0], given[:, 1], given[:, 1], given[:, 0]]).double()
    torch.testing.assert_close(found.evidence.log_p.exp(), expected, atol=1e-6, rtol=0)
    nats = -(math.log(0.6) + math.log(0.8) + math.log(0.2) + math.log(0.4)) / 4
    assert label_nats(found.evidence).value == pytest.approx(nats, rel=1e-6)
    assert label_accuracy(found.evidence).value == 0.5
    assert found.protocol["labels"] == 2


def test_without_labels_there_is_nothing_to_tell() -> None:
    found = Session(Whole(), Labelled(0), Protocol("test", 0), Experts())[Labels]
    assert isinstance(found, Absence)


def test_accuracy_has_the_error_of_a_share() -> None:
    log_p = torch.tensor([[0.0, -1.0]] * 100).double()
    labels = torch.tensor([0] * 90 + [1] * 10)
    found = label_accuracy(LabelScores(log_p, labels))
    assert (found.value, found.n) == (0.9, 100)
    assert found.stderr == pytest.approx(0.03)


def test_a_bag_of_words_learns_words_and_says_nothing_of_labels_that_it_never_met() -> None:
    rng = np.random.RandomState(0)
    labels = rng.randint(2, size=120)
    texts = [" ".join(rng.choice(["crown", "thee"] if label else ["love", "thee"], 8)) for label in labels]
    parts = [texts[:80], texts[80:100], texts[100:]], [labels[:80], labels[80:100], labels[100:]]
    log_p = bag_of_words(*parts, count=3)
    assert (log_p.argmax(1).numpy() == labels[100:]).mean() > 0.9
    assert (log_p[:, 2] == -math.inf).all()
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(20).double())
