"""The tutorial: every command on the page works, in the order of the page."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from files import REPOSITORY

TUTORIAL = REPOSITORY / "docs" / "tutorial.md"


def fences() -> list[tuple[str, str]]:
    """Language and content of each fence, in order."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", TUTORIAL.read_text(), flags=re.MULTILINE | re.DOTALL)


def blocks() -> list[str]:
    return [content for language, content in fences() if language == "sh"]


def test_every_command_is_one_that_the_test_runs() -> None:
    assert len(blocks()) >= 9
    (other,) = [content for language, content in fences() if language != "sh"]
    assert other.startswith("make setup")  # what the test itself has done


@pytest.mark.slow
def test_the_tutorial_works_from_beginning_to_end(tmp_path: Path) -> None:
    script = "\n".join(["set -euo pipefail", *(f"echo '### block {n}'\n{block}" for n, block in enumerate(blocks()))])
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("WANDB_", "BENCHMARK_"))} | {
        "CHECKOUT": str(REPOSITORY),
        "HOME": str(tmp_path / "home"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path / "work", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "bit for bit the same" in done.stdout
    assert "by example" in done.stdout
    runs = tmp_path / "work" / "runs"
    assert len(list(runs.glob("digits/vae/*/record.json"))) == 4  # three seeds, and one of them verified
    assert "run again: 1 time (1 agrees)" in (runs / "report" / "report.md").read_text()
    board = (runs / "board" / "digits.md").read_text()
    assert "| nade | smoke | 0 | finished |" in board
    assert "| vae | standard | 0 | finished |" in board
    assert "nade" in (runs / "site" / "index.html").read_text()
