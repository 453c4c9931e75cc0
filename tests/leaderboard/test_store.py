"""What was computed before: believed only if it was made of the same by the same code, and never missed."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmark.leaderboard import store as module
from benchmark.leaderboard.store import Store, code_version, digest, stamp


def counted(value: object) -> tuple[Callable[[], object], list[int]]:
    """Computes `value`, and how often it did."""
    calls: list[int] = []

    def compute() -> object:
        calls.append(1)
        return value

    return compute, calls


def test_what_was_computed_is_computed_once(tmp_path: Path) -> None:
    compute, calls = counted({"a": (1.0, float("nan"))})
    for _ in range(2):  # in two processes, as it were
        store = Store(tmp_path / "deep" / "boards.sqlite")
        found = store.remember("numbers", "x", compute)
        assert isinstance(found, dict)
        assert found["a"][0] == 1.0
        store.close()
    assert len(calls) == 1
    again = Store(tmp_path / "deep" / "boards.sqlite")
    again.remember("numbers", "y", compute)
    again.remember("letters", "x", compute)
    assert len(calls) == 3


def test_other_code_computes_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, calls = counted(1)
    Store(tmp_path / "s").remember("number", "x", compute)
    monkeypatch.setattr(module, "code_version", lambda: "another")
    Store(tmp_path / "s").remember("number", "x", compute)
    assert len(calls) == 2
    assert len(code_version()) == 32


def test_an_exception_is_not_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "s")
    with pytest.raises(ZeroDivisionError):
        store.remember("number", "x", lambda: 1 / 0)
    assert store.remember("number", "x", lambda: 2.0) == 2.0


@pytest.mark.parametrize("content", [b"", b"no database", b"\x00" * 4096])
def test_a_damaged_file_costs_only_time(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(content)
    compute, calls = counted("x")
    assert Store(tmp_path / "s").remember("what", "x", compute) == "x"
    assert calls


def test_a_damaged_result_is_computed_again(tmp_path: Path) -> None:
    Store(tmp_path / "s").remember("what", "x", lambda: "right")
    with sqlite3.connect(tmp_path / "s") as database:
        database.execute("UPDATE results SET content = ?", (b"\x80\x04broken",))
    compute, calls = counted("right")
    for _ in range(2):
        assert Store(tmp_path / "s").remember("what", "x", compute) == "right"
    assert len(calls) == 1


def test_what_nobody_asks_for_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "s")
    store.remember("old", "x", lambda: 1)
    monkeypatch.setattr(module, "_today", lambda: 10**10)
    store.remember("new", "x", lambda: 2)
    store.close()
    with sqlite3.connect(tmp_path / "s") as database:
        assert database.execute("SELECT count(*) FROM results").fetchone() == (1,)


def test_a_stamp_tells_files_that_changed_came_or_went(tmp_path: Path) -> None:
    file = tmp_path / "a"
    missing = stamp([file])
    file.write_text("1")
    os.utime(file, ns=(1, 1))
    first = stamp([file])
    os.utime(file, ns=(1, 2))
    later = stamp([file])
    file.write_text("12")
    os.utime(file, ns=(1, 2))
    assert len({missing, first, later, stamp([file])}) == 4
    assert digest("a", "b") != digest("ab")
