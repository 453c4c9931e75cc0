"""How much is scored at a time is a matter of memory: results do not depend on it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from known_data import data_of
from torch import Tensor

from benchmark.build import build_data
from benchmark.config import load_data
from benchmark.metrics import session, text
from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.session import FEW, LIKELIHOOD_CHUNK, MOST, Experts, Protocol, Session, chunk_size, sample_chunk
from benchmark.models.autoregressive.gated_pixelcnn import GatedPixelCNN
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.transformer.gpt import GPT
from benchmark.spec import Absence, DataSpec

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MEBI = 2**20
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Memory:
    """Of a false GPU, of which a first chunk takes some."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int, taken: int) -> None:
        self.free, self.taken, self.reserved = free, taken, 100 * MEBI
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: self.reserved)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (self.free, 80 * 2**30))

    def score_first(self) -> None:
        self.reserved += self.taken
        self.free -= self.taken


@pytest.mark.parametrize(
    ("free", "taken", "times"),
    [
        (1_000 * MEBI, 100 * MEBI, 4),  # half of 900 holds 4
        (1_800 * MEBI, 100 * MEBI, 8),
        (150 * MEBI, 100 * MEBI, 1),  # there is hardly room for one
        (80_000 * MEBI, MEBI, MOST // LIKELIHOOD_CHUNK),
        (80_000 * MEBI, 0, MOST // LIKELIHOOD_CHUNK),
    ],
)
def test_a_chunk_on_a_gpu_fits_into_half_of_what_is_free(free, taken, times, monkeypatch):
    memory = Memory(monkeypatch, free, taken)
    assert chunk_size(GPU, FEW + 1, memory.score_first) == times * LIKELIHOOD_CHUNK


def test_a_few_examples_and_the_cpu_keep_their_chunks():
    def fail() -> None:
        raise AssertionError("nothing has to be tried")

    assert chunk_size(GPU, FEW, fail) == chunk_size(CPU, 1_000_000, fail) == LIKELIHOOD_CHUNK


@pytest.mark.parametrize(("dims", "chunk"), [(1, 256), (64, 256), (256, 256), (784, 64), (3072, 16), (100_000, 1)])
def test_fewer_of_larger_samples_are_drawn_at_a_time(dims, chunk):
    assert sample_chunk(DataSpec((dims,), 2, "sequence")) == chunk


def test_exact_likelihoods_do_not_depend_on_chunks_and_draws_keep_theirs(monkeypatch):
    digits = data_of("digits")
    model, x = GatedPixelCNN(digits.spec, layers=1, channels=4).eval(), digits.split("test").x
    asked = Session(model, digits, Protocol("test", 0), Experts())
    sizes: list[int] = []

    def log_prob(chunk: Tensor) -> Tensor:
        sizes.append(len(chunk))
        return model.log_prob(chunk)

    with torch.no_grad():
        usual = asked.batched(log_prob, x, "log_prob", draws=False)
        monkeypatch.setattr(session, "chunk_size", lambda device, n, score_first: 128)
        large = asked.batched(log_prob, x, "log_prob", draws=False)
        asked.batched(log_prob, x, "log_prob")
    assert sizes == [64, 64, 52, 128, 52, 64, 64, 52]
    torch.testing.assert_close(large, usual, rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("protocol", [Protocol("test", 0, stride=8), Protocol("test", 0, stride=8, examples=100)])
def test_a_sliding_window_scores_the_same_in_chunks_of_any_size(protocol, monkeypatch):
    data = data_of("synthetic_text")
    model = GPT(data.spec, layers=1, width=16, heads=2).eval()
    found = []
    with torch.no_grad():
        for size in (64, 7):
            monkeypatch.setattr(text, "chunk_size", lambda device, n, score_first, size=size: size)
            found.append(text._sliding(Session(model, data, protocol, Experts())))
    (usual, places, said), (small, same_places, said_too) = found
    torch.testing.assert_close(small, usual, rtol=1e-5, atol=1e-6)
    assert torch.equal(places, same_places)
    assert said == said_too


def test_every_token_of_a_stream_is_scored_once_and_in_order():
    data = data_of("synthetic_text")
    model = GPT(data.spec, layers=1, width=16, heads=2).eval()
    with torch.no_grad():
        log_prob, places, _ = text._sliding(Session(model, data, Protocol("test", 0, stride=8), Experts()))
    assert torch.equal(places, torch.arange(len(data.split("test").x)))
    assert len(log_prob) == len(places)


@pytest.mark.parametrize("examples", [None, 200])
def test_a_carried_state_scores_the_same_in_pieces_of_any_length(examples, monkeypatch):
    data = data_of("synthetic_text")
    model = LSTM(data.spec, layers=2, width=16).eval()
    asked = Session(model, data, Protocol("test", 0, examples=examples), Experts())
    with torch.no_grad():
        usual, places, _ = text._carried(asked)
        monkeypatch.setattr(text, "_tokens_at_once", lambda session, lanes: 5_000)
        long, same_places, _ = text._carried(asked)
    torch.testing.assert_close(long, usual, rtol=1e-6, atol=1e-9)
    assert torch.equal(places, same_places)


def test_a_gpu_scores_thousands_of_tokens_in_a_call():
    data = data_of("synthetic_text")

    def at_once(device: str, lanes: int) -> int:
        with torch.device(device):
            model = LSTM(data.spec, layers=1, width=4)
        return text._tokens_at_once(Session(model, data, Protocol("test", 0), Experts()), lanes)

    (context,) = data.spec.shape
    assert at_once("cpu", 1) == context
    assert at_once("meta", 1) == text.TOKENS
    assert at_once("meta", 64) == text.TOKENS // 64
    assert at_once("meta", 1_000_000) == context


def test_an_extractor_takes_images_to_where_its_network_is(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none for `meta`
    seen: list[torch.device] = []

    class Network(torch.nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            seen.append(x.device)
            return x.flatten(1).float(), x.flatten(1).float()

    here = Extractor("a", "b", Network(), chunk=4)
    there = here.on(torch.device("meta"))
    with pytest.raises(NotImplementedError, match="meta"):  # what it saw cannot come back from there
        there(torch.zeros(6, 1, 2, 2, dtype=torch.uint8))
    assert seen == [torch.device("meta")] * 2
    found = here(torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2))
    assert found.features.dtype == torch.float64
    assert torch.equal(found.features, torch.arange(24).view(6, 4).double())


@on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("cls", [GPT, LSTM])
    def test_tokens_are_scored_as_on_the_cpu(self, cls: Any):
        data = build_data(load_data("pydocs"), None)
        model = cls(data.spec).eval()
        found = []
        with torch.no_grad():
            for device in (CPU, GPU):
                evidence = Session(model.to(device), data, Protocol("test", 0, stride=64), Experts())[text.TokenLogProb]
                assert not isinstance(evidence, Absence)
                found.append(evidence.evidence.nats)
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)

    def test_an_exact_likelihood_is_that_of_the_cpu(self):
        digits = data_of("digits")
        model, x = GatedPixelCNN(digits.spec).eval(), digits.split("train").x
        found = []
        with torch.no_grad():
            for device in (CPU, GPU):
                asked = Session(model.to(device), digits, Protocol("test", 0), Experts())
                found.append(asked.batched(model.log_prob, x, "log_prob", draws=False))
        torch.testing.assert_close(*found, rtol=1e-4, atol=0.0)
