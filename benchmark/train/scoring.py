"""Scoring: the final protocol, the validation score that chose the weights, and what all of it cost."""

from __future__ import annotations

import math

from benchmark.build import DataModule, GenerativeModel
from benchmark.config import Experiment
from benchmark.evaluate import Protocol, Result, cost, draw_samples
from benchmark.loop import Loop
from benchmark.spec import Absence, Score
from benchmark.train.parts import Parts


def final_protocol(experiment: Experiment) -> Protocol:
    """The conditions under which a finished run is scored."""
    settings = experiment.evaluation
    return Protocol(
        settings.split,
        experiment.seed.eval,
        elbo_draws=settings.elbo_draws,
        importance_samples=settings.importance_samples,
        importance_examples=settings.importance_examples,
        solved_examples=settings.solved_examples,
        sample_draws=settings.sample_draws,
        sample_examples=settings.sample_examples,
        stride=settings.stride,
    )


def selection_score(parts: Parts, best: float) -> Score:
    """The validation score that chose the checkpoint: it has seen the choice, so it is not a result. Where nothing was
    chosen, that of the last."""
    metric = parts.selection_metric
    protocol, unit = {"split": "validation", "metric": metric}, parts.examination.metrics[metric].fact.unit
    if parts.experiment.training.weights == "last":
        protocol["weights"] = "last"
    if math.isinf(best):
        absent = Absence("failed", f"{metric} could not be computed in validation: the last checkpoint is kept")
        return Score(unit, 1, protocol=protocol, absent=absent)
    return Score(unit, 1, best, protocol=protocol)


def generalisation_gap(parts: Parts, best: float) -> float | None:
    """How much worse validation is than as many training examples, in the unit of the score that selects.

    `None` where likelihood does not select, or could not be computed.
    """
    metric = parts.selection_metric
    if not parts.selects_by_likelihood or not math.isfinite(best):
        return None
    score = parts.evaluate_on("train", metric)[metric]
    return None if score.value is None else best - score.value


# Costs ---------------------------------------------------------------------------------------------------------------


def count_flops(experiment: Experiment, data: DataModule, model: GenerativeModel) -> Score:
    """What training `model` on an example costs, from a batch of the experiment; nothing else changes by it."""
    batch = next(data.batches(experiment.seed.data, experiment.training.batch_size))
    try:
        return cost.score("flops_per_example", cost.flops_per_example(model, batch))
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        first = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}".removesuffix(": ")  # as in a user's model
        return cost.absent("flops_per_example", f"a training step cannot be counted: {first}")


def training_cost(parts: Parts, loop: Loop) -> dict[str, Score]:
    values = {
        "parameters": cost.parameters(parts.model),
        "examples_per_second": loop.examples / loop.training_seconds,
        "peak_memory": cost.peak_memory(parts.device),
        "wall_seconds": loop.wall_seconds,
        "cpu_minutes": loop.cpu_seconds / 60,
    }
    scores = {name: cost.score(name, value) for name, value in values.items()}
    before = [origin.cpu_minutes or 0.0 for origin in parts.experiment.origins.values()]
    if before:  # what was trained for it counts
        own = values["cpu_minutes"]
        scores["cpu_minutes"] = cost.score("cpu_minutes", own + sum(before), {"how": {"of this run": round(own, 4)}})
    return scores


def sampling_cost(parts: Parts, result: Result) -> dict[str, Score]:
    seconds = result.sampling_seconds
    n = parts.examination.fact.shown
    if seconds is None:
        before = cost.clock(parts.device)
        draw_samples(parts.model, n, parts.experiment.seed.eval)
        seconds = (cost.clock(parts.device) - before) / n * 1000
    sampler = parts.model.sampler
    how = {"how": {"sampler": sampler.name, "evaluations": sampler.evaluations}}
    values = {"sampling_seconds": seconds, "sampling_evaluations": 1000 * sampler.evaluations}
    return {name: cost.score(name, value, how) for name, value in values.items()}
