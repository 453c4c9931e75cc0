"""Curves and pictures beside a published record: small, the same every time, and read as if a stranger wrote them."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from benchmark.modalities.image import Images
from benchmark.spec import BadInput, DataSpec
from benchmark.traces import (
    MOMENTS,
    PICTURES,
    POINTS,
    pictures_beside,
    read_curves,
    read_picture,
    read_text,
    thin,
    traces,
)

SPEC = DataSpec((1, 8, 8), 17, "grid")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with two curves and seven pictures."""
    folder = tmp_path / "0a1b2c3d"
    (folder / "samples").mkdir(parents=True)
    lines = [f"{64 * step},train/loss,{1000 / (step + 1)}" for step in range(412)]
    lines += ["64,val/nll,3.5", "12800,val/nll,2.25", "25600,val/nll,nan"]
    (folder / "curves.csv").write_text("\n".join(["examples,name,value", *lines]) + "\n")
    generator = torch.Generator().manual_seed(0)
    for name in (*(f"{n:09d}" for n in range(1000, 7000, 1000)), "final"):
        x = torch.randint(17, (64, 1, 8, 8), generator=generator)
        Images().show(x, SPEC, lambda row: "", folder / "samples" / name)
    return folder


def unpack(run: Path, folder: Path) -> Path:
    """The traces of a run as they stand beside its record."""
    folder.mkdir()
    for suffix, content in traces(run).items():
        (folder / f"0-abc{suffix}").write_bytes(content)
    return folder / "0-abc.json"


def test_curves_are_averaged_to_few_points_and_come_back(run: Path, tmp_path: Path) -> None:
    record = unpack(run, tmp_path / "records")
    curves, whole = read_curves(record), read_curves(run / "record.json")
    assert curves["val/nll"] == ((64, 3.5), (12800, 2.25))  # few enough to stay, but for what is not finite
    assert len(curves["train/loss"]) == 83 <= POINTS
    first = [value for _, value in whole["train/loss"][:5]]
    examples, loss = curves["train/loss"][0]
    assert examples == 128
    assert loss == pytest.approx(sum(first) / 5, rel=1e-4)
    assert (tmp_path / "records" / "0-abc.csv.gz").stat().st_size < 5000
    assert traces(run) == traces(run)


def test_pictures_beside_samples_come_along(run: Path, tmp_path: Path) -> None:
    for name in PICTURES:
        Images().show(torch.randint(17, (64, 1, 8, 8)), SPEC, lambda row: "", run / "samples" / name)
    record = unpack(run, tmp_path / "records")
    for name, file in pictures_beside(record).items():
        assert file.name == f"0-abc-{name}.png"
        found = read_picture(file)
        assert found is not None
        with Image.open(run / "samples" / f"{name}.png") as original, Image.open(io.BytesIO(found[0])) as kept:
            assert kept.size == original.size


def test_thinning_keeps_means_and_leaves_short_curves_alone() -> None:
    curve = tuple((10 * i, float(i)) for i in range(1000))
    (thinned,) = thin({"loss": curve}).values()
    assert len(thinned) == 100
    assert sum(value for _, value in thinned) / 100 == pytest.approx(sum(value for _, value in curve) / 1000)
    assert thin({"loss": curve[:100]}) == {"loss": curve[:100]}


def test_the_strip_is_the_first_row_of_pictures_evenly_over_training(run: Path, tmp_path: Path) -> None:
    record = unpack(run, tmp_path / "records")
    found = read_picture(record.with_suffix(".png"))
    assert found is not None
    assert found[1] == ("1,000 examples", "3,000 examples", "4,000 examples", "6,000 examples", "end")
    strip = np.asarray(Image.open(io.BytesIO(found[0])).convert("L")).astype(int)
    for row, name in enumerate(("000001000", "000003000", "000004000", "000006000", "final")):
        picture = np.asarray(Image.open(run / "samples" / f"{name}.png").convert("L")).astype(int)
        height = (picture.shape[0] - 2) // 8
        assert np.abs(strip[row * height : (row + 1) * height] - picture[:height]).max() <= 16  # of 255: fewer greys
    assert len(found[1]) == MOMENTS
    assert record.with_suffix(".png").stat().st_size < 20_000


def test_texts_stand_one_below_the_other(tmp_path: Path) -> None:
    samples = tmp_path / "run" / "samples"
    samples.mkdir(parents=True)
    for name in ("000016000", "final"):
        (samples / f"{name}.txt").write_text(f"--- sample 1\nwords of {name}\n")
    text = read_text(unpack(tmp_path / "run", tmp_path / "records").with_suffix(".txt"))
    assert text is not None
    assert text.index("=== 16,000 examples") < text.index("words of 000016000") < text.index("=== end")


def test_a_run_without_traces_has_none(tmp_path: Path) -> None:
    assert traces(tmp_path) == {}
    assert read_curves(tmp_path / "0-abc.json") == {}
    assert read_picture(tmp_path / "0-abc.png") is None
    assert read_text(tmp_path / "0-abc.txt") is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not gzip", "not a gzip file"),
        (gzip.compress(b"examples,name,value\n1,loss,0.5\n" * 10, mtime=0)[:-9], "not a gzip file"),
        (gzip.compress(b"examples,name,value\nmany,loss,0.5\n", mtime=0), "no curves"),
        (gzip.compress(b"examples,name,value\n1,loss\n", mtime=0), "no curves"),
        (gzip.compress(b"0" * 2**21, mtime=0), "unpacks to more than"),
    ],
    ids=["other bytes", "cut short", "words for numbers", "too few columns", "a bomb"],
)
def test_curves_of_a_stranger_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "0-abc.csv.gz").write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read_curves(tmp_path / "0-abc.json")


def test_pictures_of_a_stranger_are_refused_or_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "0-abc.png"
    for content in (b"<svg onload='alert(1)'/>", b"\x89PNG\r\n\x1a\nbroken"):
        file.write_bytes(content)
        with pytest.raises(BadInput, match="not a picture"):
            read_picture(file)
    Image.new("L", (4096, 4096)).save(file)
    with pytest.raises(BadInput, match="4096 × 4096 pixels"):
        read_picture(file)
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "<script>")
    Image.new("L", (4, 4)).save(file, pnginfo=info)
    file.write_bytes(file.read_bytes() + b"<script>")
    found = read_picture(file)
    assert found is not None
    assert b"<script>" not in found[0]
