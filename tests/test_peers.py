"""Ours beside other packages: what is compared, and how it is timed."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from builders import shown
from commands import benchmark, refusal
from files import REPOSITORY
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from benchmark import peers
from benchmark.metrics import cost
from benchmark.peers import PAIRS, asked_for, flows, speed
from benchmark.peers.pair import Pair, Side
from benchmark.peers.speed import Row, as_table, loss_flops, measure, peak_bytes
from benchmark.report.performance import performance_page
from benchmark.spec import BadInput

CPU = torch.device("cpu")


# The pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_both_do_the_same_work_on_the_same_batch(pair: Pair) -> None:
    if pair.missing:
        pytest.skip(pair.missing)
    ours, theirs = pair.build(CPU)
    assert loss_flops(theirs) == pytest.approx(loss_flops(ours), rel=speed.ALIKE)
    assert cost.parameters(theirs.module) == pytest.approx(cost.parameters(ours.module), rel=speed.ALIKE)
    tasks = [side.tasks() for side in (ours, theirs)]
    assert tasks[0].keys() == tasks[1].keys() == {"training step", "log-likelihood", "sampling"}
    for side in tasks:
        assert side["log-likelihood"]().shape == (64,)
    if "spline-autoregressive" not in pair.name:  # sampling it takes seconds
        assert [side["sampling"]().shape for side in tasks] == [(64, 64), (64, 64)]
    before = [parameters_to_vector(side.module.parameters()).detach().clone() for side in (ours, theirs)]
    assert [side["training step"]().shape for side in tasks] == [(), ()]
    after = [parameters_to_vector(side.module.parameters()) for side in (ours, theirs)]
    assert all((a != b).any() and (a - b).abs().max() < 1e-5 for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", [pair.name for pair in flows.pairs()])
def test_ours_is_a_density_and_samples_from_it(name: str) -> None:
    """The determinant is that of autograd's Jacobian, and what sampling inverts is the flow of the likelihood."""
    (pair,) = (pair for pair in flows.pairs(D=6, batch=5, layers=3, width=8, bins=4) if pair.name == name)
    side = pair.ours()
    flow = side.module.double().eval()
    x = torch.randn(5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    z, log_det = flow(x)
    torch.testing.assert_close(flow.inverse(z), x)  # type: ignore[operator]
    jacobians = [torch.autograd.functional.jacobian(lambda one: flow(one[None])[0][0], one) for one in x]
    torch.testing.assert_close(log_det, torch.stack([J.det().abs().log() for J in jacobians]))
    assert all((J.abs() > 0).sum() > 6 for J in jacobians)  # more than numbers that stand by themselves


def test_swap_is_a_permutation_that_is_undone() -> None:
    x = torch.arange(10.0).view(2, 5)
    y, log_det = flows.Swap()(x)
    assert y[0].tolist() == [3, 4, 0, 1, 2]
    assert log_det.tolist() == [0, 0]
    assert flows.Swap().inverse(y).equal(x)


def test_no_peer_is_imported_before_its_pair_is_built() -> None:
    """At the top of a file stand torch, Python's own modules and ours."""
    found = set()
    for path in sorted((REPOSITORY / "benchmark" / "peers").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
    assert found - set(sys.stdlib_module_names) == {"torch", "benchmark"}


# The measurement -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in one number that only the sides below move on."""
    now = [0.0]
    monkeypatch.setattr(cost, "clock", lambda device: now[0])
    return now


def side(log: list[str], clock: list[float], name: str, takes: Callable[[int], float]) -> Side:
    """The n-th call of its `log_prob` takes `takes(n)` seconds."""
    module = nn.Linear(4, 1)

    def log_prob() -> Tensor:
        log.append(name)
        clock[0] += takes(log.count(name))
        return torch.zeros(3)

    def loss() -> Tensor:
        clock[0] += 1
        return module(torch.ones(2, 4)).mean()

    return Side(module, loss, log_prob)


def test_both_take_turns_and_the_ratio_is_within_a_round(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine that gets slower all the time, twice the time is twice the time."""
    monkeypatch.setattr(speed, "SECONDS", 1e-9)
    log: list[str] = []

    def one() -> Side:
        return side(log, clock, "ours", lambda n: 0.001 * 2**n)

    def other() -> Side:
        return side(log, clock, "theirs", lambda n: 0.002 * 2**n)

    (row,) = (
        row
        for row in measure(Pair("a-pair", "torch", "two layers", one, other), 3, CPU)
        if row.task == "log-likelihood"
    )
    assert log[-6:] == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert row.ratios == pytest.approx((2, 2))
    assert row.ratio == pytest.approx(2)
    assert row.milliseconds == pytest.approx((2**5, 2 * 2**5))  # the second round's: three calls came before the first
    assert row.verdict == "ours is faster"


@pytest.mark.parametrize(
    ("ratios", "flops", "verdict"),
    [
        ((1.1, 1.3), 1.0, "ours is faster"),
        ((0.9, 1.1), 1.0, "as fast"),
        ((0.8, 0.9), 1.0, "ours is slower"),
        ((1.1, 1.3), 1.06, "not alike"),
        ((1.1, 1.3), 0.96, "ours is faster"),
    ],
)
def test_only_what_holds_in_every_round_is_a_difference(
    ratios: tuple[float, float], flops: float, verdict: str
) -> None:
    row = Row("a-pair", "sampling", (1.0, sum(ratios) / 2), sum(ratios) / 2, ratios, (1.0, 2.0), flops)
    assert row.verdict == verdict
    assert row.fails == (verdict in ("ours is slower", "not alike"))
    assert verdict in shown(as_table([row], [], CPU), 80)


def test_memory_is_what_lives_at_once() -> None:
    def call() -> Tensor:
        total = torch.zeros(())
        for _ in range(3):
            total = total + torch.ones(1024).exp().sum()  # 4 KiB twice, freed before the next
        return total

    assert 8192 <= peak_bytes(call) <= 8192 + 32
    kept = [torch.ones(1024)]
    assert peak_bytes(lambda: kept[0].view(32, 32).mul_(1.0)) == 0  # views and work in place take nothing
    assert peak_bytes(lambda: kept.append(torch.ones(1024)) or kept[0]) == 4096


# What is missing -----------------------------------------------------------------------------------------------------


def never() -> Side:
    raise AssertionError("a missing peer is not asked for")


def test_a_missing_peer_is_named_and_its_pair_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = Pair("absent-pair", "no_such_package", "nothing", never, never)
    here = Pair("a-pair", "torch", "two layers", linear, linear)
    monkeypatch.setattr(peers, "PAIRS", {pair.name: pair for pair in (absent, here)})
    monkeypatch.setattr(speed, "SECONDS", 1e-9)
    done = benchmark("peers", "--rounds", "1", "--to", tmp_path / "performance.md")
    assert done.returncode in (0, 1)  # which of two equal layers is quicker, chance says
    assert "skipped absent-pair: no_such_package is not installed" in done.stderr
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert "| *absent-pair* | absent: no_such_package is not installed |" in page
    assert "| a-pair | training step |" in page
    assert "a-pair: two layers. FLOPs of the loss, theirs / ours: 1.000." in page
    assert "1 thread" in page
    with pytest.raises(BadInput, match=r"absent-pair: no_such_package is not installed: pip install -e '\.\[peers\]'"):
        asked_for(("absent-pair",))
    assert "did you mean 'a-pair'?" in refusal(benchmark("peers", "a-pear"))


def linear() -> Side:
    module = nn.Linear(4, 1)
    return Side(module, lambda: module(torch.ones(2, 4)).mean())


def test_the_page_says_how_it_was_made() -> None:
    page = performance_page(as_table([], [], CPU))
    assert "python -m benchmark peers --to docs/performance.md" in page


def test_the_committed_page_has_every_pair() -> None:
    page = (REPOSITORY / "docs" / "performance.md").read_text(encoding="utf-8")
    assert {name for name in PAIRS if f"| {name} | training step |" in page} == set(PAIRS)
