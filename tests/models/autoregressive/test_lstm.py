"""What is special to the LSTM: batches that go on where the last one ended, and a state that goes along with them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import carry_out, experiment, resumed

from benchmark import train
from benchmark.build import build_examination
from benchmark.data.text import PyDocs
from benchmark.evaluate import Experts, Protocol, evaluate
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.spec import Batch, DataSpec

SPEC = DataSpec((6,), 5, "sequence", contiguous=True)


def model(spec: DataSpec = SPEC, **options: Any) -> LSTM:
    torch.manual_seed(0)
    return LSTM(spec, **({"width": 16, "dropout": 0.0, "forget": 0.0} | options)).double()


def tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(5, (rows, length), generator=torch.Generator().manual_seed(1))


# Data in order -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pydocs() -> PyDocs:
    return PyDocs(Path("unused"), context=64, order="contiguous")


def test_each_row_goes_on_where_the_batch_before_it_ended(pydocs: PyDocs) -> None:
    ring = pydocs.split("train").x
    assert pydocs.spec.contiguous
    rows = torch.cat([pydocs.batch(3, step, 7).x for step in range(5, 9)], 1)  # [7, 4 · 64]
    twice = torch.cat([ring, ring])
    for row in rows:
        starts = (twice.unfold(0, 64, 1)[: len(ring)] == row[:64]).all(1).nonzero().flatten()
        assert any(torch.equal(twice[start : start + 256].long(), row) for start in starts)


def test_rows_together_read_the_whole_stream_and_close_to_a_ring(pydocs: PyDocs) -> None:
    first, most = pydocs.batch(0, 0, 3).x, len(pydocs.split("train").x) // 64
    windows = next(n for n in (most, most - 1) if torch.equal(pydocs.batch(0, n, 3).x, first))  # the seed shifts them
    once = {tuple(row) for step in range(-(-windows // 50)) for row in pydocs.batch(0, step, 50).x.tolist()}
    assert 0.99 * windows < len(once) <= windows, "a few texts are there twice"


def test_the_order_is_the_seeds(pydocs: PyDocs) -> None:
    assert torch.equal(pydocs.batch(1, 4, 8).x, pydocs.batch(1, 4, 8).x)
    assert not torch.equal(pydocs.batch(1, 4, 8).x, pydocs.batch(2, 4, 8).x)
    shuffled = PyDocs(Path("unused"), context=64)
    assert not shuffled.spec.contiguous


# State in training ---------------------------------------------------------------------------------------------------


def test_a_batch_is_learnt_from_the_state_that_the_last_one_left() -> None:
    net, x = model(), tokens(3, 12)
    losses = [net.training_step(Batch(half), step)["loss"] for step, half in enumerate((x[:, :6], x[:, 6:]))]
    whole = -net.token_log_prob(x)
    torch.testing.assert_close(losses[0], whole[:, :6].mean())
    torch.testing.assert_close(losses[1], whole[:, 6:].mean())
    assert net.carried is not None
    assert not any(value.requires_grad for value in net.carried.values())  # gradients end at the border


def test_rows_that_forget_begin_anew() -> None:
    net, x = model(forget=1.0), tokens(3, 12)
    net.training_step(Batch(x[:, :6]), 0)
    torch.testing.assert_close(net.training_step(Batch(x[:, 6:]), 1)["loss"], -net.token_log_prob(x[:, 6:]).mean())


def test_some_rows_forget_and_the_others_do_not() -> None:
    net, x = model(forget=0.5), tokens(64, 6)
    net.training_step(Batch(x), 0)
    state = net._state_before(64)
    forgot = state["token"] == net.begin
    assert 16 < int(forgot.sum()) < 48
    assert (state["h"][:, forgot] == 0).all()
    assert (state["c"][:, ~forgot] == net.carried["c"][:, ~forgot]).all()


def test_windows_at_random_places_carry_nothing() -> None:
    net = model(replace(SPEC, contiguous=False))
    net.training_step(Batch(tokens(3, 6)), 0)
    assert net.carried is None


def test_the_state_survives_a_file() -> None:
    net, again, x = model(), model(), tokens(3, 12)
    net.training_step(Batch(x[:, :6]), 0)
    checkpoint: dict[str, Any] = {}
    net.on_save_checkpoint(checkpoint)
    file = io.BytesIO()
    torch.save(checkpoint, file)
    file.seek(0)
    again.on_load_checkpoint(torch.load(file, weights_only=True))
    second = Batch(x[:, 6:])
    assert torch.equal(net.training_step(second, 1)["loss"], again.training_step(second, 1)["loss"])


@pytest.mark.usefixtures("unscored")
def test_a_run_in_order_that_was_stopped_ends_as_one_that_never_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    more = ["data.order=contiguous", "model.width=32"]
    whole = carry_out(tmp_path, "lstm", *more)
    stopped = resumed(train.prepare(experiment(tmp_path, "lstm", *more)))
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


# State in evaluation -------------------------------------------------------------------------------------------------


def test_a_stream_is_scored_in_one_piece(pydocs: PyDocs) -> None:
    net = LSTM(pydocs.spec, width=8).eval()
    result = evaluate(net, pydocs, Protocol("validation", 0), build_examination("text"), Experts(), ["nats_per_token"])
    x = pydocs.split("validation").x
    with torch.no_grad():
        whole = net.token_log_prob(x[None])[0]
    torch.testing.assert_close(result.per_example["token_log_prob"], whole, rtol=1e-4, atol=1e-4)
    assert result.scores["nats_per_token"].protocol["context"] == "carried"


def test_validation_reads_excerpts_that_lie_evenly_over_the_stream(pydocs: PyDocs) -> None:
    net = LSTM(pydocs.spec, width=8).eval()
    protocol = Protocol("validation", 0, examples=100)
    result = evaluate(net, pydocs, protocol, build_examination("text"), Experts(), ["nats_per_token"])
    x = pydocs.split("validation").x
    found = result.per_example["token_log_prob"].view(64, 100)  # 100 windows of 64 tokens, as 64 excerpts
    with torch.no_grad():
        ends = net.token_log_prob(torch.stack([x[:100], x[-100:]]))
    torch.testing.assert_close(found[[0, -1]], ends, rtol=1e-4, atol=1e-4)
    assert result.scores["nats_per_token"].protocol["subset"] == f"64 excerpts of 100 of {len(x)} tokens"
