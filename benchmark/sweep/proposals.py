"""Optuna's samplers, which propose settings, and its pruners, which end trials early."""

from __future__ import annotations

from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, QMCSampler, RandomSampler, TPESampler

SEED = 0  # of the sampler


def make_sampler(name: str, proposed: int) -> BaseSampler:
    """A seeded sampler. One that draws at random continues with another seed after `proposed` trials.

    A quasi-random sequence counts its points in the study itself.
    """
    seed = SEED + proposed
    if name == "qmc":
        return QMCSampler(qmc_type="sobol", scramble=True, seed=SEED, warn_independent_sampling=False)
    if name == "cmaes":
        return CmaEsSampler(seed=seed, warn_independent_sampling=False)
    if name == "gp":
        return GPSampler(seed=seed)
    return TPESampler(seed=seed) if name == "tpe" else RandomSampler(seed=seed)


def make_pruner(name: str) -> BasePruner:
    """By validations, which every trial of a study has at the same shares of its length."""
    if name == "median":
        return MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    return SuccessiveHalvingPruner() if name == "halving" else NopPruner()


def random_sampler() -> BaseSampler:
    """For what takes no proposal of the study's own sampler."""
    return RandomSampler(seed=SEED)
