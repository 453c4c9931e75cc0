"""The reproducibility report: what it says, that strangers' text stays text, that it asks nobody for anything."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from builders import cost, distance, likelihood, record
from click.testing import CliRunner
from files import RECORDS, REPOSITORY

from benchmark.__main__ import cli
from benchmark.config import compose, overrides_of
from benchmark.leaderboard.published import read_published
from benchmark.record import Record, read_records
from benchmark.report.parts import Bullets, Code, Folded, Page, Paragraph, Part, Section, as_html, as_markdown, table
from benchmark.report.report import report
from benchmark.spec import Absence, BadInput, Score


def real(*overrides: str, **changes: Any) -> Record:
    """A record by hand whose configuration is a real one."""
    experiment = compose(overrides)
    content = {"config": experiment.container(), "config_hash": experiment.config_hash} | changes
    return record(content.pop("scores", likelihood(1.9) | distance(1.2) | cost()), **content)


def page_of(records: list[Record], *reruns: Record, missing: tuple[str, ...] = ()) -> str:
    named = {Path(f"records/{index}.json"): one for index, one in enumerate(records)}
    others = {Path(f"runs/{index}/record.json"): one for index, one in enumerate(reruns)}
    return as_markdown(report("Reproducibility", named, others, (), missing))


def section(text: str, title: str) -> str:
    (found,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return found


def test_re_runs_are_judged_and_deviations_listed() -> None:
    seeds = [real("seed=0"), *(real(f"seed={n}", seed=n, scores=likelihood(1.9 + n / 1000)) for n in (1, 2))]
    far = real("seed=0", scores=likelihood(2.4), started=record(seed=20).started)
    text = page_of(seeds, far, missing=("sngan on digits, standard, seed 0",))
    assert "3 runs of 1 model on digits: 3 finished" in section(text, "In short")
    assert "run again: 1 time (1 differs)" in section(text, "In short")
    again = section(text, "Run again")
    assert re.search(r"\| vae \| digits \| standard \| 0 \| differs \| `0` \| `0` \|", again)
    assert re.search(r"\| bits_per_dim \| 3 seeds \| differs \| 1.9 \| 2.4 \| \+0.5 \|", again.replace("\\", ""))
    found = section(text, "Deviations and negative results")
    assert "no record: sngan on digits, standard, seed 0" in found
    assert "its re-run differs" in found.replace("\\", "")
    assert "although nothing else differs" in section(text, "Determinism")


def test_the_same_run_and_its_published_record_are_one() -> None:
    one = real("seed=0")
    assert "None of these runs was run again" in page_of([one], one)


def test_a_renewed_record_is_of_the_same_training() -> None:
    one = real("seed=0")
    renewed = one.model_copy(update={"renewed": {"code_hash": one.code_hash}})
    assert "None of these runs was run again" in page_of([one, renewed])
    later = one.model_copy(update={"started": record(seed=9).started})
    found = section(page_of([one, renewed], later), "In short")
    assert "run again: 1 time (1 agrees), 1 with every score the same to the last bit" in found


def test_a_seed_that_was_run_twice_shows_determinism() -> None:
    one = real("seed=0")
    text = page_of([one], one.model_copy(update={"started": record(seed=9).started}))
    assert "1 time, 1 of them bit for bit the same" in section(text, "In short")
    assert "| yes | bit for bit the same: scores |" in section(text, "Determinism")


def test_what_went_wrong_is_kept() -> None:
    records = [
        real("seed=0", status="diverged", reason="loss is nan, at 64 of 100 examples", scores={}),
        real("seed=1", seed=1, status="failed", reason="OSError: the disk is full", scores={}, git=None),
        real("seed=2", seed=2, scores={"fid": Score("1", 1, absent=Absence("failed", "the value is nan"))}),
    ]
    text = page_of(records)
    found = section(text, "Deviations and negative results")
    for words in ("diverged (loss is nan", "failed (OSError: the disk is full)", "fid failed: the value is nan"):
        assert words in found
    assert "made with code that is not committed" in found
    assert "1 diverged, 1 failed, 1 finished" in section(text, "In short")
    assert "No run has a score." in section(text, "Spread over seeds")


def test_the_commands_give_the_experiment_again() -> None:
    for given in (
        ["model=vae", "seed=3"],
        ["model=vae", "seed.init=1", "seed.data=2", "seed.eval=4", "model.latent=3", "training.ema_decay=0.5"],
        ["model=gated_pixelcnn", "model.dilations=[1,2]", "budget.examples=77", "evaluation.split=validation"],
        ["data=cifar10", "model=vae", "budget.examples=10"],
    ):
        experiment = compose(given)
        again = compose(overrides_of(experiment.container()))
        assert (again.config_hash, again.seed) == (experiment.config_hash, experiment.seed)
    assert overrides_of(compose(["model=vae", "seed=3"]).container()) == [
        *("data=digits", "model=vae", "budget=standard", "seed=3")
    ]
    text = page_of([real("model.latent=3")])
    assert "python -m benchmark run data=digits model=vae budget=standard seed=0 model.latent=3" in text
    gone = real("seed=0")
    gone.config["model"]["name"] = "forgotten"
    assert "# unknown model 'forgotten'" in page_of([gone])


HOSTILE = '</pre></details><script>alert("x")</script> | `code` **bold** [a](javascript:b) &amp; {{ 7 * 7 }}'


class _Reader(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_strangers_text_stays_text() -> None:
    parts: list[Part] = [
        Paragraph(HOSTILE),
        Bullets([HOSTILE, Code(HOSTILE)]),
        table([HOSTILE], [[HOSTILE], [Code(HOSTILE)]]),
    ]
    page = Page(HOSTILE, HOSTILE, [Section(HOSTILE, [*parts, Folded(HOSTILE, f"{HOSTILE}\n~~~\n```\n\n# no heading")])])
    html = _Reader(as_html(page))
    assert "script" not in {tag for tag, _ in html.tags}
    assert (
        html.text.count(HOSTILE) == 13
    )  # wherever it was given, letter for letter; the titles in the head and in the contents too
    markdown = as_markdown(page)
    assert "<script>" not in re.sub(r"`[^`]*`|^    .*$", "", markdown, flags=re.MULTILINE)
    for line in markdown.splitlines():
        assert not line.startswith(("#", "```", "~~~")) or line.startswith(("# <", "# &lt;", "## &lt;")), line
    rows = [line for line in markdown.splitlines() if line.startswith("| ")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 2 for row in rows)


def test_the_page_asks_nobody_for_anything() -> None:
    html = _Reader(as_html(report("All", read_records(RECORDS), {})))
    asking = [value for _, attributes in html.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(value and value.startswith(("#", "data:")) for value in asking), asking
    assert not {"script", "iframe", "img"} & {tag for tag, _ in html.tags}
    anchors = {attributes.get("id") for _, attributes in html.tags}
    assert {value[1:] for value in asking if value and value.startswith("#")} <= anchors


def test_the_same_records_give_the_same_pages(tmp_path: Path) -> None:
    figures = read_published(RECORDS.parent / "published.yaml")
    first, second = (report("All", read_records(RECORDS), {}, figures) for _ in range(2))
    assert (as_html(first), as_markdown(first)) == (as_html(second), as_markdown(second))
    text = as_markdown(first)
    assert "nanoGPT, GPU recipe" in section(text, "Published figures")
    assert "not compared with 3 published figures" in section(text, "Deviations and negative results")
    assert re.search(r"\| ≤ \d\.\d+ ± \d\.\d+ \|", section(text, "Spread over seeds"))


def test_the_verb_takes_suites_records_and_folders(tmp_path: Path) -> None:
    def pages(*names: str) -> str:
        command = ["report", *names, "--records", str(RECORDS), "--runs", str(tmp_path), "--to", str(tmp_path / "to")]
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        assert [Path(line).name for line in done.output.split()] == ["report.html", "report.md"]
        return (tmp_path / "to" / "report.md").read_text()

    text = pages("tinyshakespeare")
    assert re.search(r"\d+ runs of \d+ models on tinyshakespeare", text)
    file = sorted(RECORDS.glob("tinyshakespeare/lstm/*.json"))[-1]
    assert "1 run of 1 model on tinyshakespeare" in pages(str(file))
    assert "# Reproducibility of all committed records" in pages()
    assert json.loads(file.read_text())["dataset"]["splits"]["test"]["sha256"] in text


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["digit"], "unknown suite or record 'digit'; did you mean 'digits'?"),
        ([str(REPOSITORY / "docs")], "no records below"),
    ],
)
def test_what_is_no_record_is_refused(names: list[str], words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["report", *names, "--runs", str(tmp_path), "--to", str(tmp_path / "to")])
    assert isinstance(done.exception, BadInput)
    assert words in str(done.exception)
    assert not (tmp_path / "to").exists()
