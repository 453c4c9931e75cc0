"""Blocks are compiled for training, and for nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import carry_out, experiment
from torch import nn

from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.gan.sngan import SNGAN
from benchmark.models.transformer.gpt import GPT
from benchmark.models.vae.vae import VAE
from benchmark.record import read_record
from benchmark.spec import Batch, DataSpec
from benchmark.train import blocks_compiled
from benchmark.train.compiled import blocks, scoring_mode, training_mode

IMAGES, TEXT = DataSpec((1, 8, 8), 17, "grid"), DataSpec((16,), 5, "sequence")
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at it
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")


class Backend:
    """Compiles to what there was before, and counts."""

    def __init__(self) -> None:
        self.made = self.called = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        self.made += 1

        def call(*arguments: Any) -> Any:
            self.called += 1
            return graph.forward(*arguments)

        return call


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """That every block is compiled with."""
    counting, compile_ = Backend(), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile_(self, backend=counting))
    torch.compiler.reset()
    return counting


@pytest.mark.parametrize(
    ("cls", "spec", "n"), [(VAE, IMAGES, 0), (GPT, TEXT, 4), (SNGAN, IMAGES, 5), (RealNVP, IMAGES, 4)]
)
def test_a_model_of_each_kind_has_blocks_none_inside_another(cls: Any, spec: DataSpec, n: int) -> None:
    model = cls(spec)
    found = list(blocks(model))
    assert len(found) == n
    inside = [part for block in found for part in block.modules() if part is not block]
    assert not {id(block) for block in found} & {id(part) for part in inside}


def test_steps_are_compiled_and_nothing_else(tmp_path: Path, backend: Backend) -> None:
    wanted, model = experiment(tmp_path, "gpt", "runtime.compile=true"), GPT(TEXT, layers=2, width=16, heads=2)
    x, names = torch.randint(5, (4, 16)), list(model.state_dict())
    eager = model.training_step(Batch(x), 0)["loss"].item()
    with training_mode(wanted, model):
        assert list(model.state_dict()) == names
        loss = model.training_step(Batch(x), 0)["loss"]
        loss.backward()
        assert loss.item() == pytest.approx(eager, rel=1e-5)
        assert backend.called == len(model.blocks) + 1  # and the loss
        with scoring_mode(wanted), torch.no_grad():
            model.log_prob(x)
            model.eval().sample(2)
        assert backend.called == len(model.blocks) + 1  # and the loss
    model.train().training_step(Batch(x), 0)
    assert backend.called == len(model.blocks) + 1  # and the loss


def test_nothing_is_compiled_unless_it_is_asked_for(tmp_path: Path, backend: Backend) -> None:
    wanted, model = experiment(tmp_path, "gpt"), GPT(TEXT, layers=1, width=16, heads=2)
    with training_mode(wanted, model), scoring_mode(wanted):
        model.training_step(Batch(torch.randint(5, (4, 16))), 0)
    assert backend.made == 0


def test_it_is_no_part_of_what_makes_two_runs_the_same(tmp_path: Path) -> None:
    usual, compiled = (experiment(tmp_path, "vae", f"runtime.compile={value}") for value in ("false", "true"))
    assert usual.config_hash == compiled.config_hash


def test_a_run_trains_compiled_and_says_so(tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    folders = [carry_out(tmp_path, "gpt", f"runtime.compile={value}") for value in ("true", "false")]
    assert backend.called > 0
    compiled, usual = map(read_record, folders)
    assert compiled.hardware["compiled"] is True
    assert "compiled" not in usual.hardware
    one, other = (record.scores["nats_per_token"].value for record in (compiled, usual))
    assert one == pytest.approx(other, rel=1e-3)


@pytest.mark.slow
@needs_compiler
def test_the_compiler_of_torch_trains_as_without() -> None:
    torch.compiler.reset()
    model, x = GPT(TEXT, layers=2, width=16, heads=2, dropout=0.0), torch.randint(5, (4, 16))
    gradients = []
    for compiled in (False, True):
        model.zero_grad()
        if compiled:
            with blocks_compiled(model):
                model.training_step(Batch(x), 0)["loss"].backward()
        else:
            model.training_step(Batch(x), 0)["loss"].backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
