"""The contract: what every model is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from pytorch_lightning import LightningModule
from torch import Tensor

from benchmark.spec import BadInput, Batch, DataSpec, Sampler


@contextmanager
def refusing(model: str) -> Iterator[None]:
    """What a part of `benchmark.nn` refuses inside, by a `ValueError`, as bad input to this model."""
    try:
        yield
    except ValueError as error:
        raise BadInput(f"{model}: {error}") from error


class GenerativeModel(LightningModule, ABC):
    """A model that trains and samples. Everything else it can do is a capability in its class header.

    The constructor is the schema of the model's configuration: the data's shape arrives as `spec`, every further
    argument is an option of `configs/model/<name>.yaml` with the same default.

    The harness owns the training length, the learning-rate schedule (it scales the rates that `configure_optimizers`
    sets), gradient clipping, precision, the moving average of weights, validation and checkpoints: a model has no
    `validation_step`, and logs by returning a dictionary from `training_step`.
    """

    #: Prefixes of parameter names that gradients do not train (fixed features, moving averages).
    frozen: tuple[str, ...] = ()

    #: Names of parts that compiled training compiles beside the blocks: several operations that are worth one kernel.
    fused: ClassVar[tuple[str, ...]] = ()

    #: Names of parts that compiled training leaves as they are: what a loss differentiates twice, or what draws.
    eager: ClassVar[tuple[str, ...]] = ()

    #: Share of training done, 0 to 1. The harness sets it before each step; for schedules inside a loss.
    progress: float = 0.0

    def __init__(self, spec: DataSpec) -> None:
        super().__init__()
        self.spec = spec

    @property
    @abstractmethod
    def sampler(self) -> Sampler:
        """How `sample` draws, and how many network evaluations one sample takes."""

    @abstractmethod
    def sample(self, n: int) -> Tensor:
        """`n` samples `[n, *shape]`, int64 in data units, on the model's device."""

    @abstractmethod
    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """One step. Returns `loss` and whatever else is worth a curve, as scalars.

        With several optimisers: set `automatic_optimization = False` and step them here.
        """

    @abstractmethod
    def configure_optimizers(self) -> Any:
        """The optimiser, or a list of them, at the peak learning rate. No schedulers: the harness has one for all."""
