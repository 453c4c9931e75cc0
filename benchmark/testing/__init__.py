"""The laws: what each promise in a model's class header means, as assertions; and the exam that runs them."""

from benchmark.testing.flows import assert_inverse_inverts, assert_log_det_agrees
from benchmark.testing.judging import (
    P_VALUE,
    SIGMAS,
    assert_frequencies_agree,
    assert_in_data_units,
    elbo_draws,
    importance_draws,
)
from benchmark.testing.laws import LAWS, Law
from benchmark.testing.subject import PATIENT, QUICK, Effort, Subject, draw, log_likelihood, seeded, train
from benchmark.testing.universe import CONDITIONS, Source, every_example, index_of, noise, prototypes, universe_of

__all__ = [
    "CONDITIONS",
    "LAWS",
    "PATIENT",
    "P_VALUE",
    "QUICK",
    "SIGMAS",
    "Effort",
    "Law",
    "Source",
    "Subject",
    "assert_frequencies_agree",
    "assert_in_data_units",
    "assert_inverse_inverts",
    "assert_log_det_agrees",
    "draw",
    "elbo_draws",
    "every_example",
    "importance_draws",
    "index_of",
    "log_likelihood",
    "noise",
    "prototypes",
    "seeded",
    "train",
    "universe_of",
]
