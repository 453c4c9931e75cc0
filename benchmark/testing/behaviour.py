"""Laws on what every model does, and on what it gives back: samples, reconstructions, latents, signs of collapse."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from benchmark.models.base import GenerativeModel
from benchmark.spec import Autoencodes, DataSpec, Sampler, Structure
from benchmark.testing.judging import P_VALUE, assert_frequencies_agree, assert_in_data_units, same_source
from benchmark.testing.subject import Subject, draw, log_likelihood, seeded, trainable
from benchmark.testing.universe import CONDITIONS, every_example, noise, prototypes


def assert_builds(subject: Subject) -> None:
    """A spec is all that a model needs, and it says how it samples."""
    universe = subject.universe
    for spec in (universe.ordinary, universe.enumerable, universe.build_only):
        model = subject.fresh(spec)
        assert isinstance(model, GenerativeModel), f"{type(model).__name__} is not a GenerativeModel"
        assert model.spec == spec, f"built for {model.spec}, expected {spec}"
        assert isinstance(model.sampler, Sampler), f"sampler is {model.sampler!r}, expected a Sampler"
        assert model.sampler.evaluations >= 1, "a sample takes at least one evaluation of a network"


def assert_trains_every_parameter(subject: Subject) -> None:
    """Within a few steps each parameter that is not declared frozen is stepped by an optimiser, with a gradient."""
    model, witness = subject.exercised
    parameters = trainable(model)
    assert parameters, "nothing to train"
    not_finite = [name for name, p in parameters.items() if id(p) in witness.not_finite]
    assert not not_finite, f"gradient not finite: {', '.join(not_finite)}"
    untrained = [name for name, p in parameters.items() if id(p) not in witness.nonzero]
    assert not untrained, (
        f"no gradient reached an optimiser in {subject.effort.exercise[1]} steps: {', '.join(untrained)}"
    )


def assert_leaves_nothing_behind(subject: Subject) -> None:
    """What a training step makes is gone after it: long training takes no more memory than a few steps."""
    _, witness = subject.exercised
    steps = itertools.pairwise(witness.alive)
    assert not all(after > before for before, after in steps), (
        f"each training step leaves tensors behind: {witness.alive} are alive after {len(witness.alive)} of them"
    )


def assert_samples(subject: Subject) -> None:
    """Samples are in data units, repeat under a seed, and differ without."""
    model, _ = subject.exercised
    with seeded(0), torch.no_grad():
        first, second = model.sample(7), model.sample(7)
    assert_in_data_units(first, 7, model.spec)
    assert_in_data_units(draw(model, 1), 1, model.spec)
    assert torch.equal(first, draw(model, 7)), "the same seed gives other samples"
    assert not torch.equal(first, second), "a second draw repeats the first"
    assert len(second.unique(dim=0)) > 1, "all samples of one draw are equal"


def assert_comes_back(subject: Subject) -> None:
    """A file of weights, loaded into a newly built model, gives the same samples."""
    model, _ = subject.exercised
    with tempfile.TemporaryDirectory() as folder:
        torch.save(model.state_dict(), Path(folder) / "weights.pt")
        weights = torch.load(Path(folder) / "weights.pt", weights_only=True)
    again = subject.fresh(model.spec, seed=9)
    again.load_state_dict(weights)
    assert torch.equal(draw(model, 16), draw(again, 16)), "the model that came back from a file gives other samples"


def assert_reconstructs(subject: Subject) -> None:
    """After a brief training, reconstructions are clearly nearer than the mean of the data."""
    spec = subject.universe.ordinary
    x = prototypes(spec).x
    mean_error = F.mse_loss(x.double().mean(0).expand(x.shape), x.double())
    errors: list[float] = []

    def done(model: Any) -> bool:
        again = model.reconstruct(x)
        assert_in_data_units(again, len(x), spec)
        errors.append(float(F.mse_loss(again.double(), x.double())))
        return errors[-1] < 0.9 * float(mean_error)

    assert subject.drill(spec, done), f"squared error {errors[-1]:.2f}, the data mean's is {mean_error:.2f}"


def assert_autoencodes(subject: Subject) -> None:
    """Latents have the promised shape and a density; p(x | z) sums to one, and what z generates follows it."""
    spec = subject.universe.enumerable
    for model in (subject.fresh(spec), subject.learned):
        assert_encodes_and_decodes(model, spec)


def assert_encodes_and_decodes(model: Autoencodes, spec: DataSpec, draws: int = 2000) -> None:
    """The law of `Autoencodes` for whatever keeps it, a model or the first stage of one, on an enumerable `spec`."""
    x = every_example(spec)  # [N, *shape]
    with seeded(10), torch.no_grad():
        q = model.encode(x)
        z = q.sample()  # [N, *S]
        promised = (len(x), *model.latent_shape)
        assert z.shape == promised, f"latents have shape {tuple(z.shape)}, expected {promised}"
        log_q = q.log_prob(z)
        assert log_q.shape == promised, f"log q(z | x) has shape {tuple(log_q.shape)}, expected {promised}"
        assert log_q.isfinite().all(), "log q(z | x) is not finite"
        few = torch.linspace(0, len(x) - 1, 3).long()
        of_all = torch.stack([z[i].expand(promised) for i in few])  # [3, N, *S]
        log_p = model.log_likelihood(x, of_all)
        assert log_p.shape == of_all.shape[:2], f"log p(x | z) has shape {tuple(log_p.shape)}, expected [3, {len(x)}]"
        own = model.log_likelihood(x[few], z[few])  # [3]
        expected = log_p[range(3), few]
        assert torch.allclose(own, expected, rtol=1e-4, atol=1e-4), f"log p(x | z) is {own}, among others {expected}"
        for i, p in zip(few, log_p.double().exp(), strict=True):
            assert abs(p.sum() - 1) < 1e-4, f"p(x | z) of all x sum to {float(p.sum()):.6g}, expected 1"
            samples = model.generate(torch.stack([z[i]] * draws))
            assert_frequencies_agree(samples, p, spec)


def assert_obeys_condition(subject: Subject, kind: Structure) -> None:
    """After a brief training, samples given a condition are nearest to its prototype far more often than by chance."""
    spec = replace(subject.universe.ordinary, condition=CONDITIONS[kind])
    batch = prototypes(spec)
    centres = batch.x.double().flatten(1)  # [10, D]
    which = torch.arange(10).repeat(20)  # [200]
    assert batch.condition is not None
    condition = batch.condition[which]  # [200, *condition.shape]
    hits: list[int] = []

    def done(model: Any) -> bool:
        samples = model.sample_given(condition)
        assert_in_data_units(samples, len(condition), spec)
        nearest = torch.cdist(samples.double().flatten(1), centres).argmin(1)  # [200]
        hits.append(int((nearest == which).sum()))
        return bool(stats.binomtest(hits[-1], len(condition), 0.1, "greater").pvalue < 1e-6)

    assert subject.drill(spec, done), (
        f"{hits[-1]} of {len(condition)} samples are nearest to the prototype of their condition"
    )


def assert_interpolates(subject: Subject) -> None:
    """The ends and the middle of a path are samples, and its points lie nearer to the next than its ends do."""
    model, _ = subject.exercised
    with seeded(8), torch.no_grad():
        path = model.interpolate(24, 9)  # [24, 9, *shape]
    assert path.shape[:2] == (24, 9), f"24 paths of 9 points have shape {tuple(path.shape)}"
    assert_in_data_units(path.flatten(0, 1), 24 * 9, model.spec)
    step = (path[:, 1:] - path[:, :-1]).abs().double().mean()
    ends = (path[:, -1] - path[:, 0]).abs().double().mean()
    assert step < 0.8 * ends, f"neighbours on a path differ by {step:.3g} levels, its ends by {ends:.3g}"
    samples = draw(subject.learned, 2000)
    with seeded(9), torch.no_grad():
        path = subject.learned.interpolate(700, 3)
    for name, points in zip(("first", "middle", "last"), path.unbind(1), strict=True):
        p_value = same_source(points, samples, subject.universe.enumerable)
        assert p_value > P_VALUE, f"the {name} points of paths are no samples (p = {p_value:.1e})"


def assert_samples_within(subject: Subject) -> None:
    """By as many evaluations as the sampler says it is `sample`; by half of them no module works more than half."""
    model, _ = subject.exercised
    usual = model.sampler.evaluations
    half = max(1, usual // 2)
    whole, calls = drawn_within(model, usual)
    assert torch.equal(draw(model, 7), whole), f"{usual} evaluations give other samples than the model's own sampler"
    fewer, fewer_calls = drawn_within(model, half)
    for x in (whole, fewer, drawn_within(model, 1)[0]):
        assert_in_data_units(x, 7, model.spec)
    if usual > 3:  # one step may take two
        assert fewer_calls * usual <= calls * half, (
            f"a module is called {calls} times in {usual} evaluations, and {fewer_calls} times in {half}"
        )
        assert not torch.equal(whole, fewer), f"{half} evaluations give the same samples as {usual}"


def drawn_within(model: Any, evaluations: int) -> tuple[Tensor, int]:
    """Seven samples, and how often the busiest module was called for them."""
    calls: Counter[torch.nn.Module] = Counter()
    hook = register_module_forward_hook(lambda module, inputs, outputs: calls.update([module]))
    try:
        with seeded(0), torch.no_grad():
            x: Tensor = model.sample_within(7, evaluations)
    finally:
        hook.remove()
    return x, max(calls.values(), default=0)


def assert_truncates(subject: Subject) -> None:
    """Not truncated at all, samples are those of `sample`; drawn far towards the middle, they vary clearly less."""
    model, _ = subject.exercised
    whole = drawn_truncated(model, 1.0)
    assert torch.equal(draw(model, len(whole)), whole), "truncation 1 gives other samples than the model's own sampler"
    half, least = drawn_truncated(model, 0.5), drawn_truncated(model, 0.05)
    for x in (whole, half, least):
        assert_in_data_units(x, 64, model.spec)
    assert torch.equal(half, drawn_truncated(model, 0.5)), "the same seed gives other truncated samples"
    variety, less = (float(x.double().var(0).sum()) for x in (whole, least))
    assert less < 0.9 * variety, f"samples vary by {variety:.3g} squared levels, and truncated to 0.05 by {less:.3g}"


def drawn_truncated(model: Any, truncation: float) -> Tensor:
    """64 samples under a seed."""
    with seeded(0), torch.no_grad():
        x: Tensor = model.sample_truncated(64, truncation)
    return x


def assert_pleases(subject: Subject) -> None:
    """Training earns clearly more, by every example with its probability, and leaves alone what the model was."""
    spec, x = subject.universe.enumerable, subject.source.x
    fresh, learned = subject.fresh(spec), subject.learned
    with torch.no_grad():
        rewards = learned.reward_of(x).double()  # [N]
        was, before = (model.log_prob_before(x).double() for model in (fresh, learned))
    assert rewards.shape == (len(x),), f"rewards have shape {tuple(rewards.shape)}, expected ({len(x)},)"
    total = float(before.exp().sum())
    assert abs(total - 1) < 1e-4, f"probabilities before sum to {total:.6g}, expected 1"
    for what, log_p in (("training moved", before), ("an untrained model is not", log_likelihood(fresh, x))):
        assert (log_p - was).abs().max() < 1e-5, f"{what} what it was before"
    with seeded(11), torch.no_grad():
        assert_frequencies_agree(learned.sample_before(2000), before.exp(), spec)
    earned = [float((log_p.exp() * rewards).sum()) for log_p in (before, log_likelihood(learned, x))]
    goal = earned[0] + 0.05 * (float(rewards.max()) - earned[0])
    assert earned[1] > goal, f"rewards: {earned[0]:.4g} before, {earned[1]:.4g} after training, goal {goal:.4g}"


def assert_diagnostics(subject: Subject) -> None:
    """The same finite numbers under a seed, before training and after; asking changes neither weights nor buffers."""
    model, _ = subject.exercised
    fresh = subject.fresh(model.spec)
    x = noise(model.spec, 0).x
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = []
    for asked in (fresh, model, model):
        with seeded(0), torch.no_grad():
            found.append(asked.diagnostics(x))
    assert found[0], "no diagnostics"
    assert found[1] == found[2], f"asked twice under a seed: {found[1]} and {found[2]}"
    assert found[0].keys() == found[1].keys(), f"names change: {sorted(found[0])} and {sorted(found[1])}"
    for signs in found:
        wrong = {name: value for name, value in signs.items() if not (type(value) is float and math.isfinite(value))}
        assert not wrong, f"not finite numbers: {wrong}"
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed, f"asking changed {', '.join(changed)}"
