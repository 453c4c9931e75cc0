"""The examples in docstrings are run: an example that does not hold is a wrong sentence in the documentation."""

from __future__ import annotations

import doctest
import importlib

import pytest
from files import REPOSITORY


def with_examples() -> list[str]:
    """The modules of the package that show an example."""
    files = sorted((REPOSITORY / "benchmark").rglob("*.py"))
    shown = [file for file in files if ">>> " in file.read_text(encoding="utf-8")]
    return [".".join(file.relative_to(REPOSITORY).with_suffix("").parts) for file in shown]


@pytest.mark.parametrize("module", with_examples())
def test_examples_hold(module: str) -> None:
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted  # an example outside a docstring would go unread
    assert not found.failed
