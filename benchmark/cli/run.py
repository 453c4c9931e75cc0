"""What exists, and one model: trained, scored again, sampled from, timed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from benchmark.cli import options
from benchmark.cli.border import Stopped, skipped
from benchmark.spec import BadInput

if TYPE_CHECKING:
    from benchmark.config import Experiment


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def list_(as_json: bool) -> None:
    """Models with family, capabilities and paper; datasets; suites. Exit code 1: a file of yours is malformed."""
    from benchmark import catalogue

    content, broken = catalogue.read()
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo(json.dumps(content, indent=1) if as_json else catalogue.as_text(content, width))
    for line in broken:
        click.echo(f"error: {line}", err=True)
    sys.exit(int(bool(broken)))


@click.command()
@click.argument("name")
@options.trust
def data(name: str, trust: tuple[str, ...]) -> None:
    """Fetch dataset NAME if it is missing, and check it."""
    from benchmark.config import load_data

    config = load_data(name, trust)
    from benchmark.build import build_data

    click.echo(json.dumps(build_data(config, root=None).describe(), indent=1))


@click.command()
@options.settings
@click.option("--resume", type=options.PATH, help="Go on with the run in this folder.")
@click.option(
    "--changed-code", is_flag=True, help="With --resume: continue although the code changed since the run began."
)
@options.trust
def run(overrides: tuple[str, ...], resume: Path | None, changed_code: bool, trust: tuple[str, ...]) -> None:
    """Train and score one model: model=vae data=digits budget=quick seed=0 model.latent=16 ...

    With --resume only runtime.* may be given, as in runtime.limit_minutes=90.
    """
    from benchmark.config import compose, resumed

    if changed_code and resume is None:
        raise BadInput("--changed-code is about a run that resumes: give --resume RUN, or drop it")
    if resume is None:
        folder = train_one(compose(overrides, trust), trust)
    else:
        experiment = resumed(resume, overrides, trust)
        folder = train_one(experiment, trust, resume, overrides=overrides, changed_code=changed_code)
    sys.exit(show_runs([folder]))


@click.command()
@options.run_folder
@options.trust
@click.option("--renew", is_flag=True, help="Score only what is outdated, into the record of a copy of the run.")
def evaluate(folder: Path, trust: tuple[str, ...], renew: bool) -> None:
    """Score the model in the folder RUN again and print the scores. Its record stays as it is."""
    from benchmark import again

    if renew:
        click.echo(again.renew(folder, trust))
        return
    scores = again.score_again(folder, trust)
    click.echo(json.dumps({name: asdict(score) for name, score in scores.items()}, indent=1))


@click.command()
@options.run_folder
@click.option("-n", "--number", default=64, type=click.IntRange(min=1), help="How many samples.", show_default=True)
@click.option("--seed", default=0, type=click.IntRange(min=0), show_default=True)
@options.trust
def sample(folder: Path, number: int, seed: int, trust: tuple[str, ...]) -> None:
    """Draw samples from the model in the folder RUN: a picture, or a text."""
    from benchmark import again

    click.echo(again.sample_again(folder, number, seed, trust))


@click.command()
@click.argument("cases", nargs=-1, metavar="[MODEL@DATA]...")
@click.option("--rounds", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--reference", type=options.PATH, metavar="FILE", help="Write this machine's rates there.")
@options.trust
def bench(cases: tuple[str, ...], rounds: int, reference: Path | None, trust: tuple[str, ...]) -> None:
    """What the harness adds to a training step of each model, against a bare loop. Exit code 1: more than allowed.

    With --reference, FILE describes this machine as configs/reference.yaml does the one that budgets are nominal on.
    """
    import torch

    from benchmark.bench import as_machine, as_table, default_cases, measure
    from benchmark.console import show
    from benchmark.reference import as_yaml

    torch.set_num_threads(1)
    rows = []
    for case in cases or default_cases():
        try:
            rows.append(measure(case, rounds, trust))
        except BadInput as error:
            if cases:
                raise
            click.echo(f"skipped {case}: {error}", err=True)
        else:
            click.echo(f"{rows[-1].title}: {rows[-1].ratio:.3f} times, {rows[-1].verdict}", err=True)
    show(as_table(rows))
    if reference is not None:
        from benchmark.record import write_atomic

        click.echo(write_atomic(reference, as_yaml(as_machine(rows))))
    sys.exit(int(any(row.verdict.startswith("over") for row in rows)))


@click.command()
@click.argument("pairs", nargs=-1, metavar="[PAIR]...")
@click.option("--rounds", default=5, type=click.IntRange(min=1), show_default=True)
@click.option("--to", "target", type=options.PATH, metavar="FILE", help="Write the page docs/performance.md there.")
def peers(pairs: tuple[str, ...], rounds: int, target: Path | None) -> None:
    """Ours beside other packages: training step, likelihood, sampling, memory. Exit code 1: ours is slower somewhere.

    A pair whose package is missing is named and left out: pip install -e '.[peers]' has them all.
    """
    import torch

    from benchmark.console import show
    from benchmark.peers import asked_for
    from benchmark.peers.speed import as_table, measure
    from benchmark.train import device_named

    torch.set_num_threads(1)
    asked, device, rows = asked_for(pairs), device_named("auto"), []
    for pair in asked:
        if pair.missing:
            click.echo(f"skipped {pair.name}: {pair.missing}", err=True)
            continue
        for row in measure(pair, rounds, device):
            click.echo(f"{row.pair}, {row.task}: {row.ratio:.2f} times, {row.verdict}", err=True)
            rows.append(row)
    table = as_table(rows, asked, device)
    show(table)
    if target is not None:
        from benchmark.record import write_atomic
        from benchmark.report.performance import performance_page

        click.echo(write_atomic(target, performance_page(table)))
    sys.exit(int(any(row.fails for row in rows)))


# What other verbs need too -------------------------------------------------------------------------------------------


def train_one(
    experiment: Experiment,
    trust: tuple[str, ...],
    resume: Path | None = None,
    *,
    overrides: Sequence[str] = (),
    changed_code: bool = False,
    repeats: Path | None = None,
) -> Path:
    """Train and score under a live display: the run in the folder `resume`, or a new one. Returns its folder.

    Raises `Stopped`, which says how to resume, and how to verify the record that the run `repeats`.
    """
    from benchmark.launch import Display, with_stages

    with Display() as display:
        display.show(experiment.title, {"phase": "importing torch", "examples": 0, "total": 1})
        from benchmark import train
        from benchmark.build import check_model

        if resume is None and experiment.stages:
            check_model(experiment)  # before another run costs anything
            (experiment,) = with_stages([experiment], 1, display, trust)
        folder = resume or train.prepare(experiment)
        try:
            train.carry_out(
                folder,
                lambda progress: display.show(experiment.title, asdict(progress)),
                trust,
                overrides=overrides,
                changed_code=changed_code,
            )
        except KeyboardInterrupt:
            here = quote(str(folder))
            commands = [f"python -m benchmark run --resume {here}{options.trusting(trust)}"]
            if repeats is not None:
                commands.append(f"python -m benchmark verify {quote(str(repeats))} --against {here}")
            raise Stopped(f"resume with: {' && '.join(commands)}") from None
    return folder


def show_runs(folders: Sequence[Path]) -> int:
    """A table of the runs and where everything is. Exit code 1 if one of them did not finish, or cannot be right."""
    from benchmark.console import show
    from benchmark.leaderboard.pages import boards
    from benchmark.leaderboard.rows import Run
    from benchmark.leaderboard.terminal import runs_table
    from benchmark.record import read_record, read_records, write_atomic

    records = {folder / "record.json": read_record(folder) for folder in folders}
    if not records:
        return 0
    for table in runs_table(records):
        show(table)
    for title, name in (("records", "record.json"), ("samples", "samples/final.*")):
        click.echo(f"{title}:")
        for file in (file for folder in folders for file in folder.glob(name)):
            click.echo(f"  {file}")
    runs = folders[0].parents[2]
    board = runs / "board"
    problems: list[str] = []
    pages = boards(read_records(runs, problems), home=board, problems=problems)
    click.echo("boards of all runs so far:")
    for data in sorted({record.data for record in records.values()}):
        click.echo(f"  {write_atomic(board / f'{data}.md', pages[f'{data}.md'])}")
    skipped(problems)
    good = all(record.status == "finished" and Run(path, record).impossible is None for path, record in records.items())
    return int(not good)
