"""What is special to the encoder-decoder: what it reads and what it must not, cached sampling, and its three forms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.build import build_model, load_weights, save_weights
from benchmark.config import compose
from benchmark.models.transformer.seq2seq import KEPT, Seq2Seq
from benchmark.nn.optim import JointOptimizer
from benchmark.spec import BadInput, Batch, DataSpec

T, S, V = 9, 6, 7
END = V - 1
FORMS = ("encoder", "prefix", "nothing")
READING = FORMS[:2]


def dialogue(before: int = S, levels: int = V) -> DataSpec:
    return DataSpec((T,), V, "sequence", DataSpec((before,), levels, "sequence", end=levels - 1), end=END)


def model(spec: DataSpec, **options: Any) -> Seq2Seq:
    """A small one whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = Seq2Seq(spec, **{"layers": 2, "heads": 2, "width": 16} | options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def tokens(*shape: int, seed: int = 1) -> Tensor:
    """None of them an end."""
    return torch.randint(END, shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reads", FORMS)
def test_a_token_is_predicted_from_those_before_it_alone(reads: str) -> None:
    net, x, condition = model(dialogue(), reads=reads), tokens(1, T), tokens(1, S, seed=2)
    logits = net(x, condition)
    for t in range(T):
        changed = x.clone()
        changed[:, t] = (changed[:, t] + 1) % END
        differs = (net(changed, condition) != logits).any(-1)[0]  # [T]
        assert not differs[: t + 1].any()
        assert differs[t + 1 :].all()


@pytest.mark.parametrize("said", [S, 2, 0], ids=["long", "short", "nothing said"])
@pytest.mark.parametrize("reads", FORMS)
def test_cached_sampling_equals_recomputing_everything(reads: str, said: int) -> None:
    net = model(dialogue(), reads=reads)
    condition = tokens(5, S, seed=2)
    condition[:, : S - said] = END
    torch.manual_seed(1)
    fast = net.sample_given(condition)
    torch.manual_seed(1)
    x = torch.full((5, T), END)
    for t in range(T):
        drawn = torch.multinomial(net(x, condition)[:, t].float().softmax(1), 1)[:, 0]
        x[:, t] = torch.where((x[:, :t] == END).any(1), END, drawn)
    assert torch.equal(fast, x)
    assert len(fast.unique()) > 3


@pytest.mark.parametrize("reads", READING)
def test_what_fills_a_condition_up_changes_nothing(reads: str) -> None:
    x, condition = tokens(3, T), tokens(3, S, seed=2)
    padded = torch.cat([torch.full((3, 4), END), condition], 1)
    short, long = model(dialogue(S), reads=reads), model(dialogue(S + 4), reads=reads)
    long.load_state_dict(short.state_dict() | {"met": long.met})
    found = short.token_log_prob_given(x, condition)
    torch.testing.assert_close(long.token_log_prob_given(x, padded), found, rtol=1e-5, atol=1e-5)
    wrong = torch.cat([torch.zeros(3, 4, dtype=torch.long), condition], 1)
    assert (long.token_log_prob_given(x, wrong) - found).abs().max() > 1e-2, "a token that is not the end is heard"


@pytest.mark.parametrize("reads", READING)
def test_every_token_that_was_said_is_heard(reads: str) -> None:
    net, x, condition = model(dialogue(), reads=reads), tokens(1, T), tokens(1, S, seed=2)
    found = net.token_log_prob_given(x, condition)
    for s in range(S):
        changed = condition.clone()
        changed[:, s] = (changed[:, s] + 1) % END
        assert (net.token_log_prob_given(x, changed) != found).all()


def test_the_blind_form_ignores_its_condition() -> None:
    net, x = model(dialogue(), reads="nothing"), tokens(3, T)
    found = net.token_log_prob_given(x, tokens(3, S, seed=2))
    assert torch.equal(net.token_log_prob_given(x, tokens(3, S, seed=3)), found)
    assert torch.equal(net.token_log_prob_given(x), found)


@pytest.mark.parametrize("reads", FORMS)
def test_the_loss_counts_the_reply_up_to_its_end_alone(reads: str) -> None:
    net, x, condition = model(dialogue(), reads=reads), tokens(2, T), tokens(2, S, seed=2)
    x[0, 3:] = END
    log_p = net(x, condition).log_softmax(-1).gather(-1, x[..., None])[..., 0]  # [2, T]
    expected = -(log_p[0, :4].sum() + log_p[1].sum()) / (4 + T)
    torch.testing.assert_close(net.training_step(Batch(x, condition), 0)["loss"], expected.float(), check_dtype=False)


def test_the_three_forms_have_their_parameters() -> None:
    """As many with a prefix as with an encoder, in the sizes of all configurations; without either one decoder less."""
    counts = {}
    for name in ("seq2seq", "seq2seq_prefix", "seq2seq_blind"):
        options = compose([f"model={name}", "data=dialogue"]).model.options
        net = build_model(compose([f"model={name}", "data=dialogue"]), dialogue(levels=V))
        counts[name] = sum(p.numel() for p in net.parameters())
        D, layers = options["width"], options["layers"]
        around = (V + 1) * D + D * V + V
        blocks = {"seq2seq": 12 + 16, "seq2seq_prefix": 28, "seq2seq_blind": 12}[name] * layers * D**2
        assert counts[name] == pytest.approx(around + blocks, rel=1e-9 if name != "seq2seq_prefix" else 0.02)
    assert counts["seq2seq_prefix"] == pytest.approx(counts["seq2seq"], rel=0.02)


def test_what_was_said_in_other_tokens_has_an_embedding_of_its_own() -> None:
    assert model(dialogue()).said is None
    net = model(dialogue(levels=11))
    assert net.said is not None
    assert net.said.weight.shape == (11, 16)
    condition = torch.full((2, S), 9)
    assert net.token_log_prob_given(tokens(2, T), condition).isfinite().all()


def test_samples_reply_to_conditions_of_the_latest_batches(tmp_path: Path) -> None:
    net = model(dialogue())
    for step in range(KEPT // 32 + 1):
        net.training_step(Batch(tokens(32, T), torch.full((32, S), step % END)), step)
    assert sorted(net.met[:, 0].unique().tolist()) == sorted({step % END for step in range(1, KEPT // 32 + 1)})
    again = model(dialogue())
    save_weights(net, tmp_path / "weights")
    load_weights(again, tmp_path / "weights")
    assert torch.equal(again.met, net.met)
    heard: list[Tensor] = []
    torch.manual_seed(0)
    net.sample_given = lambda condition: heard.append(condition) or condition
    net.sample(200)
    assert len(heard[0].unique(dim=0)) == len(net.met.unique(dim=0))


@pytest.mark.parametrize("reads", FORMS)
def test_matrices_of_all_blocks_have_muon_and_the_rest_adamw(reads: str) -> None:
    net = model(dialogue(), reads=reads)
    optimizer = net.configure_optimizers()
    assert isinstance(optimizer, JointOptimizer)
    muon, rest = ({id(p) for group in part.param_groups for p in group["params"]} for part in optimizer.parts)
    assert muon == {id(p) for block in [*net.encoder, *net.decoder] for p in block.parameters()}
    assert rest == {id(p) for p in net.parameters()} - muon


@pytest.mark.parametrize("reads", FORMS)
def test_trains_and_samples_in_bfloat16_close_to_float32(reads: str) -> None:
    net = model(dialogue(), reads=reads).float()
    x, condition = tokens(5, T), tokens(5, S, seed=2)
    exact = net.token_log_prob_given(x, condition)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.token_log_prob_given(x, condition)
        rounded.sum().backward()
        assert net.sample_given(condition).shape == (5, T)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.15)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_condition_that_is_no_text_is_refused() -> None:
    spec = DataSpec((T,), V, "sequence", DataSpec.label(10), end=END)
    with pytest.raises(BadInput, match="the condition is a label; set reads=nothing"):
        Seq2Seq(spec)
    assert Seq2Seq(spec, layers=1, width=16, reads="nothing").sample(2).shape == (2, T)
    with pytest.raises(BadInput, match="choose a multiple of 8"):
        Seq2Seq(dialogue(), width=20, heads=4)
