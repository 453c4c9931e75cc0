"""What a child process carries out; importing it imports all of ours that a run may need.

A run's models and data are imported here and not when they are named, so that the code of every child is the code that
was hashed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import torch

import benchmark
from benchmark import train
from benchmark.config import from_container
from benchmark.server import Event, Task

torch.set_num_threads(1)  # threads do not survive a fork; a run sets its own number

for _module in walk_packages([str(Path(benchmark.__file__).parent / "models")], "benchmark.models."):
    import_module(_module.name)
for _module in walk_packages([str(Path(benchmark.__file__).parent / "data")], "benchmark.data."):
    import_module(_module.name)


def carry_out(
    task: Task, say: Callable[[Event], None], hear: Callable[[], Event], log_to: Callable[[Path], None]
) -> None:
    """Carry out `task`; `say` takes what happens, `hear` waits for an answer, `log_to` is told the run's folder."""
    folder = None if task.folder is None else Path(task.folder)
    if folder is None or not (folder / "config.yaml").is_file():
        folder = train.prepare(from_container(task.config, task.trust), folder)
    log_to(folder)
    say({"folder": str(folder)})

    def go_on(score: float, examples: int) -> bool:
        say({"score": score, "examples": examples})
        return bool(hear()["go_on"])

    errand = train.Errand(task.kind, task.group, go_on) if task.kind == "trial" else train.Errand()
    train.carry_out(folder, lambda progress: say(asdict(progress)), task.trust, errand)
