"""Where errors leave the program: one line on the error stream and an exit code, never a traceback for bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import click

from benchmark.spec import BadInput


class Stopped(Exception):
    """The user pressed Ctrl-C, or something sent SIGTERM; the message says how to resume."""


@contextmanager
def border() -> Iterator[None]:
    """Exit code 2 for bad input, and `server.STOPPED` (130) for a command that was stopped."""
    try:
        yield
    except BadInput as error:
        _leave(str(error))
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "python -m benchmark"
        _leave(f"{error.format_message()} See `{where} --help`.")
    except OSError as error:  # a full disk, a folder that is read-only or a file
        where = f"{error.filename}: " if error.filename else ""
        _leave(f"{where}{error.strerror or error}: make room there, or name another place")
    except (Stopped, click.Abort) as stop:
        from benchmark.server import STOPPED

        click.echo(f"stopped; {stop}".rstrip("; "), err=True)
        sys.exit(STOPPED)


def _leave(why: str) -> None:
    click.echo(f"error: {why}", err=True)
    sys.exit(2)


def skipped(problems: Sequence[str]) -> int:
    """Name the files that were skipped; exit code 1 if there are any, since what was made lacks them."""
    for problem in dict.fromkeys(problems):
        click.echo(f"skipped: {problem}", err=True)
    return int(bool(problems))
