"""Whether a model keeps its promises."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from benchmark.cli import options
from benchmark.cli.border import Stopped
from benchmark.spec import Structure

if TYPE_CHECKING:
    from benchmark.exams import Exam
    from benchmark.tables import Table, Tone

_STRUCTURES = get_args(Structure)


@click.command()
@click.argument("target")
@click.option("--structure", "structures", multiple=True, type=click.Choice([s for s in _STRUCTURES if s != "label"]))
@click.option("--condition", "conditions", multiple=True, type=click.Choice(["label", "sequence", "grid"]))
@click.option("--set", "settings", multiple=True, metavar="OPTION=VALUE", help="An option of the constructor.")
@click.option("--at-length", is_flag=True, help="Train and draw as long as is allowed, even if less would do.")
@click.option("--runs", type=options.PATH, default=Path("runs"), show_default=True, help="Where the result is kept.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@options.trust
def exam(
    target: str,
    structures: tuple[Structure, ...],
    conditions: tuple[Structure, ...],
    settings: tuple[str, ...],
    at_length: bool,
    runs: Path,
    as_json: bool,
    trust: tuple[str, ...],
) -> None:
    """Examine a model: my_package.module.Model --trust my_package, or the name of a configured one.

    \b
    Runs the laws that the promises in its class header call for. A configured model has the options,
    structures and conditions of its file; a class is examined on a grid unless --structure says otherwise.
    Exit code 0: it keeps them all, 1: it breaks one.

    The result for a class from outside is kept: records of its runs say whether it passed.
    """
    from benchmark.console import show
    from benchmark.exams import keep
    from benchmark.record import is_ours
    from benchmark.testing.exam import candidate, examine

    who = candidate(target, _options(settings), structures, conditions, trust)
    try:
        found = examine(who, at_length, trust, lambda one: click.echo(_line(one), err=True))
    except KeyboardInterrupt:
        raise Stopped("repeat the command: an exam is sat from beginning to end") from None
    kept = None if is_ours(found.target) else keep(found, runs)
    if as_json:
        click.echo(found.model_dump_json(indent=1))
    else:
        show(_table(found))
        click.echo(f"{found.target}: {_sum(found)}")
        if kept is not None:
            click.echo(f"kept: {kept}")
    sys.exit(int(bool(found.failed)))


def _options(settings: tuple[str, ...]) -> dict[str, Any]:
    from benchmark.config import distinct, value_of
    from benchmark.config.settings import split_setting

    distinct(settings)
    pairs = [split_setting(setting) for setting in settings]
    return {key: value_of(key, text) for key, text in pairs}


def _line(verdict: Any) -> str:
    how = "holds" if verdict.problem is None else "is broken"
    return f"{verdict.law} on {verdict.structure}: {how}, {verdict.seconds:.1f} s"


def _sum(found: Exam) -> str:
    """`keeps all 7 laws`, `breaks 2 of 7 laws`."""
    return (
        f"breaks {len(found.failed)} of {len(found.laws)} laws" if found.failed else f"keeps all {len(found.laws)} laws"
    )


def _table(found: Exam) -> Table:
    from benchmark.tables import Head, Table, entries

    heads = [Head("law"), Head("structure", rank=2), Head("promise", rank=1), Head("verdict")]
    heads += [Head("seconds", number=True, rank=3), Head("what is wrong", least=24)]
    lines = []
    for one in found.laws:
        verdict = "holds" if one.problem is None else "broken"
        lines.append(entries([one.law, one.structure, one.promise, verdict, f"{one.seconds:.1f}", one.problem or ""]))
    broken: dict[int, Tone] = {index: "bad" for index, one in enumerate(found.laws) if one.problem is not None}
    return Table(found.target, heads, lines, tones=broken)
