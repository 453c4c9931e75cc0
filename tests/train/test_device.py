"""The device of a run, the clock on it, and its memory: with a false GPU, and with a real one where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from benchmark import loop
from benchmark.loop import Hooks, Loop, Plan
from benchmark.metrics import cost
from benchmark.models.vae.vae import VAE
from benchmark.spec import BadInput, DataSpec
from benchmark.train import device_named
from benchmark.train.device import described

GPU = torch.device("cuda", 0)
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def flags() -> Iterator[None]:
    """TF32 as torch has it at first; afterwards as it was."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def test_the_cpu_is_taken_where_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_named("auto") == device_named("cpu") == torch.device("cpu")
    with pytest.raises(BadInput, match="finds no GPU"):
        device_named("gpu")


@pytest.mark.usefixtures("flags")
@pytest.mark.parametrize("name", ["auto", "gpu"])
def test_a_gpu_computes_float32_in_full(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device_named(name) == GPU
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    newer: Any = torch.backends  # names that its own types lack
    assert "tf32" not in (newer.cudnn.conv.fp32_precision, newer.cudnn.rnn.fp32_precision)
    assert newer.cuda.matmul.fp32_precision != "tf32"


@pytest.mark.usefixtures("flags")
def test_a_record_says_what_a_gpu_computes_with(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a GPU, number {device.index}")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert described(GPU)["tf32"] is True
    device_named("gpu")
    said = described(GPU)
    assert said["tf32"] is False
    assert said["device"] == "a GPU, number 0"
    assert "tf32" not in described(torch.device("cpu"))


def test_a_clock_waits_for_the_gpu_and_not_for_the_cpu(monkeypatch):
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    before = cost.clock(torch.device("cpu"))
    assert waited == []
    assert cost.clock(GPU) >= before
    assert waited == [GPU]


def test_the_peak_is_that_of_the_device_of_the_run(monkeypatch):
    asked: list[Any] = []
    monkeypatch.setattr(torch.cuda, "init", lambda: asked.append("begun"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: asked.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7 if device == GPU else 0)
    cost.forget_peak_memory(torch.device("cpu"))
    assert asked == []
    cost.forget_peak_memory(GPU)
    assert asked == ["begun", GPU]
    assert cost.peak_memory(GPU) == 7
    assert cost.peak_memory(torch.device("cpu")) > 10_000_000


def test_training_is_timed_between_validations_and_the_device_waited_for_at_their_borders_alone(monkeypatch):
    now, reads = 0.0, 0

    def clock(device: torch.device) -> float:
        nonlocal reads
        reads += 1
        return now

    def validate() -> float:
        nonlocal now
        now += 1_000
        return 1.0

    monkeypatch.setattr(loop, "clock", clock)
    nothing: Any = lambda *_: None  # noqa: E731 (of any number of arguments)
    hooks = Hooks(validate, better=nothing, picture=nothing, save=nothing, log=nothing, report=nothing)
    plan = Plan(60, 10, 0.0, 0.0, 0.0, ema_decay=0.0, validations=2, patience=0)
    model, trainer = VAE(DataSpec((1, 8, 8), 17, "grid")), cast(Any, SimpleNamespace(optimizers=[], should_stop=False))
    watched = Loop(plan, hooks)
    watched.on_train_start(trainer, model)
    for step in range(plan.steps):
        watched.on_train_batch_start(trainer, model, None, step)
        now += 3
        watched.on_train_batch_end(trainer, model, {"loss": torch.tensor(1.0)}, None, step)
    assert watched.training_seconds == 3 * plan.steps
    assert reads == 2 * plan.validations


@on_gpu
def test_a_product_on_the_gpu_is_as_exact_as_float32():
    device = device_named("gpu")
    x, kernel = torch.randn(4, 64, 16, 16), torch.randn(64, 64, 3, 3)
    exact = torch.nn.functional.conv2d(x.double(), kernel.double())
    found = torch.nn.functional.conv2d(x.to(device), kernel.to(device)).cpu().double()
    assert ((found - exact).norm() / exact.norm()).item() < 1e-6  # TF32: about 3e-4


@on_gpu
def test_memory_is_counted_from_the_start_of_the_run():
    device = device_named("gpu")
    torch.ones(50_000_000, device=device).sum().item()
    cost.forget_peak_memory(device)
    held = torch.ones(1_000_000, device=device)
    assert held.nbytes <= cost.peak_memory(device) < 100_000_000
