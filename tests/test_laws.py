"""Every model in `configs/model` keeps every promise of its class header; and the laws that say so can convict."""

from __future__ import annotations

import importlib
from functools import cache, partial
from pathlib import Path
from typing import Any

import laws
import pytest
import torch
import toys
import yaml
from laws import LAWS, Law, Subject

from benchmark.spec import CAPABILITIES, DataSpec

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "model"


# The models ----------------------------------------------------------------------------------------------------------


@cache
def configuration(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


@cache
def class_of(name: str) -> type:
    module, _, attribute = configuration(name)["target"].rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def options(name: str) -> dict[str, Any]:
    return {k: v for k, v in configuration(name).items() if k not in ("target", "structures", "conditions", "before")}


#: Of a stack of layers, what is enough for the universes of the laws: the code is the same, at a fifth of the time.
SMALL = {"layers": 2, "width": 32, "channels": 16}


@cache
def subject(name: str, structure: Any) -> Subject:
    given = options(name)
    small = {
        option: min(given[option], size) for option, size in SMALL.items() if option in given and "layers" in given
    }
    return Subject(partial(class_of(name), **given | small), structure)


def walk() -> list[Any]:
    """Each model × structure × law that binds it."""
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    cases = []
    for name in names:
        structures = configuration(name)["structures"]
        for structure in structures:
            label = name if len(structures) == 1 else f"{name}-{structure}"
            cases += [
                pytest.param(name, structure, law, id=f"{label}-{law.name}", marks=pytest.mark.xdist_group(label))
                for law in LAWS
                if law.binds(class_of(name), structure)
            ]
    return cases


@pytest.mark.parametrize(("name", "structure", "law"), walk())
def test_model(name: str, structure: Any, law: Law) -> None:
    law.check(subject(name, structure))


@cache
def patient_subject(name: str, structure: Any) -> Subject:
    """The model in its own size."""
    return Subject(partial(class_of(name), **options(name)), structure)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "structure", "law"), walk())
def test_model_at_length(name: str, structure: Any, law: Law, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its own size, with all steps of training and all draws, whether or not fewer have been enough."""
    for constant, value in {"EXERCISE_STEPS": (20, 20), "LEARN_STEPS": 60, "LEARNT": 2.0, "DRAWS": (512, 512)}.items():
        monkeypatch.setattr(laws, constant, value)
    law.check(patient_subject(name, structure))


# The laws ------------------------------------------------------------------------------------------------------------


@cache
def toy(kind: type[toys.Toy], structure: Any) -> Subject:
    return Subject(kind, structure)


@pytest.mark.parametrize(
    ("kind", "structure", "law"),
    [
        pytest.param(kind, structure, law, id=f"{kind.__name__}-{structure}-{law.name}")
        for kind in toys.HONEST
        for structure in ("grid", "sequence")
        for law in LAWS
        if law.binds(kind, structure)
    ],
)
def test_law_acquits(kind: type[toys.Toy], structure: Any, law: Law) -> None:
    law.check(toy(kind, structure))


@pytest.mark.parametrize(
    ("kind", "law", "words"),
    [
        (toys.NeedsMoreThanSpec, laws.assert_builds, "built for"),
        (toys.UnusedParameter, laws.assert_trains_every_parameter, r"forgotten\.weight, forgotten\.bias"),
        (toys.UnsteppedParameter, laws.assert_trains_every_parameter, "shift"),
        (toys.InfiniteGradient, laws.assert_trains_every_parameter, "not finite: logits"),
        (toys.ForgetsLayer, laws.assert_trains_every_parameter, r"critic\.2\.weight"),
        (toys.WrongDtype, laws.assert_samples, "dtype torch.float32"),
        (toys.OutOfRange, laws.assert_samples, r"values 1\.\.5"),
        (toys.SeedsItself, laws.assert_samples, "repeats the first"),
        (toys.IgnoresSeed, laws.assert_samples, "other samples"),
        (toys.ForgetsBuffer, laws.assert_comes_back, "came back"),
        (toys.ClimbsLoss, laws.assert_overfits, "nats at first"),
        (toys.MeanForSum, laws.assert_normalised, "sum to"),
        (toys.SharpSampler, laws.assert_samples_follow_likelihood, "disagree"),
        (toys.LatentMeanForSum, laws.assert_is_a_bound, "exp of the bound sums"),
        (toys.WeightInsideElbo, laws.assert_is_a_bound, "bound"),
        (toys.WeightInsideElbo, laws.assert_importance_bound_tightens, "one importance sample"),
        (toys.WeightInsideBoth, laws.assert_is_a_bound, "bound"),
        (toys.WeightInsideBoth, laws.assert_samples_follow_importance_bound, "sum to"),
        (toys.ForgetsCells, laws.assert_is_a_bound, "exp of the bound sums"),
        (toys.SumOfWeights, laws.assert_samples_follow_importance_bound, "sum to"),
        (toys.MeanOfLogs, laws.assert_samples_follow_importance_bound, "sum to"),
        (toys.OtherPrior, laws.assert_samples_follow_importance_bound, "disagree"),
        (toys.SolvesCoarsely, laws.assert_solver_is_fine_enough, "2 evaluations change the bound"),
        (toys.ForgetsSolver, laws.assert_solver_is_fine_enough, "16 evaluations of the network solve"),
        (toys.Peeks, laws.assert_causal, "comes before"),
        (toys.Memoryless, laws.assert_causal, "nothing that comes after"),
        (toys.SeesItself, laws.assert_tokens_normalised, "all values of token"),
        (toys.MeanOfTokens, laws.assert_tokens_sum, "not close"),
        (toys.CountsFromEnd, laws.assert_prefix_agrees, "not close"),
        (toys.LosesState, laws.assert_carries_state, "not close"),
        (toys.Unmasked, laws.assert_pseudo_normalised, "all values of token"),
        (toys.ReconstructsMean, laws.assert_reconstructs, "squared error"),
        (toys.InfiniteSign, laws.assert_diagnostics, "not finite numbers"),
        (toys.MeddlingSign, laws.assert_diagnostics, "asked twice"),
        (toys.IgnoresCondition, laws.assert_obeys_condition, "nearest to their class"),
        (toys.Jumps, laws.assert_interpolates, "neighbours on a path differ"),
        (toys.StaysInside, laws.assert_interpolates, "points of paths are no samples"),
    ],
    ids=lambda value: value.__name__.removeprefix("assert_") if callable(value) else "",
)
def test_law_convicts(kind: type[toys.Toy], law: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(laws, "DRILL_STEPS", 100)  # a drill that cannot succeed takes them all
    with pytest.raises(AssertionError, match=words):
        law(toy(kind, "sequence"))


def test_every_capability_has_a_law() -> None:
    bound = {promise for law in LAWS for promise in law.promises}
    assert not set(CAPABILITIES) - bound


def test_bounds_of_the_toys_lie_below_their_integrals() -> None:
    spec = laws.UNIVERSES["grid"].enumerable
    x = laws.every_example(spec)
    latent, dequantised = toy(toys.Latent, "grid").learned, toy(toys.Dequantised, "grid").learned
    with torch.no_grad(), laws.seeded(0):
        truth = latent.log_prob_by_quadrature(x)
        assert truth.exp().sum() == pytest.approx(1, abs=1e-5)
        assert (laws.elbo_draws(latent, x, 512).mean(0) < truth + 0.1).all()
        tight = laws.importance_draws(latent, x, 1024, 4).mean(0)
        torch.testing.assert_close(tight, truth, atol=0.05, rtol=0)
        truth = dequantised.log_prob_by_cells(x).double()
        assert truth.exp().sum() == pytest.approx(1, abs=1e-5)
        assert (laws.elbo_draws(dequantised, x, 512).mean(0) < truth + 0.1).all()
        laws.assert_frequencies_agree(laws.draw(dequantised, 4000), truth.exp(), spec)


def test_index_of_inverts_every_example() -> None:
    spec = DataSpec((3,), 4, "sequence")
    assert torch.equal(laws.index_of(laws.every_example(spec), spec), torch.arange(64))


def test_chi_square_pools_what_is_rare() -> None:
    spec = DataSpec((1,), 4, "sequence")
    p = torch.tensor([0.0, 1e-6, 0.5, 0.499999])
    draws = torch.multinomial(p, 1000, replacement=True, generator=torch.Generator().manual_seed(0))[:, None]
    laws.assert_frequencies_agree(draws, p, spec)
    with pytest.raises(AssertionError, match="disagree"):
        laws.assert_frequencies_agree(draws, torch.tensor([0.0, 1e-6, 0.6, 0.399999]), spec)


# Flows: an analytic toy ----------------------------------------------------------------------------------------------


def stretch(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z = x · exp(s) + sinh(x): each dimension by itself, so the determinant is a product."""
    scale = torch.linspace(0.1, 1.0, x[0].numel()).reshape(x.shape[1:])
    return x * scale.exp() + x.sinh(), (scale.exp() + x.cosh()).log().flatten(1).sum(1)


def rotate_and_scale(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """z = 3 R x in two dimensions: log|det| = 2 log 3."""
    return 3 * torch.stack([-x[:, 1], x[:, 0]], 1), torch.full((len(x),), 2 * torch.tensor(3.0).log())


def test_flow_laws() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    laws.assert_log_det_agrees(stretch, x.reshape(5, 1, 2, 1))
    laws.assert_log_det_agrees(rotate_and_scale, x)
    laws.assert_inverse_inverts(rotate_and_scale, lambda z: torch.stack([z[:, 1], -z[:, 0]], 1) / 3, x)
    with pytest.raises(AssertionError, match="not close"):
        laws.assert_inverse_inverts(rotate_and_scale, lambda z: torch.stack([-z[:, 1], z[:, 0]], 1) / 3, x)
    with pytest.raises(AssertionError, match="not close"):  # a mean over dimensions where a sum belongs
        laws.assert_log_det_agrees(lambda v: (stretch(v)[0], stretch(v)[1] / v[0].numel()), x)
