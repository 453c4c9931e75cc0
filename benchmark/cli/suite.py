"""Many experiments: suites, and the one on data whose entropy is known."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchmark.cli import options
from benchmark.cli.border import Stopped, skipped
from benchmark.cli.run import show_runs
from benchmark.spec import BadInput

if TYPE_CHECKING:
    from benchmark.config import Experiment
    from benchmark.launch import Outcome


@click.command()
@click.argument("name")
@options.settings
@click.option("--fresh", is_flag=True, help="Run again what has a record.")
@options.trust
def suite(name: str, overrides: tuple[str, ...], fresh: bool, trust: tuple[str, ...]) -> None:
    """Run suite NAME; jobs=2 runs so many at a time, other settings apply to every experiment.

    Runs that have a record are skipped, and one that was stopped is resumed.
    """
    outcomes = _outcomes(name, overrides, fresh, trust)
    code = show_runs([outcome.folder for outcome in outcomes if outcome.record is not None and outcome.folder])
    failures = _failures(outcomes)
    sys.exit(code or failures)


@click.command()
@options.settings
@click.option("--records", type=options.PATH, help="Judge the records in this folder, and run nothing.")
@click.option("--to", "target", type=options.PATH, help="Write the table to this page too.")
@options.trust
def truth(overrides: tuple[str, ...], records: Path | None, target: Path | None, trust: tuple[str, ...]) -> None:
    """Run suite `truth`, on data whose entropy is known, and judge what the models report by it.

    model=NAME runs that model, which may be your own, on each dataset of its kind; data=NAME runs only that dataset.
    """
    from benchmark.console import show
    from benchmark.leaderboard.truth import truth_page, truth_table, verdicts
    from benchmark.record import read_records, write_atomic

    problems: list[str] = []
    if records is not None:
        if overrides:
            raise BadInput(f"--records runs nothing: drop {' '.join(overrides)}")
        found, outcomes = read_records(records, problems), []
    else:
        outcomes = _outcomes("truth", overrides, False, trust)
        found = {
            outcome.folder / "record.json": outcome.record for outcome in outcomes if outcome.folder and outcome.record
        }
    judged = verdicts(found)
    if not judged and all(outcome.record is not None for outcome in outcomes):
        raise BadInput(
            f"no records below {records} are on data whose entropy is known: run the suite without --records"
        )
    show(truth_table(judged))
    if target is not None:
        click.echo(write_atomic(target, truth_page(judged)))
    failures = _failures(outcomes)
    sys.exit(skipped(problems) or failures or int(any(verdict.problem for verdict in judged)))


def _outcomes(name: str, overrides: tuple[str, ...], fresh: bool, trust: tuple[str, ...]) -> list[Outcome]:
    """Run suite `name`; `jobs=N` among the overrides says how many at a time."""
    from benchmark.config import load_suite
    from benchmark.launch import Display, default_jobs, run_suite

    given = dict(override.split("=", 1) for override in overrides if override.startswith("jobs="))
    if not given.get("jobs", "1").isdecimal():
        raise BadInput(f"jobs={given['jobs']}: give the number of processes, as in jobs=2")
    settings = [override for override in overrides if not override.startswith("jobs=")]
    experiments = _of_the_truth(settings, trust) if name == "truth" else load_suite(name, settings, trust)
    try:
        with Display() as display:
            return run_suite(experiments, int(given.get("jobs", default_jobs())), display, fresh, trust)
    except KeyboardInterrupt:
        raise Stopped("repeat the command to resume") from None


def _failures(outcomes: Sequence[Outcome]) -> int:
    """Name what has no record; exit code 1 if there is any."""
    missing = [outcome for outcome in outcomes if outcome.record is None]
    for outcome in missing:
        click.echo(f"failed: {outcome.experiment.title}: {outcome.problem}", err=True)
    return int(bool(missing))


def _of_the_truth(overrides: Sequence[str], trust: Sequence[str]) -> list[Experiment]:
    """The experiments of suite `truth`; where `overrides` name data or a model, those instead."""
    from benchmark.config import compose, load_data, load_model, read_suite
    from benchmark.facts import modality

    suite = read_suite("truth")
    chosen = dict(override.split("=", 1) for override in overrides if override.startswith(("data=", "model=")))
    others = [override for override in overrides if not override.startswith(("data=", "model="))]
    pairs = [(entry.data, entry.model) for entry in suite.experiments]
    if "model" in chosen:
        kinds = load_model(chosen["model"]).structures
        places = [chosen["data"]] if "data" in chosen else dict.fromkeys(data for data, _ in pairs)
        fitting = [data for data in places if "data" in chosen or modality(load_data(data).modality).structure in kinds]
        pairs = [(data, chosen["model"]) for data in fitting]
    elif "data" in chosen:
        pairs = [pair for pair in pairs if pair[0] == chosen["data"]]
    if not pairs:
        known = sorted({entry.data for entry in suite.experiments})
        raise BadInput(f"{' '.join(overrides)}: suite truth has nothing there: it is on {' and '.join(known)}")
    seeds = [[]] if any(other.startswith("seed=") for other in others) else [[f"seed={seed}"] for seed in suite.seeds]
    own_length = any(other.startswith(("budget", "examples.")) for other in others)
    lengths = {pair: [] if own_length else _length_of_the_truth(*pair, suite.budget) for pair in pairs}
    return [
        compose([f"data={data}", f"model={model}", f"budget={suite.budget}", *length, *seed, *others], trust)
        for seed in seeds
        for (data, model), length in lengths.items()
    ]


def _length_of_the_truth(data: str, model: str, budget: str) -> list[str]:
    """The setting that says how long an untuned model trains: on the fewest examples that a model of the suite sees."""
    from benchmark.config import load_suite, tuned_identity

    if tuned_identity(data, model, budget) is not None:
        return []
    known = [one.budget.examples for one in load_suite("truth") if one.data.name == data]
    if not known:
        return []
    fewest = min(known)
    said = f"it trains on {fewest:,} examples, or on N with budget.examples=N"
    click.echo(f"nothing is tuned for {model} on {data}: {said}", err=True)
    return [f"budget.examples={fewest}"]
