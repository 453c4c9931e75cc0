"""From records to pages: boards, comparisons and the site."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmark.cli import options
from benchmark.cli.border import skipped
from benchmark.spec import BadInput

if TYPE_CHECKING:
    from benchmark.leaderboard.library import Library, Views
    from benchmark.leaderboard.rows import Current
    from benchmark.record import Record


@click.command()
@options.folders
@options.to("leaderboards")
def leaderboard(folders: tuple[Path, ...], target: Path) -> None:
    """Render the boards from the committed records, and from your own beside them."""
    from benchmark.leaderboard.pages import Boards
    from benchmark.record import write_atomic

    with _library(folders, target) as library:
        pages = Boards(target, library.store).pages(_watched(library), library.models)
        for name, page in pages:
            file = write_atomic(target / name, page)
            if file.suffix == ".md":
                click.echo(file)
    sys.exit(skipped(library.problems))


@click.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--data", help="Dataset, where A and B are models on its board.")
@click.option("--budget", default="standard", show_default=True)
@click.option("--metric", help="Default: the likelihood, or the first score of samples where one has none.")
@options.records()
def compare_(a: str, b: str, data: str | None, budget: str, metric: str | None, records: Path) -> None:
    """Compare A with B, models or runs: the difference paired by example and by seed, and who wins how often.

    Exit code 4: they do not stand under one protocol.
    """
    from benchmark.console import show
    from benchmark.leaderboard.compare import NotComparable, compare, comparison_table, side

    problems: list[str] = []
    found, current = _published([records], problems)
    try:
        one, two = (side(name, found, current, data, budget) for name in (a, b))
        result = compare(one, two, metric, problems)
    except NotComparable as reason:
        click.echo(f"not comparable: {reason}", err=True)
        sys.exit(4)
    show(comparison_table(result))
    sys.exit(skipped(problems))


@click.command()
@options.folders
@options.to("leaderboards/site")
def site(folders: tuple[Path, ...], target: Path) -> None:
    """Render the committed records, and your own beside them, as a static site."""
    from benchmark.leaderboard.folder import may_replace, write_site
    from benchmark.leaderboard.pages import Site

    may_replace(target)  # before the work
    with _library(folders, target.parent) as library:
        examples = folders[0].parent / "examples"
        pages = Site(target, library.models, library.problems, library.store, examples)
        content = pages.pages(_watched(library), library.datasets, library.of_studies, reports=library.datasets)
        click.echo(write_site(chain(content, _reports(library)), target))
    sys.exit(skipped(library.problems))


@click.command()
@options.records()
@options.trust
def recount(records: Path, trust: tuple[str, ...]) -> None:
    """Count the FLOPs of records anew that were counted otherwise than today, into recounted.json beside their folder.

    Boards then show these. Exit code 1: some could not be counted.
    """
    from benchmark.facts import COSTS
    from benchmark.leaderboard.recounted import Recounted, as_json, outdated, read_recounted
    from benchmark.record import read_records, write_atomic

    problems: list[str] = []
    version, target = COSTS["flops_per_example"].version, records.parent / "recounted.json"
    recounted = read_recounted(target)
    wanted = outdated(read_records(records, problems).values(), recounted, version)
    for name, record in wanted.items():
        from benchmark.again import count_again

        try:
            score = count_again(record, trust)
        except BadInput as error:
            problems.append(f"{record.model} on {record.data}: {error}")
            continue
        if score.value is None:
            problems.append(f"{record.model} on {record.data}: {score.absent.reason if score.absent else 'no FLOPs'}")
            continue
        recounted[name] = Recounted(flops_per_example=score.value, version=version)
        click.echo(f"{record.model} on {record.data}: {score.value:,.0f} FLOPs an example")
    click.echo(write_atomic(target, as_json(recounted)) if wanted else f"every count below {records} is of today")
    sys.exit(skipped(problems))


@contextmanager
def _library(folders: Sequence[Path], home: Path) -> Iterator[Library]:
    """What boards in `home` are made of; what was computed before is remembered in the user's cache."""
    from benchmark.catalogue import models
    from benchmark.leaderboard.library import Library
    from benchmark.leaderboard.store import Store, cache_folder

    problems: list[str] = []
    store = Store(cache_folder() / "boards.sqlite")
    try:
        library = Library(folders, figures_in(home, folders[0].parent), models(), store, problems)
        if not library.datasets and problems:
            raise BadInput(problems[0])
        if not library.datasets:
            searched = ", ".join(map(str, folders))
            raise BadInput(f"no records below {searched}: publish a run first, or name another folder with --records")
        yield library
    finally:
        store.close()


def _reports(library: Library) -> Iterator[tuple[str, str]]:
    """What the site says of the reproducibility of each dataset's records."""
    from benchmark.report.parts import as_html
    from benchmark.report.report import report

    def made(data: str) -> tuple[str, list[str]]:
        problems: list[str] = []
        title = f"Reproducibility of all records of {data} on the boards"
        page = report(title, library.records(data), {}, library.figures(data), problems=problems)
        return as_html(page, home="../index.html"), problems

    for data in library.datasets:
        html, problems = library.store.remember("report", library.stamp(data), partial(made, data))
        library.problems += problems
        yield f"reproducibility/{data}.html", html


def _watched(library: Library) -> Iterator[Views]:
    """What pages show of each dataset, with a bar while it is made."""
    from rich.progress import track

    from benchmark.console import progress_console

    names = library.datasets
    yield from map(library.views, track(names, "datasets", console=progress_console(), transient=True))


def figures_in(*folders: Path) -> Path | None:
    """The file of published figures: the user's own among the configurations, else the first in `folders`."""
    from benchmark.config import find

    places = (folder / "published.yaml" for folder in folders)
    return find("published.yaml") or next((file for file in places if file.is_file()), None)


def _published(folders: Sequence[Path], problems: list[str]) -> tuple[dict[Path, Record], Current]:
    """The records in the first folder and in one's own, the others, and which configurations count: the tuned ones of
    today, all of one's own. Costs are counted as they are today; what cannot be read is named in `problems`."""
    from benchmark.config import tuned_identity
    from benchmark.leaderboard.recounted import read_recounted, recount
    from benchmark.record import read_records

    folder, *own = folders

    def setting(record: Record) -> tuple[str, str, str]:
        return record.data, record.model, record.budget

    found = read_records(folder, problems)
    settings = {setting(record) for record in found.values()}
    current = {one: {tuned} for one in settings if (tuned := tuned_identity(*one)) is not None}
    for path, record in ((path, record) for place in own for path, record in read_records(place, problems).items()):
        current.setdefault(setting(record), set()).add(record.identity)
        found[path] = record
    return recount(found, read_recounted(folder.parent / "recounted.json")), current
