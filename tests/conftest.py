"""Fixtures that every test may use. Imports no torch: the process that only hands tests out to workers needs none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported


def _data_root() -> Path:
    """`BENCHMARK_DATA`, else data shared beside the checkout, else `data/`."""
    shared = REPOSITORY.parent / "shared" / "data"
    return Path(os.environ.get("BENCHMARK_DATA") or (shared if shared.is_dir() else REPOSITORY / "data"))


@pytest.fixture(scope="session")
def data_root() -> str:
    return str(_data_root())
