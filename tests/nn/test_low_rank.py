"""Low-rank adapters: at first nothing changes, merged is unmerged, and at full rank every matrix can be reached."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.models.transformer.gpt import GPT
from benchmark.nn.low_rank import without_additions
from benchmark.spec import DataSpec

TEXT = DataSpec((6,), 5, "sequence")
X = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(0))


def gpt(rank: int, **options: Any) -> GPT:
    torch.manual_seed(1)
    return GPT(TEXT, layers=2, heads=2, width=8, adapter_rank=rank, **options).eval()


def drawn(model: nn.Module) -> dict[str, Tensor]:
    """A state of the model that is nowhere zero."""
    torch.manual_seed(2)
    return {name: 0.3 * torch.randn_like(value) for name, value in model.state_dict().items()}


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapted_model_starts_as_its_base(tied: bool) -> None:
    base, adapted = gpt(0, tied=tied), gpt(3, tied=tied)
    base.load_state_dict(drawn(base))
    adapted.load_state_dict(base.state_dict())
    assert torch.equal(adapted.log_prob(X), base.log_prob(X))
    assert base.log_prob(X).std() > 0.1


def test_additions_alone_are_trained() -> None:
    adapted = gpt(3)
    before = {name: p.clone() for name, p in adapted.named_parameters()}
    optimizer = adapted.configure_optimizers()
    for _ in range(3):
        optimizer.zero_grad()
        (-adapted.log_prob(X).mean()).backward()
        optimizer.step()
    moved = {name for name, p in adapted.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith(("0.A", "0.B"))}
    blocks = sum(p.ndim >= 2 for name, p in gpt(0).named_parameters() if name.startswith("blocks."))
    assert len(moved) == 2 * blocks
    assert sum(p.numel() for p in adapted.parameters() if p.requires_grad) == 2 * 3 * (3 * 16 + 16 + 40 + 40)


@pytest.mark.parametrize("rank", [0, 2])
def test_merged_computes_what_was_unmerged(rank: int) -> None:
    """Into a plain model, and into one with additions of another rank, which start at zero then."""
    adapted, other = gpt(3), gpt(rank)
    adapted.load_state_dict(drawn(adapted))
    other.load_state_dict(adapted.state_dict())
    torch.testing.assert_close(other.log_prob(X), adapted.log_prob(X), rtol=1e-6, atol=1e-6)
    plain, without = gpt(0), adapted.state_dict()
    without = {name: torch.zeros_like(p) if name.endswith(".B") else p for name, p in without.items()}
    plain.load_state_dict(without)
    assert (plain.log_prob(X) - adapted.log_prob(X)).abs().max() > 0.1, "the additions do nothing"


def test_its_own_state_comes_back_as_it_was() -> None:
    adapted, again = gpt(3), gpt(3)
    adapted.load_state_dict(drawn(adapted))
    again.load_state_dict(adapted.state_dict())
    for name, value in adapted.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_without_additions_it_is_exactly_its_base_for_as_long() -> None:
    """Also where what happens meanwhile fails."""
    base, adapted = gpt(0), gpt(3)
    base.load_state_dict(drawn(base))
    adapted.load_state_dict(base.state_dict())
    for name, p in adapted.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(p, std=0.3)
    tuned = adapted.log_prob(X)
    with without_additions(adapted):
        assert torch.equal(adapted.log_prob(X), base.log_prob(X))
        torch.manual_seed(5)
        x = adapted.sample(9)
    torch.manual_seed(5)
    assert torch.equal(x, base.sample(9))
    assert torch.equal(adapted.log_prob(X), tuned)
    assert (tuned - base.log_prob(X)).abs().max() > 0.1, "the additions do nothing"
    with pytest.raises(IndexError), without_additions(adapted):
        adapted.log_prob(X + 100)
    assert torch.equal(adapted.log_prob(X), tuned)


def test_what_is_missing_is_said() -> None:
    state = gpt(0).state_dict()
    del state["blocks.0.attention.mix.weight"]
    with pytest.raises(RuntimeError, match=r"blocks\.0\.attention\.mix"):
        gpt(3).load_state_dict(state)


def test_at_full_rank_it_can_equal_whole_tuning() -> None:
    """Whatever tuning makes of the blocks' matrices, additions of full rank make it too (by singular values)."""
    base, tuned = gpt(0), gpt(0)
    tuned.load_state_dict(drawn(base) | {name: p for name, p in base.state_dict().items() if "blocks" not in name})
    adapted = gpt(8)
    adapted.load_state_dict(base.state_dict())
    state = dict(adapted.state_dict())
    for name, p in base.named_parameters():
        if not name.startswith("blocks."):
            continue
        layer, _, matrix = name.rpartition(".")
        U, S, Vh = torch.linalg.svd((tuned.get_parameter(name) - p).detach(), full_matrices=False)
        state[f"{layer}.parametrizations.{matrix}.0.B"] = U * S[..., None, :]
        state[f"{layer}.parametrizations.{matrix}.0.A"] = Vh
    adapted.load_state_dict(state)
    torch.testing.assert_close(adapted.log_prob(X), tuned.log_prob(X), rtol=1e-5, atol=1e-5)
