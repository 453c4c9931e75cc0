"""Encoders of conditions: they tell conditions apart, learn, and see where things are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmark.nn.condition import ImageEncoder, LabelEncoder, SequenceEncoder, condition_encoder

KINDS = {"label": ((), 10, LabelEncoder), "sequence": ((4,), 10, SequenceEncoder), "grid": ((1, 4, 4), 4, ImageEncoder)}
WIDTH = 12


def conditions(shape: tuple[int, ...], levels: int) -> Tensor:
    """Ten different ones, `[10, *shape]`."""
    if not shape:
        return torch.arange(10) % levels
    return torch.randint(levels, (10, *shape), generator=torch.Generator().manual_seed(0))


def encoder(shape: tuple[int, ...], levels: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return condition_encoder(shape, levels, WIDTH)


@pytest.mark.parametrize(("shape", "levels", "kind"), KINDS.values(), ids=KINDS)
def test_different_conditions_are_different_vectors(shape: tuple[int, ...], levels: int, kind: type) -> None:
    encode = encoder(shape, levels)
    assert type(encode) is kind
    vectors = encode(conditions(shape, levels))
    assert vectors.shape == (10, WIDTH)
    assert torch.pdist(vectors).min() > 1e-3
    torch.testing.assert_close(encode(conditions(shape, levels)[3:4]), vectors[3:4])  # whatever else is in the batch


@pytest.mark.parametrize(("shape", "levels", "kind"), KINDS.values(), ids=KINDS)
def test_every_parameter_gets_a_gradient(shape: tuple[int, ...], levels: int, kind: type) -> None:
    encode = encoder(shape, levels)
    encode(conditions(shape, levels)).square().sum().backward()
    for name, parameter in encode.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(("shape", "levels", "kind"), KINDS.values(), ids=KINDS)
def test_a_few_steps_bring_each_condition_to_its_own_target(shape: tuple[int, ...], levels: int, kind: type) -> None:
    encode = encoder(shape, levels)
    read, given = torch.nn.Linear(WIDTH, 10), conditions(shape, levels)
    optimizer = torch.optim.Adam([*encode.parameters(), *read.parameters()], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(read(encode(given)), torch.arange(10)).backward()
        optimizer.step()
    assert read(encode(given)).argmax(1).tolist() == list(range(10))


def test_the_order_of_tokens_matters() -> None:
    encode = encoder((4,), 10)
    one = torch.tensor([[1, 2, 3, 4]])
    assert (encode(one) - encode(one.flip(1))).abs().max() > 1e-3


def test_the_place_of_a_pixel_matters() -> None:
    encode = encoder((1, 4, 4), 4)
    images = torch.zeros(2, 1, 4, 4, dtype=torch.int64)
    images[0, 0, 0, 0], images[1, 0, 2, 1] = 3, 3
    one, other = encode(images)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(4, 4), (1, 1, 4, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="have encoders"):
        condition_encoder(shape, 4, WIDTH)


@pytest.mark.parametrize(
    ("shape", "given"), [((4,), torch.zeros(2, 5)), ((1, 4, 4), torch.zeros(2, 3, 4, 4)), ((4,), torch.zeros(2, 4, 4))]
)
def test_a_condition_of_another_shape_than_was_said_is_refused(shape: tuple[int, ...], given: Tensor) -> None:
    with pytest.raises((RuntimeError, AssertionError, ValueError)):
        encoder(shape, 4)(given.long())


def test_an_unknown_label_is_refused() -> None:
    with pytest.raises(IndexError):
        encoder((), 4)(torch.tensor([4]))
