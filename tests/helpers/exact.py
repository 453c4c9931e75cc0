"""Bounds beside exact values of the same model: `python tests/helpers/exact.py` prints the table.

The exact values are those of `solvable`, which each model's own tests use too; here they stand side by side.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import solvable
import torch
from torch import Tensor

from benchmark import testing
from benchmark.leaderboard.markdown import page, rendered
from benchmark.models.base import GenerativeModel
from benchmark.models.flow.maf import MAF
from benchmark.models.flow.nice import NICE
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.flow.spline_flow import SplineFlow
from benchmark.tables import Head, Table, entries

SIGMAS = 3.0  # Monte-Carlo standard errors that a bound may lie above the exact value


@dataclass(frozen=True)
class Pair:
    """A bound and the exact value of one model, means over the same examples in nats; each draw of it is unbiased."""

    model: str
    exact_by: str
    bound_by: str
    exact: float
    bound: float
    stderr: float  # of the bound, Monte Carlo
    gap: float  # how far below the exact value it may lie
    above: float = 0.0  # and how far above: an approximation that a solver made is no bound

    @property
    def problem(self) -> str | None:
        """Why the two cannot both be right; `None` where they can."""
        if self.bound > self.exact + self.above + SIGMAS * self.stderr:
            return f"above the exact value by {(self.bound - self.exact) / self.stderr:.1f} s.e."
        if self.bound < self.exact - self.gap - SIGMAS * self.stderr:
            return f"more than {self.gap:g} below the exact value"
        return None


def _pair(model: str, exact_by: str, bound_by: str, exact: Tensor, draws: Tensor, gap: float = math.inf) -> Pair:
    """`exact` `[B]` against independent `draws` `[K, B]` of the bound; or `[K, B]`, each from the same noise."""
    error = (draws.double() - exact.double()).mean(1)  # [K]
    stderr, value = float(error.std()) / math.sqrt(len(error)), float(exact.double().mean())
    return Pair(model, exact_by, bound_by, value, value + float(error.mean()), stderr, gap)


def of_vae(likelihood: str) -> list[Pair]:
    """A two-dimensional latent, by quadrature on a grid."""
    model, x = solvable.trained_vae(solvable.FOUR, latent=2, width=16, depth=1, likelihood=likelihood)
    with torch.no_grad(), testing.seeded(0):
        exact = solvable.log_prob_by_quadrature(model, x)
        name, how = f"vae, {likelihood} decoder, two latents", "quadrature over z"
        elbo, tight = testing.elbo_draws(model, x, 512), testing.importance_draws(model, x, 5_000, 32)
    return [_pair(name, how, "ELBO", exact, elbo), _pair(name, how, "importance bound, k = 5,000", exact, tight, 0.02)]


def of_vq_vae(prior: str) -> list[Pair]:
    """One place, by the sum over all of its codes."""
    model, x = solvable.trained_vq_vae(solvable.FOUR, prior=prior, patch=1), testing.every_example(solvable.FOUR)
    with torch.no_grad():
        exact, bound = solvable.terms_by_codes(model, x).logsumexp(0), torch.stack([model.elbo(x), model.elbo(x)])
    return [_pair(f"vq_vae, {prior} prior, one place", "sum over all codes", "ELBO", exact, bound)]


def of_flow(kind: type[GenerativeModel], dequantisation: str) -> list[Pair]:
    """Two pixels, by integration over the cell of each image."""
    model, x = solvable.trained_flow(kind, dequantisation=dequantisation), testing.every_example(solvable.PAIR)
    with torch.no_grad(), testing.seeded(0):
        exact = solvable.log_prob_by_cells(model, x)
        name = f"{kind.__module__.rpartition('.')[2]}, {dequantisation} dequantisation, two pixels"
        how = "density integrated over cells"
        elbo, tight = testing.elbo_draws(model, x, 512), testing.importance_draws(model, x, 5_000, 32)
    return [_pair(name, how, "ELBO", exact, elbo), _pair(name, how, "importance bound, k = 5,000", exact, tight, 0.02)]


def of_flow_matching(probes: int) -> list[Pair]:
    """Gaussian data, from the same noise: only the solver stands between the two."""
    model = solvable.Linear(solvable.SIXTEEN, probes=probes)
    x = torch.arange(5).expand(4, 4, 5).movedim(-1, 0)[:, None].repeat(64, 1, 1, 1)  # 64 times five grey images
    with torch.no_grad():
        with testing.seeded(0):
            solved = model.elbo(x).view(64, 5)
        with testing.seeded(0):
            exact = solvable.gaussian_log_prob(model, x).view(64, 5)
    name = f"flow_matching, Gaussian data, divergence by {probes} probes"
    pair = _pair(name, "closed form of the path's density", "ODE likelihood", exact, solved, gap=0.002)
    return [replace(pair, above=0.002)]


def of_vdm() -> list[Pair]:
    """One pixel whose distribution the denoiser knows: in continuous time nothing is lost but at the ends."""
    model, draws = solvable.perfect(), 40_000
    x = testing.every_example(solvable.PIXEL)
    with torch.no_grad(), testing.seeded(0):
        elbo = model.elbo(x.repeat(draws, 1, 1, 1)).view(draws, 3)
    return [_pair("vdm, one pixel, perfect denoiser", "log p of the pixel", "ELBO", solvable.P.log(), elbo, 0.02)]


CASES: tuple[tuple[Callable[..., list[Pair]], Any], ...] = (
    (of_vae, ("categorical",)),
    (of_vae, ("logistics",)),
    (of_vq_vae, ("autoregressive",)),
    (of_vq_vae, ("histogram",)),
    *((of_flow, (kind, how)) for kind in (NICE, RealNVP, SplineFlow, MAF) for how in ("uniform", "variational")),
    (of_flow_matching, (1,)),
    (of_flow_matching, (16,)),
    (of_vdm, ()),
)


def main(target: Path | None) -> int:
    pairs = [pair for make, options in CASES for pair in make(*options)]
    rows = []
    for pair in pairs:
        numbers = [f"{value:.4f}" for value in (pair.exact, pair.bound, pair.bound - pair.exact, pair.stderr)]
        rows.append(entries([pair.model, pair.exact_by, pair.bound_by, *numbers, pair.problem or "holds"]))
    titles = ("model", "exact by", "bound", "exact", "reported", "difference", "s.e.", "verdict")
    heads = [Head(title, number=index >= 3) for index, title in enumerate(titles)]
    text = page(
        [
            "# Bounds beside exact values",
            "Generated by `make truth`; do not edit.",
            "Small models whose likelihood can be had exactly: by quadrature, by integration, or in closed form. Nats "
            "an image, means over the same images. A bound may lie above the exact value by no more than "
            f"{SIGMAS:g} Monte-Carlo standard errors, what a solver approximates by 0.002 nats; what is tight must "
            "come near from below as well.",
            rendered(Table("", heads, rows)),
        ]
    )
    print(text)
    if target is not None:
        target.write_text(text, encoding="utf-8")
    return int(any(pair.problem for pair in pairs))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
