"""Small studies whose truth is known, for tests of their statistics and of what is made from them."""

from __future__ import annotations

import math
from typing import Any

from scipy.stats import qmc

from benchmark.sweep.studies import Header, Study, Trial

OPTIONS: dict[str, Any] = {
    "model.learning_rate": {"role": "studied", "low": 1e-4, "high": 1e-1, "scale": "log"},
    "model.dropout": {"role": "studied", "low": 0.0, "high": 1.0},
    "model.depth": {"role": "studied", "low": 1, "high": 16, "integer": True},
    "model.nothing": {"role": "nuisance", "low": 1e-3, "high": 1.0, "scale": "log"},
    "training.batch_size": {"role": "nuisance", "choices": [16, 32, 64, 128]},
    "model.network": {"role": "fixed"},
}
TUNED = {
    "model.learning_rate": 3e-3,
    "model.dropout": 0.3,
    "model.depth": 4,
    "model.nothing": 0.1,
    "training.batch_size": 64,
    "model.network": "conv",
}
CAP = 10.0


def header(design: str = "space", budget: str = "trial", **changes: Any) -> Header:
    length = {"trial": 1000, "standard": 8000}[budget]
    config = {"budget": {"name": budget, "examples": length, "minutes": length / 2000}}
    content: dict[str, Any] = {
        "name": f"digits-vae-{design}-{budget}",
        "data": "digits",
        "model": "vae",
        "family": "vae",
        "design": design,
        "sampler": "qmc" if design == "space" else "grid",
        "pruner": "none",
        "options": OPTIONS if design == "space" else {},
        "tuned": TUNED,
        "config": config,
        "config_hash": "c0ffee",
        "metric": "nll",
        "unit": "nats/example",
    }
    return Header(**(content | changes))


def trial(number: int, params: dict[str, Any], score: float | None, **changes: Any) -> Trial:
    stability = {
        "initial": CAP,
        "final": score or 0.0,
        "watched_steps": 400.0,
        "loss_spikes": 2.0,
        "gradient_tail": 3.0,
    }
    stability |= {"active_units": 0.5, "active_units_start": 0.1}
    content: dict[str, Any] = {"number": number, "params": params, "status": "finished", "score": score}
    return Trial(**(content | {"stability": stability} | changes))


def truth(params: dict[str, Any]) -> float:
    """The learning rate matters four times as much as dropout, and nothing else matters at all."""
    u = math.log(params["model.learning_rate"] / 1e-4) / math.log(1000)
    return float(1 + 4 * (u - 0.6) ** 2 + (params["model.dropout"] - 0.3) ** 2)


def study(n: int = 128, score: Any = truth, seed: int = 0, **changes: Any) -> Study:
    points = qmc.Sobol(5, scramble=True, seed=seed).random(n)
    trials = [trial(0, {key: TUNED[key] for key in OPTIONS if key != "model.network"}, truth(TUNED), tuned=True)]
    for number, u in enumerate(points, start=1):
        params = {
            "model.learning_rate": float(1e-4 * 1000 ** u[0]),
            "model.dropout": float(u[1]),
            "model.depth": 1 + int(u[2] * 16),
            "model.nothing": float(1e-3 * 1000 ** u[3]),
            "training.batch_size": (16, 32, 64, 128)[int(u[4] * 4)],
        }
        trials.append(trial(number, params, score(params)))
    return Study(header=header(**changes), trials=tuple(trials))


def remedied(effects: dict[str, float], seeds: int = 3, **changes: Any) -> Study:
    """A study of remedies whose FID is 4, times what those that are on do, times 1.5 for each further seed."""
    names = list(effects)
    turned_on = {"none": [], **{name: [name] for name in names}, "all": names}
    turned_on |= {f"all but {name}": [other for other in names if other != name] for name in names}
    trials: list[Trial] = []
    for seed in range(seeds):
        for case, on in turned_on.items():
            fid = 4 * 1.5**seed * math.prod(effects[name] for name in on)
            more = {"scores": {"recall": 0.5 + 0.1 * len(on) + 0.01 * seed, "wall_seconds": 3.0}}
            curve = ((0, 100.0), (500, 2 * fid), (1000, fid))
            trials.append(trial(len(trials), {"case": case, "seed": seed}, fid, validations=curve, **more))
    config = header().config | {"data": {"name": "digits", "modality": "image"}}
    remedies: dict[str, Any] = {name: {"settings": {f"model.{name}": (False, True)}} for name in names}
    remedies["shift"] = {"settings": {"model.shift": (0, 1)}, "structures": ("coordinates",)}
    about = {"model": "dcgan", "family": "gan", "metric": "fid", "unit": "1", "config": config, "remedies": remedies}
    return Study(header=header("remedies", **(about | {"name": "remedies-of-dcgan"} | changes)), trials=tuple(trials))
