"""Precision and recall of samples: fidelity and diversity apart."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from benchmark.metrics.fidelity import REFERENCE_AT_MOST, at_most, over_draws, samples_of
from benchmark.spec import Estimate, Evidence, SampleFeatures

NEIGHBOURS = 3

PROTOCOL: Mapping[str, Any] = {"neighbours": NEIGHBOURS, "reference_at_most": REFERENCE_AT_MOST}


def precision(evidence: Evidence) -> Estimate:
    """Share of samples within the manifold of real images: the union of balls that reach to each image's k-th
    neighbour (Kynkäänniemi and others 2019, eq. 2). The standard error is over draws of samples alone."""
    return _precision_and_recall(samples_of(evidence))[0]


def recall(evidence: Evidence) -> Estimate:
    """Share of real images within the manifold of samples (Kynkäänniemi and others 2019, eq. 3)."""
    return _precision_and_recall(samples_of(evidence))[1]


@lru_cache(maxsize=1)  # both come from the same distances, which are most of the work
def _precision_and_recall(samples: SampleFeatures) -> tuple[Estimate, Estimate]:
    from torch_fidelity.metric_prc import prc_features_to_metric

    reference = at_most(samples.reference.features, REFERENCE_AT_MOST)
    draws = [
        prc_features_to_metric(
            draw.features,
            reference,
            prc_neighborhood=NEIGHBOURS,
            prc_batch_size=1_000,
            save_cpu_ram=True,
            verbose=False,
        )
        for draw in samples.generated
    ]
    n = len(samples.generated[0].features)
    return (
        over_draws([draw["precision"] for draw in draws], n),
        over_draws([draw["recall"] for draw in draws], n),
    )
