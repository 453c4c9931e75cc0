"""What a reader makes of samples: closed forms, fewer evaluations, and real text in the place of samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import carry_out, experiment
from torch import Tensor

from benchmark.build import data_of
from benchmark.config import compose
from benchmark.data.text import PyDocs
from benchmark.metrics.probe import Found
from benchmark.metrics.reading import Read, Reading, ReadWithin, of_windows, sample_entropy, sample_perplexity
from benchmark.metrics.session import Experts, Protocol, Reader, Session
from benchmark.metrics.writing import windows
from benchmark.spec import Absence, BadInput, DataSpec, Sampler, SamplesWithin, State, TokenLikelihood
from benchmark.train.parts import reader

T = 16


class Biased(TokenLikelihood):
    """Token 0 has half of the mass, whatever comes before."""

    device = torch.device("cpu")

    def __init__(self, levels: int) -> None:
        self.levels = levels

    def to(self, device: torch.device) -> Biased:
        return self

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        return torch.where(x == 0, 0.5, 0.5 / (self.levels - 1)).log()


class Writes(SamplesWithin):
    """The more evaluations, the fewer of its tokens are 0; the others are all different."""

    device = torch.device("cpu")
    sampler = Sampler("a test", T)

    def __init__(self, spec: DataSpec) -> None:
        self.spec = spec

    def sample(self, n: int) -> Tensor:
        return self.sample_within(n, T)

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        x = 1 + torch.arange(T).expand(n, -1)
        return torch.where(torch.arange(T) < T - min(evaluations, T), 0, x)


def session(with_reader: bool = True) -> Session:
    data = PyDocs(Path(), context=T)
    levels = data.spec.levels
    experts = Experts(reader=Reader("biased", "ab" * 32, Biased(levels)) if with_reader else None)
    return Session(Writes(data.spec), data, Protocol("test", 0, sample_draws=3), experts)


def test_perplexity_and_entropy_of_samples_by_hand() -> None:
    one = session()
    found = one[Read]
    assert isinstance(found, Found)
    rest = 2 * (one.spec.levels - 1)
    assert sample_perplexity(found.evidence).value == pytest.approx(rest, rel=1e-5), "no token is 0"
    assert sample_entropy(found.evidence).value == pytest.approx(math.log(T)), "all tokens of a sample differ"
    assert found.protocol["reader"] == "biased abababab"
    assert found.protocol["generated"] == 100
    constant = [Reading(torch.zeros(2), torch.zeros(2, T, dtype=torch.long))]
    assert sample_entropy(constant).value == 0.0


def test_fewer_evaluations_are_asked_for() -> None:
    one = session()
    found = one[ReadWithin]
    assert isinstance(found, Found)
    rest = 2 * (one.spec.levels - 1)
    assert math.exp(-found.evidence[8].nats.mean()) == pytest.approx(math.sqrt(2 * rest), rel=1e-5), "half are 0"
    assert math.exp(-found.evidence[128].nats.mean()) == pytest.approx(rest, rel=1e-5)


def test_nobody_reads_unless_a_reader_is_named() -> None:
    one = session(with_reader=False)
    for probe in (Read, ReadWithin):
        found: Any = one[probe]
        assert isinstance(found, Absence)
        assert "runtime.reader=RUN" in found.reason
    assert isinstance(of_windows(one, windows(one, one.split)), Absence)


def test_real_text_is_read_in_the_place_of_samples() -> None:
    one = session()
    found = of_windows(one, windows(one, one.split))
    assert isinstance(found, Found)
    x = found.evidence[0].tokens
    shares = torch.where(x == 0, 0.5, 0.5 / (one.spec.levels - 1)).log().double().mean(1)
    torch.testing.assert_close(found.evidence[0].nats, shares)
    whole = one.data.decode(one.split.x)
    assert one.data.decode(x[0]) in whole


@pytest.mark.usefixtures("unscored")
def test_a_reader_is_a_run_of_the_same_text_in_the_same_tokens(tmp_path: Path) -> None:
    short = ("model.layers=1", "model.width=32", "model.heads=2", "budget.examples=16", "training.validations=1")
    folder = carry_out(tmp_path, "gpt", *short)

    def named(*settings: str) -> Reader | None:
        wanted = experiment(tmp_path, "gpt", *short, f"runtime.reader={folder}", *settings)
        return reader(wanted, data_of(wanted))

    found = named()
    assert found is not None
    assert found.name == "gpt"
    for settings, words in (
        (("data.tokens=bytes",), "in characters: name a run on pydocs in the same tokens"),
        (("data.context=999",), "context of 64 is shorter than samples of 999 tokens"),
        (("data=synthetic_text", "data.context=64"), "a gpt of pydocs"),
        (("runtime.reader=nowhere",), "nowhere holds no config.yaml"),
    ):
        with pytest.raises(BadInput, match=words):
            named(*settings)
    gan = carry_out(tmp_path, "sngan", "budget.examples=32")
    with pytest.raises(BadInput, match="promises no likelihood of tokens"):
        named(f"runtime.reader={gan}")
    one, other = (compose(["model=gpt", "data=pydocs", "budget=smoke", *more]) for more in ([], ["runtime.reader=x"]))
    assert one.config_hash == other.config_hash, "who reads is part of a protocol, not of a configuration"
