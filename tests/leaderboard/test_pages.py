"""Boards and site from folders: made once, remembered, and the same as from nothing."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from builders import absent, distance, likelihood, record
from click.testing import CliRunner
from files import REPOSITORY
from PIL import Image, PngImagePlugin

from benchmark.__main__ import cli
from benchmark.leaderboard import library
from benchmark.leaderboard.library import all_views
from benchmark.leaderboard.pages import Site, boards, site
from benchmark.record import Record, read_records
from benchmark.spec import Score

RECORDS = REPOSITORY / "leaderboards" / "records"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """`leaderboards/` with the committed records of two models and two datasets."""
    home = tmp_path / "leaderboards"
    for place in ("digits/vae", "digits/sngan", "synthetic_text/gpt"):
        shutil.copytree(RECORDS / place, home / "records" / place)
    return home


def made(home: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, bytes], list[str]]:
    """The files of boards and site below `home`, and the datasets whose views had to be made."""
    seen: list[str] = []
    real = library.views_of

    def noted(dataset: Any, models: Any, store: Any) -> Any:
        seen.append(dataset.name)
        return real(dataset, models, store)

    with monkeypatch.context() as patch:
        patch.setattr(library, "views_of", noted)
        for verb, target in (("leaderboard", home), ("site", home / "site")):
            given = [verb, "--records", str(home / "records"), "--to", str(target)]
            done = CliRunner().invoke(cli, given, catch_exceptions=False)
            assert done.exit_code == 0, done.output
    files = [file for file in home.rglob("*") if file.is_file() and "records" not in file.relative_to(home).parts]
    return {str(file.relative_to(home)): file.read_bytes() for file in files}, seen


def test_only_what_changed_is_made_again_and_the_pages_are_as_from_nothing(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    first, seen = made(home, monkeypatch)
    assert seen == ["digits", "synthetic_text"], "once for boards and site"
    again, seen = made(home, monkeypatch)
    assert seen == []
    assert again == first
    shutil.copytree(RECORDS / "digits/vdm", home / "records/digits/vdm")
    more, seen = made(home, monkeypatch)
    assert seen == ["digits"]
    assert b"vdm" in more["digits.md"]
    assert more["synthetic_text.md"] == first["synthetic_text.md"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    assert made(home, monkeypatch)[0] == more


def test_what_lies_beside_a_record_is_read_again_when_it_changes(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    made(home, monkeypatch)
    strip = sorted((home / "records/digits/sngan").glob("0-*.png"))[0]
    strip.write_bytes(b"no picture")
    done = CliRunner().invoke(
        cli, ["site", "--records", str(home / "records"), "--to", str(home / "site")], catch_exceptions=False
    )
    assert f"{strip.name} is not a picture" in done.output.replace("\n", "")
    assert done.exit_code != 0


def results() -> dict[Path, Record]:
    found = {}
    for seed in range(2):
        scores = likelihood(1.9 + seed / 100, "bound") | distance(5.0)
        found[Path(f"{seed}.json")] = record(scores, seed=seed)
    found[Path("gan.json")] = record(absent("bits_per_dim", "none") | distance(2.0), model="gan")
    failed = record({}, model="gan", seed=1, status="diverged", reason="=cmd()")
    found[Path("bad.json")] = failed
    return found


def test_all_records_can_be_had_as_one_table() -> None:
    pages = boards(results())
    lines = list(csv.DictReader(io.StringIO(pages["records.csv"])))
    assert [(line["model"], line["seed_init"], line["status"]) for line in lines] == [
        *(("vae", "0", "finished"), ("vae", "1", "finished")),
        *(("gan", "1", "diverged"), ("gan", "0", "finished")),
    ]
    (first,) = [line for line in lines if (line["model"], line["seed_init"]) == ("vae", "1")]
    assert float(first["bits_per_dim"]) == 1.91
    assert float(first["bits_per_dim_stderr"]) == 0.019
    assert [line["bits_per_dim"] for line in lines if line["model"] == "gan"] == ["", ""]
    assert first["on_board"] == "yes"


def test_words_of_strangers_are_no_formulas() -> None:
    text = boards({Path("a.json"): record(budget="=1+1")})["records.csv"]
    (line,) = csv.DictReader(io.StringIO(text))
    assert line["budget"] == "'=1+1"


def test_all_rows_can_be_had_with_places_intervals_and_protocols() -> None:
    rows = json.loads(boards(results())["rows.json"])
    (bits,) = [row for row in rows if row["metric"] == "bits_per_dim"]
    assert bits["seeds"] == [1.9, 1.91]
    assert bits["value"] == pytest.approx(1.905)
    assert bits["low"] < 1.9 < 1.91 < bits["high"]
    assert bits["how"] == {"likelihood": "bound"}
    distances = [(row["model"], row["rank"], row["of"]) for row in rows if row["metric"] == "fid"]
    assert distances == [("gan", 1, 2), ("vae", 2, 2)]
    assert {row["protocol"]["extractor"] for row in rows if row["metric"] == "fid"} == {"digits-v1"}


def strip(file: Path, moments: int, shade: int) -> None:
    """Samples over training; the last moment has a shade of its own."""
    image = Image.new("L", (82, 10 * moments + 2), 127)
    image.paste(shade, (0, 10 * (moments - 1), 82, 10 * moments + 2))
    info = PngImagePlugin.PngInfo()
    info.add_text("moments", "\n".join(map(str, range(moments))))
    file.parent.mkdir(parents=True, exist_ok=True)
    image.save(file, "PNG", pnginfo=info)


def test_the_front_page_shows_the_best_of_every_family_beside_real_examples(tmp_path: Path) -> None:
    home = tmp_path / "leaderboards"
    costs = {"flops_per_example": Score("FLOPs", 2, 1e6)}
    records = {}
    for index, (model, family, fid) in enumerate((("vae", "vae", 5.0), ("better", "vae", 3.0), ("gan", "gan", 2.0))):
        path = home / "records" / "digits" / model / "0.json"
        one = record(likelihood(1.9) | distance(fid) | costs, model=model)
        target = f"benchmark.models.{family}.{model}.Model"
        records[path] = one.model_copy(update={"config": one.config | {"model": {"name": model, "target": target}}})
        strip(path.with_suffix(".png"), 3, 10 + index)
    strip(tmp_path / "examples" / "digits.png", 1, 99)
    made = Site(home / "site", [], [], examples=tmp_path / "examples").pages(all_views(records), ["digits"], [])
    pages = dict(made)
    page = pages["index.html"]
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)"', page)
    assert [name for _, name in pictures] == [
        *("Real examples of digits", "Samples of gan on digits", "Samples of better on digits")
    ]
    shades = []
    for content, _ in pictures:
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            shades.append(image.convert("L").getpixel((40, 5)))
    assert shades == [99, 12, 11], "the last moment of each, and real examples as they are"
    assert "bits/dim against FLOPs of training, digits, standard" in page


def test_both_sets_of_templates_show_the_same_tables() -> None:
    """Whatever a board says in Markdown, the site says too, cell by cell."""
    records = read_records(RECORDS / "digits")
    text = boards(records)["digits.md"]
    page = site(records, [], problems=[])["data/digits.html"]
    shown = [unescape(re.sub(r"<[^>]+>", "", row)).split() for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)]
    for line in text.splitlines():
        if line.startswith("| ") and "---" not in line:
            plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", line).replace("\\", "").replace("`", "").replace("*", "")
            words = unescape(plain).replace("|", " ").split()
            assert words in shown, line
