"""A model under examination: how it is trained, and what it is asked."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from benchmark.models.base import GenerativeModel
from benchmark.spec import Batch, DataSpec, Likelihood, LikelihoodBound, Structure, TokenLikelihood
from benchmark.testing.judging import elbo_draws, excess, until_precise
from benchmark.testing.universe import Source, answers, conditioned, noise, prototypes, replying, universe_of

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.ERROR)

Build = Callable[[DataSpec], GenerativeModel]

ALLOWANCE = 0.02  # below which more draws would not make the judgement of a bound sharper


@dataclass(frozen=True)
class Effort:
    """How long a model is trained and how often it is asked.

    `exercise`: steps at least, and those within which every parameter must have received a gradient. `learn`: steps
    at most, enough to move a distribution over 81 examples away from where it started; they end earlier once `learnt`
    of the way from the uniform distribution to the source is done. `drill`: steps at most; a drill ends as soon as its
    goal is reached. `draws` of a bound for each example: so many at a time, so many at most.
    """

    exercise: tuple[int, int] = (8, 20)
    learn: int = 40
    learnt: float = 0.5
    drill: int = 600
    draws: tuple[int, int] = (32, 512)


QUICK = Effort()
#: All steps of training and all draws, whether or not fewer have been enough.
PATIENT = Effort(exercise=(20, 20), learn=60, learnt=2.0, draws=(512, 512))


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


COUNTED = (2, 3, 4)  # steps after which tensors are counted: the first ones make what stays, states of optimisers too


class GradientWitness(Callback):
    """Notes, at each step of each optimiser, which of its parameters had a gradient, and after some steps how many
    tensors are alive; ends once all parameters have had a gradient."""

    def __init__(self, least: int) -> None:
        self.least = max(least, 1 + COUNTED[-1])  # steps
        self.nonzero: set[int] = set()
        self.not_finite: set[int] = set()
        self.alive: list[int] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gc.collect()
        gc.freeze()  # what was there before need not be looked through again

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        gc.unfreeze()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, GenerativeModel)
        if trainer.fit_loop.batch_idx in COUNTED:
            gc.collect()
            self.alive.append(sum(type(one) is Tensor for one in gc.get_objects()))
        reached = all(id(parameter) in self.nonzero for parameter in trainable(pl_module).values())
        trainer.should_stop = reached and trainer.fit_loop.batch_idx + 1 >= self.least

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
    try:
        with seeded(1):
            trainer.fit(model.train(), _Batches(make, steps))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's answer to Ctrl-C
            raise KeyboardInterrupt from stop
        raise
    return model.eval()


class Subject:
    """A model under examination, on data of this `structure`: what several laws ask of is built and trained once.

    `conditions` are the kinds that it accepts, `trust` the packages of modalities that may be imported.
    """

    def __init__(
        self,
        build: Build,
        structure: Structure,
        conditions: Sequence[Structure] = (),
        effort: Effort = QUICK,
        trust: Sequence[str] = (),
    ) -> None:
        self.build, self.effort = build, effort
        self.universe = conditioned(universe_of(structure, trust), conditions)

    def fresh(self, spec: DataSpec, seed: int = 0) -> Any:
        """An untrained model in evaluation mode."""
        with seeded(seed):
            return self.build(spec).eval()

    @cached_property
    def exercised(self) -> tuple[Any, GradientWitness]:
        """The model after a few steps on the ordinary spec, and who had a gradient."""
        spec, (least, most) = self.universe.ordinary, self.effort.exercise
        witness = GradientWitness(least)
        model = train(self.fresh(spec), lambda step: noise(spec, step), most, witness)
        return model, witness

    @cached_property
    def replying(self) -> tuple[Any, Any]:
        """The model after a few steps on replies of the ordinary size, and of a size that can be enumerated."""
        steps, _ = self.effort.exercise
        ordinary, small = replying(self.universe.ordinary), replying(self.universe.enumerable)
        return (
            train(self.fresh(ordinary), lambda step: answers(ordinary, step), steps),
            train(self.fresh(small), lambda step: answers(small, step), steps),
        )

    @cached_property
    def source(self) -> Source:
        return Source(self.universe.enumerable)

    @cached_property
    def learned(self) -> Any:
        """The model after a brief training on the source."""
        model, source, most = self.fresh(self.universe.enumerable), self.source, self.effort.learn
        promises_likelihood = isinstance(model, (Likelihood, LikelihoodBound, TokenLikelihood))
        if not promises_likelihood:
            return train(model, source.batch, most)

        def cost(model: Any) -> float:
            return -float((source.p * log_likelihood(model, source.x)).sum())

        uniform = math.log(len(source.x))
        goal = uniform + self.effort.learnt * (source.entropy - uniform)
        return train(model, source.batch, most, _StopWhen(lambda model: cost(model) < goal))

    @cached_property
    def elbo(self) -> Tensor:
        """Independent draws of the learned model's bound of every example, `[K, N]` nats: enough to judge it."""
        few, most = self.effort.draws
        with seeded(4), torch.no_grad():
            draws = until_precise(
                lambda: elbo_draws(self.learned, self.source.x, few), lambda x: sum(excess(x)), ALLOWANCE, most
            )
        assert draws.isfinite().all(), "elbo is not finite"
        return draws

    def drill(self, spec: DataSpec, done: Callable[[Any], bool], batch: Batch | None = None) -> bool:
        """Trains a fresh model on one batch, of prototypes if none is given; whether it satisfied `done` in time."""
        stop, learnt = _StopWhen(done), prototypes(spec) if batch is None else batch
        train(self.fresh(spec), lambda step: learnt, self.effort.drill, stop)
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
