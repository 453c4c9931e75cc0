"""The command line inside the test's own process: a new process pays ten seconds of imports on an ordinary machine."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import torch

from benchmark.__main__ import main


@dataclass(frozen=True)
class Done:
    """What is left of a command that has ended; named as in `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def benchmark(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> Done:
    """`python -m benchmark ARGUMENTS` in `cwd`; what a process has of its own is afterwards as it was before."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    settings = {"WANDB_MODE": "disabled", "COLUMNS": "120", **environment}
    threads, on_sigterm = torch.get_num_threads(), signal.getsignal(signal.SIGTERM)
    with (
        patch.dict(os.environ, settings),
        patch.object(sys, "argv", ["benchmark", *map(str, arguments)]),
        chdir(cwd or Path.cwd()),
        redirect_stdout(out),
        redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            torch.set_num_threads(threads)
            signal.signal(signal.SIGTERM, on_sigterm)
    return Done(code, out.getvalue(), err.getvalue())


def refusal(done: Done) -> str:
    """The one line that a command said which ended with 2."""
    assert done.returncode == 2, done
    (line,) = [line for line in done.stderr.splitlines() if not line.endswith("importing torch")]  # said at once
    assert line.startswith("error: ")
    assert len(line) < 1000
    return line
