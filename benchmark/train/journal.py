"""What a run notes on its way: curves and pictures, in its folder and in Weights & Biases."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from benchmark.evaluate import draw_samples
from benchmark.record import write_atomic
from benchmark.spec import BadInput
from benchmark.tracking import Tracker
from benchmark.train.parts import Parts

Curves = list[tuple[int, str, float]]  # training examples (of `steps/...`: steps of the model), name, value


class Journal:
    """Of the run in `folder`, after what earlier attempts have written: one that fails before it trains keeps that.

    There is no `tracker` until the run has its parts.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.curves: Curves = curves_of(folder)
        self.tracker: Tracker | None = None

    def log(self, values: Mapping[str, float], examples: int) -> None:
        self.curves += [(examples, name, value) for name, value in values.items()]
        if self.tracker is not None:
            self.tracker.log(values, examples)

    def keep(self, name: str, values: Sequence[float]) -> None:
        """A curve over steps of the model, which training has not to do with."""
        self.curves = [row for row in self.curves if row[1] != f"steps/{name}"]
        self.curves += [(step, f"steps/{name}", value) for step, value in enumerate(values)]

    def picture(self, parts: Parts, name: str, examples: int) -> None:
        """Draw samples from the model, and show them."""
        parts.model.eval()
        samples = draw_samples(parts.model, parts.examination.fact.shown, parts.experiment.seed.eval)
        parts.model.train()
        self.show(parts, samples, name, examples, "samples")

    def show(self, parts: Parts, x: torch.Tensor, name: str, examples: int, title: str) -> None:
        """Write samples as people look at them, and log them under a title."""
        (self.folder / "samples").mkdir(exist_ok=True)
        file = parts.examination.modality.show(x, parts.data.spec, parts.data.decode, self.folder / "samples" / name)
        if self.tracker is not None:
            self.tracker.samples(file, examples, title)

    def forget_after(self, examples: int) -> None:
        """Drop what an attempt that failed logged after its last checkpoint."""
        self.curves = [row for row in self.curves if row[0] <= examples]

    def write_curves(self) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerows([("examples", "name", "value"), *self.curves])
        write_atomic(self.folder / "curves.csv", buffer.getvalue())


def curves_of(folder: Path) -> Curves:
    """What earlier attempts at a run have written. Raises `BadInput` where it is damaged."""
    file = folder / "curves.csv"
    if not file.is_file():
        return []
    try:
        rows = list(csv.reader(file.read_text(encoding="utf-8").splitlines()))[1:]
        return [(int(examples), name, float(value)) for examples, name, value in rows]
    except ValueError as error:
        raise BadInput(f"{file} does not hold the curves of a run ({error}): remove it, and they begin anew") from error
