"""What is special to the GPT: rotary positions, the pixel above, cached sampling, and which optimiser has what."""

from __future__ import annotations

import time

import pytest
import torch
from torch import nn
from torch.optim import AdamW

from benchmark.models.transformer import gpt
from benchmark.models.transformer.gpt import GPT, rotary_table, rotate
from benchmark.nn.optim import Muon, Together
from benchmark.spec import BadInput, DataSpec

SPECS = [DataSpec((10,), 7, "sequence"), DataSpec((1, 4, 3), 5, "grid"), DataSpec((3, 3, 2), 4, "grid")]


def model(spec: DataSpec) -> GPT:
    """A small GPT whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = GPT(spec, layers=2, heads=2, width=16).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_cached_sampling_equals_recomputing_everything(spec: DataSpec) -> None:
    net = model(spec)
    torch.manual_seed(1)
    fast = net.sample(4)
    torch.manual_seed(1)
    stream = torch.full((4, net.lag + spec.dims), net.begin)
    for t in range(spec.dims):
        probabilities = net(stream[:, : net.lag + t])[:, -1].softmax(1)
        stream[:, net.lag + t] = torch.multinomial(probabilities, 1).squeeze(1)
    slow = stream[:, net.lag :]
    if spec.structure == "grid":
        colours, rows, columns = spec.shape
        slow = slow.view(4, rows, columns, colours).permute(0, 3, 1, 2)
    assert torch.equal(fast, slow)
    assert len(fast.unique()) > 1


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_a_token_is_predicted_from_those_before_it_alone(spec: DataSpec) -> None:
    net = model(spec)
    stream = torch.randint(spec.levels, (1, net.lag + spec.dims))
    logits = net(stream[:, :-1])
    for t in range(spec.dims):
        changed = stream.clone()
        changed[:, net.lag + t] = (changed[:, net.lag + t] + 1) % spec.levels
        differs = (net(changed[:, :-1]) != logits).any(-1)[0]  # [T]
        assert not differs[: t + 1].any()
        assert differs[t + 1 :].all()


def test_scores_a_prefix_as_the_whole_does_and_refuses_more_than_its_context() -> None:
    net = model(SPECS[0])
    x = torch.randint(7, (2, 10))
    torch.testing.assert_close(net.token_log_prob(x[:, :4]), net.token_log_prob(x)[:, :4])
    with pytest.raises(BadInput, match="11 tokens given, context is 10"):
        net.token_log_prob(torch.randint(7, (2, 11)))


def test_rotary_products_depend_on_distance_alone() -> None:
    table = rotary_table(12, 8)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 12, 1, 8)
    products = rotate(q, table)[0, :, 0] @ rotate(k, table)[0, :, 0].T  # [T, T]
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products.diagonal(0)[0] != pytest.approx(products.diagonal(3)[0].item(), rel=1e-3)


@pytest.mark.parametrize("rows", [1, 20, 10_000], ids=lambda rows: f"{rows} rows at a time")
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_gradients_written_out_are_those_of_torch(spec: DataSpec, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is computed at a time: one example, a few with a smaller rest, or all."""
    net = model(spec)
    x = torch.randint(spec.levels, (5, *spec.shape))
    monkeypatch.setattr(gpt, "ROWS", rows)
    found = []
    for written_out in (True, False):
        monkeypatch.setattr(gpt, "written_out", lambda x, answer=written_out: answer)
        net.zero_grad()
        loss = net.log_prob(x).double().sum()
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-5)  # the loss is computed in float32
    assert all(gradient.abs().max() > 0.1 for gradient in found[0])


def test_trains_and_samples_in_bfloat16_close_to_float32() -> None:
    net = model(SPECS[0]).float()
    x = torch.randint(7, (5, 10))
    exact = net.token_log_prob(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = net.token_log_prob(x)
        rounded.sum().backward()
        assert net.sample(3).shape == (3, 10)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.15)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_refuses_a_width_that_heads_do_not_divide() -> None:
    with pytest.raises(BadInput, match="choose a multiple of 8"):
        GPT(SPECS[0], width=20, heads=4)


def test_every_parameter_has_one_optimiser_and_matrices_of_blocks_have_muon() -> None:
    net = model(SPECS[1])
    optimiser = net.configure_optimizers()
    assert isinstance(optimiser, Together)
    muon, adamw = optimiser.parts
    assert isinstance(muon, Muon)
    assert isinstance(adamw, AdamW)
    owned = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(owned) == len({id(p) for p in owned}) == len(list(net.parameters()))
    inside = {id(p) for block in net.blocks for p in block.parameters()}
    assert {id(p) for group in muon.param_groups for p in group["params"]} == inside


@pytest.mark.slow
def test_cached_sampling_is_ten_times_faster_than_recomputing_everything() -> None:
    net = GPT(DataSpec((256,), 65, "sequence")).eval()
    started = time.process_time()
    x = net.sample(16)
    fast = time.process_time() - started
    prefixes = range(16, 257, 48)  # 136 tokens on average, where all prefixes have 128.5
    with torch.no_grad():
        started = time.process_time()
        for length in prefixes:
            net(x[:, :length])
    slow = (time.process_time() - started) / len(prefixes) * 256 * 128.5 / 136
    assert slow > 10 * fast
