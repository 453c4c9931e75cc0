"""How straight a way samples take while latents change evenly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from benchmark.spec import Estimate, Evidence

PATHS, STEPS = 40, 9  # images on a path, its ends among them

PROTOCOL: Mapping[str, Any] = {"paths": PATHS, "steps": STEPS}


def interpolation_ratio(evidence: Evidence) -> Estimate:
    """Length of paths in features, Σ |f(xᵢ₊₁) − f(xᵢ)|, over the straight distance of their ends, |f(x_S) − f(x₁)|.

    1 for a straight line; a path that jumps or strays is longer. Features in place of the network of Karras and others
    2019 (§4.1), whose path length this is with steps of a size. The ratio is of means over paths, its error to first
    order.
    """
    features = evidence.interpolations
    if features is None:
        raise ValueError("the evidence has no interpolations: compute a metric only where one of its needs is met")
    lengths = features.diff(dim=1).norm(dim=2).sum(1).double()  # [paths]
    distances = (features[:, -1] - features[:, 0]).norm(dim=1).double()
    if not distances.sum() > 0:
        raise ValueError("all paths end where they begin: the samples do not depend on the latents")
    ratio = (lengths.sum() / distances.sum()).item()
    residuals = (lengths - ratio * distances) / distances.mean()
    return Estimate(ratio, residuals.std().item() / math.sqrt(len(residuals)), len(residuals))
