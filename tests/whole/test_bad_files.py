"""A file that is no record, or a broken one beside a record, is named and skipped: everything else is shown."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from builders import distance, known, likelihood, record, shown
from click.testing import CliRunner, Result
from files import RECORDS

from benchmark.__main__ import cli
from benchmark.leaderboard.compare import NotComparable, Side, compare, comparison_table
from benchmark.leaderboard.library import Library
from benchmark.leaderboard.pages import boards, site
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.store import Store
from benchmark.leaderboard.terminal import runs_table
from benchmark.leaderboard.truth import truth_page, verdicts
from benchmark.record import Record, read_records
from benchmark.report.check import problems
from benchmark.report.report import report
from benchmark.report.verify import as_lines, check_again, judge
from benchmark.spec import BadInput

BAD = {
    "foreign.json": b'{"name": "package", "version": "1.0"}',
    "list.json": b"[1, 2]",
    "empty.json": b"",
    "cut.json": b'{"schema": 2, "kind": "ru',
    "binary.json": bytes(range(256)),
    "newer.json": b'{"schema": 99}',
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two good records below `records/`, and bad files beside them."""
    folder = tmp_path / "records" / "digits" / "vae"
    folder.mkdir(parents=True)
    full = likelihood(1.9) | distance(2.0)
    for seed in range(2):
        (folder / f"{seed}-cccccccc-run{seed}.json").write_text(record(full, seed=seed).model_dump_json(by_alias=True))
    for name, content in BAD.items():
        (folder / name).write_bytes(content)
    (folder / "folder.json").mkdir()
    (folder / "nowhere.json").symlink_to(tmp_path / "nothing")
    (tmp_path / "committed").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"})


OWN = ("--records", "committed", "--records", "records")


@pytest.mark.parametrize(
    ("command", "written"),
    [
        (("leaderboard", *OWN, "--to", "boards"), "boards/digits.md"),
        (("site", *OWN, "--to", "site"), "site/data/digits.html"),
        (("report", "--records", "records", "--runs", "none", "--to", "report"), "report/report.md"),
        (("report", "records", "--records", "none", "--runs", "none", "--to", "report"), "report/report.md"),
        (("compare", "a", "b", "--records", "records"), None),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else "",
)
def test_each_verb_names_what_it_skips_and_does_the_rest(
    command: tuple[str, ...], written: str | None, home: Path
) -> None:
    good = sorted(home.glob("records/digits/vae/*-cccccccc-*.json"))
    if command[0] == "compare":
        command = ("compare", *map(str, good), *command[3:])
    done = invoke(*command)
    assert done.exit_code == 1, done.output
    assert not isinstance(done.exception, Exception)
    for name in (*BAD, "nowhere.json"):
        assert done.output.count(f"{name} ") == 1, (name, done.output)
    if written is not None:
        text = (home / written).read_text()
        assert "vae" in text
    else:
        assert "A − B by seed" not in done.output  # two seeds that differ
        assert "probability of improvement" in done.output


def test_likelihoods_that_cannot_be_read_are_left_out_of_a_comparison(home: Path) -> None:
    a, b = sorted(home.glob("records/digits/vae/*-cccccccc-*.json"))
    a.with_suffix(".npz").write_bytes(b"PK no archive")
    for name in (*BAD, "nowhere.json"):
        (a.parent / name).unlink()
    done = invoke("compare", str(a), str(b), "--records", "records")
    assert done.exit_code == 1
    assert f"skipped: {a.relative_to(home)}".replace(".json", ".npz") in done.output.replace(str(home) + "/", "")
    assert "probability of improvement" in done.output


# Whatever a record holds ---------------------------------------------------------------------------------------------

VALUES: list[Any] = [None, True, -1, 0, 1e308, 10**400, 1.5, float("nan"), "", "x", "a" * 3000, "2026-01-01"]
VALUES += ["\ud800", [], [1], {}, {"a": 1}]


def places(content: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    inside = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in inside:
        yield (*above, key)
        yield from places(value, (*above, key))


def changed(content: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The content of a record with one to three places removed, or replaced by what nobody expects there."""
    content = deepcopy(content)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        *way, last = chance.choice(list(places(content)))
        inside = content
        for key in way:
            inside = inside[key]
        if chance.random() < 0.3:
            del inside[last]
        else:
            inside[last] = chance.choice(VALUES)
    return content


def committed() -> list[dict[str, Any]]:
    """A record of each model and dataset on the boards."""
    return [json.loads(min(model.glob("*.json")).read_bytes()) for model in sorted(RECORDS.glob("*/*"))]


def views(records: dict[Path, Record], odd: Run, good: Run, home: Path) -> Iterator[Callable[[], object]]:
    """Whatever is made from records."""
    models = [{"name": "vae", "family": "vae", "capabilities": ["LikelihoodBound"], "paper": "", "data": []}]
    yield lambda: boards(records, home=home, models=models, problems=[])
    yield lambda: site(records, models, home=home / "a" / "site", problems=[])
    yield lambda: list(Library([home], None, models, Store(), []))
    yield lambda: truth_page(verdicts(records))
    yield lambda: report("all", records, {}, (), [], [])
    yield lambda: [shown(table, 80) for table in runs_table(records)]
    yield lambda: (check_again(odd.record), as_lines(judge(odd, good, records.values())))
    yield lambda: shown(comparison_table(compare(Side("a", (odd,)), Side("b", (good,)), problems=[])), 80)


def test_no_record_ends_in_a_traceback(tmp_path: Path) -> None:
    """What can be read can be shown, judged and compared; what cannot is refused as bad input."""
    chance, honest_ones = random.Random(0), committed()
    accepted, index = 0, 0
    for index in range(60):
        if index >= 12 and accepted >= 2:
            break
        honest = chance.choice(honest_ones)
        odd, good = tmp_path / f"{index}" / "odd.json", tmp_path / f"{index}" / "good.json"
        odd.parent.mkdir()
        good.write_text(json.dumps(honest))
        odd.write_text(json.dumps(changed(honest, chance)))
        problems(odd, known())
        named: list[str] = []
        records = read_records(odd.parent, named)
        assert (odd in records) != bool(named)
        if odd in records:
            accepted += 1
            for view in views(records, Run(odd, records[odd]), Run(good, records[good]), tmp_path):
                with suppress(BadInput, NotComparable):
                    view()
    assert 2 <= accepted < index, "some of what is odd can be read"
