"""Layers of a transformer against loops and torch's own operations, by their gradients, and through their cache."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmark.nn import cpu_kernels
from benchmark.nn.transformer import (
    Attention,
    Block,
    CrossAttention,
    FeedForward,
    RMSNorm,
    draw_normal,
    rms_norm,
    rotary_table,
    rotate,
)

B, T, D, N = 2, 5, 12, 3
K = D // N
VARIANTS: list[dict[str, Any]] = [
    {},
    {"normalised": False},
    {"bias": True},
    {"norm": nn.LayerNorm, "bias": True, "normalised": False, "causal": False},
    {"norm": nn.Identity, "bias": True},
]


def drawn(layer: nn.Module) -> Any:
    """In double precision, with all weights drawn, so that none is 0 or 1."""
    torch.manual_seed(0)
    for p in layer.double().parameters():
        nn.init.normal_(p, std=0.4)
    return layer


def vectors(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


# Normalisation and positions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rms_norm_and_its_gradient_are_torchs(dtype: torch.dtype) -> None:
    x = (vectors(3, 4, 8) * 3).to(dtype).requires_grad_()
    dy = vectors(3, 4, 8).flip(0).to(dtype)
    found = []
    for norm in (rms_norm, RMSNorm(8), lambda x: F.rms_norm(x, (8,))):
        y = norm(x)
        found.append((y, *torch.autograd.grad(y, x, dy)))
    for ours in found[:2]:
        for mine, theirs in zip(ours, found[2], strict=True):
            torch.testing.assert_close(mine, theirs)
    assert torch.autograd.gradcheck(rms_norm, vectors(2, 3, 4).requires_grad_())


def test_rotation_turns_each_pair_by_position_times_frequency() -> None:
    x = vectors(1, 7, 2, 6)
    y = rotate(x, rotary_table(7, 6))
    for t, n, i in [(t, n, i) for t in range(7) for n in range(2) for i in range(3)]:
        angle = t * 10_000 ** (-2 * i / 6)
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]).double()
        pair = slice(2 * i, 2 * i + 2)
        torch.testing.assert_close(y[0, t, n, pair], turn @ x[0, t, n, pair], rtol=0, atol=1e-6)  # a float32 table


def test_rotary_products_depend_on_distance_alone() -> None:
    table = rotary_table(12, 8)
    q, k = torch.randn(2, 1, 1, 1, 8).expand(2, 1, 12, 1, 8)
    products = rotate(q, table)[0, :, 0] @ rotate(k, table)[0, :, 0].T  # [T, T]
    for distance in range(-11, 12):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert products.diagonal(0)[0] != pytest.approx(products.diagonal(3)[0].item(), rel=1e-3)


# Layers --------------------------------------------------------------------------------------------------------------


def attended(layer: Attention, x: Tensor, rotary: Tensor | None) -> Tensor:
    """The definition, head by head and position by position."""
    x = layer.norm(x)
    out = torch.zeros(B, T, D, dtype=x.dtype)
    for n in range(N):
        rows = slice(n * K, (n + 1) * K)
        q, k, v = (x @ weight[rows].T for weight in layer.projections)  # [B, T, K]
        if layer.bias is not None:
            q, k, v = (y + layer.bias[i * D : (i + 1) * D][rows] for i, y in enumerate((q, k, v)))
        if layer.normalised:
            q, k = (y / y.square().mean(-1, keepdim=True).sqrt() for y in (q, k))
        if rotary is not None:
            q, k = (rotate(y[:, :, None], rotary)[:, :, 0] for y in (q, k))
        for t in range(T):
            seen = t + 1 if layer.causal else T
            weights = (k[:, :seen] @ q[:, t, :, None]).squeeze(-1).div(math.sqrt(K)).softmax(-1)  # [B, seen]
            out[:, t, rows] = (weights[..., None] * v[:, :seen]).sum(1)
    return layer.mix(out)


@pytest.mark.parametrize("turned", [True, False], ids=["rotary", "no positions"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_attention_is_its_definition(options: dict[str, Any], turned: bool) -> None:
    layer = drawn(Attention(D, N, **options))
    rotary = rotary_table(T, K) if turned else None
    x = vectors(B, T, D)
    torch.testing.assert_close(layer(x, rotary), attended(layer, x, rotary))


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_a_position_sees_those_up_to_its_own_or_all(options: dict[str, Any]) -> None:
    block = drawn(Block(D, N, **options))
    x = vectors(1, T, D).requires_grad_()
    y = block(x, rotary_table(T, K))
    for t in range(T):
        (gradient,) = torch.autograd.grad(y[0, t].square().sum(), x, retain_graph=True)
        seen = gradient[0].abs().sum(-1) > 0
        assert torch.equal(seen, torch.arange(T) <= t if options.get("causal", True) else torch.ones(T).bool())


@pytest.mark.parametrize("options", [each for each in VARIANTS if each.get("causal", True)], ids=str)
@pytest.mark.parametrize("turned", [True, False], ids=["rotary", "no positions"])
def test_one_position_at_a_time_through_a_cache_equals_all_at_once(options: dict[str, Any], turned: bool) -> None:
    block = drawn(Block(D, N, **options))
    rotary = rotary_table(T, K) if turned else None
    x = vectors(B, T, D)
    cache = block.attention.cache(B, T)
    steps = [block(x[:, t : t + 1], None if rotary is None else rotary[t : t + 1], cache) for t in range(T)]
    torch.testing.assert_close(torch.cat(steps, 1), block(x, rotary))
    assert cache.length == T
    cache = block.attention.cache(B, T)
    first = block(x[:, :3], None if rotary is None else rotary[:3], cache)
    steps = [block(x[:, t : t + 1], None if rotary is None else rotary[t : t + 1], cache) for t in range(3, T)]
    torch.testing.assert_close(torch.cat([first, *steps], 1), block(x, rotary), msg="an empty cache takes several")
    cache = block.attention.cache(B, T)
    block(x[:, :1], None if rotary is None else rotary[:1], cache)
    with pytest.raises(ValueError, match="one position at a time, not 2"):
        block(x[:, 1:3], None if rotary is None else rotary[1:3], cache)


def test_attention_over_another_sequence_is_its_definition() -> None:
    layer, S = drawn(CrossAttention(D, N)), 4
    x, memory = vectors(B, T, D), vectors(B, S, D) * 2
    seen = torch.tensor([[False, True, True, True], [True, False, False, True]])
    out = torch.zeros(B, T, D, dtype=x.dtype)
    for b, n in [(b, n) for b in range(B) for n in range(N)]:
        rows = slice(n * K, (n + 1) * K)
        q, k, v = (
            y @ weight[rows].T
            for y, weight in zip((F.rms_norm(x[b], (D,)), memory[b], memory[b]), layer.projections, strict=True)
        )
        q, k = (y / y.square().mean(-1, keepdim=True).sqrt() for y in (q, k))
        out[b, :, rows] = (q @ k[seen[b]].T).div(math.sqrt(K)).softmax(-1) @ v[seen[b]]
    torch.testing.assert_close(layer(x, layer.read(memory, seen)), layer.mix(out))


def test_a_crossed_block_adds_what_it_reads_between_its_two_other_steps() -> None:
    block = drawn(Block(D, N, crossed=True))
    x, rotary = vectors(B, T, D), rotary_table(T, K)
    read = block.cross.read(vectors(B, 4, D) * 2)
    y = x + block.attention(x, rotary)
    y = y + block.cross(y, read)
    torch.testing.assert_close(block(x, rotary, read=read), y + block.feedforward(y))
    fresh = Block(D, N, crossed=True)
    assert torch.equal(fresh(x.float(), rotary, read=fresh.cross.read(x.float())), x.float())


def test_a_mask_stands_in_for_what_a_position_may_see() -> None:
    block = drawn(Block(D, N))
    x, rotary = vectors(B, T, D), rotary_table(T, K)
    causal = torch.ones(T, T, dtype=torch.bool).tril().expand(B, 1, T, T)
    torch.testing.assert_close(block(x, rotary, mask=causal), block(x, rotary))
    without_first = causal & (torch.arange(T) > 0) | torch.eye(T, dtype=torch.bool)
    torch.testing.assert_close(block(x, rotary, mask=without_first)[:, 1:], block(x[:, 1:], rotary[1:]))


def test_feed_forward_layers_are_their_formulas() -> None:
    x = vectors(B, T, D)
    layer = drawn(FeedForward(D))
    y = F.rms_norm(x, (D,)) @ layer.up.weight.T
    torch.testing.assert_close(layer(x), y.clamp(min=0) ** 2 @ layer.down.weight.T)
    layer = drawn(FeedForward(D, nn.LayerNorm, F.gelu, bias=True))
    y = (x - x.mean(-1, keepdim=True)) / (x.var(-1, correction=0, keepdim=True) + layer.norm.eps).sqrt()
    y = (y * layer.norm.weight + layer.norm.bias) @ layer.up.weight.T + layer.up.bias
    y = y * (1 + torch.erf(y / math.sqrt(2))) / 2
    torch.testing.assert_close(layer(x), y @ layer.down.weight.T + layer.down.bias)


@pytest.mark.parametrize("options", [{}, {"bias": True, "norm": nn.LayerNorm, "activation": F.gelu}], ids=str)
def test_a_block_starts_as_the_identity_that_can_learn(options: dict[str, Any]) -> None:
    block = Block(D, N, **options)
    x = vectors(B, T, D).float()
    y = block(x, rotary_table(T, K))
    assert torch.equal(y, x)
    y.square().sum().backward()
    assert block.attention.mix.weight.grad.abs().max() > 0
    assert block.feedforward.down.weight.grad.abs().max() > 0


@pytest.mark.parametrize("silent", ["attention.mix", "feedforward.down"])
def test_dropout_is_of_what_steps_add_and_of_training_alone(silent: str) -> None:
    block = drawn(Block(D, N, dropout=0.5))
    x = vectors(64, T, D)
    nn.init.zeros_(block.get_submodule(silent).weight)
    dropped = (block(x) - x) == 0
    assert dropped.double().mean().item() == pytest.approx(0.5, abs=0.05)
    assert not ((block.eval()(x) - x) == 0).any()


def test_normal_weights_have_their_spreads() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(Block(64, 4, norm=nn.LayerNorm, bias=True) for _ in range(2)), nn.Linear(64, 64))
    nn.init.ones_(net.get_submodule("2").get_parameter("bias"))
    draw_normal(net)
    spreads = {name: p.std().item() for name, p in net.named_parameters() if p.ndim >= 2}
    for name, spread in spreads.items():
        small = name.endswith(("mix.weight", "down.weight"))
        assert spread == pytest.approx(0.01 if small else 0.02, rel=0.05), name  # 2 blocks: √4 = 2
    assert len(spreads) == 9
    for name, p in net.named_parameters():
        if p.ndim == 1:
            assert (p == (1 if name.endswith("norm.weight") else 0)).all(), name


# Gradients written out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [1, 20, 10_000], ids=lambda rows: f"{rows} rows at a time")
def test_gradients_written_out_are_those_of_torch(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is computed at a time: one example, a few with a smaller rest, or all."""
    block, x = drawn(Block(16, 2)), vectors(5, 9, 16).requires_grad_()
    monkeypatch.setattr(cpu_kernels, "ROWS", rows)
    found = []
    for written_out in (True, False):
        monkeypatch.setattr(cpu_kernels, "written_out", lambda x, answer=written_out: answer)
        y = rms_norm(block(x, rotary_table(9, 8)))
        found.append([y, *torch.autograd.grad(y.pow(3).sum(), [x, *block.parameters()])])
    assert len(found[0]) == 6
    for ours, torchs in zip(*found, strict=True):  # cosines in float32 turn by a little more or less than a rotation
        torch.testing.assert_close(ours, torchs, rtol=1e-6, atol=1e-6)
    assert all(gradient.abs().max() > 0.1 for gradient in found[0])


def test_kernels_stand_in_where_they_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the usual layers on a CPU in full precision; not under bfloat16, not of other layers."""
    calls: list[str] = []
    for kernel in (cpu_kernels.Projected, cpu_kernels.Transformed):
        original = kernel.apply
        monkeypatch.setattr(
            kernel, "apply", lambda *args, _name=kernel.__name__, _do=original: calls.append(_name) or _do(*args)
        )
    x, rotary = torch.randn(B, T, D), rotary_table(T, K)
    Block(D, N)(x, rotary)
    assert calls == ["Projected", "Transformed"]
    with torch.autocast("cpu", torch.bfloat16):
        Block(D, N)(x, rotary)
    Attention(D, N, normalised=False)(x, rotary)
    Attention(D, N)(x)
    Attention(D, N, bias=True)(x, rotary)
    FeedForward(D, bias=True)(x)
    FeedForward(D, activation=F.gelu)(x)
    Block(D, N, norm=nn.LayerNorm, bias=True)(x, rotary)
    assert len(calls) == 2
