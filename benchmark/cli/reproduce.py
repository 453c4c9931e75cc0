"""Whether published numbers can be reproduced: one run again, and a report on many."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmark.cli import options
from benchmark.cli.board import figures_in
from benchmark.cli.border import skipped
from benchmark.cli.run import train_one
from benchmark.spec import BadInput, unknown

if TYPE_CHECKING:
    from benchmark.record import Record


@click.command()
@click.argument("path", metavar="RECORD", type=options.PATH)
@options.settings
@options.records("Other seeds.")
@click.option("--against", type=options.PATH, metavar="RUN", help="Run nothing: compare with this run.")
@options.trust
def verify(path: Path, overrides: tuple[str, ...], records: Path, against: Path | None, trust: tuple[str, ...]) -> None:
    """Repeat the run that RECORD holds, and say whether its scores are reproduced. runtime.* may be given anew.

    Exit code 0: they agree, 3: they differ, 4: not comparable.
    """
    from benchmark.config import experiment_again
    from benchmark.console import show
    from benchmark.leaderboard.rows import Run
    from benchmark.record import read_record, read_records
    from benchmark.report.verify import EXIT_CODES, as_lines, as_table, check_again, judge, runtime_of

    run = Run(path / "record.json" if path.is_dir() else path, read_record(path))
    if (why := check_again(run.record)) is not None:
        raise BadInput(f"{path}: {why}")
    if against is None:
        experiment = experiment_again(run.record.config, runtime_of(run.record), overrides, trust)
        against = train_one(experiment, trust, repeats=path)
    elif overrides:
        raise BadInput(f"--against runs nothing: drop {' '.join(overrides)}")
    again = Run(against / "record.json" if against.is_dir() else against, read_record(against))
    problems: list[str] = []
    judgement = judge(run, again, read_records(records, problems).values())
    show(as_table(judgement))
    click.echo("\n".join(as_lines(judgement)))
    skipped(problems)
    sys.exit(EXIT_CODES[judgement.verdict])


@click.command()
@click.argument("names", metavar="[SUITE|RECORD]...", nargs=-1)
@options.records()
@click.option("--runs", type=options.PATH, default=Path("runs"), show_default=True, help="Your re-runs.")
@options.to("runs/report")
def report(names: tuple[str, ...], records: Path, runs: Path, target: Path) -> None:
    """Write how reproducible suites or records are, all committed ones by default: as HTML and as Markdown.

    \b
    Runs below --runs that repeat one of them are judged beside it; `verify` makes such runs.
    """
    from benchmark.config import choices, load_suite
    from benchmark.leaderboard.published import read_published
    from benchmark.record import read_record, read_records, write_atomic
    from benchmark.report.parts import as_html, as_markdown
    from benchmark.report.report import files_of, report

    for name in names:
        if name not in choices("suite") and not Path(name).exists():
            raise unknown("suite or record", name, choices("suite"))
    problems: list[str] = []
    committed, local = read_records(records, problems), read_records(runs, problems)
    suites = [name for name in names if name in choices("suite") and not Path(name).exists()]
    found: dict[Path, Record] = {}
    for place in (Path(name) for name in names if name not in suites):
        files = files_of([place])
        found |= read_records(place, problems) if len(files) > 1 else {file: read_record(file) for file in files}
    missing = []
    for experiment in (one for suite in suites for one in load_suite(suite)):
        wanted = experiment.config_hash, experiment.seed.model_dump()
        of_it = {path: one for path, one in committed.items() if (one.identity, one.seed) == wanted}
        of_it = of_it or {path: one for path, one in local.items() if (one.identity, one.seed) == wanted}
        found |= of_it
        missing += [] if of_it else [experiment.title]
    title = f"Reproducibility of {', '.join(names) or 'all committed records'}"
    figures = figures_in(records.parent)
    page = report(
        title,
        found if names else committed,
        {**local, **committed},
        read_published(figures) if figures else (),
        missing,
        problems,
    )
    for name, content in (("report.html", as_html(page)), ("report.md", as_markdown(page))):
        click.echo(write_atomic(target / name, content))
    sys.exit(skipped(problems))
