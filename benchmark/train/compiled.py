"""Blocks of a model compiled for training. Optimisers, validation and scoring stay as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from benchmark.build import GenerativeModel
from benchmark.config import Experiment


@contextmanager
def blocks_compiled(model: GenerativeModel, **options: Any) -> Iterator[None]:
    """Inside, each block of `model` outside what it calls eager, and what it calls fused, is compiled at its first
    call, with these `options` of `torch.compile`.

    Block by block: blocks of one kind are compiled once, and what lies between them may be anything.
    """
    compiled = list(dict.fromkeys([*compilable(model), *map(model.get_submodule, model.fused)]))
    for block in compiled:
        block.compile(**options)
    try:
        yield
    finally:
        for block in compiled:
            block._compiled_call_impl = None  # as before `compile`, which has no opposite


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules that stand in a list or a sequence, but for torch's own layers, which are small."""
    lists = isinstance(module, (nn.ModuleList, nn.Sequential))
    for child in module.children():
        if lists and not type(child).__module__.startswith("torch.nn."):
            yield child
        else:
            yield from blocks(child)


def compilable(model: GenerativeModel) -> list[nn.Module]:
    """The blocks of `model` outside what it calls eager."""
    eager = {part for name in model.eager for part in model.get_submodule(name).modules()}
    return [block for block in blocks(model) if block not in eager]


def is_compiled(experiment: Experiment, model: GenerativeModel) -> bool:
    """Whether training is: if the experiment asks for it, and the model has blocks to compile."""
    return experiment.runtime.compile and bool(compilable(model))


def training_mode(experiment: Experiment, model: GenerativeModel) -> Any:
    """Around training: compiled, if the experiment says so."""
    return blocks_compiled(model) if experiment.runtime.compile else nullcontext()


def scoring_mode(experiment: Experiment) -> Any:
    """Around what is scored or drawn in passing: never compiled, so that each number comes from the same code."""
    return torch.compiler.set_stance("force_eager") if experiment.runtime.compile else nullcontext()
