"""What a model costs: parameters, FLOPs against counts by hand, and memory."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from toys import Toy

from benchmark.metrics import cost
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.transformer.gpt import GPT
from benchmark.nn.optim import Muon
from benchmark.spec import Batch, DataSpec

TEXT = DataSpec((8,), 5, "sequence")


def test_parameters_count_what_is_trained():
    network = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    network[1].requires_grad_(False)
    assert cost.parameters(network) == 3 * 5 + 5


def tokens(batch_size: int = 3) -> Batch:
    return Batch(torch.randint(TEXT.levels, (batch_size, TEXT.dims)))


@pytest.mark.parametrize("given", [tokens(1), tokens(7)], ids=["batch of 1", "batch of 7"])
def test_flops_of_a_gpt_are_6_for_each_weight_and_token_and_12_of_attention(given):
    """6 N + 12 L D T a token, N without embeddings; attention's products are not halved by the causal mask."""
    L, D, T, V = 2, 12, TEXT.dims, TEXT.levels
    N = 12 * L * D * D + D * V
    assert cost.flops_per_example(GPT(TEXT, layers=L, heads=3, width=D), given) == T * (6 * N + 12 * L * D * T)


def test_flops_of_an_lstm_see_its_recurrence():
    """6 a weight and token; but no gradient goes back into the state before the first token."""
    L, D, T, V = 2, 12, TEXT.dims, TEXT.levels
    N = L * 4 * D * (D + D) + D * V
    assert cost.flops_per_example(LSTM(TEXT, layers=L, width=D), tokens()) == 6 * N * T - L * 2 * 4 * D * D


class Counted(Toy):
    """A linear layer, a batch norm whose statistics run, noise, and a loss that may read a value."""

    def __init__(self, reads: bool) -> None:
        super().__init__(TEXT)
        self.reads = reads
        self.linear, self.norm = nn.Linear(8, 6), nn.BatchNorm1d(6)

    def sample(self, n):
        raise NotImplementedError

    def training_step(self, batch, batch_idx):
        y = self.norm(self.linear(batch.x.float() + torch.rand(batch.x.shape, device=self.device)))
        return {"loss": y.square().mean() * (2.0 if self.reads and float(y[0, 0].detach()) > 0 else 1.0)}


@pytest.mark.parametrize("reads", [False, True], ids=["on meta", "where values are read"])
def test_flops_are_counted_forward_and_backward_and_change_nothing(reads):
    net, given = Counted(reads).eval(), tokens()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    assert cost.flops_per_example(net, given) == 2 * 2 * 8 * 6  # the data itself needs no gradient
    assert torch.equal(torch.get_rng_state(), state)
    assert not net.training
    assert all(p.grad is None for p in net.parameters())
    for name, after in net.state_dict().items():
        assert torch.equal(after, before[name]), name
    assert torch.backends.mkldnn.enabled


class Penalised(Counted):
    """Its loss has the gradient at the data themselves, of which it asks as a leaf."""

    def training_step(self, batch, batch_idx):
        y = batch.x.float().requires_grad_()
        (gradient,) = torch.autograd.grad(self.linear(y).square().sum(), y, create_graph=True)
        return {"loss": gradient.square().sum()}


def test_flops_of_a_gradient_that_is_differentiated_again_are_counted():
    """A product forward, one back to the data; through the latter, and then through the former, to both its factors."""
    assert cost.flops_per_example(Penalised(reads=False), tokens()) == (1 + 1 + 2 + 2) * 2 * 8 * 6


class Alternating(Counted):
    """Two optimisers by hand, the second at every k-th step alone."""

    def __init__(self, k: int) -> None:
        super().__init__(reads=False)
        self.k, self.automatic_optimization = k, False
        self.other = nn.Linear(8, 6)

    def training_step(self, batch, batch_idx):
        optimisers = self.optimizers()
        assert isinstance(optimisers, list)
        loss = self.linear(batch.x.float()).sum()
        self.manual_backward(loss)
        optimisers[0].step()
        if (batch_idx + 1) % self.k == 0:
            self.manual_backward(self.other(batch.x.float()).sum())
            optimisers[1].step()
        return {"loss": loss.detach()}

    def configure_optimizers(self):
        return [torch.optim.Adam(self.linear.parameters()), Muon([self.other.weight])]


@pytest.mark.parametrize("k", [1, 2, 5, 6])
def test_flops_of_a_network_that_trains_now_and_then_are_a_mean(k):
    net = Alternating(k)
    before = copy.deepcopy(net.state_dict())
    assert cost.flops_per_example(net, tokens()) == pytest.approx(2 * 2 * 8 * 6 * (1 + 1 / k))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_peak_memory_is_in_bytes():
    held = torch.ones(25_000_000)  # 100 MB
    assert held.sum() == 25_000_000
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))
    assert cost.peak_memory(torch.device("cpu")) == pytest.approx(peak, rel=0.05)
    assert peak > 100_000_000
