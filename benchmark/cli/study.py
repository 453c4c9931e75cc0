"""Studies of hyperparameters and of stability, and trying again what they found best."""

from __future__ import annotations

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import click

from benchmark.cli import options
from benchmark.cli.border import Stopped
from benchmark.spec import BadInput

if TYPE_CHECKING:
    from benchmark.sweep.plan import Plan
    from benchmark.sweep.search import Summary


@click.command()
@options.settings
@options.trust
def sweep(overrides: tuple[str, ...], trust: tuple[str, ...]) -> None:
    """Study hyperparameters: model=vae data=digits trials=64 workers=2 [sampler=qmc] [design=space] [name=...] ...

    \b
    trials=64       that the sampler proposes
    workers=N       at a time, each in a process with one thread
    sampler=qmc     or random, tpe, cmaes, gp
    pruner=none     or median, halving; by default the median rule under samplers that learn
    design=space    the search space of configs/sweep/; or learning_rate: rates=7 with seeds=3 each;
                    or seeds: seeds=3 initialisations with as many orders of the data
    name=NAME       of the study; otherwise it follows from all that decides what the study finds
    storage=URL     any storage of Optuna's; by default a journal below runs/
    continue=STUDY  more trials of a committed study, leaderboards/studies/DATA/NAME.jsonl: its trials count

    Repeat the command to continue a study that was stopped. Other settings apply to every trial.
    """
    from benchmark.sweep.command import plan_of

    summary = _carry_out(*plan_of(overrides, trust))
    if summary.best is None:
        click.echo("no trial learnt anything: each failed, or ended no better than it began", err=True)
        sys.exit(1)
    click.echo(f"best: {summary.best:.6g}, {summary.trial}")
    for key, value in summary.params.items():
        click.echo(f"  {key}={value:.6g}" if isinstance(value, float) else f"  {key}={value}")
    click.echo(f"publish it with: python -m benchmark publish {quote(str(summary.folder))}")


@click.command()
@click.argument("study", metavar="STUDY", type=options.PATH)
@options.settings
@options.trust
def confirm(study: Path, overrides: tuple[str, ...], trust: tuple[str, ...]) -> None:
    """Train the best setting of STUDY again on fresh seeds: runs/studies/NAME seeds=5 workers=2 [storage=URL].

    Under the study's budget, and under the standard one beside the tuned setting; on the validation split only. Shows
    by how much the study was too good, says whether the setting beats the tuned one, and writes it to tuned.yaml in the
    study's folder. Exit code 1: it does not beat the tuned setting.
    """
    from benchmark.leaderboard.sensitivity import confirmation_lines
    from benchmark.sweep.command import confirming
    from benchmark.sweep.confirmation import confirmation, propose
    from benchmark.sweep.studies import collect

    summary = _carry_out(*confirming(study, overrides, trust))
    found = confirmation(collect(study), collect(summary.folder))
    if found is None:
        raise BadInput(f"{summary.folder} has no score yet: its trials failed")
    for line in confirmation_lines(found):
        click.echo(line)
    click.echo(f"the setting: {propose(collect(study), study)}")
    click.echo(f"publish this with: python -m benchmark publish {quote(str(summary.folder))}")
    sys.exit(int(found.verdict != "beats the tuned setting"))


def _carry_out(plan: Plan, workers: int, storage: str | None) -> Summary:
    """Run a study to its end, and say how its trials ended."""
    from benchmark.launch import Display
    from benchmark.sweep.search import sweep

    try:
        with Display() as display:
            summary = sweep(plan, workers, storage, display)
    except KeyboardInterrupt:
        raise Stopped("repeat the command to resume") from None
    counts = ", ".join(f"{n} {state}" for state, n in sorted(summary.counts.items()) if n)
    click.echo(f"{summary.name}: {counts}")
    return summary
