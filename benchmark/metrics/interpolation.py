"""How straight a way samples take while latents change evenly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmark.metrics.extractors.base import Extractor
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session
from benchmark.spec import Absence, Estimate, Interpolates

PATHS, STEPS = 40, 9  # images on a path, its ends among them

PROTOCOL: Mapping[str, Any] = {"paths": PATHS, "steps": STEPS}


class Paths(Probe[Tensor]):
    """Features `[paths, steps, d]` along paths between draws of a model's latents."""

    key = "interpolations"
    says = ("extractor",)
    promises = (Interpolates,)

    def collect(self, session: Session) -> Found[Tensor] | Absence:
        model, extractor = session.model, session.experts.extractor
        if not isinstance(extractor, Extractor):
            return extractor
        with session.keyed("interpolations"):
            paths = model.interpolate(PATHS, STEPS).cpu()  # [paths, steps, *shape]
        features = extractor(paths.flatten(0, 1)).features.unflatten(0, paths.shape[:2])
        protocol = {"extractor": extractor.name, "how": {"sampler": model.sampler.name}}
        return Found(features, protocol, pictures={"interpolations": paths[:STEPS].flatten(0, 1)})  # a square of them


@metric(Paths, protocol=PROTOCOL)
def interpolation_ratio(features: Tensor) -> Estimate:
    """Length of paths in features, Σ |f(xᵢ₊₁) − f(xᵢ)|, over the straight distance of their ends, |f(x_S) − f(x₁)|.

    1 for a straight line; a path that jumps or strays is longer. Features in place of the network of Karras and others
    2019 (§4.1), whose path length this is with steps of a size. The ratio is of means over paths, its error to first
    order.
    """
    lengths = features.diff(dim=1).norm(dim=2).sum(1).double()  # [paths]
    distances = (features[:, -1] - features[:, 0]).norm(dim=1).double()
    if not distances.sum() > 0:
        raise ValueError("all paths end where they begin: the samples do not depend on the latents")
    ratio = (lengths.sum() / distances.sum()).item()
    residuals = (lengths - ratio * distances) / distances.mean()
    return Estimate(ratio, residuals.std().item() / math.sqrt(len(residuals)), len(residuals))
