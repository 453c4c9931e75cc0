"""Costs of tokens against closed forms, torchmetrics, and streams whose tokens depend on each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from evidence import normal, value

from benchmark.data.base import Card, SplitName
from benchmark.data.text import Text
from benchmark.metrics import text as text_metrics
from benchmark.metrics.session import Experts, Protocol, Session
from benchmark.metrics.text import TokenLogProb, TokenLogProbs, WholeStream
from benchmark.models.base import GenerativeModel
from benchmark.spec import Absence, DataSpec, Sampler, Stateful, TokenLikelihood


def test_token_units():
    stream = torch.full((400,), -math.log(8))
    evidence = TokenLogProbs(stream, characters=800, bytes=1200)
    assert value("nats_per_token", evidence) == pytest.approx(math.log(8))
    assert value("perplexity", evidence) == pytest.approx(8)
    assert value("bits_per_char", evidence) == pytest.approx(1.5)  # 3 bits a token, 2 characters a token
    assert value("bits_per_byte", evidence) == pytest.approx(1)
    assert text_metrics.nats_per_token(evidence).stderr is None  # less than two blocks


def test_a_whole_stream_at_once_is_divided_by_its_tokens_and_has_no_error():
    evidence = TokenLogProbs(torch.tensor([-400 * math.log(8)]), characters=800, bytes=1200, tokens=400)
    for name, expected in {"nats_per_token": math.log(8), "bits_per_char": 1.5, "bits_per_byte": 1.0}.items():
        estimate = getattr(text_metrics, name)(evidence)
        assert (estimate.value, estimate.stderr) == (pytest.approx(expected), None)


def test_known_and_new_works_are_counted_apart():
    nats, new = -torch.arange(10.0), torch.arange(10) >= 7
    evidence = TokenLogProbs(nats, new=new)
    assert value("nats_of_known_works", evidence) == pytest.approx(3)
    assert value("nats_of_new_works", evidence) == pytest.approx(8)
    with pytest.raises(ValueError, match="it is not known of this text"):
        value("nats_of_new_works", TokenLogProbs(nats))


class Streams(Text):
    """Parts that do not follow on each other, as the split that is scored."""

    card = Card(name="streams", source="test", licence="none", citation="none")

    def __init__(self, parts, context=4):
        texts: dict[SplitName, list[str]] = {"train": ["abcdefgh"], "validation": ["abcdefgh"], "test": parts}
        super().__init__(texts, self.tokens_for("bytes", 0, texts), context, "random")


class Memory(GenerativeModel, TokenLikelihood):
    """Gives each token minus the number of those that it has seen before it."""

    sampler = Sampler("none", 0)
    sample = training_step = configure_optimizers = None

    def __init__(self):
        super().__init__(DataSpec((4,), 256, "sequence"))

    def token_log_prob(self, x, state=None):
        before = 0 if state is None else state["seen"]
        if state is not None:
            state["seen"] = before + x.shape[1]
        return -(before + torch.arange(x.shape[1], dtype=torch.float32)).expand(len(x), -1)


class Carrying(Memory, Stateful):
    def initial_state(self, n):
        return {"seen": 0}


def scored(model, parts, examples=None, stride=2):
    data = Streams(parts)
    protocol = Protocol("test", seed=0, examples=examples, stride=stride)
    none = Absence("does not apply", "text")
    return Session(model, data, protocol, Experts(none, none))[TokenLogProb]


PARTS = ["abcdefg", "hijkl"]


def test_a_window_sees_no_other_part_of_the_stream():
    """Each part has its own first window; a rest of one token is scored in a window of its own."""
    found = scored(Memory(), PARTS)
    assert found.evidence.nats.tolist() == [0, -1, -2, -3, -2, -3, -3, 0, -1, -2, -3, -3]
    assert found.per_example[1].tolist() == list(range(12))
    assert found.protocol["tokens"] == "bytes"


def test_state_is_new_in_every_part_of_the_stream():
    found = scored(Carrying(), PARTS)
    assert found.evidence.nats.tolist() == [0, -1, -2, -3, -4, -5, -6, 0, -1, -2, -3, -4]
    assert found.per_example[1].tolist() == list(range(12))


def test_excerpts_lie_in_one_part_each():
    """A token is no later in its excerpt than in its part."""
    parts = ["x" * 300, "y" * 200]
    for model in (Memory(), Carrying()):
        found = scored(model, parts, examples=100, stride=4)
        places = found.per_example[1]
        depth = torch.where(places < 300, places, places - 300)
        assert bool((-found.evidence.nats <= depth).all())


def test_bits_of_a_stream_rank_together_whatever_its_tokens_are():
    data, protocol = Streams(PARTS), Protocol("test", seed=0)
    none = Absence("does not apply", "text")
    found: Any = Session(Memory(), data, protocol, Experts(none, none))[WholeStream]
    assert "tokens" not in found.protocol
    assert found.protocol["how"]["tokens"] == "bytes"


def test_perplexity_agrees_with_torchmetrics():
    from torchmetrics.functional.text import perplexity

    logits, targets = normal(0, 1, 300, 5), torch.arange(300)[None] % 5
    token_log_prob = logits.log_softmax(-1)[0, torch.arange(300), targets[0]]
    ours = value("perplexity", TokenLogProbs(token_log_prob))
    assert ours == pytest.approx(perplexity(logits, targets).item(), rel=1e-6)


def test_the_error_of_a_correlated_stream_is_not_that_of_independent_tokens():
    n, rho = 100_000, 0.9
    noise = normal(3, n).numpy()
    stream = np.zeros(n)
    for t in range(1, n):
        stream[t] = rho * stream[t - 1] + math.sqrt(1 - rho**2) * noise[t]
    expected = math.sqrt((1 + rho) / (1 - rho) / n)  # of the mean of a stationary AR(1) process with unit variance
    evidence = TokenLogProbs(torch.from_numpy(stream))
    estimate = text_metrics.nats_per_token(evidence)
    assert estimate.stderr == pytest.approx(expected, rel=0.25)
    assert estimate.stderr > 3 / math.sqrt(n)
    perplexity = text_metrics.perplexity(evidence)
    assert perplexity.stderr == pytest.approx(perplexity.value * estimate.stderr)
