"""The reference machine: what nominal minutes mean, and how another machine compares with it.

`configs/reference.yaml` says what it is and how many training examples a second each model handles there, at its tuned
setting in one thread under the harness. `python -m benchmark bench --reference FILE` measures a machine anew.
"""

from __future__ import annotations

import time
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from benchmark.config import Experiment, dump_yaml, find, read_yaml
from benchmark.spec import BadInput

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Machine(BaseModel):
    """One machine, and the training examples a second that one thread of it handles: data -> model -> rate."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    bfloat16: bool  # native
    loop_seconds: Rate  # ten million additions in a plain Python loop
    examples_per_second: dict[str, dict[str, Rate]]


@cache
def read_machine(file: Path) -> Machine:
    """The machine that a file describes. Raises `BadInput` where it is malformed."""
    try:
        return Machine.model_validate(read_yaml(file))
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{file}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def as_yaml(machine: Machine) -> str:
    """What `read_machine` reads."""
    head = (
        "# The machine on which budgets are nominal, and the training examples a second that one thread of it handles\n"
        "# under the harness, at the tuned settings: made by `python -m benchmark bench --reference FILE`.\n"
    )
    return head + dump_yaml(machine.model_dump())


def reference() -> Machine:
    """The one that budgets are nominal on."""
    file = find("reference.yaml")
    assert file is not None, "it is shipped"
    return read_machine(file)


def reference_seconds(experiment: Experiment) -> float:
    """How long the training of an experiment takes there: by its measured rate, else its budget's nominal minutes."""
    rates = reference().examples_per_second.get(experiment.data.name, {})
    rate = rates.get(experiment.model.name)
    return experiment.budget.examples / rate if rate else 60 * experiment.budget.minutes


def comparison(experiment: Experiment, seconds: float) -> str:
    """How this machine compares, where training is going to take so many seconds on it."""
    factor = seconds / reference_seconds(experiment)
    how = f"{factor:.1f} times slower than" if factor >= 1.1 else f"{1 / factor:.1f} times faster than"
    return f"{how if not 0.9 < factor < 1.1 else 'as fast as'} the reference: about {in_words(seconds)}"


def loop_seconds() -> float:
    """How long ten million additions take in a plain Python loop: the speed of a machine in one number."""
    total, before = 0, time.perf_counter()
    for i in range(10_000_000):
        total += i
    return time.perf_counter() - before


def in_words(seconds: float) -> str:
    """`40 seconds`, `17 minutes`, `3.5 hours`."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
