"""The static site: what its pages say, that strangers' words stay words, and that it works in a real browser."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import numpy as np
import pytest
from builders import absent, cost, distance, likelihood, record
from click.testing import CliRunner
from files import REPOSITORY
from PIL import Image
from studies import header, remedied, study, trial

from benchmark.__main__ import cli
from benchmark.leaderboard.folder import write_site
from benchmark.leaderboard.html import linked
from benchmark.leaderboard.pages import site
from benchmark.leaderboard.plots import Curves, Line, Losses, Pareto, Point, drawn, themed
from benchmark.leaderboard.published import read_published
from benchmark.leaderboard.statistics import pareto_front
from benchmark.record import Record, read_records
from benchmark.report.parts import as_html
from benchmark.report.report import report
from benchmark.spec import BadInput, Score
from benchmark.sweep.studies import Study
from benchmark.traces import traces

BITS = {"gated_pixelcnn": 1.70, "gpt": 1.74, "vdm": 1.79, "flow_matching": 1.80, "vae": 1.84, "realnvp": 1.96}
FAMILIES = {"gated_pixelcnn": "autoregressive", "gpt": "transformer", "vdm": "diffusion", "flow_matching": "diffusion"}
FAMILIES |= {"vae": "vae", "realnvp": "flow", "sngan": "gan"}
HOSTILE = "<img src=x onerror=alert(1)>"
MODELS = [
    {
        "name": name,
        "family": family,
        "capabilities": ["Likelihood"],
        "paper": "Nobody 2026, arXiv:2601.00001",
        "data": [],
    }
    for name, family in FAMILIES.items()
]


def spent(model: str, seed: int) -> dict[str, Score]:
    """Costs that differ by model, a little by seed."""
    factor = 1 + len(model) / 4 + seed / 10
    values = {"parameters": 1e5, "cpu_minutes": 1.0, "flops_per_example": 1e7, "sampling_seconds": 0.1}
    return {name: Score("1", 1, value * factor) for name, value in values.items()}


def results() -> dict[str, Record]:
    """Path below the records' folder → record: seven models on digits, two on a text, one run that diverged."""
    found = {}
    for seed in range(3):
        for order, (model, bits) in enumerate(BITS.items()):
            how = "exact" if model in ("gated_pixelcnn", "gpt") else "bound"
            scores = likelihood(bits + 0.01 * seed, how) | distance(1.3 + order + 0.2 * seed) | spent(model, seed)
            found[f"digits/{model}/{seed}"] = record(scores, model=model, seed=seed)
        gan = absent("bits_per_dim", "promises no likelihood") | distance(1.0 + 0.1 * seed) | spent("sngan", seed)
        found[f"digits/sngan/{seed}"] = record(gan, model="sngan", seed=seed)
    found["digits/sngan/3"] = record({}, model="sngan", seed=3, status="diverged", reason="loss is nan at step 9")
    for model, family in FAMILIES.items():
        for path in [path for path in found if f"/{model}/" in path]:
            target = f"benchmark.models.{family}.{model}.Model"
            config = found[path].config | {"model": {"name": model, "target": target}}
            found[path] = found[path].model_copy(update={"config": config})
    for model, nats in (("gpt", 1.68), ("lstm", 1.70)):
        score = Score("nats/token", 1, nats, 0.01, 1000, {"split": "test", "context": 128})
        found[f"words/{model}/0"] = record(
            {"nats_per_token": score} | cost(), data="words", model=model, modality="text", budget="quick", minutes=0.7
        )
    return found


def hostile() -> Record:
    """A record whose every free text is markup, and whose names want to leave their place."""
    scores = likelihood(2.0, subset=HOSTILE) | absent("fid", f"</td>{HOSTILE}")
    honest = record()
    return record(
        scores,
        model="stranger",
        budget=HOSTILE,
        minutes=0.5,
        reason=f"</li><script>alert(1)</script>{HOSTILE}",
        status="truncated",
        config=honest.config
        | {"budget": {"minutes": 0.5, "examples": 1000}}
        | {"model": {"name": "stranger", "target": f"own.models.{HOSTILE}.m.Model", "option": HOSTILE}},
        git={"commit": "$(touch /tmp/x)`<b>`", "dirty": True},
        dataset=honest.dataset
        | {"source": f"javascript:alert(1) {HOSTILE}", "licence": 'https://a.example/"onmouseover="alert(1)'}
        | {"references": {HOSTILE: honest.dataset["references"]["uniform"]}},
        hardware={"cpu": f"</dd>{HOSTILE}", "cores": 2},
    )


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`leaderboards/` with records, traces of some, and the site made from them."""
    home = tmp_path_factory.mktemp("boards") / "leaderboards"
    rng = np.random.default_rng(0)
    for path, one in (results() | {"digits/stranger/0": hostile()}).items():
        file = home / "records" / f"{path}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(one.model_dump_json(by_alias=True))
        if one.model in BITS and one.data == "digits":
            np.savez(file.with_suffix(".npz"), log_prob=rng.normal(-40 * BITS[one.model], 1, 180))
    run = home.parent / "run"
    (run / "samples").mkdir(parents=True)
    lines = [f"{100 * step},{name},{3 / step}" for name in ("train/loss", "val/nll") for step in range(1, 30)]
    (run / "curves.csv").write_text("\n".join(["examples,name,value", *lines]))
    for name in ("000001000", "final"):
        Image.fromarray(rng.integers(0, 256, (82, 82), dtype=np.uint8)).save(run / "samples" / f"{name}.png")
    for suffix, content in traces(run).items():
        for seed in range(2):
            (home / "records" / "digits" / "vae" / f"{seed}{suffix}").write_bytes(content)
    (home / "records" / "words" / "gpt" / "0.txt").write_text(f"=== end\n\n{HOSTILE}")
    (home / "stability.md").write_text("# Stability\n")
    shutil.copy(REPOSITORY / "leaderboards" / "published.yaml", home)
    write_site(pages(home).items(), home / "site")
    return home


def pages(home: Path) -> dict[str, str]:
    grid = [
        trial(number, {"factor": factor}, 2.0 + abs(np.log10(factor)) + number / 100)
        for number, factor in enumerate((0.03, 0.1, 0.3, 1.0, 3.0, 10.0) * 2)
    ]
    seeds = [trial(3 * i + j, {"seed.init": i, "seed.data": j}, 1 + 0.1 * i) for i in range(3) for j in range(3)]
    studies = [
        study(64),
        Study(header=header("learning_rate"), trials=tuple(grid)),
        Study(header=header("seeds"), trials=tuple(seeds)),
        study(32, model="flow_matching", family="diffusion", name="second"),
        remedied({"pack": 0.5, "norm": 2.0, "nothing": 1.0}),
    ]
    records = read_records(home / "records")
    page = report("Reproducibility", records, {}, read_published(home / "published.yaml"))
    beside = {"reproducibility": as_html(page, home="index.html")}
    return site(records, MODELS, None, home / "published.yaml", home / "site", studies, beside)


# What pages say ------------------------------------------------------------------------------------------------------


def test_there_is_a_page_for_each_dataset_and_model(home: Path) -> None:
    found = {str(file.relative_to(home / "site")) for file in (home / "site").rglob("*") if file.is_file()}
    pages = {f"model/{name}.html" for name in (*FAMILIES, "lstm", "stranger")} | {"data/digits.html", "data/words.html"}
    pages |= {"index.html", "choosing.html", "studies.html", "mode_collapse.html", "reproducibility.html"}
    assert found == pages | {"assets/site.css", "assets/tables.js", "records.csv", "rows.json"}


def test_the_same_records_give_the_same_bytes(home: Path) -> None:
    again = pages(home)
    assert all((home / "site" / name).read_text() == content for name, content in again.items())


def test_a_dataset_shows_where_it_comes_from_values_floors_and_ties(home: Path) -> None:
    page = (home / "site" / "data" / "digits.html").read_text()
    for shown in ("scikit-learn", "CC BY 4.0", "1,437 examples", "ab" * 32, "≤ 1.850 ± 0.025", "held-out data"):
        assert shown in page, shown
    assert "diverged (loss is nan at step 9)" in page
    assert re.search(r'data-sort="3.005">3–5<', page), "vdm, flow_matching and vae cannot be told apart"


def test_a_model_shows_paper_promises_pictures_curves_and_its_command(home: Path) -> None:
    page = (home / "site" / "model" / "vae.html").read_text()
    assert '<a href="https://arxiv.org/abs/2601.00001"' in page
    assert "An exact likelihood." in page
    assert page.count("data:image/png;base64,") == 1
    for shown in ("1,000 examples", "validation: nll, 2 seeds", "git checkout dddddddd", "seed=2", "stability.md"):
        assert shown in page, shown
    assert "python -m benchmark run model=vae data=digits budget=standard seed=0" in page
    assert f"python -m benchmark verify {home / 'records/digits/vae/0.json'}" in page
    other = (home / "site" / "model" / "vdm.html").read_text()
    assert "No picture was kept" in other
    assert "No curve was kept" in other


def test_a_model_shows_what_studies_say_of_it(home: Path) -> None:
    page = (home / "site" / "model" / "vae.html").read_text()
    assert "64 settings, qmc" in page
    assert page.index("<code>model.learning_rate") < page.index("<code>model.dropout"), (
        "the most important stands first"
    )
    assert "learning rates, times the tuned ones" in page
    assert "the search space" in page
    assert "Sensitivity" not in (home / "site" / "model" / "vdm.html").read_text()


def test_studies_say_at_one_look_who_is_robust_and_what_to_tune(home: Path) -> None:
    page = (home / "site" / "studies.html").read_text()
    for shown in (
        "digits: tune first the learning rate of vae and flow_matching",
        "digits, judged by ",
        '<a href="model/flow_matching.html">flow_matching</a>',
        "Learning rates on digits",
        "Best of n settings on digits",
        "active units",
        "initialisation, s.d.",
        'href="../stability.md"',
    ):
        assert shown in page, shown
    assert 'href="../sensitivity.md"' not in page, "it does not exist here"
    assert "studies.html" in (home / "site" / "index.html").read_text()


def test_what_helps_against_collapse_is_said_with_how_sure_it_is(home: Path) -> None:
    page = (home / "site" / "mode_collapse.html").read_text()
    for shown in (
        "Alone against none of them, pack helps dcgan on digits (FID); norm hurts dcgan on digits (FID).",
        "over 3 seeds, paired, leaves out zero; 1 of 3 cannot be told from none",
        "× 0.50 [0.50, 0.50]",
        "+0.100 [0.100, 0.100]",
        "dcgan on digits: norm, the worst case, 3 seeds",
        "dcgan on digits: pack, the best case, 3 seeds",
        "shift does not apply: it is for coordinates alone",
        "<code>model.pack=True</code>",
        "design=remedies seeds=3 budget.examples=1000",
    ):
        assert shown in page, shown
    assert "mode_collapse.html" in (home / "site" / "index.html").read_text()
    assert "remedies" not in (home / "site" / "studies.html").read_text()


def test_without_studies_there_is_no_page_of_them() -> None:
    found = site({Path("x.json"): record()}, MODELS)
    assert "studies.html" not in found
    assert "mode_collapse.html" not in found
    assert "studies.html" not in found["index.html"] + found["choosing.html"] + found["model/vae.html"]


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    figure = "{model: other, value: 1.5, citation: Somebody}"
    file = tmp_path / "published.yaml"
    file.write_text(
        "- {data: digits, metric: bits_per_dim, unit: bits/dim, protocol: theirs, comparable: true, why: same,\n"
        f"   figures: [{figure}]}}\n"
    )
    found = site({Path("x.json"): record(likelihood(1.9, "bound"))}, MODELS, None, file)
    assert '<td class="wide">vae ≤ 1.900</td>' in found["data/digits.html"]
    assert '<a href="data/digits.html#published">1 published figure</a>' in found["index.html"]


def test_the_report_leads_back_only_where_it_stands_among_the_boards(home: Path) -> None:
    assert '<a href="index.html">← Back to the boards</a>' in (home / "site" / "reproducibility.html").read_text()
    assert "Back to the boards" not in as_html(report("Alone", read_records(home / "records"), {}))


def test_matrices_hold_probabilities_of_improvement(home: Path) -> None:
    page = (home / "site" / "data" / "words.html").read_text()
    values = re.findall(r'style="--p: [\d.]+">([\d.]+)', page)
    assert values == ["1.00", "0.00"]  # one seed each, and no likelihood of single tokens was kept


def test_words_of_strangers_stay_words(home: Path) -> None:
    for file in (home / "site").rglob("*.html"):
        text = file.read_text()
        assert HOSTILE not in text, file
        assert "<script>alert" not in text, file
        assert not re.search(r'(href|src)="\s*javascript:', text), file
        assert '"onmouseover=' not in text, file
    page = (home / "site" / "model" / "stranger.html").read_text()
    assert "git checkout &#39;$(touch &#39;" in page  # quoted for a shell, escaped for the page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


@pytest.mark.parametrize("change", [{"data": "../../x"}, {"model": "a/b"}, {"model": "<b>"}])
def test_a_name_that_can_name_no_page_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot name a page"):
        site({Path("x.json"): record(**change)}, MODELS, home=tmp_path)


def test_links_lead_only_to_addresses_of_the_web() -> None:
    text = linked("see https://a.example/x?y=1&z=2, doi:10.24432/C50P49 and javascript:alert(1) <b>")
    assert '<a href="https://a.example/x?y=1&amp;z=2"' in text
    assert '<a href="https://doi.org/10.24432/C50P49"' in text
    assert text.count("<a ") == 2
    assert text.endswith("and javascript:alert(1) &lt;b&gt;")


def test_the_pareto_front_is_what_nothing_beats_in_both() -> None:
    assert pareto_front([(3, 1.0), (1, 2.0), (2, 2.5), (2, 1.5), (4, 1.0)]) == [(1, 2.0), (2, 1.5), (3, 1.0)]


def test_figures_are_deterministic_and_take_their_colours_from_the_page() -> None:
    points = [Point("a$b", 0, 1.7, 1.6, 1.8, cost=2.0), Point("<b>", 1, 1.9, 1.8, 2.0, exact=False, cost=1.0)]
    plot = Pareto("<title>", "bits/dim", "minutes", points, log=False)
    figure = themed(drawn(plot), plot.title)
    assert figure == themed(drawn(plot), plot.title)
    assert "<b>" not in figure
    assert 'aria-label="&lt;title&gt;"' in figure
    assert {"a$b", "&lt;b&gt;"} <= set(re.findall(r">([^<>\n]+)</text>", figure))
    assert "var(--c0)" in figure
    assert "#00f" not in figure
    assert "<style" not in figure
    apart = [drawn(Losses("l", "n", [Line("a", 0, mark, (1, 2, 4), (0.5, 0.1, 0.01))])) for mark in (0, 1)]
    assert apart[0] != apart[1], "models of one family differ by their marks"
    assert "start cut off" in drawn(Curves("c", "loss", [tuple((i, 9.0 / i**2) for i in range(1, 50))], 0))


@pytest.mark.slow
def test_the_verb_writes_the_site_of_the_committed_records(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["site", "--to", str(tmp_path / "site")], catch_exceptions=False)
    assert done.exit_code == 0
    assert {file.name for file in (tmp_path / "site").glob("*.html")} == {"index.html", "choosing.html", "studies.html"}
    assert 'href="../reproducibility/digits.html"' in (tmp_path / "site" / "data" / "digits.html").read_text()
    assert "Back to the boards" in (tmp_path / "site" / "reproducibility" / "digits.html").read_text()
    assert "No row on a board yet" not in (tmp_path / "site" / "model" / "vae.html").read_text()
    with pytest.raises(BadInput, match="no records below"):
        CliRunner().invoke(cli, ["site", "--records", str(tmp_path)], catch_exceptions=False, standalone_mode=False)


# The folder ----------------------------------------------------------------------------------------------------------

SITE = {"index.html": "by python -m benchmark site", "assets/site.css": "", "model/old.html": "old"}


def files_in(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if not file.is_dir())


def test_a_site_replaces_a_site_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "site"
    assert write_site(SITE.items(), target) == target / "index.html"
    write_site((SITE | {"model/new.html": "new"}).items(), target)
    new = {name: text for name, text in SITE.items() if name != "model/old.html"}
    write_site(new.items(), target)
    assert files_in(tmp_path) == ["deep/site/assets/site.css", "deep/site/index.html"], "nothing old, nothing beside"
    (tmp_path / "link").symlink_to(target)
    write_site(SITE.items(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (target / "model" / "old.html").read_text() == "old"


@pytest.mark.parametrize("stranger", ["thesis.tex", ".bashrc", "data/raw.npz", "other/page.html", "data/more/a.html"])
def test_a_folder_that_holds_anything_else_is_left_alone(stranger: str, tmp_path: Path) -> None:
    write_site(SITE.items(), tmp_path / "site")
    file = tmp_path / "site" / stranger
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("mine")
    before = files_in(tmp_path)
    with pytest.raises(BadInput, match="not made by the verb site"):
        write_site(SITE.items(), tmp_path / "site")
    assert files_in(tmp_path) == before
    assert file.read_text() == "mine"


def test_pages_of_somebody_else_and_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("my home page")
    with pytest.raises(BadInput, match=r"no index\.html of a site"):
        write_site(SITE.items(), tmp_path)
    with pytest.raises(BadInput, match="it is a file"):
        write_site(SITE.items(), tmp_path / "index.html")
    assert (tmp_path / "index.html").read_text() == "my home page"


def test_what_existed_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_site(SITE.items(), tmp_path / "site")
    with pytest.raises(OSError, match=r"index\.html"):  # a page that cannot be written
        write_site({"index.html": "", "index.html/x.html": ""}.items(), tmp_path / "site")
    real, moves = os.replace, []

    def once(source: Path, target: Path) -> None:
        moves.append(target)
        if len(moves) == 2:
            raise OSError("no space")
        real(source, target)

    monkeypatch.setattr(os, "replace", once)
    with pytest.raises(OSError, match="no space"):  # the new one cannot take its place
        write_site((SITE | {"index.html": "new"}).items(), tmp_path / "site")
    assert len(moves) == 3
    assert files_in(tmp_path) == sorted(f"site/{name}" for name in SITE)
    assert (tmp_path / "site" / "index.html").read_text() == SITE["index.html"]


def test_the_verb_refuses_before_any_work_and_keeps_what_it_cannot_rebuild(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(BadInput, match="thesis"):
        CliRunner().invoke(cli, ["site", "--to", str(tmp_path)], catch_exceptions=False, standalone_mode=False)
    write_site(SITE.items(), tmp_path / "site")
    nothing = ["site", "--records", str(tmp_path), "--to", str(tmp_path / "site")]
    with pytest.raises(BadInput, match="no records below"):
        CliRunner().invoke(cli, nothing, catch_exceptions=False, standalone_mode=False)
    assert files_in(tmp_path / "site") == sorted(SITE)


# In a browser --------------------------------------------------------------------------------------------------------

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
CHROMIUM = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium, or set CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS.split())
        yield browser
        browser.close()


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(home: Path) -> Iterator[str]:
    """The folder `leaderboards/` on a loopback server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(home)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/site/"
    server.shutdown()
    server.server_close()


class Visit:
    """One page of a browser that notes what goes wrong."""

    def __init__(self, browser: Any, **context: Any) -> None:
        self.context = browser.new_context(**context)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.problems.append("a dialog"), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.problems.append(f"failed: {request.url}"))

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def column(self, index: int) -> list[str]:
        """What is shown of a column of the first table."""
        rows = f"[...document.querySelector('table').tBodies[0].rows].filter(r => !r.hidden).map(r => r.cells[{index}]"
        return list(self.page.evaluate(f"{rows}.textContent.trim())"))


def all_pages(home: Path) -> list[str]:
    return sorted(str(file.relative_to(home / "site")) for file in (home / "site").rglob("*.html"))


@pytest.mark.slow
def test_heads_sort_by_click_and_by_keyboard(browser: Any, address: str) -> None:
    with Visit(browser) as visit:
        visit.page.goto(f"{address}index.html")
        start = visit.column(0)
        head = visit.page.locator("th", has_text="value").first
        button = head.get_by_role("button")
        assert head.get_attribute("aria-sort") == "none"
        button.click()
        assert head.get_attribute("aria-sort") == "ascending"
        values = [float(re.findall(r"[\d.]+", text)[0]) for text in visit.column(3)]
        assert values == sorted(values)
        button.focus()
        visit.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "descending"
        assert [float(re.findall(r"[\d.]+", text)[0]) for text in visit.column(3)] == sorted(values, reverse=True)
        visit.page.locator("th", has_text="model").first.get_by_role("button").press(" ")
        assert visit.column(0) == sorted(start)
        assert head.get_attribute("aria-sort") == "none"
        visit.page.goto(f"{address}data/digits.html")
        for expected in ("ascending", "descending"):  # what is missing stays last, baselines stay below
            bits = visit.page.locator("th", has_text="bits/dim").first
            bits.get_by_role("button").click()
            assert bits.get_attribute("aria-sort") == expected
            assert visit.column(1)[-1] == "sngan"
        assert visit.page.locator("tbody.below").first.inner_text().count("uniform") == 1
        visit.page.goto(f"{address}studies.html")
        window = visit.page.locator("th", has_text="tuned setting's place").first
        window.get_by_role("button").click()
        places = [int(text.split(" of ")[0]) for text in visit.column(8)]
        assert places == sorted(places)
        assert visit.problems == []


@pytest.mark.slow
def test_tables_filter_by_choice_and_by_words(browser: Any, address: str) -> None:
    with Visit(browser) as visit:
        visit.page.goto(f"{address}index.html")
        everything = len(visit.column(0))
        tools = visit.page.locator(".tools").first
        tools.get_by_label("dataset").select_option("words")
        assert set(visit.column(1)) == {"words"}
        tools.get_by_label("dataset").select_option("any dataset")
        tools.get_by_label("family").select_option("diffusion")
        assert set(visit.column(0)) == {"vdm", "flow_matching"}
        tools.get_by_label("quantity").select_option("FID")
        assert len(visit.column(0)) == 2
        tools.get_by_label("search").fill("VDM fid")
        assert visit.column(0) == ["vdm"]
        assert tools.locator("output").inner_text() == f"1 of {everything} rows"
        assert tools.get_by_label("budget").count() == 1
        assert tools.get_by_label("protocol").count() == 1
        assert visit.problems == []


@pytest.mark.slow
def test_every_page_works_without_a_network_and_every_link_resolves(browser: Any, address: str, home: Path) -> None:
    anchors: dict[str, set[str]] = {}
    links: set[str] = set()
    with Visit(browser) as visit:
        for name in all_pages(home):
            visit.page.goto(f"{address}{name}")
            anchors[f"{address}{name}"] = set(
                visit.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            )
            hrefs = visit.page.evaluate("[...document.querySelectorAll('a')].map(a => a.getAttribute('href'))")
            links |= {urljoin(f"{address}{name}", href) for href in hrefs}
            pictures = visit.page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
            assert pictures, name
        assert visit.problems == []
        root = address.removesuffix("site/")
        assert all(url.startswith((root, "data:")) for url in visit.requests)
    for link in links:
        target, anchor = urldefrag(link)
        if target.startswith(root):
            assert (home / unquote(urlsplit(target).path).lstrip("/")).is_file(), link
            assert not anchor or unquote(anchor) in anchors[target], link
        else:
            assert link.startswith("https://"), link
    assert any("/records/digits/vae/" in link for link in links)


@pytest.mark.slow
def test_pages_work_from_the_disk(browser: Any, home: Path) -> None:
    with Visit(browser) as visit:
        for name in ("index.html", "studies.html", "data/digits.html", "model/vae.html"):
            visit.page.goto((home / "site" / name).as_uri())
            assert visit.page.locator("th button").count() > 0, "the script did not run"
            assert visit.page.evaluate("getComputedStyle(document.body).margin") == "0px", "the style is missing"
        assert visit.problems == []
        assert all(url.startswith(("file:", "data:")) for url in visit.requests)


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(browser: Any, address: str, home: Path) -> None:
    with Visit(browser, viewport={"width": 360, "height": 740}) as visit:
        for name in all_pages(home):
            visit.page.goto(f"{address}{name}")
            visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360, name


#: The lowest contrast of any text with what is painted behind it (WCAG 2, relative luminance), and that text.
CONTRAST = """() => {
  const brush = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    brush.clearRect(0, 0, 1, 1); brush.fillStyle = color; brush.fillRect(0, 0, 1, 1);
    return [...brush.getImageData(0, 0, 1, 1).data];
  };
  const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => c * a / 255 + under[i] * (1 - a / 255));
  const ground = (element) => element === null ? [255, 255, 255]
    : over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement));
  const luminance = (color) => color
    .map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  let worst = [99, ""];
  for (const element of document.querySelectorAll("body *")) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3).map((n) => n.data.trim()).join("");
    if (!words || !element.checkVisibility() || ["SCRIPT", "OPTION", "STYLE"].includes(element.tagName)) continue;
    const style = getComputedStyle(element), under = ground(element);
    const color = over(rgba(element.tagName === "text" ? style.fill : style.color), under);
    const [high, low] = [luminance(color), luminance(under)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < worst[0]) worst = [ratio, words];
  }
  return worst;
}"""


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible_in_light_and_in_dark(browser: Any, address: str, scheme: str) -> None:
    with Visit(browser, color_scheme=scheme) as visit:
        for name in (
            "index.html",
            "choosing.html",
            "studies.html",
            "reproducibility.html",
            "data/digits.html",
            "model/vae.html",
        ):
            visit.page.goto(f"{address}{name}")
            ratio, words = visit.page.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{name}: {words}"
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(int(c) for c in re.findall(r"\d+", ground)) < 200) == (scheme == "dark")


@pytest.mark.slow
@pytest.mark.parametrize("width", [360, 1280])
def test_no_words_in_figures_overlap(browser: Any, address: str, width: int) -> None:
    overlaps = """() => [...document.querySelectorAll("svg.plot")].flatMap((plot) => {
      const boxes = [...plot.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
      return boxes.flatMap(([a, p], i) => boxes.slice(i + 1)
        .filter(([, q]) => Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
          && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 2)
        .map(([b]) => `${plot.getAttribute("aria-label")}: ${a} over ${b}`));
    })"""
    with Visit(browser, viewport={"width": width, "height": 900}) as visit:
        for name in ("data/digits.html", "model/vae.html", "studies.html"):
            visit.page.goto(f"{address}{name}")
            assert visit.page.locator("svg.plot").count() > 0
            assert visit.page.evaluate(overlaps) == []


def test_a_model_from_outside_that_passed_no_exam_is_marked_and_ours_are_not(home: Path) -> None:
    page = (home / "site" / "data" / "digits.html").read_text()
    assert "<dt>§</dt>" in (home / "site" / "index.html").read_text()
    assert "stranger§" in page
    assert "stranger is from outside, and nobody knows that it keeps its promises: it did not sit the exam" in page
    assert not re.search(r"(vae|gpt|sngan)§", page)
