"""The command line: all verbs in one group, in the order of use.

Exit codes: 0 done (or agrees), 1 the run failed or diverged, 2 bad input, 3 a re-run differs, 4 not comparable, 130
stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import io
import signal
import sys
from typing import Any

import click

from benchmark.cli import board, exam, publish, reproduce, run, study, suite
from benchmark.cli.border import border
from benchmark.spec import unknown

VERBS = (
    run.list_,
    run.data,
    exam.exam,
    run.run,
    suite.suite,
    suite.truth,
    study.sweep,
    study.confirm,
    run.evaluate,
    board.recount,
    run.sample,
    publish.publish,
    reproduce.verify,
    reproduce.report,
    publish.dashboard,
    publish.sync,
    publish.check,
    publish.docs,
    board.leaderboard,
    board.compare_,
    board.site,
    run.bench,
    run.peers,
)


class _Verbs(click.Group):
    """Verbs in the order of use; a typo gets the nearest name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            raise unknown("verb", args[0], self.commands)
        return super().resolve_command(ctx, args)


@click.group(cls=_Verbs, commands=VERBS, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Train, score and rank generative models under one protocol."""


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without these letters should not make it fail
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what `kill` and Slurm send stops as Ctrl-C does
    with border():
        cli(standalone_mode=False)
