"""What is special to the GPT: cached sampling, GPT-2 by options, and which optimiser has what."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import AdamW

from benchmark.build import build_model
from benchmark.config import compose
from benchmark.models.transformer.gpt import GPT
from benchmark.nn.optim import JointOptimizer, Muon
from benchmark.spec import BadInput, DataSpec

TEXT = DataSpec((10,), 7, "sequence")

PUBLISHED: dict[str, Any] = {
    "positions": "learned",
    "norm": "layer",
    "activation": "gelu",
    "normalised_queries": False,
    "biases": True,
    "initial_weights": "normal",
    "tied": True,
    "optimizer": "adamw",
}


def model(spec: DataSpec, **options: Any) -> GPT:
    """A small GPT whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = GPT(spec, layers=2, heads=2, width=16, **options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["ours", "gpt2"])
def test_cached_sampling_equals_recomputing_everything(options: dict[str, Any]) -> None:
    net = model(TEXT, **options)
    torch.manual_seed(1)
    fast = net.sample(4)
    torch.manual_seed(1)
    stream = torch.full((4, 1 + 10), net.begin)
    for t in range(10):
        probabilities = net(stream[:, : 1 + t])[:, -1].softmax(1)
        stream[:, 1 + t] = torch.multinomial(probabilities, 1).squeeze(1)
    assert torch.equal(fast, stream[:, 1:])
    assert len(fast.unique()) > 1


@pytest.mark.parametrize("options", [{}, PUBLISHED], ids=["ours", "gpt2"])
def test_a_token_is_predicted_from_those_before_it_alone(options: dict[str, Any]) -> None:
    net = model(TEXT, **options)
    stream = torch.randint(7, (1, 1 + 10))
    logits = net(stream[:, :-1])
    for t in range(10):
        changed = stream.clone()
        changed[:, 1 + t] = (changed[:, 1 + t] + 1) % 7
        differs = (net(changed[:, :-1]) != logits).any(-1)[0]  # [T]
        assert not differs[: t + 1].any()
        assert differs[t + 1 :].all()


def test_scores_a_prefix_as_the_whole_does_and_refuses_more_than_its_context() -> None:
    net = model(TEXT)
    x = torch.randint(7, (2, 10))
    torch.testing.assert_close(net.token_log_prob(x[:, :4]), net.token_log_prob(x)[:, :4])
    with pytest.raises(BadInput, match="11 tokens given, context is 10"):
        net.token_log_prob(torch.randint(7, (2, 11)))


def test_gpt2_is_its_published_formula() -> None:
    """Against torch's own encoder, which normalises first, sees no future, and has GELU between its matrices."""
    spec = TEXT
    net = model(spec, **PUBLISHED)
    x = torch.randint(7, (3, 10))
    stack = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 2, 64, 0.0, F.gelu, batch_first=True, norm_first=True),
        2,
        nn.LayerNorm(16),
        enable_nested_tensor=False,
    )
    names = {
        "self_attn.in_proj_weight": "attention.projections",
        "self_attn.in_proj_bias": "attention.bias",
        "self_attn.out_proj": "attention.mix",
        "linear1": "feedforward.up",
        "linear2": "feedforward.down",
        "norm1": "attention.norm",
        "norm2": "feedforward.norm",
    }
    ours = {name.replace("blocks.", "layers."): p for name, p in net.state_dict().items()}
    for theirs, mine in names.items():
        ours = {name.replace(mine, theirs): p for name, p in ours.items()}
    ours = {name.replace("norm_out", "norm"): p for name, p in ours.items() if not name.startswith(("token", "place"))}
    ours = {name: p.flatten(0, 1) if p.ndim == 3 else p for name, p in ours.items()}
    stack.double().load_state_dict(ours)
    stream = torch.cat([torch.full((3, 1), 7), x[:, :-1]], 1)
    future = nn.Transformer.generate_square_subsequent_mask(10, dtype=torch.float64)
    y = stack(net.token.weight[stream] + net.place.weight, future)
    logits = y @ net.token.weight[:7].T
    torch.testing.assert_close(net(net.stream(x)), logits)
    assert logits.std() > 0.1


@pytest.mark.parametrize(
    ("name", "sizes", "parameters", "steps"),
    [("nanogpt_cpu", (4, 128, 64, 12), 0.80e6, 2000), ("nanogpt_gpu", (6, 384, 256, 64), 10.65e6, 5000)],
)
def test_the_recipes_of_nanogpt_are_theirs(name: str, sizes: tuple[int, ...], parameters: float, steps: int) -> None:
    experiment = compose([f"model={name}", "data=tinyshakespeare", "budget=full"])
    training, data = experiment.training, experiment.data.options
    assert (
        *(experiment.model.options[key] for key in ("layers", "width")),
        data["context"],
        training.batch_size,
    ) == sizes
    net = build_model(experiment, DataSpec((sizes[2],), 65, "sequence"))
    places = sizes[1] * sizes[2]  # which nanoGPT does not count
    assert sum(p.numel() for p in net.parameters()) - places == pytest.approx(parameters, rel=0.01)
    assert experiment.budget.examples == steps * sizes[3]
    assert (training.warmup * steps, training.schedule, training.decay, training.clip_norm) == (100, "cosine", 0.0, 1.0)
    assert (data["split"], training.weights, training.ema_decay) == ("whole", "last", 0.0)
    matrices, vectors = net.configure_optimizers().param_groups
    assert {(group["lr"], group["betas"]) for group in (matrices, vectors)} == {(1e-3, (0.9, 0.99))}
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)


def test_gpt2_starts_with_its_weights_and_decays_matrices_alone() -> None:
    torch.manual_seed(0)
    net = GPT(DataSpec((64,), 99, "sequence"), layers=2, heads=2, width=64, weight_decay=0.1, **PUBLISHED)
    assert net.token.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert net.blocks[0].attention.mix.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert -net.token_log_prob(torch.randint(99, (2, 64))).mean().item() == pytest.approx(math.log(99), rel=0.02)
    groups = net.configure_optimizers().param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))


def test_matrices_among_vectors_have_muon() -> None:
    net = model(TEXT, norm="layer", biases=True)
    optimizer = net.configure_optimizers()
    assert isinstance(optimizer, JointOptimizer)
    muon, rest = optimizer.parts
    counted = [sum(len(group["params"]) for group in part.param_groups) for part in (muon, rest)]
    assert counted == [2 * 4, len(list(net.parameters())) - 2 * 4]


def test_trains_and_samples_in_bfloat16_close_to_float32() -> None:
    net = model(TEXT).float()
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
        GPT(TEXT, width=20, heads=4)


def test_every_parameter_has_one_optimiser_and_matrices_of_blocks_have_muon() -> None:
    net = model(TEXT)
    optimiser = net.configure_optimizers()
    assert isinstance(optimiser, JointOptimizer)
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
