"""Small honest records, for tests of what is made from records."""

from __future__ import annotations

import io
import math
from collections.abc import Collection
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.console import Sheet
from benchmark.facts import COSTS, metrics
from benchmark.leaderboard.pages import boards
from benchmark.record import Record
from benchmark.report.check import Known, Required
from benchmark.spec import Absence, Score
from benchmark.tables import Table

TEST = {"split": "test"}
EXTRACTOR = {"split": "test", "generated": 180, "held_out": 180, "reference": "train, 1437", "extractor": "digits-v1"}
NATS_PER_DIM_BIT = 64 * math.log(2)
TEN = {"train": 1437, "validation": 180, "test": 180}


def likelihood(bits: float, how: str = "exact", stderr: float = 0.019, **protocol: Any) -> dict[str, Score]:
    """What an image model with a likelihood reports."""
    shown = TEST | protocol | {"how": {"likelihood": how}}
    return {
        "nll": Score("nats/example", 1, bits * NATS_PER_DIM_BIT, stderr * NATS_PER_DIM_BIT, 180, shown),
        "bits_per_dim": Score("bits/dim", 1, bits, stderr, 180, shown),
    }


def absent(name: str, reason: str, kind: Any = "does not apply") -> dict[str, Score]:
    return {name: Score("1", 1, absent=Absence(kind, reason))}


def distance(fid: float, **protocol: Any) -> dict[str, Score]:
    shown = EXTRACTOR | protocol | {"how": {"sampler": "ancestral", "evaluations": 1}}
    return {"fid": Score("1", 1, fid, 0.1, 180, shown), "kid": Score("1", 1, 0.01, 0.002, 180, shown | {"subsets": 9})}


def known(networks: Collection[str] = ()) -> Known:
    """What this version measures, with these extractors and judges."""
    from benchmark.build import load_metrics  # imports torch

    required = {name: Required(metric.probes[0].says, metric.protocol) for name, metric in load_metrics().items()}
    return Known(metrics(), COSTS, required, networks)


def cost() -> dict[str, Score]:
    return {name: spent(name, value) for name, value in (("parameters", 259_488.0), ("cpu_minutes", 0.109))}


def spent(name: str, value: float) -> Score:
    """A cost as it is counted today."""
    return Score(COSTS[name].unit, COSTS[name].version, value)


def shown(table: Table, width: int) -> str:
    """What a terminal of so many columns shows."""
    console = Console(width=width, file=io.StringIO())
    console.print(Sheet(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


REFERENCES = {
    "uniform": {"bits_per_dim": asdict(Score("bits/dim", 1, 4.087, 0.0, 180, TEST))},
    "histogram": {"bits_per_dim": asdict(Score("bits/dim", 1, 2.967, 0.015, 180, TEST))},
    "held-out data": {"fid": asdict(Score("1", 1, 1.44, None, 180, EXTRACTOR))},
}


def record(scores: dict[str, Score] | None = None, **changes: Any) -> Record:
    """A finished run of `vae` on digits; `changes` replace top-level keys, `seed` is an integer and `options` are more
    of the model's."""
    seed = changes.pop("seed", 0)
    minutes = changes.pop("minutes", 4.0)
    modality, split = changes.pop("modality", "image"), changes.pop("split", "test")
    fingerprint = changes.pop("fingerprint", "ab" * 32)
    model, options = changes.get("model", "vae"), changes.pop("options", {})
    content: dict[str, Any] = {
        "schema": 1,
        "kind": "run",
        "status": "finished",
        "reason": None,
        "model": model,
        "data": "digits",
        "budget": "standard",
        "seed": {"init": seed, "data": seed, "eval": 0},
        "config": {
            "data": {
                "name": changes.get("data", "digits"),
                "target": "benchmark.data.images.Digits",
                "modality": modality,
            },
            "model": {"name": model, "target": f"benchmark.models.family.{model}.Model"} | options,
            "budget": {"minutes": minutes, "examples": 1000},
            "training": {},
            "evaluation": {"split": split},
        },
        "config_hash": "c" * 64,
        "code_hash": "1" * 40,
        "git": {"commit": "d" * 40, "dirty": False},
        "dataset": {
            "source": "scikit-learn",
            "licence": "CC BY 4.0",
            "splits": {name: {"n": n, "sha256": fingerprint} for name, n in TEN.items()},
            "references": REFERENCES,
        },
        "environment": {},
        "hardware": {"cpu": "AMD EPYC", "cores": 2, "device": "cpu", "threads": 1},
        "started": datetime(2026, 1, 1, seed % 24, tzinfo=UTC),
        "seconds": 1.0,
        "scores": cost() | (likelihood(1.9) if scores is None else scores),
    }
    return Record.model_validate(content | changes)


def page(*records: Record, current: Any = None, data: str = "digits") -> str:
    """The board of one dataset, made from these records."""
    paths = [Path(f"leaderboards/records/{one.data}/{one.model}/{index}.json") for index, one in enumerate(records)]
    return boards(dict(zip(paths, records, strict=True)), current)[f"{data}.md"]
