"""Two implementations of one model, ours and a peer's, with what can be asked of both."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import torch
from torch import Tensor, nn

from benchmark.spec import BadInput

Task = Literal["training step", "log-likelihood", "sampling"]

RATE = 1e-6  # of Adam: so low that both stay where they start, however many steps are timed


@dataclass(frozen=True)
class Side:
    """One implementation, built and given its batch: each function does the whole of its task once.

    `loss` is a scalar in training mode; `log_prob` and `sample` are asked in evaluation mode and without gradients.
    """

    module: nn.Module
    loss: Callable[[], Tensor]
    log_prob: Callable[[], Tensor] | None = None
    sample: Callable[[], Tensor] | None = None

    def tasks(self) -> dict[Task, Callable[[], Tensor]]:
        """What can be asked of it. Everyone has the same optimiser, the quickest: what is compared is the model."""
        optimizer = torch.optim.Adam((p for p in self.module.parameters() if p.requires_grad), RATE, fused=True)

        def step() -> Tensor:
            self.module.train()
            loss = self.loss()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        def asked(task: Callable[[], Tensor]) -> Callable[[], Tensor]:
            def ask() -> Tensor:
                self.module.eval()
                with torch.no_grad():
                    return task()

            return ask

        found: dict[Task, Callable[[], Tensor]] = {"training step": step}
        if self.log_prob is not None:
            found["log-likelihood"] = asked(self.log_prob)
        if self.sample is not None:
            found["sampling"] = asked(self.sample)
        return found


@dataclass(frozen=True)
class Pair:
    """Ours and a peer's: the same layers and sizes, the same batch, FLOPs of the loss within `speed.ALIKE`."""

    name: str
    package: str  # the peer, as it is installed and as it is imported
    about: str  # what both are, and in what they differ
    ours: Callable[[], Side]
    theirs: Callable[[], Side]  # the only place that imports the peer

    @property
    def missing(self) -> str | None:
        """Why the pair cannot be compared here."""
        if importlib.util.find_spec(self.package) is None:
            return f"{self.package} is not installed"
        return None

    @property
    def version(self) -> str:
        """Of the peer."""
        return version(self.package)

    def require(self) -> None:
        """Raises `BadInput` where the peer is missing."""
        if self.missing:
            raise BadInput(f"{self.name}: {self.missing}: pip install -e '.[peers]'")

    def build(self, device: torch.device) -> tuple[Side, Side]:
        """Ours and theirs, on `device`, from the same seed, so that both are given the same batch."""
        sides = []
        for make in (self.ours, self.theirs):
            with torch.random.fork_rng(), torch.device(device):
                torch.manual_seed(0)
                sides.append(make())
        return sides[0], sides[1]
