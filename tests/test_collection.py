"""The tests are the same in every process, at every time and under every hash seed: workers refuse to start otherwise.

`make test` collects in two workers, each under a hash seed of its own, and ends where they differ.
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

import pytest

TESTS = Path(__file__).resolve().parent


class _Collected:
    """A plugin that keeps the names of what was collected."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.names = [item.nodeid for item in session.items]


def _collect_again(files: list[str], answer: Connection) -> None:
    """In a forked process: imports the tests anew, and not what they import."""
    for name, module in list(sys.modules.items()):
        if TESTS in Path(getattr(module, "__file__", None) or os.devnull).parents:
            del sys.modules[name]
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    collected = _Collected()
    bare = ["--collect-only", "--assert=plain", *(f"-p=no:{name}" for name in ("cacheprovider", "unraisableexception"))]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        pytest.main([*bare, f"--rootdir={TESTS.parent}", *files], plugins=[collected])
    answer.send(collected.names)


def collected_later(files: list[str]) -> list[str]:
    """What the files hold when they are imported again, at a later second."""
    time.sleep(1.1)
    mine, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=_collect_again, args=(files, theirs))
    child.start()
    theirs.close()
    names: list[str] = mine.recv()
    child.join()
    return names


def test_at_another_time_the_same_tests_are_collected(request: pytest.FixtureRequest) -> None:
    here = []
    for item in request.session.items:
        group = item.get_closest_marker("xdist_group")
        here.append(item.nodeid.removesuffix(f"@{group.args[0]}" if group else ""))  # which a worker adds
    files = sorted({str(item.path) for item in request.session.items})
    chosen = set(here)
    assert [name for name in collected_later(files) if name in chosen] == here


UNSTEADY = {
    "the clock": "import time\nVALUES = [time.time()]\n",
    "a packed file": "import gzip\nVALUES = [gzip.compress(b'x')]\n",
    "chance": "import random\nVALUES = [random.random()]\n",
}


@pytest.mark.parametrize("values", UNSTEADY.values(), ids=UNSTEADY.keys())
def test_names_that_change_are_noticed(values: str, tmp_path: Path) -> None:
    file = tmp_path / "test_unsteady.py"
    file.write_text(f"import pytest\n{values}\n@pytest.mark.parametrize('x', VALUES)\ndef test_x(x): pass\n")
    first, second = collected_later([str(file)]), collected_later([str(file)])
    assert len(first) == len(second) == 1
    assert first != second


@pytest.mark.slow
def test_under_another_hash_seed_the_same_tests_are_collected() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", str(TESTS)]
    lists = [
        subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": seed}
        ).stdout.splitlines()[:-1]  # the last line says how long it took
        for seed in ("1", "2")
    ]
    assert len(lists[0]) > 100
    assert lists[0] == lists[1]
