"""Fixtures that every test may use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent

torch.set_num_threads(1)


def _data_root() -> Path:
    """`BENCHMARK_DATA`, else data shared beside the checkout, else `data/`."""
    shared = REPOSITORY.parent / "shared" / "data"
    return Path(os.environ.get("BENCHMARK_DATA") or (shared if shared.is_dir() else REPOSITORY / "data"))


@pytest.fixture(scope="session")
def data_root() -> str:
    return str(_data_root())
