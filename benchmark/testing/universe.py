"""On what models are examined: universes, a source whose entropy is known, batches, and conditions of each kind.

Distributions are examined on universes that are small enough to enumerate (81 images of 2×2 pixels and 3 levels, 81
strings of 4 tokens and 3 symbols).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from benchmark.build import resolve
from benchmark.config import trusted
from benchmark.facts import modalities
from benchmark.modalities.base import Modality, Universe
from benchmark.spec import BadInput, Batch, DataSpec, Structure

#: The conditions under which a conditional model is examined, by kind.
CONDITIONS: dict[Structure, DataSpec] = {
    "label": DataSpec.label(10),
    "sequence": DataSpec((4,), 10, "sequence"),
    "grid": DataSpec((1, 4, 4), 4, "grid"),
}


def universe_of(structure: Structure, trust: Sequence[str] = ()) -> Universe:
    """That of the first modality with this structure whose code may be imported. Raises `BadInput` where none has."""
    for fact in modalities().values():
        if fact.structure == structure and trusted(fact.target, trust):
            modality: Modality = resolve(fact.target, Modality, trust)()
            return modality.universe
    raise BadInput(f"no modality has the structure {structure!r}, so that there is nothing to examine a model on")


def conditioned(universe: Universe, kinds: Sequence[Structure]) -> Universe:
    """The universe of a model that accepts conditions of these kinds: its data have the first of them.

    Where every example is listed, there is no condition.
    """
    if not kinds:
        return universe
    condition = CONDITIONS[kinds[0]]
    return replace(
        universe,
        ordinary=replace(universe.ordinary, condition=condition),
        build_only=replace(universe.build_only, condition=condition),
    )


def every_example(spec: DataSpec) -> Tensor:
    """All examples that `spec` allows, `[levels ** dims, *shape]`, in the order that `index_of` counts."""
    return torch.cartesian_prod(*[torch.arange(spec.levels)] * spec.dims).reshape(-1, *spec.shape)


def index_of(x: Tensor, spec: DataSpec) -> Tensor:
    """Where each example of `x` `[B, *shape]` stands in `every_example`, `[B]`."""
    place_values = spec.levels ** torch.arange(spec.dims - 1, -1, -1)  # [D]
    return (x.flatten(1) * place_values).sum(1)


class Source:
    """A fixed random distribution over every example of a small universe: its entropy is known."""

    def __init__(self, spec: DataSpec) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = every_example(spec)  # [N, *shape]
        self.p = torch.randn(len(self.x), generator=generator, dtype=torch.float64).mul(1.5).softmax(0)  # [N]
        self.entropy = float(-(self.p * self.p.log()).sum())

    def batch(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(1000 + step)
        return Batch(self.x[torch.multinomial(self.p, 64, replacement=True, generator=generator)])


def ten_conditions(spec: DataSpec) -> Tensor | None:
    """Ten conditions `[10, *condition.shape]`, each another one as far as there are ten; `None` where data have none.

    Labels are counted; the tokens of a text or the levels of an image are drawn at random, always the same.
    """
    if spec.condition is None:
        return None
    if spec.condition.structure == "label":
        return torch.arange(10) % spec.condition.levels
    generator = torch.Generator().manual_seed(3)
    return torch.randint(spec.condition.levels, (10, *spec.condition.shape), generator=generator)


def replying(spec: DataSpec) -> DataSpec:
    """Data of the same shape as replies: the last level ends one, and what they reply to is a short text that its own
    last level fills up."""
    said = CONDITIONS["sequence"]
    return replace(spec, end=spec.levels - 1, condition=replace(said, end=said.levels - 1))


def every_reply(spec: DataSpec) -> Tensor:
    """All examples `[N, T]` of `every_example` that are replies: nothing but ends follows an end."""
    x = every_example(spec)
    ends = x.eq(spec.levels - 1).long()
    return x[ends.diff(dim=1).ge(0).all(1)]


def answers(spec: DataSpec, step: int) -> Batch:
    """Ten replies of all lengths to ten different texts, always the same for a step."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(spec.levels - 1, (10, *spec.shape), generator=generator)
    length = torch.randint(spec.dims + 1, (10, 1), generator=generator)
    return Batch(x.masked_fill(torch.arange(spec.dims) >= length, spec.levels - 1), ten_conditions(spec))


def prototypes(spec: DataSpec) -> Batch:
    """Ten examples of the two extreme levels, one for each condition: a batch that can be learnt by heart."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(2, (10, *spec.shape), generator=generator) * (spec.levels - 1)
    return Batch(x, ten_conditions(spec))


def noise(spec: DataSpec, step: int) -> Batch:
    """Ten examples over all levels, with every condition in each batch."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(spec.levels, (10, *spec.shape), generator=generator)
    return Batch(x, ten_conditions(spec))
