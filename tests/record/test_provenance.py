"""Which code made a record, on a machine without git: the stamp, and what convicts it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmark.record import code_hash, folder_hash, git_state, provenance, write_stamp
from benchmark.spec import BadInput


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", str(repository), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def forget() -> None:
    git_state.cache_clear()
    code_hash.cache_clear()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small checkout in the place of the benchmark's own."""
    files = {
        "benchmark/__init__.py": "",
        "benchmark/nn/conv.py": "x = 1\n",
        "benchmark/nn-old.py": "x = 0\n",  # folders are sorted as if they ended in a slash
        "configs/experiment.yaml": "seed: 0\n",
        "README.md": "not code\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "benchmark")
    monkeypatch.setattr(provenance, "_REPOSITORY", tmp_path)
    forget()
    yield tmp_path
    forget()


@pytest.fixture
def bare(repository: Path) -> Path:
    """The same, stamped, and then without git."""
    write_stamp()
    shutil.rmtree(repository / ".git")
    forget()
    return repository


def test_the_hash_of_a_folder_is_gits(repository: Path) -> None:
    for name in ("benchmark", "configs"):
        assert folder_hash(repository / name) == git(repository, "rev-parse", f"HEAD:{name}")


def test_the_stamp_names_the_commit_and_its_code(repository: Path) -> None:
    content = json.loads(write_stamp().read_text())
    assert content == {"commit": git(repository, "rev-parse", "HEAD"), "code_hash": code_hash()}


def test_code_as_stamped_has_a_commit_without_git(bare: Path) -> None:
    commit = json.loads((bare / "provenance.json").read_text())["commit"]
    (bare / "README.md").write_text("changed, and not code\n")
    (bare / "benchmark" / "__pycache__").mkdir()
    (bare / "benchmark" / "__pycache__" / "conv.pyc").write_bytes(b"left over")
    assert git_state() == {"commit": commit, "dirty": False}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "benchmark/nn/conv.py").write_text("x = 2\n"),
        lambda root: (root / "benchmark/nn/conv.py").unlink(),
        lambda root: (root / "configs/extra.yaml").write_text(""),
        lambda root: (root / "benchmark/nn/conv.py").rename(root / "benchmark/nn/moved.py"),
    ],
    ids=["changed", "missing", "extra", "moved"],
)
def test_code_that_is_not_as_stamped_counts_as_changed(bare: Path, spoil: Callable[[Path], object]) -> None:
    spoil(bare)
    with pytest.warns(UserWarning, match="has changed since"):
        state = git_state()
    assert state is not None
    assert state["dirty"]


@pytest.mark.parametrize("content", ["", "[]", '{"commit": "abc"}'])
def test_a_broken_stamp_names_no_commit(bare: Path, content: str) -> None:
    (bare / "provenance.json").write_text(content)
    with pytest.warns(UserWarning, match="is not a stamp"):
        assert git_state() is None


def test_git_comes_before_a_stamp(repository: Path) -> None:
    write_stamp()
    git(repository, "commit", "-q", "--allow-empty", "-m", "second")
    forget()
    assert git_state() == {"commit": git(repository, "rev-parse", "HEAD"), "dirty": False}


def test_only_committed_code_is_stamped(repository: Path) -> None:
    (repository / "benchmark" / "new.py").write_text("")
    with pytest.raises(BadInput, match="not as committed"):
        write_stamp()
    shutil.rmtree(repository / ".git")
    with pytest.raises(BadInput, match="no git checkout"):
        write_stamp()
