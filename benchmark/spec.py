"""The nouns that every room shares. Importing this module costs nothing: torch is imported for type checking only."""

from __future__ import annotations

import difflib
import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Protocol, runtime_checkable

from annotated_types import Ge, Gt, Le, Lt

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Normal

#: What models see of data: a grid of levels `[C, H, W]`, a sequence of tokens `[T]`, a few coordinates `[D]`, or, as a
#: condition, one label `[]`.
Structure = Literal["grid", "sequence", "coordinates", "label"]
Direction = Literal["lower", "higher", "neither"]

# Types of a constructor's options: a value outside is refused before data or training cost anything.
Size = Annotated[int, Ge(1), Le(2**16)]  # of a network: width, depth, heads; or of an image's patch
Count = Annotated[int, Ge(0), Le(2**16)]  # what may also be none
Steps = Annotated[int, Ge(1), Le(10**6)]  # of a sampler or an estimator
Share = Annotated[float, Ge(0), Lt(1)]  # dropout, momentum: a probability or weight below 1
Probability = Annotated[float, Gt(0), Le(1)]
Margin = Annotated[float, Ge(0), Lt(0.5)]  # what is cut off at either end of an interval of length 1
NonNegative = Annotated[float, Ge(0)]  # learning rate, weight decay, weight of a term
Positive = Annotated[float, Gt(0)]


class BadInput(Exception):
    """Invalid input. One line: what was given, what is allowed, what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


def one_line(text: str) -> str:
    """The text with line ends and other characters that a terminal obeys written as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def shown(value: Any) -> str:
    """A value as messages show it: on one line, and not too long."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


NAMES = 50  # in a message, at most


def unknown(what: str, given: str, allowed: Iterable[str]) -> BadInput:
    """The error for a name that does not exist, with the nearest one that does, and all others if they are not many."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    said = names if len(names) <= NAMES else [*names[: NAMES - 1], f"{len(names) - NAMES + 1} more"]
    return BadInput(f"unknown {what} {shown(given)}{hint} (allowed: {', '.join(said) or 'none'})")


@dataclass(frozen=True)
class DataSpec:
    """All that a model may know of its data.

    Examples are integers 0..levels-1 of shape `[*shape]`, arranged as the `structure` says. A condition that comes with
    each example (a label, a caption, an image) is described in the same way.
    """

    shape: tuple[int, ...]
    levels: int
    structure: Structure
    condition: DataSpec | None = None
    contiguous: bool = False  # sequences: row b of each training batch continues row b of the batch before it
    pieces: tuple[bytes, ...] = field(default=(), repr=False)  # sequences of text: what each token says, in UTF-8
    end: int | None = None  # sequences: the token that ends one; all after it are the same, as before a condition

    @property
    def dims(self) -> int:
        """Number of discrete variables in one example: pixels times channels, or tokens."""
        return math.prod(self.shape)

    @property
    def classes(self) -> int | None:
        """Number of labels, if a label is the condition."""
        return self.condition.levels if self.condition is not None and self.condition.structure == "label" else None

    def counted(self, x: Tensor) -> Tensor:
        """Which tokens of sequences `x` `[B, T]` are of the example: those up to its first end, which is one of them.
        The others are there to fill it up, and no score counts them. `[B, T]` bool."""
        ends = (x == self.end).long() if self.end is not None else x.new_zeros(x.shape).long()
        return ends.cumsum(1) == ends  # no end before

    @classmethod
    def label(cls, classes: int) -> DataSpec:
        """One of so many labels: what a class is as a condition."""
        return cls((), classes, "label")


class Batch(NamedTuple):
    """What a training step receives. A named tuple, so that Lightning moves it between devices."""

    x: Tensor  # [B, *shape] int64, in the data's own levels
    condition: Tensor | None = None  # [B, *condition.shape] int64, if the data has one


@dataclass(frozen=True)
class Sampler:
    """How a model's `sample` draws: part of the protocol of everything computed from samples."""

    name: str
    evaluations: int  # network evaluations for one sample


@dataclass(frozen=True)
class Solver:
    """How a model integrates its likelihood: part of the protocol of an approximate number."""

    name: str
    evaluations: int  # network evaluations for one likelihood


# Capabilities: promises that a class makes in its header and that `benchmark.testing` examines. ----------------------
# Subclass them explicitly; every method is abstract, so that a forgotten one fails at construction. A model from
# outside the repository may conform by shape alone.


@runtime_checkable
class Likelihood(Protocol):
    """An exact likelihood."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Exact log-probability in nats, `[B]`, of discrete examples `x` `[B, *shape]`, summed over dimensions."""


@runtime_checkable
class LikelihoodBound(Protocol):
    """A lower bound on the log-likelihood of the discrete data."""

    @abstractmethod
    def elbo(self, x: Tensor) -> Tensor:
        """One unbiased draw of a lower bound on log p(x) in nats, `[B]`. No training-only weight touches it."""


@runtime_checkable
class ImportanceBound(LikelihoodBound, Protocol):
    """A bound that more importance samples tighten."""

    @abstractmethod
    def importance_bound(self, x: Tensor, importance_samples: int) -> Tensor:
        """log of the mean of `importance_samples` importance weights, `[B]` nats (Burda and others 2016, eq. 8)."""


@runtime_checkable
class SolvesLikelihood(LikelihoodBound, Protocol):
    """A bound through an ordinary differential equation, so approximate: `elbo` is `solve` by `solver`."""

    @abstractmethod
    def solver(self) -> Solver:
        """Which method integrates `elbo`, and how often it evaluates the network."""

    @abstractmethod
    def solve(self, x: Tensor, evaluations: int) -> Tensor:
        """`elbo` by that many evaluations of the network, `[B]` nats. Under one seed, all lengths see one draw."""


State = dict[str, Any]


@runtime_checkable
class StepwiseBound(LikelihoodBound, Protocol):
    """A bound that is a sum over steps of which `elbo` draws one: what each of them costs."""

    @abstractmethod
    def step_costs(self, x: Tensor) -> Tensor:
        """What each step costs on average over examples `x` `[B, *shape]`, nats `[S]`: their sum is -`elbo`, on
        average. The first one reads the data, and the last one is that of the prior."""


@runtime_checkable
class TokenLikelihood(Protocol):
    """An exact likelihood, token by token, for sequence models."""

    @abstractmethod
    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        """log p(token t | tokens before t) in nats, `[B, T]`; the first token is predicted from a begin token.

        `state` belongs to `Stateful` models: it carries what came before `x` and is advanced in place.
        """


@runtime_checkable
class ConditionalTokenLikelihood(Protocol):
    """An exact likelihood, token by token, of sequences given a condition, such as replies given what was said."""

    @abstractmethod
    def token_log_prob_given(self, x: Tensor, condition: Tensor) -> Tensor:
        """log p(token t | tokens before t, condition) in nats, `[B, T]`, for `condition` `[B, *condition.shape]`.

        Exactly 0 after the first end token of each example, which is scored itself.
        """


@runtime_checkable
class Stateful(TokenLikelihood, Protocol):
    """A recurrent token model: the harness carries its state along the stream instead of sliding a window."""

    @abstractmethod
    def initial_state(self, n: int) -> State:
        """The state before the first token of `n` streams."""


@runtime_checkable
class PseudoLikelihood(Protocol):
    """A masked model's score of each token given all others: shown, never ranked."""

    @abstractmethod
    def pseudo_log_probs(self, x: Tensor, places: Tensor) -> Tensor:
        """log p(v | all tokens of `x` `[B, T]` but the one at the place) in nats `[B, P, V]`, of each value v at each
        of the `places` `[P]`."""


@runtime_checkable
class Reconstructs(Protocol):
    """A model that encodes an example and gives it back."""

    @abstractmethod
    def reconstruct(self, x: Tensor) -> Tensor:
        """`x` `[B, *shape]` after encoding and decoding, in data units and dtype."""


@runtime_checkable
class Autoencodes(Protocol):
    """A model whose latents z another model can use: q(z | x) encodes, p(x | z) decodes."""

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape S of the latents of one example."""

    @abstractmethod
    def encode(self, x: Tensor) -> Normal:
        """q(z | x), independent over [B, *S]."""

    @abstractmethod
    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) in nats `[..., B]` for x `[B, *shape]` and z `[..., B, *S]`, summed over dimensions."""

    @abstractmethod
    def generate(self, z: Tensor) -> Tensor:
        """x ~ p(x | z) `[B, *shape]` for z `[B, *S]`, in data units and dtype."""


@runtime_checkable
class Conditional(Protocol):
    """A model that samples under a given condition."""

    @abstractmethod
    def sample_given(self, condition: Tensor) -> Tensor:
        """One sample `[*shape]` for each entry of `condition` `[B, *condition.shape]`, in data units and dtype."""


@runtime_checkable
class Interpolates(Protocol):
    """A model that walks between two draws of its latents."""

    @abstractmethod
    def interpolate(self, n: int, steps: int) -> Tensor:
        """`n` paths of `steps` images `[n, steps, *shape]`, in data units and dtype.

        Every point of a path is by itself a sample; along it the latents change evenly, and nothing else does.
        """


@runtime_checkable
class SamplesWithin(Protocol):
    """A model that samples by more or fewer evaluations of its network: quality against cost, from one training."""

    @abstractmethod
    def sample_within(self, n: int, evaluations: int) -> Tensor:
        """`n` samples as `sample` draws them, `[n, *shape]`, by at most so many evaluations of the network each, and
        by one step where even that takes more. By as many as `sampler` says it is `sample`."""


@runtime_checkable
class Truncates(Protocol):
    """A model that trades the variety of its samples for how typical they are, after training."""

    @abstractmethod
    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        """`n` samples `[n, *shape]` from latents drawn towards the middle of their distribution by this factor in
        (0, 1]; 1 is `sample`, and much less of it means less variety."""


@runtime_checkable
class Rewarded(Likelihood, Protocol):
    """A model of text that was tuned to please a reward, and knows what it was before. Data teach it nothing more."""

    @property
    @abstractmethod
    def reward_name(self) -> str:
        """Which reward: part of the protocol of every number that is made of it."""

    @abstractmethod
    def reward_of(self, x: Tensor) -> Tensor:
        """The reward of texts `x` `[B, T]`, `[B]`: of each by itself, whatever the model is."""

    @abstractmethod
    def log_prob_before(self, x: Tensor) -> Tensor:
        """`log_prob` of the model before it was tuned, `[B]` nats."""

    @abstractmethod
    def sample_before(self, n: int) -> Tensor:
        """`n` samples `[n, *shape]` of the model before it was tuned."""


@runtime_checkable
class Diagnosable(Protocol):
    """A model that knows the signs of its own collapse. The harness asks at each validation and keeps the curves."""

    @abstractmethod
    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Numbers that show whether training goes wrong, on held-out examples `x` `[B, *shape]`: always the same names.

        Asked in evaluation mode without gradients; the model stays as it is.
        """


CAPABILITIES: tuple[type, ...] = (
    Likelihood,
    LikelihoodBound,
    ImportanceBound,
    SolvesLikelihood,
    StepwiseBound,
    TokenLikelihood,
    ConditionalTokenLikelihood,
    Stateful,
    PseudoLikelihood,
    Reconstructs,
    Autoencodes,
    Conditional,
    Interpolates,
    SamplesWithin,
    Truncates,
    Rewarded,
    Diagnosable,
)


@dataclass(frozen=True)
class Outliers:
    """Images that a likelihood should tell from the data: all of one split of another dataset."""

    name: str
    x: Tensor  # [n, *shape], in the data's own levels


# Scores ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Absence:
    """Why a number is missing; never a sentinel value."""

    kind: Literal["does not apply", "failed", "not run"]
    reason: str


@dataclass(frozen=True)
class Estimate:
    """What a metric computes: a value, its standard error (`None`: none is defined), and how many examples it saw."""

    value: float
    stderr: float | None
    n: int


@dataclass(frozen=True)
class Score:
    """One metric of one run.

    `protocol` says under which conditions the number holds: two scores may be ranked together only if their
    protocols are equal, apart from the entry `how`, which says how this model met it (exact or bound, sampler).
    """

    unit: str
    version: int
    value: float | None = None
    stderr: float | None = None
    n: int | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    absent: Absence | None = None
