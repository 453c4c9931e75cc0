"""Costs of tokens against closed forms, torchmetrics, and streams whose tokens depend on each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from evidence import normal, value

from benchmark.metrics import text as text_metrics
from benchmark.metrics.text import TokenLogProbs


def test_token_units():
    stream = torch.full((400,), -math.log(8))
    evidence = TokenLogProbs(stream, characters=800, bytes=1200)
    assert value("nats_per_token", evidence) == pytest.approx(math.log(8))
    assert value("perplexity", evidence) == pytest.approx(8)
    assert value("bits_per_char", evidence) == pytest.approx(1.5)  # 3 bits a token, 2 characters a token
    assert value("bits_per_byte", evidence) == pytest.approx(1)
    assert text_metrics.nats_per_token(evidence).stderr is None  # less than two blocks


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
