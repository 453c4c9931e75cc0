"""What the server of `benchmark.server` does before it forks children: it imports what they need, and hashes the code.

It does so when it is imported, which is all that Python's `forkserver` offers, and in that server alone.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import ModuleSpec
from typing import Any


def _preload(log: str, script: dict[str, Any]) -> None:
    """Print to `log`, this process's id first, and import. What goes wrong ends the server, and is the last line."""
    with open(log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    print(os.getpid(), flush=True)
    # A child runs the script that the command is, unless it believes to be that script already.
    main = sys.modules["__main__"]
    if "init_main_from_path" in script:
        main.__file__ = script["init_main_from_path"]
    elif "init_main_from_name" in script:
        main.__spec__ = ModuleSpec(script["init_main_from_name"], None)
    try:
        from benchmark import record

        before = record.code_hash()
        import benchmark.work  # noqa: F401

        record.git_state()
    except ImportError as error:  # which `forkserver` would pass over in silence
        sys.exit(f"{type(error).__name__}: {error}")
    if record.code_hash.__wrapped__() != before:
        sys.exit("the code changed while it was being imported: give the command again")


if told := os.environ.pop("BENCHMARK_SERVER", ""):
    _preload(**json.loads(told))
