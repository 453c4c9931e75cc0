"""The README's picture: samples of finished runs beside real images of the test split.

python scripts/picture_samples.py leaderboards/samples.png runs/digits/vae/RUN runs/digits/sngan/RUN ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from torch import Tensor
from torchvision.utils import make_grid

from benchmark.build import restore
from benchmark.evaluate import draw_samples

SIDE = 6  # images in a row and in a column of a panel
COLUMNS = 5  # panels in a row, at most


def main(target: Path, runs: list[Path]) -> None:
    panels: dict[str, Tensor] = {}
    for run in runs:
        experiment, data, model = restore(run)
        panels.setdefault("real", data.split("test").x[: SIDE**2])
        panels[experiment.model.name] = draw_samples(model, SIDE**2, seed=0)
    rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // rows)
    figure, axes = plt.subplots(rows, columns, figsize=(1.8 * columns, 2.1 * rows), dpi=150, squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    for axis, (name, x) in zip(axes.flat, panels.items(), strict=False):
        grid = make_grid(x.float(), nrow=SIDE, padding=1, pad_value=data.spec.levels / 2)
        axis.imshow(grid[0], cmap="gray", vmin=0, vmax=data.spec.levels - 1, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.axis("off")
    figure.tight_layout(pad=0.6)
    figure.savefig(target, metadata={"Software": None})


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PICTURE RUN [RUN ...]")
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
