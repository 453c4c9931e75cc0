"""What a modality is to the rest of the house."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.conditions import FeaturesOfClasses
from benchmark.metrics.keyed import keyed_randomness
from benchmark.metrics.likelihood import LogProb, LogProbs
from benchmark.metrics.probe import Found, Probe
from benchmark.metrics.samples import (
    Conditioned,
    Draws,
    Labelled,
    LabelledSamples,
    Lessons,
    beside,
    held_out,
    real_labels,
)
from benchmark.metrics.session import Session
from benchmark.spec import Absence, DataSpec

#: Evidence that needs no model, by probe.
Given = dict[type[Probe[Any]], Found[Any] | Absence]


@dataclass(frozen=True)
class Universe:
    """The specs on which models of a modality are examined.

    `ordinary`: like real data, and small; `enumerable`: so small that every example can be listed; `build_only`: of
    real size.
    """

    ordinary: DataSpec
    enumerable: DataSpec
    build_only: DataSpec


class Modality(ABC):
    """The code of a modality; `configs/modality/<name>.yaml` says the rest.

    It is stateless: built without arguments.
    """

    #: On what the laws examine models of this modality.
    universe: Universe

    @abstractmethod
    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """Write samples `x` `[n, *shape]` as people look at them; returns the file: `stem` with an ending."""

    @abstractmethod
    def references(self, session: Session) -> Mapping[str, Given]:
        """What no model is needed for, by name: baselines, the known source of the data, real examples as samples.

        `session` has no model; the evidence is scored under its protocol.
        """


def real_samples(session: Session) -> dict[str, Given]:
    """Real examples in place of samples: held-out ones, the floor; and draws from the training split, which are what
    sampling error alone costs. No classifier may learn from what it is examined on."""
    x, chosen = session.split.x, held_out(session)
    train = session.train.x
    resampled = tuple(_resampled(session, len(chosen)))
    once = beside(session, (x[chosen],), {})  # one draw: without a standard error
    often = beside(session, tuple(train[i] for i in resampled), {})
    table: dict[str, Given] = {
        "held-out data": {Draws: once, Lessons: Absence("does not apply", "the exam itself teaches nothing")},
        "training data": {Draws: often},
    }
    if not isinstance(real := real_labels(session), Absence):  # as if under their own labels
        exam, known = real
        table["held-out data"] |= {
            Conditioned: Found(LabelledSamples((exam,), exam, known, session.spec.levels), once.protocol),
            FeaturesOfClasses: Absence("does not apply", "one draw has fewer images of each class than several"),
        }
        labelled = tuple(Labelled(known.x[i], known.labels[i]) for i in resampled)
        table["training data"][Conditioned] = Found(
            LabelledSamples(labelled, exam, known, session.spec.levels), often.protocol
        )
    return table


def _resampled(session: Session, n: int) -> Iterator[Tensor]:
    """Independent draws of `n` training examples, as indices."""
    for draw in range(session.protocol.sample_draws):
        with keyed_randomness(torch.device("cpu"), session.protocol.seed, "training data", draw):
            index = torch.randint(len(session.train.x), (n,))
        yield index


def baselines(
    session: Session, known: Mapping[str, Tensor], samplers: Mapping[str, Callable[[int], Tensor]]
) -> dict[str, Given]:
    """What baselines and the source of the data score, nats `[N]` by name, what `samplers` draw of those that can, and
    real examples as samples."""
    protocol, n = {"split": session.protocol.split}, len(held_out(session))
    table: dict[str, Given] = {
        name: {LogProb: Found(LogProbs(nats, session.spec.dims), protocol)}
        for name, nats in {**known, **session.data.truth(session.protocol.split)}.items()
    }
    for name, sampler in samplers.items():
        table[name][Draws] = beside(session, tuple(_drawn(session, name.replace("_", " "), partial(sampler, n))), {})
    return table | real_samples(session)


def _drawn(session: Session, name: str, sampler: Callable[[], Tensor]) -> Iterator[Tensor]:
    """What a sampler draws under the protocol."""
    for draw in range(session.protocol.sample_draws):
        with keyed_randomness(torch.device("cpu"), session.protocol.seed, name, draw):
            yield sampler()


def draw_independent(train: Tensor, n: int, levels: int) -> Tensor:
    """`n` examples `[n, *shape]`, each number from its own histogram in `train`, by torch's global generator."""
    p = independent_log_frequencies(train, levels).exp()
    return torch.multinomial(p, n, replacement=True).T.reshape(n, *train.shape[1:])


def independent_log_frequencies(train: Tensor, levels: int) -> Tensor:
    """Of each level of each of the D numbers of an example, `[D, L]`."""
    dims = train[0].numel()
    cell = torch.arange(dims) * levels  # [D]: where each number's histogram begins
    counts = torch.bincount((train.flatten(1).long() + cell).flatten(), minlength=dims * levels)
    return log_frequencies(counts.view(dims, levels))


def log_frequencies(counts: Tensor) -> Tensor:
    """Log-frequencies of `counts` `[..., L]`, normalised over the last dimension.

    One pseudo-count a level (Laplace): no test example has probability zero.
    """
    smoothed = counts.double() + 1
    return smoothed.log() - smoothed.sum(-1, keepdim=True).log()
