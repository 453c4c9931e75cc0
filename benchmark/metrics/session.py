"""One model before the court on one split: what probes may ask, and what they have brought back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from benchmark.data.base import DataModule, Split, SplitName
from benchmark.metrics.extractors.base import CPU, Extractor
from benchmark.metrics.keyed import keyed_randomness
from benchmark.metrics.probe import Found, Probe
from benchmark.spec import Absence, DataSpec, Outliers

#: Examples scored, and samples drawn, at a time: fixed, so that random draws do not depend on anybody's batch size.
LIKELIHOOD_CHUNK = 64
SAMPLE_CHUNK = 256  # at most, and so many numbers:
SAMPLE_NUMBERS = 2**16
#: What a GPU scores at a time where nothing is drawn: more than so few are worth a trial; at most so many.
FEW, MOST = 1024, 4096

NO_EXTRACTOR = Absence("not run", "no extractor of features was given")
NO_JUDGE = Absence("not run", "no judge of classes was given")

E = TypeVar("E")


@dataclass(frozen=True)
class Protocol:
    """Under which conditions a split is scored. `None`: all of it, or not at all."""

    split: SplitName
    seed: int
    elbo_draws: int = 16
    importance_samples: int | None = None
    importance_examples: int | None = None
    solved_examples: int | None = None  # at most so many for a likelihood through an ODE
    sample_draws: int = 5
    sample_examples: int | None = None
    examples: int | None = None
    stride: int | None = None  # streams: tokens scored in each window; None: whole windows


@dataclass(frozen=True)
class Earlier:
    """What a model had learnt before it was tuned: the data, in the words that it knows, and what it scored there on
    the split that is scored now, with as much context."""

    data: DataModule
    bits_per_byte: float | None


@dataclass(frozen=True)
class Reader:
    """A model of the same text in the same tokens, which is asked how likely samples are."""

    name: str
    sha256: str  # of its weights
    model: Any  # which promises TokenLikelihood


@dataclass(frozen=True)
class Experts:
    """Who is asked about samples: an extractor of features, a judge of classes, a reader of texts; what a likelihood
    should reject; and what a tuned model should not have forgotten.

    `outliers`: `None` means corrupted examples of the data itself.
    """

    extractor: Extractor | Absence = NO_EXTRACTOR
    judge: Extractor | Absence = NO_JUDGE
    outliers: Outliers | None = None
    earlier: Earlier | None = None
    reader: Reader | None = None
    device: torch.device = CPU  # where they work, and where what they see is compared

    def on(self, device: torch.device) -> Experts:
        """The same, working on `device`."""
        extractor, judge = (x if isinstance(x, Absence) else x.on(device) for x in (self.extractor, self.judge))
        if self.reader is not None:
            self.reader.model.to(device)
        return replace(self, extractor=extractor, judge=judge, device=device)


class Session:
    """Evidence about one model (`None`: about what needs no model) on one split, collected when it is asked for.

    `session[SomeProbe]` is what that probe found, the same at every call. `given` is evidence that is known already.
    """

    def __init__(
        self,
        model: Any,
        data: DataModule,
        protocol: Protocol,
        experts: Experts,
        given: Mapping[type[Probe[Any]], Found[Any] | Absence] | None = None,
        name: str = "",
    ) -> None:
        self.model, self.data, self.protocol, self.experts = model, data, protocol, experts
        self.spec = data.spec
        self.name = name or type(model).__name__  # in reasons
        self.found: dict[type[Probe[Any]], Found[Any] | Absence] = dict(given or {})

    def __getitem__(self, probe: type[Probe[E]]) -> Found[E] | Absence:
        if probe not in self.found:
            if probe.asks(self.model):
                self.found[probe] = probe().collect(self)
            else:
                names = " or ".join(promise.__name__ for promise in probe.promises)
                self.found[probe] = Absence("does not apply", f"{self.name} promises no {names}")
        return cast("Found[E] | Absence", self.found[probe])

    @property
    def split(self) -> Split:
        """What is scored."""
        return self.data.split(self.protocol.split)

    @property
    def train(self) -> Split:
        """What a model may have learnt from."""
        return self.data.split("train")

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return CPU if self.model is None else torch.device(self.model.device)

    def keyed(self, *key: Any) -> Any:
        """Inside, torch draws from a generator keyed by the evaluation's seed and `key`."""
        return keyed_randomness(self.device, self.protocol.seed, *key)

    def batched(self, fn: Callable[[Tensor], Tensor], x: Tensor, *key: Any, draws: bool = True) -> Tensor:
        """`fn` over `x` in fixed chunks, each with a generator keyed by `key`: `[N]` float64 on the CPU.

        Where `fn` draws nothing, a GPU takes as large chunks as it has room for.
        """
        first = x[:LIKELIHOOD_CHUNK]
        size = LIKELIHOOD_CHUNK if draws else chunk_size(self.device, len(x), lambda: fn(first.to(self.device).long()))
        results = []
        for index, chunk in enumerate(x.split(size)):
            with self.keyed(*key, index):
                results.append(fn(chunk.to(self.device).long()).double())
        return torch.cat(results).cpu()

    def subset(self, total: int, at_most: int | None, purpose: str) -> Tensor:
        """Indices of a fixed random subset, never a prefix: the first images of a file may be easier than the rest."""
        if at_most is None or at_most >= total:
            return torch.arange(total)
        with keyed_randomness(torch.device("cpu"), self.protocol.seed, "subset", purpose):
            return torch.randperm(total)[:at_most].sort().values

    def examples(self) -> tuple[Tensor, Tensor]:
        """The examples of the split that are scored, `[n, *shape]`, and their places `[n]` in it."""
        chosen = self.subset(len(self.split.x), self.protocol.examples, "examples")
        return self.split.x[chosen], chosen


def named_subset(n: int, total: int) -> dict[str, Any]:
    """How a protocol names a subset; nothing where all are scored."""
    return {} if n == total else {"subset": f"{n} of {total}, random"}


def draw_samples(model: Any, n: int, seed: int, draw: int = 0, how: Callable[[int], Tensor] | None = None) -> Tensor:
    """`n` samples `[n, *shape]` on the CPU: the same for a seed and draw, whatever was drawn before.

    `how` draws so many in another way than the model's own sampler, from the same noise.
    """
    sample = how or model.sample
    chunks, size = [], sample_chunk(model.spec)
    for index, start in enumerate(range(0, n, size)):
        with keyed_randomness(model.device, seed, "samples", draw, index), torch.no_grad():
            chunks.append(sample(min(size, n - start)))
    return torch.cat(chunks).cpu()


def how_drawn(model: Any, draws: int) -> dict[str, Any]:
    """What the protocol of so many draws of samples says of the sampler."""
    return {"sampler": model.sampler.name, "evaluations": model.sampler.evaluations, "draws": draws}


def sample_chunk(spec: DataSpec) -> int:
    """How many samples to draw at a time: a power of two, fewer of larger ones, for a network's features of 256 images
    of 28 x 28 take gigabytes."""
    most = max(1, min(SAMPLE_CHUNK, SAMPLE_NUMBERS // spec.dims))
    return 1 << (most.bit_length() - 1)


def chunk_size(device: torch.device, n: int, score_first: Callable[[], object]) -> int:
    """How many of `n` examples to score at a time where nothing is drawn, so that results do not depend on it.

    On the CPU as many as ever. On a GPU a power of two times as many, in what half of the free memory holds by what
    `score_first` takes, which scores a first chunk: others may use it too. A few examples are not worth the trial, and
    so validation takes as much memory in every run.
    """
    if device.type != "cuda" or n <= FEW:
        return LIKELIHOOD_CHUNK
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved(device)
    score_first()
    taken = max(1, torch.cuda.memory_reserved(device) - before)
    free, _ = torch.cuda.mem_get_info(device)
    times = max(1, min(MOST // LIKELIHOOD_CHUNK, free // 2 // taken))
    return int(LIKELIHOOD_CHUNK * 2 ** (times.bit_length() - 1))
