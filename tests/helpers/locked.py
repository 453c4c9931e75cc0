"""Whether the environment is the one that requirements.lock describes. Imports no torch."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Mapping
from importlib.metadata import distributions

PYTHON = (3, 11)  # on which the exceptions to "warnings are errors" were found; newer ones deprecate more


def differences(lock: str, installed: Mapping[str, str]) -> list[str]:
    """What is installed in another version than `lock` allows; packages that it does not name do not count."""
    allowed = defaultdict(set)  # several for a name: each has its Python or its platform
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE):
        allowed[name].add(version)
    return [
        f"{name} {version} is not {' or '.join(sorted(allowed[name]))}"
        for name, version in sorted(installed.items())
        if name in allowed and version not in allowed[name]
    ]


def installed() -> dict[str, str]:
    """Name as a lock writes it → version."""
    return {re.sub(r"[-_.]+", "-", one.name).lower(): one.version for one in distributions()}


def unlocked(lock: str) -> list[str]:
    """Why this environment is not the locked one; empty if it is."""
    running = sys.version_info[:2]
    python = [] if running == PYTHON else [f"Python {'.'.join(map(str, running))} is not {'.'.join(map(str, PYTHON))}"]
    return python + differences(lock, installed())
