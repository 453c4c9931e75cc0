"""Levels and rasters: ranges, inverses, and the order of tokens."""

from __future__ import annotations

import pytest
import torch

from benchmark.nn.levels import as_grid, binned, centred, raster, unbinned, unraster


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_centred_levels_lie_evenly_between_the_end_points(levels: int) -> None:
    y = centred(torch.arange(levels), levels)
    torch.testing.assert_close(y, torch.linspace(-1, 1, levels), rtol=0, atol=1e-6)
    assert y[[0, -1]].tolist() == [-1, 1]


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_binned_levels_stay_in_range_and_unbinned_inverts(levels: int) -> None:
    torch.manual_seed(0)
    x = torch.arange(levels).repeat(256, 1)
    y = binned(x, levels)
    assert y.dtype == torch.float32
    assert y.min() >= -1
    assert y.max() <= 1
    off = unbinned(y, levels) - x  # float32 may round a value over its bin's edge
    assert off.abs().max() <= 1
    assert off.ne(0).float().mean() < 1e-4
    assert unbinned(torch.tensor([-1.0, 1.0, -3.0, 3.0]), levels).tolist() == [0, levels - 1, 0, levels - 1]


def test_a_level_fills_its_bin_evenly() -> None:
    torch.manual_seed(0)
    y = binned(torch.full((20_000,), 3), 5)  # the bin from 0.2 to 0.6
    assert y.min() >= 0.2 - 1e-6
    assert y.max() <= 0.6 + 1e-6
    counts = torch.histc(y, 8, 0.2, 0.6)
    assert (counts - 2500).abs().max() < 5 * (20_000 * 1 / 8 * 7 / 8) ** 0.5


@pytest.mark.parametrize("shape", [(1, 3, 4), (3, 2, 5)])
def test_a_raster_goes_row_by_row_and_colour_by_colour(shape: tuple[int, ...]) -> None:
    x = torch.randint(100, (2, *shape))
    colours, rows, columns = shape
    for image, tokens in zip(x, raster(x), strict=True):
        expected = [image[c, i, j] for i in range(rows) for j in range(columns) for c in range(colours)]
        assert tokens.tolist() == [int(value) for value in expected]
    assert torch.equal(unraster(raster(x), shape), x)
    assert unraster(raster(x), shape).is_contiguous()


def test_a_grid_keeps_its_shape_and_coordinates_become_one_row() -> None:
    assert as_grid((3, 4, 5)) == (3, 4, 5)
    assert as_grid((2,)) == (1, 1, 2)
