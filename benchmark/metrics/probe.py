"""What a metric is: a pure function of evidence; and a probe: what collects evidence, once for all who need it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from torch import Tensor

from benchmark.spec import Absence, Estimate

if TYPE_CHECKING:
    from benchmark.metrics.session import Session

E = TypeVar("E")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Found(Generic[E]):
    """What a probe brings back.

    `protocol` says under which conditions: part of every score that is computed from it. `per_example` holds nats
    `[n]` and the places `[n]` in the split that they are about: they travel beside the record. `pictures` are samples
    worth a look, `curves` numbers `[S]` over steps of a model, both by name.
    """

    evidence: E
    protocol: Mapping[str, Any]
    per_example: tuple[Tensor, Tensor] | None = None
    pictures: Mapping[str, Tensor] = field(default_factory=dict)
    curves: Mapping[str, Tensor] = field(default_factory=dict)


class Probe(ABC, Generic[E]):
    """Collects one kind of evidence in a session. Metrics and other probes ask the session for it by its class."""

    #: Its name in the arrays of single examples beside a record: never renamed.
    key: ClassVar[str]
    #: It asks a model that makes any one of these promises; none: it asks no model.
    promises: ClassVar[tuple[type, ...]] = ()
    #: What the protocol of its evidence always says.
    says: ClassVar[tuple[str, ...]] = ("split",)

    @abstractmethod
    def collect(self, session: Session) -> Found[E] | Absence:
        """The evidence, or which absence it is. Draws come from `session.keyed` or `session.batched`."""

    @classmethod
    def asks(cls, model: object) -> bool:
        """Whether the model promises what is needed."""
        return not cls.promises or isinstance(model, cls.promises)


@dataclass(frozen=True)
class Metric(Generic[E]):
    """A pure function of the evidence of a probe: the first of `probes` that brings any.

    What a number means, its unit, direction and version stand in `configs/metric/<name>.yaml`, which names this one as
    its target. `protocol` says what is fixed about the computation itself.
    """

    compute: Callable[[E], Estimate]
    probes: tuple[type[Probe[E]], ...]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, evidence: E) -> Estimate:
        return self.compute(evidence)

    @property
    def needs(self) -> list[str]:
        """The promises any one of which gives it evidence; none: samples do."""
        return list(dict.fromkeys(promise.__name__ for probe in self.probes for promise in probe.promises))


def metric(
    *probes: type[Probe[E]], protocol: Mapping[str, Any] = _NOTHING
) -> Callable[[Callable[[E], Estimate]], Metric[E]]:
    """Makes a metric of a function of evidence."""
    return lambda compute: Metric(compute, probes, protocol)
