"""The tests are the same in every process, at every time and under every hash seed: workers refuse to start otherwise.

`make test` collects in two processes, each with a hash seed of its own, and ends where they differ.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import pytest
from files import REPOSITORY

TESTS = REPOSITORY / "tests"
DAY = 86400.0


class _Collected:
    """A plugin that keeps the names of what was collected."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = [item.nodeid for item in session.items]


def _collect(files: list[str], later: float, answer: Connection) -> None:
    """In a forked process: imports the tests anew, not what they import, on a clock that is `later` seconds ahead."""
    for name, module in list(sys.modules.items()):
        if TESTS in Path(getattr(module, "__file__", None) or os.devnull).parents:
            del sys.modules[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    collected, now = _Collected(), time.time
    bare = ["--collect-only", "--assert=plain", "-pno:cacheprovider", "-pno:unraisableexception"]
    with (
        open(os.devnull, "w") as nowhere,
        redirect_stdout(nowhere),
        redirect_stderr(nowhere),
        patch("time.time", lambda: now() + later),
    ):
        pytest.main([*bare, f"--rootdir={TESTS.parent}", *files], plugins=[collected])
    answer.send(collected.names)


def collected_again(files: list[str], later: float) -> list[str]:
    """The names of the tests in `files`, imported once more, `later` seconds from now."""
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_collect, args=(files, later, theirs))
    child.start()
    theirs.close()
    names: list[str] = mine.recv()
    child.join()
    return names


def test_tomorrow_the_same_tests_are_collected(request: pytest.FixtureRequest) -> None:
    here = []
    for item in request.session.items:
        group = item.get_closest_marker("xdist_group")
        here.append(item.nodeid.removesuffix(f"@{group.args[0]}" if group else ""))  # which a worker adds
    chosen = set(here)
    again = collected_again(list(dict.fromkeys(str(item.path) for item in request.session.items)), DAY)
    assert [name for name in again if name in chosen] == here


@pytest.mark.parametrize(
    "values",
    ["import time; VALUES = [time.time()]", "import gzip; VALUES = [gzip.compress(b'x')]"],
    ids=["the clock", "a packed file"],
)
def test_names_that_change_are_noticed(values: str, tmp_path: Path) -> None:
    file = tmp_path / "test_unsteady.py"
    file.write_text(f"import pytest\n{values}\n@pytest.mark.parametrize('x', VALUES)\ndef test_x(x): pass\n")
    today, tomorrow = collected_again([str(file)], 0), collected_again([str(file)], DAY)
    assert len(today) == len(tomorrow) == 1
    assert today != tomorrow


@pytest.mark.slow
def test_in_another_process_and_under_another_hash_seed_the_same_tests_are_collected() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-pno:cacheprovider", str(TESTS)]
    lists = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout.splitlines()[:-1]  # the last line says how long it took
        for seed in ("1", "2")
    ]
    assert len(lists[0]) > 10
    assert lists[0] == lists[1]
