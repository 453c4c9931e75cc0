"""The laws: what each promise in a model's class header means, as assertions.

Every law takes a `Subject`, a model class under examination, and raises an AssertionError that says what is wrong.
`LAWS` is the one list. Distributions are examined on universes that are small enough to enumerate (81 images of
2×2 pixels and 3 levels, 81 strings of 4 tokens and 3 symbols), against a source whose entropy is known.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from scipy import stats
from torch import Tensor
from torch.nn import functional as F

from benchmark.modalities.base import Universe
from benchmark.modalities.image import Images
from benchmark.modalities.text import Texts
from benchmark.models.base import GenerativeModel
from benchmark.spec import (
    Batch,
    Conditional,
    DataSpec,
    Diagnosable,
    ImportanceBound,
    Interpolates,
    Likelihood,
    LikelihoodBound,
    PseudoLikelihood,
    Reconstructs,
    Sampler,
    SolvesLikelihood,
    Stateful,
    Structure,
    TokenLikelihood,
)

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)

Build = Callable[[DataSpec], GenerativeModel]

EXERCISE_STEPS = (8, 20)  # at least, and those within which every parameter must have received a gradient
LEARN_STEPS = 40  # at most; enough to move a distribution over 81 examples away from where it started
LEARNT = 0.5  # of the way from the uniform distribution to the source: enough to end earlier
DRILL_STEPS = 600  # at most; a drill ends as soon as its goal is reached
DRAWS = (32, 512)  # of a bound for each example: so many at a time, so many at most
ALLOWANCE = 0.02  # below which more draws would not make the judgement of a bound sharper
P_VALUE = 1e-4  # below which samples and probabilities disagree
SIGMAS = 4.5  # standard errors that a Monte-Carlo comparison is allowed


# Universes -----------------------------------------------------------------------------------------------------------

#: On what models of each structure are examined: the universe of the modality that has it.
UNIVERSES: dict[Structure, Universe] = {"grid": Images.universe, "sequence": Texts.universe}


def every_example(spec: DataSpec) -> Tensor:
    """All examples that `spec` allows, `[levels ** dims, *shape]`, in the order that `index_of` counts."""
    return torch.cartesian_prod(*[torch.arange(spec.levels)] * spec.dims).reshape(-1, *spec.shape)


def index_of(x: Tensor, spec: DataSpec) -> Tensor:
    """Where each example of `x` `[B, *shape]` stands in `every_example`, `[B]`."""
    place_values = spec.levels ** torch.arange(spec.dims - 1, -1, -1)  # [D]
    return (x.flatten(1) * place_values).sum(1)


class Source:
    """A fixed random distribution over every example of a small universe: its entropy is known."""

    def __init__(self, spec: DataSpec) -> None:
        generator = torch.Generator().manual_seed(1)
        self.x = every_example(spec)  # [N, *shape]
        self.p = torch.randn(len(self.x), generator=generator, dtype=torch.float64).mul(1.5).softmax(0)  # [N]
        self.entropy = float(-(self.p * self.p.log()).sum())

    def batch(self, step: int) -> Batch:
        generator = torch.Generator().manual_seed(1000 + step)
        return Batch(self.x[torch.multinomial(self.p, 64, replacement=True, generator=generator)])


def prototypes(spec: DataSpec) -> Batch:
    """Ten distinct examples of the two extreme levels, one for each class: a batch that can be learnt by heart."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randint(2, (10, *spec.shape), generator=generator) * (spec.levels - 1)
    return Batch(x, torch.arange(10) % spec.classes if spec.classes else None)


def noise(spec: DataSpec, step: int) -> Batch:
    """Ten examples over all levels, with every class in each batch."""
    generator = torch.Generator().manual_seed(step)
    x = torch.randint(spec.levels, (10, *spec.shape), generator=generator)
    return Batch(x, torch.arange(10) % spec.classes if spec.classes else None)


# Training and asking -------------------------------------------------------------------------------------------------


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws from a generator of its own; the global one is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class _Batches:
    """What the Trainer iterates over: `steps` batches made by `make(step)`."""

    def __init__(self, make: Callable[[int], Batch], steps: int) -> None:
        self.make, self.steps = make, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        return map(self.make, range(self.steps))


class _Progress(Callback):
    """Sets `progress` as the harness does."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        pl_module.progress = batch_idx / trainer.num_training_batches  # type: ignore[assignment]


class _StopWhen(Callback):
    """Ends the training once the model, in evaluation mode, satisfies `done`."""

    def __init__(self, done: Callable[[Any], bool], every: int = 10) -> None:
        self.done, self.every, self.reached = done, every, False

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.fit_loop.batch_idx % self.every == self.every - 1:
            pl_module.eval()
            with seeded(3), torch.no_grad():
                self.reached = self.done(pl_module)
            pl_module.train()
            trainer.should_stop = self.reached


def trainable(model: GenerativeModel) -> dict[str, Tensor]:
    """The parameters that the class does not declare frozen, by name."""
    return {name: p for name, p in model.named_parameters() if not name.startswith(tuple(model.frozen))}


class GradientWitness(Callback):
    """Notes, at each step of each optimiser, which of its parameters had a gradient; ends once all have had one."""

    def __init__(self) -> None:
        self.nonzero: set[int] = set()
        self.not_finite: set[int] = set()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GenerativeModel)
        reached = all(id(parameter) in self.nonzero for parameter in trainable(pl_module).values())
        trainer.should_stop = reached and trainer.fit_loop.batch_idx + 1 >= EXERCISE_STEPS[0]

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None):
            if not parameter.grad.isfinite().all():
                self.not_finite.add(id(parameter))
            elif parameter.grad.any():
                self.nonzero.add(id(parameter))


def train(model: GenerativeModel, make: Callable[[int], Batch], steps: int, *callbacks: Callback) -> GenerativeModel:
    """Trains `model` by a real Trainer, so that models with several optimisers step as they do in earnest."""
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,  # of `steps` batches: `max_steps` would count every optimiser
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[_Progress(), *callbacks],
    )
    with seeded(1):
        trainer.fit(model.train(), _Batches(make, steps))
    return model.eval()


class Subject:
    """A model under examination: what several laws ask of is built and trained once."""

    def __init__(self, build: Build, structure: Structure) -> None:
        self.build = build
        self.universe = UNIVERSES[structure]

    def fresh(self, spec: DataSpec, seed: int = 0) -> Any:
        """An untrained model in evaluation mode."""
        with seeded(seed):
            return self.build(spec).eval()

    @cached_property
    def exercised(self) -> tuple[Any, GradientWitness]:
        """The model after a few steps on the ordinary spec, and who had a gradient."""
        spec, witness = self.universe.ordinary, GradientWitness()
        model = train(self.fresh(spec), lambda step: noise(spec, step), EXERCISE_STEPS[1], witness)
        return model, witness

    @cached_property
    def source(self) -> Source:
        return Source(self.universe.enumerable)

    @cached_property
    def learned(self) -> Any:
        """The model after a brief training on the source."""
        model, source = self.fresh(self.universe.enumerable), self.source
        if not isinstance(model, (Likelihood, LikelihoodBound, TokenLikelihood)):
            return train(model, source.batch, LEARN_STEPS)

        def cost(model: Any) -> float:
            return -float((source.p * log_likelihood(model, source.x)).sum())

        uniform = math.log(len(source.x))
        goal = uniform + LEARNT * (source.entropy - uniform)
        return train(model, source.batch, LEARN_STEPS, _StopWhen(lambda model: cost(model) < goal))

    @cached_property
    def elbo(self) -> Tensor:
        """Independent draws of the learned model's bound of every example, `[K, N]` nats: enough to judge it."""
        few, most = DRAWS
        with seeded(4), torch.no_grad():
            draws = until_precise(
                lambda: elbo_draws(self.learned, self.source.x, few), lambda x: sum(excess(x)), ALLOWANCE, most
            )
        assert draws.isfinite().all(), "elbo is not finite"
        return draws

    def drill(self, spec: DataSpec, done: Callable[[Any], bool]) -> bool:
        """Trains a fresh model on one batch of prototypes; whether it satisfied `done` in time."""
        stop = _StopWhen(done)
        train(self.fresh(spec), lambda step: prototypes(spec), DRILL_STEPS, stop)
        return stop.reached


def log_likelihood(model: Any, x: Tensor) -> Tensor:
    """What the model says of log p(x), `[B]` nats in double precision: exact, by tokens, or one draw of a bound."""
    with torch.no_grad():
        if isinstance(model, Likelihood):
            value = model.log_prob(x)
        elif isinstance(model, TokenLikelihood):
            value = model.token_log_prob(x).sum(1)
        else:
            value = model.elbo(x)
    assert value.shape == (len(x),), f"a log-likelihood has shape {tuple(value.shape)}, expected ({len(x)},)"
    assert value.isfinite().all(), "a log-likelihood is not finite"
    return value.double()


def draw(model: Any, n: int, seed: int = 0) -> Tensor:
    """`n` samples `[n, *shape]` under a seed."""
    with seeded(seed), torch.no_grad():
        samples: Tensor = model.sample(n)
    return samples


def elbo_draws(model: Any, x: Tensor, draws: int) -> Tensor:
    """Independent draws of the bound `[draws, N]` in double precision."""
    return _draws(model.elbo, x, draws)


def importance_draws(model: Any, x: Tensor, importance_samples: int, draws: int) -> Tensor:
    """Independent draws of the tightened bound `[draws, N]` in double precision."""
    return _draws(lambda chunk: model.importance_bound(chunk, importance_samples), x, draws)


def _draws(bound: Callable[[Tensor], Tensor], x: Tensor, draws: int) -> Tensor:
    """16 at a time, in one batch."""
    values = []
    for chunk in x.repeat(draws, *[1] * (x.ndim - 1)).split(16 * len(x)):
        values.append(bound(chunk).detach())  # a bound may compute gradients for itself
        assert values[-1].shape == (len(chunk),), f"a bound has shape {tuple(values[-1].shape)}, not ({len(chunk)},)"
    return torch.cat(values).view(draws, len(x)).double()


def until_precise(draw: Callable[[], Tensor], error: Callable[[Tensor], float], goal: float, most: int) -> Tensor:
    """Draws `[K, N]`, as many as bring `error` down to `goal`, `most` at most. Only their precision is looked at."""
    draws = draw()
    while len(draws) < most and error(draws) > goal:
        draws = torch.cat([draws, draw()])
    return draws


def excess(elbo: Tensor) -> tuple[float, float]:
    """By how much Σₓ exp E[elbo(x)] is too large when E is the mean of K draws `[K, N]`: the bias, and what noise adds.

    exp of a mean is too large by about sd²/2K (relative).
    """
    q, variance = elbo.mean(0).exp(), elbo.var(0) / len(elbo)  # [N], the variance that of the mean
    return float((q * (variance / 2).expm1()).sum()), SIGMAS * float((q**2 * variance).sum().sqrt())


def weighted_mean(draws: Tensor, p: Tensor) -> tuple[float, float]:
    """Mean of `draws` `[K, N]` over draws and, weighted by `p` `[N]`, over examples; and its standard error."""
    mean, variance = draws.mean(0), draws.var(0) / len(draws)  # [N]
    return float((p * mean).sum()), float((p**2 * variance).sum().sqrt())


def assert_in_data_units(x: Tensor, n: int, spec: DataSpec) -> None:
    assert x.shape == (n, *spec.shape), f"shape {tuple(x.shape)}, expected {(n, *spec.shape)}"
    assert x.dtype == torch.int64, f"dtype {x.dtype}, expected torch.int64"
    low, high = int(x.min()), int(x.max())
    assert 0 <= low <= high < spec.levels, f"values {low}..{high}, expected 0..{spec.levels - 1}"


def assert_frequencies_agree(samples: Tensor, p: Tensor, spec: DataSpec) -> None:
    """Chi-square test of `samples` `[n, *shape]` against `p` `[N]` over every example; rare ones are pooled."""
    n = len(samples)
    assert_in_data_units(samples, n, spec)
    observed = index_of(samples, spec).bincount(minlength=len(p)).double()  # [N]
    expected = n * p.double() / p.double().sum()  # [N]
    order = expected.argsort()
    rare = int((expected[order].cumsum(0) < 5).sum()) + 1  # the fewest that are expected five times together ...
    rare = max(rare, int((expected < 5).sum()))  # ... and all that are expected less often each
    observed, expected = (torch.cat([v[order[:rare]].sum()[None], v[order[rare:]]]) for v in (observed, expected))
    p_value = float(stats.chisquare(observed.numpy(), expected.numpy()).pvalue)
    assert p_value > P_VALUE, f"frequencies of samples disagree with the model's probabilities (p = {p_value:.1e})"


# Everyone ------------------------------------------------------------------------------------------------------------


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
    assert not untrained, f"no gradient reached an optimiser in {EXERCISE_STEPS[1]} steps: {', '.join(untrained)}"


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


def assert_overfits(subject: Subject) -> None:
    """One batch is learnt: its negative log-likelihood falls clearly below the start and below the uniform's."""
    spec = subject.universe.ordinary
    x = prototypes(spec).x
    with seeded(3):
        start = -float(log_likelihood(subject.fresh(spec), x).mean())
    goal = 0.6 * min(start, spec.dims * math.log(spec.levels))
    reached: list[float] = []

    def done(model: Any) -> bool:
        reached.append(-float(log_likelihood(model, x).mean()))
        return reached[-1] < goal

    assert subject.drill(spec, done), (
        f"one batch: {start:.1f} nats at first, {reached[-1]:.1f} at last, goal {goal:.1f}"
    )


# Likelihoods ---------------------------------------------------------------------------------------------------------


def assert_normalised(subject: Subject) -> None:
    """Σₓ p(x) = 1 over every example, before and after a training that improved p."""
    source = subject.source
    cross_entropies = []
    for model in (subject.fresh(subject.universe.enumerable), subject.learned):
        log_p = log_likelihood(model, source.x)  # [N]
        total = float(log_p.exp().sum())
        assert abs(total - 1) < 1e-4, f"probabilities sum to {total:.6g}, expected 1"
        cross_entropies.append(-float((source.p * log_p).sum()))
    assert cross_entropies[1] < cross_entropies[0] - 0.05, f"training did not move p: {cross_entropies} nats"


def assert_samples_follow_likelihood(subject: Subject) -> None:
    """The frequencies of samples are the probabilities, before and after training."""
    for model, n in ((subject.fresh(subject.universe.enumerable), 500), (subject.learned, 3000)):
        p = log_likelihood(model, subject.source.x).exp()
        assert_frequencies_agree(draw(model, n), p, subject.universe.enumerable)


# Bounds --------------------------------------------------------------------------------------------------------------


def assert_is_a_bound(subject: Subject) -> None:
    """Σₓ exp E[elbo(x)] ≤ 1, and the source costs at least its entropy; the noise of the draws is allowed for."""
    elbo, source = subject.elbo, subject.source
    allowance = sum(excess(elbo)) + 1e-4
    total = float(elbo.mean(0).exp().sum())
    assert total <= 1 + allowance, f"exp of the bound sums to {total:.4g}, expected at most 1 + {allowance:.2g}"
    assert allowance < 0.5, f"the draws of the bound are too noisy to judge it (allowance {allowance:.2g})"
    nll, stderr = weighted_mean(-elbo, source.p)
    assert nll >= source.entropy - SIGMAS * stderr, f"the bound {nll:.4f} beats the entropy {source.entropy:.4f} nats"


def assert_importance_bound_tightens(subject: Subject) -> None:
    """One importance sample is the ELBO (in expectation), and more samples never loosen it."""
    model, source = subject.learned, subject.source
    with seeded(5), torch.no_grad():
        elbo, elbo_error = weighted_mean(elbo_draws(model, source.x, 256), source.p)
        bounds = [
            weighted_mean(importance_draws(model, source.x, k, draws), source.p)
            for k, draws in ((1, 256), (8, 32), (64, 16))
        ]
    (one, one_error), *_ = bounds
    allowed = SIGMAS * math.hypot(elbo_error, one_error) + 1e-4
    assert abs(elbo - one) < allowed, f"one importance sample gives {one:.4f} nats, the ELBO is {elbo:.4f}"
    for (loose, loose_error), (tight, tight_error) in pairwise(bounds):
        allowed = SIGMAS * math.hypot(loose_error, tight_error) + 1e-4
        assert tight > loose - allowed, f"more importance samples loosen the bound: {loose:.4f} to {tight:.4f} nats"


def assert_samples_follow_importance_bound(subject: Subject) -> None:
    """With many importance samples the bound is the likelihood: it sums to one, and samples follow it."""
    model, source = subject.learned, subject.source

    def error(log_p: Tensor) -> float:
        totals = log_p.exp().sum(1)  # [K]
        return float(totals.std()) / math.sqrt(len(totals))

    with seeded(6), torch.no_grad():
        draws = until_precise(lambda: importance_draws(model, source.x, 256, 4), error, 0.005, 16)  # [K, N]
    p = draws.exp().mean(0)  # [N]
    assert abs(p.sum() - 1) < 0.05, f"importance-weighted probabilities sum to {float(p.sum()):.4g}, expected 1"
    assert_frequencies_agree(draw(model, 2000), p, subject.universe.enumerable)


def assert_solver_is_fine_enough(subject: Subject) -> None:
    """Twice the evaluations of the network change the bound by less than its standard error over examples."""
    model, _ = subject.exercised
    x, evaluations = noise(model.spec, 0).x, model.solver().evaluations
    with torch.no_grad():
        usual, same, finer = (
            solved_under_a_seed(model, x, n) for n in (None, evaluations, 2 * evaluations)
        )  # [B] each
    assert torch.equal(usual, same), f"elbo is not what {evaluations} evaluations of the network solve"
    change, error = float((finer - usual).mean().abs()), float(usual.std()) / math.sqrt(len(x))
    assert change < error, f"{2 * evaluations} evaluations change the bound by {change:.3g} nats, more than {error:.3g}"


def solved_under_a_seed(model: Any, x: Tensor, evaluations: int | None) -> Tensor:
    """The bound `[B]` by so many evaluations (`None`: the model's own number), always of the same draw."""
    with seeded(7):
        bound: Tensor = model.elbo(x) if evaluations is None else model.solve(x, evaluations)
    return bound.double()


# Tokens --------------------------------------------------------------------------------------------------------------

TOLERANCE = 1e-5  # nats: what one call computes for several rows agrees to this


def assert_causal(subject: Subject) -> None:
    """Changing token t changes no log-probability before t, and some after it."""
    model, _ = subject.exercised
    spec = model.spec
    x = noise(spec, 0).x[:1]  # [1, *shape]
    changed = x.flatten(1).repeat(spec.dims, 1)  # [T, T]: row t differs from x in token t
    changed.diagonal().add_(1).remainder_(spec.levels)
    with torch.no_grad():
        log_p = model.token_log_prob(torch.cat([x, changed.reshape(-1, *spec.shape)]))  # [1 + T, T]
    assert log_p.shape == (1 + spec.dims, spec.dims), f"shape {tuple(log_p.shape)}, expected [B, {spec.dims}]"
    moved = (log_p[1:] - log_p[0]).abs() > TOLERANCE  # [changed token, whose log-probability]
    leaks = moved.tril(-1).nonzero().tolist()
    assert not leaks, f"(changed token, token whose prediction moved, though it comes before): {leaks[:5]}"
    ignored = (~moved.triu(1).any(1)[:-1]).nonzero().flatten().tolist()
    assert not ignored, f"nothing that comes after depends on tokens {ignored}"


def _assert_each_token_is_normalised(log_prob: Callable[[Tensor], Tensor], spec: DataSpec) -> None:
    x = noise(spec, 0).x[:1].flatten(1)  # [1, T]
    positions = torch.linspace(0, spec.dims - 1, min(spec.dims, 9)).long()  # [P], both ends among them
    variants = x.repeat(len(positions), spec.levels, 1)  # [P, L, T]: in [i, v] token positions[i] is v
    for row, t in zip(variants, positions, strict=True):
        row[:, t] = torch.arange(spec.levels)
    with torch.no_grad():
        log_p = log_prob(variants.reshape(-1, *spec.shape)).reshape(variants.shape)  # [P, L, T]
    totals = log_p.double().exp().sum(1).gather(1, positions[:, None])[:, 0]  # [P]
    worst = int((totals - 1).abs().argmax())
    assert abs(totals[worst] - 1) < 1e-4, f"all values of token {positions[worst]} sum to {totals[worst]:.6g}, not to 1"


def assert_tokens_normalised(subject: Subject) -> None:
    """Given the tokens before it, the probabilities of all values of a token sum to one."""
    model, _ = subject.exercised
    _assert_each_token_is_normalised(model.token_log_prob, model.spec)


def assert_pseudo_normalised(subject: Subject) -> None:
    """Given all other tokens, the probabilities of all values of a token sum to one."""
    model, _ = subject.exercised
    _assert_each_token_is_normalised(model.pseudo_log_prob, model.spec)


def assert_tokens_sum(subject: Subject) -> None:
    """Where a model promises both, the tokens' log-probabilities sum to the example's."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x
    with torch.no_grad():
        torch.testing.assert_close(model.token_log_prob(x).sum(1), model.log_prob(x), rtol=1e-5, atol=1e-3)


def assert_prefix_agrees(subject: Subject) -> None:
    """A shorter text has the same log-probabilities as far as it goes."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x  # [B, T]
    with torch.no_grad():
        whole = model.token_log_prob(x)
        for length in (1, x.shape[1] // 2):
            part = model.token_log_prob(x[:, :length])
            torch.testing.assert_close(part, whole[:, :length], rtol=1e-4, atol=1e-4)


def assert_carries_state(subject: Subject) -> None:
    """Two halves with the state carried over are one pass."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x.flatten(1)  # [B, T]
    half = x.shape[1] // 2
    with torch.no_grad():
        whole = model.token_log_prob(x, model.initial_state(len(x)))
        state = model.initial_state(len(x))
        halves = [model.token_log_prob(x[:, :half], state), model.token_log_prob(x[:, half:], state)]
        alone = model.token_log_prob(x[:, half:], model.initial_state(len(x)))
    torch.testing.assert_close(torch.cat(halves, 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.token_log_prob(x).detach(), whole, rtol=1e-4, atol=1e-4)
    assert (alone - halves[1]).abs().max() > TOLERANCE, "the state makes no difference"


# Reconstructions and conditions --------------------------------------------------------------------------------------


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


def assert_obeys_condition(subject: Subject) -> None:
    """After a brief training, samples given a class are nearest to that class far more often than by chance."""
    spec = replace(subject.universe.ordinary, condition=DataSpec.label(10))
    centres = prototypes(spec).x.double().flatten(1)  # [10, D]
    condition = torch.arange(10).repeat(20)  # [200]
    hits: list[int] = []

    def done(model: Any) -> bool:
        samples = model.sample_given(condition)
        assert_in_data_units(samples, len(condition), spec)
        nearest = torch.cdist(samples.double().flatten(1), centres).argmin(1)  # [200]
        hits.append(int((nearest == condition).sum()))
        return bool(stats.binomtest(hits[-1], len(condition), 0.1, "greater").pvalue < 1e-6)

    assert subject.drill(spec, done), f"{hits[-1]} of {len(condition)} samples are nearest to their class"


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


def same_source(a: Tensor, b: Tensor, spec: DataSpec) -> float:
    """p-value of a chi-square test that `a` and `b` `[n, *shape]` come from one source; rare examples are pooled."""
    counts = torch.stack([index_of(x, spec).bincount(minlength=spec.levels**spec.dims) for x in (a, b)])  # [2, N]
    rare = counts.sum(0) < 20
    table = torch.cat([counts[:, ~rare], counts[:, rare].sum(1, keepdim=True)], 1)
    return float(stats.chi2_contingency(table[:, table.sum(0) > 0].numpy()).pvalue)


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
    assert found[0], "no signs"
    assert found[1] == found[2], f"asked twice under a seed: {found[1]} and {found[2]}"
    assert found[0].keys() == found[1].keys(), f"names change: {sorted(found[0])} and {sorted(found[1])}"
    for signs in found:
        wrong = {name: value for name, value in signs.items() if not (type(value) is float and math.isfinite(value))}
        assert not wrong, f"not finite numbers: {wrong}"
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert not changed, f"asking changed {', '.join(changed)}"


# Flows: laws on functions --------------------------------------------------------------------------------------------

Flow = Callable[[Tensor], tuple[Tensor, Tensor]]  # x [B, *shape] -> z [B, *shape], log|det dz/dx| [B]


def assert_inverse_inverts(forward: Flow, inverse: Callable[[Tensor], Tensor], x: Tensor) -> None:
    """inverse(forward(x)) = x."""
    with torch.no_grad():
        torch.testing.assert_close(inverse(forward(x)[0]), x, rtol=1e-4, atol=1e-4)


def assert_log_det_agrees(forward: Flow, x: Tensor) -> None:
    """The log-determinant is that of the Jacobian that autograd finds, example by example."""
    log_det = forward(x)[1].detach()  # [B]
    expected = []
    for example in x:
        jacobian = torch.autograd.functional.jacobian(lambda v: forward(v[None])[0][0], example)
        expected.append(torch.linalg.slogdet(jacobian.reshape(example.numel(), -1)).logabsdet)
    torch.testing.assert_close(log_det, torch.stack(expected), rtol=1e-4, atol=1e-4)


# The list ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Law:
    """An assertion, and what makes it binding: any one of `promises`, together with `also`, on these structures."""

    check: Callable[[Subject], None]
    promises: tuple[type, ...]
    also: type = object
    structures: tuple[Structure, ...] = ("grid", "sequence")

    @property
    def name(self) -> str:
        return self.check.__name__.removeprefix("assert_")

    def binds(self, model: type, structure: Structure) -> bool:
        return issubclass(model, self.promises) and issubclass(model, self.also) and structure in self.structures


LAWS: tuple[Law, ...] = (
    Law(assert_builds, (GenerativeModel,)),
    Law(assert_trains_every_parameter, (GenerativeModel,)),
    Law(assert_samples, (GenerativeModel,)),
    Law(assert_comes_back, (GenerativeModel,)),
    Law(assert_overfits, (Likelihood, LikelihoodBound, TokenLikelihood)),
    Law(assert_normalised, (Likelihood, TokenLikelihood)),
    Law(assert_samples_follow_likelihood, (Likelihood, TokenLikelihood)),
    Law(assert_is_a_bound, (LikelihoodBound,)),
    Law(assert_importance_bound_tightens, (ImportanceBound,)),
    Law(assert_samples_follow_importance_bound, (ImportanceBound,)),
    Law(assert_solver_is_fine_enough, (SolvesLikelihood,)),
    Law(assert_causal, (TokenLikelihood,)),
    Law(assert_tokens_normalised, (TokenLikelihood,)),
    Law(assert_tokens_sum, (TokenLikelihood,), also=Likelihood),
    Law(assert_prefix_agrees, (TokenLikelihood,), structures=("sequence",)),
    Law(assert_carries_state, (Stateful,)),
    Law(assert_pseudo_normalised, (PseudoLikelihood,)),
    Law(assert_reconstructs, (Reconstructs,)),
    Law(assert_obeys_condition, (Conditional,)),
    Law(assert_interpolates, (Interpolates,)),
    Law(assert_diagnostics, (Diagnosable,)),
)
