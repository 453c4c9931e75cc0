"""The one list: which law binds which model.

Every law takes a `Subject`, a model class under examination, and raises an AssertionError that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.models.base import GenerativeModel
from benchmark.spec import (
    Autoencodes,
    Conditional,
    ConditionalTokenLikelihood,
    Diagnosable,
    ImportanceBound,
    Interpolates,
    Likelihood,
    LikelihoodBound,
    PseudoLikelihood,
    Reconstructs,
    Rewarded,
    SamplesWithin,
    SolvesLikelihood,
    Stateful,
    StepwiseBound,
    Structure,
    TokenLikelihood,
    Truncates,
)
from benchmark.testing import behaviour, likelihoods
from benchmark.testing.subject import Subject
from benchmark.testing.universe import CONDITIONS


def promises(model: type, capability: type) -> bool:
    """Whether a class makes a promise, in its header or by its shape (of properties, `issubclass` knows nothing)."""
    if capability in model.__mro__:
        return True
    members: frozenset[str] = getattr(capability, "__abstractmethods__", frozenset())
    return bool(members) and members <= set(dir(model))


@dataclass(frozen=True)
class Law:
    """An assertion, and what makes it binding: any one of `promises`, together with `also`, on these structures, but
    for models that promise `unless`.

    Where it is about one kind of `condition`, it binds models that accept it, and the assertion is told which.
    """

    assertion: Callable[..., None]
    promises: tuple[type, ...]
    also: type = object
    unless: type | None = None
    structures: tuple[Structure, ...] = ("grid", "sequence", "coordinates")
    condition: Structure | None = None

    @property
    def name(self) -> str:
        kind = "" if self.condition is None else f"_{self.condition}"
        return self.assertion.__name__.removeprefix("assert_") + kind

    def promise(self, model: type) -> str:
        """The name of what binds `model`: the first of the promises that it makes."""
        return next(promise.__name__ for promise in self.promises if promises(model, promise))

    def binds(self, model: type, structure: Structure, conditions: Sequence[Structure] = ()) -> bool:
        """Whether a class that accepts these kinds of conditions is examined by it on data of this structure."""
        promised = any(promises(model, promise) for promise in self.promises) and promises(model, self.also)
        promised &= self.unless is None or not promises(model, self.unless)
        return promised and structure in self.structures and (self.condition is None or self.condition in conditions)

    def check(self, subject: Subject) -> None:
        """Raises an AssertionError that says what is wrong."""
        told: tuple[Any, ...] = () if self.condition is None else (self.condition,)
        self.assertion(subject, *told)


LAWS: tuple[Law, ...] = (
    Law(behaviour.assert_builds, (GenerativeModel,)),
    Law(behaviour.assert_trains_every_parameter, (GenerativeModel,)),
    Law(behaviour.assert_leaves_nothing_behind, (GenerativeModel,)),
    Law(behaviour.assert_samples, (GenerativeModel,)),
    Law(behaviour.assert_comes_back, (GenerativeModel,)),
    Law(likelihoods.assert_overfits, (Likelihood, LikelihoodBound, TokenLikelihood), unless=Rewarded),
    Law(likelihoods.assert_normalised, (Likelihood, TokenLikelihood)),
    Law(likelihoods.assert_samples_follow_likelihood, (Likelihood, TokenLikelihood)),
    Law(likelihoods.assert_is_a_bound, (LikelihoodBound,)),
    Law(likelihoods.assert_importance_bound_tightens, (ImportanceBound,)),
    Law(likelihoods.assert_samples_follow_importance_bound, (ImportanceBound,)),
    Law(likelihoods.assert_solver_is_fine_enough, (SolvesLikelihood,)),
    Law(likelihoods.assert_steps_sum, (StepwiseBound,)),
    Law(likelihoods.assert_causal, (TokenLikelihood,)),
    Law(likelihoods.assert_tokens_normalised, (TokenLikelihood,)),
    Law(likelihoods.assert_tokens_sum, (TokenLikelihood,), also=Likelihood),
    Law(likelihoods.assert_prefix_agrees, (TokenLikelihood,), structures=("sequence",)),
    *(
        Law(law, (ConditionalTokenLikelihood,), structures=("sequence",))
        for law in (
            likelihoods.assert_replies_normalised,
            likelihoods.assert_reply_causal,
            likelihoods.assert_reply_tokens_normalised,
            likelihoods.assert_nothing_counts_after_an_end,
        )
    ),
    Law(likelihoods.assert_listens, (ConditionalTokenLikelihood,), structures=("sequence",), condition="sequence"),
    Law(
        likelihoods.assert_replies_follow_likelihood,
        (ConditionalTokenLikelihood,),
        also=Conditional,
        structures=("sequence",),
    ),
    Law(likelihoods.assert_carries_state, (Stateful,)),
    Law(likelihoods.assert_pseudo_normalised, (PseudoLikelihood,)),
    Law(behaviour.assert_reconstructs, (Reconstructs,)),
    Law(behaviour.assert_autoencodes, (Autoencodes,)),
    *(Law(behaviour.assert_obeys_condition, (Conditional,), condition=kind) for kind in CONDITIONS),
    Law(behaviour.assert_interpolates, (Interpolates,)),
    Law(behaviour.assert_samples_within, (SamplesWithin,)),
    Law(behaviour.assert_truncates, (Truncates,)),
    Law(behaviour.assert_pleases, (Rewarded,)),
    Law(behaviour.assert_diagnostics, (Diagnosable,)),
)
