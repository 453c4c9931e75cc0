"""Points: what a scatter plot shows, and baselines that are distributions."""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from known_data import PROTOCOL, data_of
from PIL import Image

from benchmark import testing
from benchmark.build import build_examination
from benchmark.evaluate import Experts, references
from benchmark.modalities import points
from benchmark.modalities.points import FRAME, SIDE, Points
from benchmark.spec import DataSpec
from benchmark.traces import last_moment, read_picture, traces

SPEC = DataSpec((2,), 256, "coordinates")


def pixels(file: Path) -> np.ndarray:
    """Without the frame, `[S, S]`."""
    with Image.open(file) as image:
        assert image.mode == "L"
        assert image.size == (SIDE + 2 * FRAME, SIDE + 2 * FRAME)
        whole = np.asarray(image)
    assert (whole[:FRAME] == 128).all()
    return whole[FRAME:-FRAME, FRAME:-FRAME]


def test_a_point_is_dark_where_it_lies_and_darker_where_there_are_two(tmp_path: Path) -> None:
    x = torch.tensor([[0, 0], [255, 0], [10, 200], [10, 200]])
    picture = pixels(Points().show(x, SPEC, lambda row: "", tmp_path / "plot"))
    assert (picture[-2:, :2] == 76).all()  # the first coordinate is to the right, the second upwards
    assert (picture[-2:, -2:] == 76).all()
    assert (picture[2 * 55 : 2 * 56, 20:22] == 23).all()
    assert (picture != 255).sum() == 3 * 4


@pytest.mark.parametrize("spec", [DataSpec((6,), 17, "coordinates"), DataSpec((1,), 1000, "coordinates")])
def test_any_number_of_coordinates_and_levels_is_shown(spec: DataSpec, tmp_path: Path) -> None:
    x = torch.randint(spec.levels, (50, *spec.shape), generator=torch.Generator().manual_seed(0))
    with Image.open(Points().show(x, spec, lambda row: "", tmp_path / "plot")) as image:
        assert image.width == image.height == max(1, SIDE // spec.levels) * spec.levels + 2 * FRAME


def test_a_strip_over_training_shows_whole_plots(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "samples"
    folder.mkdir(parents=True)
    plots = []
    for i, name in enumerate(("000001000", "000002000", "final")):
        x = torch.randint(256, (200, 2), generator=torch.Generator().manual_seed(i))
        plots.append(pixels(Points().show(x, SPEC, lambda row: "", folder / name)))
    record = tmp_path / "0-abc.json"
    for suffix, content in traces(tmp_path / "run").items():
        record.with_suffix(suffix).write_bytes(content)
    found = read_picture(record.with_suffix(".png"))
    assert found is not None
    assert found[1] == ("1,000 examples", "2,000 examples", "end")
    strip = np.asarray(Image.open(io.BytesIO(found[0])).convert("L")).astype(int)
    height = SIDE + FRAME
    for row, plot in enumerate(plots):
        shown = strip[row * height + FRAME : (row + 1) * height, FRAME:-FRAME]
        assert np.abs(shown - plot).max() <= 16  # of 255: fewer greys
    last = last_moment(record.with_suffix(".png"))
    assert last is not None
    with Image.open(io.BytesIO(last)) as image:
        assert image.size == (SIDE + 2 * FRAME, SIDE + 2 * FRAME)


def test_baselines_are_distributions() -> None:
    every = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    train = every[::3]
    for log_prob in (points.uniform(train, every, 5), points.histogram(train, every, 5)):
        assert log_prob.exp().sum() == pytest.approx(1)
    three = torch.tensor([[0, 1], [0, 2], [1, 2]])
    p = points.histogram(three, three, 3).exp()
    assert p.tolist() == pytest.approx([3 / 6 * 2 / 6, 3 / 6 * 3 / 6, 2 / 6 * 3 / 6])  # counts smoothed by one


def test_entropy_stands_among_the_references_and_a_histogram_comes_near_it() -> None:
    """Both coordinates of the grid are independent."""
    data = data_of("gaussian_grid")
    table = references(data, PROTOCOL, build_examination("points"), Experts())
    assert list(table) == ["uniform", "histogram", "entropy", "source", "held-out data", "training data"]
    nats = {name: table[name]["nll"].value for name in ("uniform", "histogram", "entropy", "source")}
    assert nats["uniform"] == pytest.approx(2 * math.log(256))
    assert nats["entropy"] == pytest.approx(data.describe()["entropy"])
    assert table["entropy"]["bits_per_dim"].value == pytest.approx(data.describe()["entropy"] / math.log(2) / 2)
    assert nats["histogram"] == pytest.approx(nats["source"], abs=0.02)
    assert nats["histogram"] > nats["source"]


def test_models_of_coordinates_are_examined_on_its_universe() -> None:
    assert testing.universe_of("coordinates") is Points.universe
