"""Paths between latents: where they lead, what lies on them, and what each point draws."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from benchmark.nn.latents import interpolated


def test_a_path_leads_from_end_to_end_along_a_circle() -> None:
    first, last = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    path = interpolated(first, last, 7, lambda z: z)
    assert path.shape == (1, 7, 2)
    torch.testing.assert_close(path[:, 0], first)
    torch.testing.assert_close(path[:, -1], last)
    torch.testing.assert_close(path.norm(dim=2), torch.full((1, 7), 3.0))
    torch.testing.assert_close(path[0, 3], torch.full((2,), 3 / math.sqrt(2)))


def test_every_point_of_a_path_is_standard_normal() -> None:
    first, last = torch.randn(2, 20_000, 2, generator=torch.Generator().manual_seed(0))
    path = interpolated(first, last, 5, lambda z: z)
    torch.testing.assert_close(path.var(0), torch.ones(5, 2), rtol=0, atol=0.05)


def test_what_a_decoder_draws_is_the_same_at_each_point_and_new_for_each_path() -> None:
    def noise(z: Tensor) -> Tensor:
        return torch.randn(len(z), 3)

    torch.manual_seed(0)
    z = torch.zeros(2, 1)
    one, other = (interpolated(z, z, 4, noise) for _ in range(2))
    assert torch.equal(one, one[:, :1].expand(-1, 4, -1))
    assert not torch.equal(one, other)


def test_draws_after_a_path_do_not_depend_on_its_length() -> None:
    after = []
    for steps in (2, 9):
        torch.manual_seed(0)
        interpolated(torch.zeros(1, 1), torch.zeros(1, 1), steps, torch.randn_like)
        after.append(torch.rand(()))
    assert after[0] == after[1]
