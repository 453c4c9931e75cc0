"""A picture of what each step of denoising diffusion costs: bits a dimension of L_0, L_1, ... on the validation split.

python scripts/picture_steps.py steps.svg runs/digits/ddpm/RUN runs/digits/ddpm_simple/RUN ...
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from benchmark.build import restore
from benchmark.models.diffusion.ddpm import DDPM
from benchmark.spec import BadInput

EXAMPLES = 500  # at most


def main(target: Path, runs: list[Path]) -> None:
    figure, (of_each, so_far) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for run in runs:
        experiment, data, model = restore(run)
        if not isinstance(model, DDPM):
            raise BadInput(f"{run} holds a {type(model).__name__}: only DDPM has a bound of so many steps")
        x = data.split("validation").x[:EXAMPLES].long().to(model.device)
        torch.manual_seed(0)
        with torch.no_grad():
            bits = model.bits_of_steps(x).cpu()  # [T + 1]
        print(f"{run}: L_0 {bits[0]:.4f}, steps {bits[1:-1].sum():.4f}, L_T {bits[-1]:.2g}, together {bits.sum():.4f}")
        of_each.semilogy(range(model.T), bits[:-1], linewidth=0.8, label=experiment.model.name)
        so_far.plot(range(model.T), bits[:-1].cumsum(0), label=experiment.model.name)
    of_each.set_ylabel("bits/dim of a step")
    so_far.set_ylabel("bits/dim of all steps so far")
    for axes in (of_each, so_far):
        axes.set_xlabel("t of $L_t$")
        axes.legend()
    figure.savefig(target, metadata={"Date": None} if target.suffix == ".svg" else None)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(f"usage: {sys.argv[0]} PICTURE RUN [RUN ...]")
    main(Path(sys.argv[1]), [Path(run) for run in sys.argv[2:]])
