"""Every model in `configs/model` keeps every promise of its class header; and the laws that say so can convict."""

from __future__ import annotations

import importlib
import math
from dataclasses import replace
from functools import cache, partial
from typing import Any

import pytest
import torch
import toys
import yaml
from files import CONFIGS
from signatures import MODEL_KEYS

from benchmark import testing
from benchmark.models.hybrid.latent_flow import PixelCode
from benchmark.spec import CAPABILITIES, Conditional, DataSpec, Structure
from benchmark.testing import CONDITIONS, LAWS, PATIENT, QUICK, Effort, Law, Subject, behaviour, likelihoods

MODELS = CONFIGS / "model"


# The models ----------------------------------------------------------------------------------------------------------


@cache
def configuration(name: str) -> dict[str, Any]:
    return yaml.safe_load((MODELS / f"{name}.yaml").read_text())


@cache
def class_of(name: str) -> type:
    module, _, attribute = configuration(name)["target"].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def options(name: str) -> dict[str, Any]:
    return {k: v for k, v in configuration(name).items() if k not in MODEL_KEYS}


#: Of a stack of layers, what is enough for the universes of the laws: the code is the same, at a fifth of the time.
SMALL = {"layers": 2, "heads": 4, "width": 32, "channels": 16}


@cache
def subject(name: str, structure: Any) -> Subject:
    given = options(name)
    small = {
        option: min(given[option], size) for option, size in SMALL.items() if option in given and "layers" in given
    }
    return Subject(partial(class_of(name), **given | small), structure, conditions(name))


def conditions(name: str) -> tuple[Any, ...]:
    return tuple(configuration(name).get("conditions", ()))


def walk() -> list[Any]:
    """Each model × structure × law that binds it."""
    names = sorted(path.stem for path in MODELS.glob("*.yaml"))
    cases = []
    for name in names:
        structures = configuration(name)["structures"]
        for structure in structures:
            label = name if len(structures) == 1 else f"{name}-{structure}"
            cases += [
                pytest.param(name, structure, law, id=f"{label}-{law.name}", marks=pytest.mark.xdist_group(label))
                for law in LAWS
                if law.binds(class_of(name), structure, conditions(name))
            ]
    return cases


@pytest.mark.parametrize(("name", "structure", "law"), walk())
def test_model(name: str, structure: Any, law: Law) -> None:
    law.check(subject(name, structure))


@cache
def patient_subject(name: str, structure: Any) -> Subject:
    """The model in its own size."""
    return Subject(partial(class_of(name), **options(name)), structure, conditions(name), PATIENT)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "structure", "law"), walk())
def test_model_at_length(name: str, structure: Any, law: Law) -> None:
    """In its own size, with all steps of training and all draws, whether or not fewer have been enough."""
    law.check(patient_subject(name, structure))


def test_the_stand_in_for_a_first_stage_keeps_the_promise_of_one() -> None:
    spec = testing.universe_of("grid").enumerable
    behaviour.assert_encodes_and_decodes(PixelCode(spec.shape, spec.levels), spec)


# The laws ------------------------------------------------------------------------------------------------------------


@cache
def toy(kind: type[toys.Toy], structure: Any, effort: Effort = QUICK) -> Subject:
    return Subject(kind, structure, KINDS if issubclass(kind, Conditional) else (), effort)


KINDS: tuple[Any, ...] = tuple(CONDITIONS)
STRUCTURES: tuple[Structure, ...] = ("grid", "sequence", "coordinates")
#: What is examined on coordinates too, where there are but two of them and 25 examples.
FLAT = (toys.Independent, toys.Autoencoder)


@pytest.mark.parametrize(
    ("kind", "structure", "law"),
    [
        pytest.param(kind, structure, law, id=f"{kind.__name__}-{structure}-{law.name}")
        for kind in toys.HONEST
        for structure in (STRUCTURES if kind in FLAT else STRUCTURES[:2])
        for law in LAWS
        if law.binds(kind, structure, KINDS)
    ],
)
def test_law_acquits(kind: type[toys.Toy], structure: Any, law: Law) -> None:
    law.check(toy(kind, structure))


@pytest.mark.parametrize(
    ("kind", "law", "words"),
    [
        (toys.NeedsMoreThanSpec, behaviour.assert_builds, "built for"),
        (toys.UnusedParameter, behaviour.assert_trains_every_parameter, r"forgotten\.weight, forgotten\.bias"),
        (toys.UnsteppedParameter, behaviour.assert_trains_every_parameter, "shift"),
        (toys.InfiniteGradient, behaviour.assert_trains_every_parameter, "not finite: logits"),
        (toys.ForgetsLayer, behaviour.assert_trains_every_parameter, r"critic\.2\.weight"),
        (toys.KeepsEveryLoss, behaviour.assert_leaves_nothing_behind, "each training step leaves tensors behind"),
        (toys.WrongDtype, behaviour.assert_samples, "dtype torch.float32"),
        (toys.OutOfRange, behaviour.assert_samples, r"values 1\.\.5"),
        (toys.SeedsItself, behaviour.assert_samples, "repeats the first"),
        (toys.IgnoresSeed, behaviour.assert_samples, "other samples"),
        (toys.ForgetsBuffer, behaviour.assert_comes_back, "came back"),
        (toys.ClimbsLoss, likelihoods.assert_overfits, "nats at first"),
        (toys.MeanForSum, likelihoods.assert_normalised, "sum to"),
        (toys.SharpSampler, likelihoods.assert_samples_follow_likelihood, "disagree"),
        (toys.LatentMeanForSum, likelihoods.assert_is_a_bound, "exp of the bound sums"),
        (toys.WeightInsideElbo, likelihoods.assert_is_a_bound, "bound"),
        (toys.WeightInsideElbo, likelihoods.assert_importance_bound_tightens, "one importance sample"),
        (toys.WeightInsideBoth, likelihoods.assert_is_a_bound, "bound"),
        (toys.WeightInsideBoth, likelihoods.assert_samples_follow_importance_bound, "sum to"),
        (toys.ForgetsCells, likelihoods.assert_is_a_bound, "exp of the bound sums"),
        (toys.SumOfWeights, likelihoods.assert_samples_follow_importance_bound, "sum to"),
        (toys.MeanOfLogs, likelihoods.assert_samples_follow_importance_bound, "sum to"),
        (toys.OtherPrior, likelihoods.assert_samples_follow_importance_bound, "disagree"),
        (toys.SolvesCoarsely, likelihoods.assert_solver_is_fine_enough, "2 evaluations change the bound"),
        (toys.ForgetsSolver, likelihoods.assert_solver_is_fine_enough, "16 evaluations of the network solve"),
        (toys.Peeks, likelihoods.assert_causal, "comes before"),
        (toys.Memoryless, likelihoods.assert_causal, "nothing that comes after"),
        (toys.SeesItself, likelihoods.assert_tokens_normalised, "all values of token"),
        (toys.MeanOfTokens, likelihoods.assert_tokens_sum, "not close"),
        (toys.CountsFromEnd, likelihoods.assert_prefix_agrees, "not close"),
        (toys.LosesState, likelihoods.assert_carries_state, "not close"),
        (toys.EndsForNothing, likelihoods.assert_replies_normalised, "all replies sum to"),
        (toys.HearsItself, likelihoods.assert_reply_causal, "comes before"),
        (toys.KnowsItself, likelihoods.assert_reply_tokens_normalised, "all values of token"),
        (toys.ScoresPads, likelihoods.assert_nothing_counts_after_an_end, "after an end has"),
        (toys.EndsForNothing, likelihoods.assert_nothing_counts_after_an_end, "costs nothing"),
        (toys.Deaf, partial(likelihoods.assert_listens, kind="sequence"), "likelier by 0.00 nats"),
        (toys.TalksOn, likelihoods.assert_replies_follow_likelihood, "disagree"),
        (toys.Unmasked, likelihoods.assert_pseudo_normalised, "is among what it is foretold from"),
        (toys.ReconstructsMean, behaviour.assert_reconstructs, "squared error"),
        (toys.InfiniteSign, behaviour.assert_diagnostics, "not finite numbers"),
        (toys.MeddlingSign, behaviour.assert_diagnostics, "asked twice"),
        *(
            (toys.IgnoresCondition, partial(behaviour.assert_obeys_condition, kind=kind), "nearest to the prototype")
            for kind in KINDS
        ),
        (toys.OtherLatents, behaviour.assert_autoencodes, "latents have shape"),
        (toys.NoSpread, behaviour.assert_autoencodes, "not finite"),
        (toys.DecodesMean, behaviour.assert_autoencodes, "of all x sum to"),
        (toys.MixesLatents, behaviour.assert_autoencodes, "among others"),
        (toys.GeneratesSharply, behaviour.assert_autoencodes, "disagree"),
        (toys.WandersOn, behaviour.assert_samples_within, "6 times in 6 evaluations, and 6 times in 3"),
        (toys.WandersElsewhere, behaviour.assert_samples_within, "other samples than the model's own"),
        (toys.TruncatesNever, behaviour.assert_truncates, "samples vary by"),
        (toys.TruncatesAlways, behaviour.assert_truncates, "truncation 1 gives other samples"),
        (toys.Displeased, behaviour.assert_pleases, "rewards: "),
        (toys.ForgetsItself, behaviour.assert_pleases, "training moved what it was before"),
        (toys.DrawsAfter, behaviour.assert_pleases, "disagree"),
        (toys.ForgetsStep, likelihoods.assert_steps_sum, "all steps together cost"),
        (toys.Jumps, behaviour.assert_interpolates, "neighbours on a path differ"),
        (toys.StaysInside, behaviour.assert_interpolates, "points of paths are no samples"),
    ],
    ids=lambda value: getattr(value, "__name__", "obeys_condition").removeprefix("assert_") if callable(value) else "",
)
def test_law_convicts(kind: type[toys.Toy], law: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        law(toy(kind, "sequence", replace(QUICK, drill=100)))  # a drill that cannot succeed takes all its steps


def test_every_capability_has_a_law() -> None:
    bound = {promise for law in LAWS for promise in law.promises}
    assert not set(CAPABILITIES) - bound


def test_conditions_of_each_kind_are_ten_different_ones() -> None:
    assert set(CONDITIONS) == {"label", "sequence", "grid"}
    for condition in CONDITIONS.values():
        spec = DataSpec((16,), 5, "sequence", condition)
        for batch in (testing.prototypes(spec), testing.noise(spec, 0)):
            assert batch.condition is not None
            assert batch.condition.shape == (10, *condition.shape)
            assert len({tuple(one.flatten().tolist()) for one in batch.condition}) == 10
            assert int(batch.condition.max()) < condition.levels


def test_a_conditional_model_is_examined_under_what_it_accepts() -> None:
    subject = Subject(toys.Conditioned, "sequence", ("grid",))
    assert subject.universe.ordinary.condition == CONDITIONS["grid"]
    assert subject.universe.enumerable.condition is None
    names = [law.name for law in LAWS if law.binds(toys.Conditioned, "sequence", ("grid", "label"))]
    assert [name for name in names if name.startswith("obeys")] == ["obeys_condition_label", "obeys_condition_grid"]


def test_every_conditional_model_says_what_it_accepts() -> None:
    for path in MODELS.glob("*.yaml"):
        said = "conditions" in configuration(path.stem)  # that it accepts none, too
        assert issubclass(class_of(path.stem), Conditional) == said, path.name


def test_bounds_of_the_toys_lie_below_their_integrals() -> None:
    spec = testing.universe_of("grid").enumerable
    x = testing.every_example(spec)
    latent, dequantised = toy(toys.Latent, "grid").learned, toy(toys.Dequantised, "grid").learned
    with torch.no_grad(), testing.seeded(0):
        truth = latent.log_prob_by_quadrature(x)
        assert truth.exp().sum() == pytest.approx(1, abs=1e-5)
        assert (testing.elbo_draws(latent, x, 512).mean(0) < truth + 0.1).all()
        tight = testing.importance_draws(latent, x, 1024, 4).mean(0)
        torch.testing.assert_close(tight, truth, atol=0.05, rtol=0)
        truth = dequantised.log_prob_by_cells(x).double()
        assert truth.exp().sum() == pytest.approx(1, abs=1e-5)
        assert (testing.elbo_draws(dequantised, x, 512).mean(0) < truth + 0.1).all()
        testing.assert_frequencies_agree(testing.draw(dequantised, 4000), truth.exp(), spec)


def test_index_of_inverts_every_example() -> None:
    spec = DataSpec((3,), 4, "sequence")
    assert torch.equal(testing.index_of(testing.every_example(spec), spec), torch.arange(64))


def test_chi_square_pools_what_is_rare() -> None:
    spec = DataSpec((1,), 4, "sequence")
    p = torch.tensor([0.0, 1e-6, 0.5, 0.499999])
    draws = torch.multinomial(p, 1000, replacement=True, generator=torch.Generator().manual_seed(0))[:, None]
    testing.assert_frequencies_agree(draws, p, spec)
    with pytest.raises(AssertionError, match="disagree"):
        testing.assert_frequencies_agree(draws, torch.tensor([0.0, 1e-6, 0.6, 0.399999]), spec)


def test_where_nearly_all_samples_are_one_example_they_are_counted() -> None:
    spec, p = DataSpec((1,), 4, "sequence"), torch.tensor([0.0, 1e-6, 0.999998, 1e-6])
    draws = torch.full((1000, 1), 2)
    testing.assert_frequencies_agree(draws, p, spec)
    draws[:3] = 1
    with pytest.raises(AssertionError, match="disagree"):
        testing.assert_frequencies_agree(draws, p, spec)


# Flows: an analytic toy ----------------------------------------------------------------------------------------------


def stretch(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z = x · exp(s) + sinh(x): each dimension by itself, so the determinant is a product."""
    scale = torch.linspace(0.1, 1.0, x[0].numel()).reshape(x.shape[1:])
    return x * scale.exp() + x.sinh(), (scale.exp() + x.cosh()).log().flatten(1).sum(1)


def rotate_and_scale(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z = 3 R x in two dimensions: log|det| = 2 log 3."""
    return 3 * torch.stack([-x[:, 1], x[:, 0]], 1), torch.full((len(x),), 2 * math.log(3))


def test_flow_laws() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    testing.assert_log_det_agrees(stretch, x.reshape(5, 1, 2, 1))
    testing.assert_log_det_agrees(rotate_and_scale, x)
    testing.assert_inverse_inverts(rotate_and_scale, lambda z: torch.stack([z[:, 1], -z[:, 0]], 1) / 3, x)
    with pytest.raises(AssertionError, match="not close"):
        testing.assert_inverse_inverts(rotate_and_scale, lambda z: torch.stack([-z[:, 1], z[:, 0]], 1) / 3, x)
    with pytest.raises(AssertionError, match="not close"):  # a mean over dimensions where a sum belongs
        testing.assert_log_det_agrees(lambda v: (stretch(v)[0], stretch(v)[1] / v[0].numel()), x)
