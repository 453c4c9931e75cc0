"""What several verbs take: consent to import code, settings, and the places of records and pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from benchmark.spec import BadInput

Verb = TypeVar("Verb", bound=Callable[..., Any])

RECORDS = Path("leaderboards/records")  # the committed ones
PATH = click.Path(path_type=Path)


def _packages(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """Consent is to whole packages, by the first part of their import path."""
    for package in given:
        if not package.isidentifier():
            first = package.partition(".")[0]
            hint = f": write --trust {first}" if first.isidentifier() else ""
            raise BadInput(f"--trust {package} is not the name of a package{hint}")
    return given


def _settings(ctx: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """None of them is given twice."""
    from benchmark.config import distinct

    distinct(given)
    return given


def trust(verb: Verb) -> Verb:
    """For whatever carries out a configuration: an import path is code."""
    return click.option(
        "--trust",
        multiple=True,
        metavar="PACKAGE",
        callback=_packages,
        help="Let the configuration name classes of this package.",
    )(verb)


def trusting(packages: Sequence[str]) -> str:
    """The options that a command which resumes a run has to repeat.

    >>> trusting(["mine", "yours"])
    ' --trust mine --trust yours'
    """
    return "".join(f" --trust {package}" for package in packages)


def settings(verb: Verb) -> Verb:
    """`key=value`, as many as wanted."""
    return click.argument("overrides", nargs=-1, callback=_settings)(verb)


def run_folder(verb: Verb) -> Verb:
    """RUN, the folder of a run."""
    return click.argument("folder", metavar="RUN", type=PATH)(verb)


def records(explanation: str | None = None) -> Callable[[Verb], Verb]:
    """One folder of records, by default the committed ones."""
    return click.option("--records", type=PATH, default=RECORDS, show_default=True, help=explanation)


def folders(verb: Verb) -> Verb:
    """Folders of records: the committed ones, and one's own beside them."""
    return click.option(
        "--records",
        "folders",
        multiple=True,
        type=PATH,
        default=[RECORDS],
        show_default=True,
        help="Again for your own: what is tuned counts in the first folder, everything in the others.",
    )(verb)


def to(default: str) -> Callable[[Verb], Verb]:
    """Where the verb writes."""
    return click.option("--to", "target", type=PATH, default=Path(default), show_default=True)
