"""Does the GPU compute what the CPU computes? Every model on 64 fixed examples, as runs are scored.

Weights come from a seed, and noise is added to all of them: a residual block that starts as the identity would hide
what it computes. Three figures are compared: by the CPU that wrote `expected.json`, by the CPU here, by the device.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from inspect import signature
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributions import Normal

from benchmark.build import DataModule, Examination, GenerativeModel, build_examination, build_model, data_of, resolve
from benchmark.config import choices, compose, load_model
from benchmark.data.base import Split, SplitName
from benchmark.evaluate import Experts, Protocol, draw_samples, evaluate, keyed_randomness
from benchmark.loop import seed_everything
from benchmark.record import write_atomic
from benchmark.spec import BadInput, Batch, unknown
from scripts.gpu_check.results import Results

EXPECTED = Path(__file__).with_name("expected.json")

EXAMPLES = 64
DRAWS = 4  # of a bound
SAMPLES = 64
NOISE = 0.02  # on every weight
DATA = {"grid": "digits", "sequence": "synthetic_text"}  # by structure

TOLERANCE = 1e-4  # relative, of an exact likelihood
SAME_DRAWS = 1e-3  # relative, of a bound under the same draws: it may amplify what its likelihoods differ by
ERRORS = 4.0  # standard errors by which bounds under other draws may differ
SAME_SAMPLES = 0.99  # share of values: a draw that lies on an edge may fall to either side

Kind = Literal["exact", "bound", "samples"]
KINDS: dict[str, Kind] = {
    "log_prob": "exact",
    "token_log_prob": "exact",
    "elbo": "bound",
    "importance_bound": "bound",
    "samples": "samples",
}
METRICS = ("nll", "nats_per_token", "elbo", "importance_bound")  # which between them ask for all likelihoods


@dataclass(frozen=True)
class Figure:
    """What a model says of each example: nats, the mean over draws; or, of samples, their values."""

    values: list[float]
    error: float | None = None  # standard error over draws of the mean of `values`; `None`: nothing is drawn

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)


@dataclass(frozen=True)
class Verdict:
    difference: float  # relative; of samples: the share of values that differ
    right: bool
    words: str


def check(results: Results, only: Sequence[str] | None = None) -> None:
    """Compare every case, and the draws themselves."""
    results.note(
        f"{EXAMPLES} fixed examples for each model, weights from a seed with noise on all of them. Right means: exact "
        f"likelihoods of every example within {TOLERANCE:g} relative; keyed draws the same; bounds within {ERRORS:g} "
        "standard errors of their draws; samples the same. `file` is the CPU that wrote the figures in the checkout, "
        "`here` this machine's."
    )
    if results.device.type == "cpu":
        results.note("There is no GPU: the CPU stands in for it.")
    expected = json.loads(EXPECTED.read_text(encoding="utf-8"))["cases"] if EXPECTED.is_file() else {}
    for row in _draws(results.device):
        results.add(row)
        results.failed = results.failed or row["verdict"] != "the same"
    wrong = 0
    for case in cases(only):
        if results.seconds_left < 5:
            results.end(f"no time was left for {case} and what comes after it")
            return
        try:
            rows = list(_compared(case, results.device, expected.get(case)))
        except (BadInput, RuntimeError) as error:  # RuntimeError: what torch says, out of memory included
            rows = [{"model": case, "quantity": f"failed: {str(error).partition(chr(10))[0]}", "_right": False}]
        for row in rows:
            results.add(row)
            wrong += not row["_right"]
    results.failed = results.failed or bool(wrong)
    results.note(f"{wrong} of the figures above differ." if wrong else "All figures agree.")


def write_expected(only: Sequence[str] | None = None) -> Path:
    """The figures of this machine's CPU, for others to compare with."""
    found = {}
    for case in cases(only):
        model, data, examination = prepared(case)
        kept = {name: one for name, one in figures(model, data, examination).items() if KINDS[name] != "samples"}
        rounded = {name: Figure([float(f"{v:.9g}") for v in one.values], one.error) for name, one in kept.items()}
        found[case] = {"weights": weight(model), "figures": {name: asdict(one) for name, one in rounded.items()}}
    content = {"torch": torch.__version__, "examples": EXAMPLES, "draws": DRAWS, "cases": found}
    return write_atomic(EXPECTED, json.dumps(content, separators=(",", ":")).replace('"cases"', '\n"cases"') + "\n")


def cases(only: Sequence[str] | None = None) -> list[str]:
    """Each shipped model on a small dataset of the first structure that it accepts, as `model@data`."""
    every = [f"{name}@{DATA[load_model(name).structures[0]]}" for name in choices("model")]
    for name in only or ():
        if name not in every:
            raise unknown("case", name, every)
    return every if only is None else list(only)


# One case ------------------------------------------------------------------------------------------------------------


class Fixed(DataModule):
    """The same examples of a dataset in every split."""

    def __init__(self, data: DataModule) -> None:
        self.data, self.spec = data, data.spec
        x = data.split("test").x
        if data.spec.structure == "sequence":
            chosen = x[: EXAMPLES * data.spec.dims]  # a stream
        else:
            chosen = x[torch.linspace(0, len(x) - 1, EXAMPLES).long()]
        self._split = Split(chosen)

    def split(self, name: SplitName) -> Split:
        return self._split

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        return self.data.batch(seed, step, batch_size)

    def describe(self) -> dict[str, Any]:
        return self.data.describe()


def prepared(case: str) -> tuple[GenerativeModel, DataModule, Examination]:
    """The model of a case on the CPU, with weights that compute something everywhere, and its examples."""
    model_name, _, data_name = case.partition("@")
    settings = [f"model={model_name}", f"data={data_name}", "budget=smoke", "budget.examples=1000"]
    experiment = compose(settings)
    inside = "first_stage" in signature(resolve(experiment.model.target, GenerativeModel)).parameters
    if inside and not experiment.first_stage.given:
        experiment = compose([*settings, "first_stage=model=gpt"])
    data = data_of(experiment)
    seed_everything(0)
    model = build_model(experiment, data.spec).eval()
    with torch.no_grad(), keyed_randomness(torch.device("cpu"), 0, "noise on weights"):
        for p in model.parameters():
            p.add_(NOISE * torch.randn(p.shape))
    return model, Fixed(data), build_examination(experiment.data.modality)


def weight(model: GenerativeModel) -> float:
    """A number by which to tell whether two models have the same weights."""
    return math.fsum(float(p.detach().double().abs().sum()) for p in model.parameters())


def figures(model: GenerativeModel, data: DataModule, examination: Examination) -> dict[str, Figure]:
    """All that a model can say, by the name of the evidence."""
    draws: dict[str, list[Tensor]] = {}
    for seed in range(DRAWS):
        protocol = Protocol("test", seed, elbo_draws=1, importance_samples=8)
        for name, nats in evaluate(model, data, protocol, examination, Experts(), METRICS).per_example.items():
            draws.setdefault(name, []).append(nats.double().reshape(EXAMPLES, -1).sum(1))  # tokens: of each window
        if not any(KINDS[name] == "bound" for name in draws):
            break
    found = {}
    for name, several in draws.items():
        stacked = torch.stack(several)  # [draws, examples]
        if KINDS[name] == "exact":
            found[name] = Figure(stacked[0].tolist())
        else:
            found[name] = Figure(stacked.mean(0).tolist(), float((stacked.var(0).sum() / DRAWS).sqrt() / EXAMPLES))
    found["samples"] = Figure(draw_samples(model, SAMPLES, seed=0).double().flatten().tolist())
    return found


def compared(kind: Kind, ours: Figure, theirs: Figure) -> Verdict:
    """Whether `theirs` is as right as `ours`."""
    a, b = (torch.tensor(one.values, dtype=torch.float64) for one in (ours, theirs))
    if kind == "samples":
        share = float((a != b).double().mean())
        same = share <= 1 - SAME_SAMPLES
        return Verdict(share, same, "the same" if same else "other samples")
    if not b.isfinite().all():
        return Verdict(math.inf, False, "not finite")
    difference = float(((a - b).abs() / a.abs().clamp(min=1e-9)).max())
    if kind == "exact":
        right = difference <= TOLERANCE
        return Verdict(difference, right, f"{'within' if right else 'NOT within'} {TOLERANCE:g}")
    if difference <= SAME_DRAWS:
        return Verdict(difference, True, "the same draws")
    allowed = ERRORS * math.hypot(ours.error or 0.0, theirs.error or 0.0)
    within = abs(ours.mean - theirs.mean) <= allowed
    return Verdict(difference, False, f"OTHER DRAWS, {'' if within else 'NOT '}within their error")


def _compared(case: str, device: torch.device, expected: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    model, data, examination = prepared(case)
    if expected is not None and not math.isclose(expected["weights"], weight(model), rel_tol=1e-6):
        expected = None  # another torch draws other weights
    here = figures(model, data, examination)
    there = figures(copy.deepcopy(model).to(device), data, examination)
    for name, ours in here.items():
        verdict = compared(KINDS[name], ours, there[name])
        said = (expected or {"figures": {}})["figures"].get(name)
        file = None if said is None else Figure(**said)
        against = None if file is None else compared(KINDS[name], file, there[name])
        yield {
            "model": case,
            "quantity": name,
            "CPU, file": None if file is None else f"{file.mean:.7g}",
            "CPU, here": f"{ours.mean:.7g}",
            "GPU": f"{there[name].mean:.7g}",
            "error": ours.error,
            "GPU to file": None if against is None else f"{against.difference:.1e}",
            "GPU to here": f"{verdict.difference:.1e}",
            "verdict": verdict.words if against is None or against.right else f"{verdict.words}; file: {against.words}",
            "_right": verdict.right and (against is None or against.right),
        }


# Draws ---------------------------------------------------------------------------------------------------------------

#: How models draw, on a device.
DRAWN: dict[str, Callable[[torch.device], Tensor]] = {
    "randn": lambda device: torch.randn(1000, device=device),
    "randn_like": lambda device: torch.randn_like(torch.zeros(1000, device=device)),
    "rand": lambda device: torch.rand(1000, device=device),
    "rand_like": lambda device: torch.rand_like(torch.zeros(1000, device=device)),
    "randint": lambda device: torch.randint(17, (1000,), device=device),
    "multinomial": lambda device: torch.multinomial(torch.ones(1000, 17, device=device), 1),
    "Normal.rsample": lambda device: Normal(torch.zeros(1000, device=device), 1.0).rsample(),
}


def _draws(device: torch.device) -> Iterator[dict[str, Any]]:
    """Whether keyed draws are the same on every device."""
    for name, draw in DRAWN.items():
        with keyed_randomness(torch.device("cpu"), 0, name):
            ours = draw(torch.device("cpu"))
        with keyed_randomness(device, 0, name):
            theirs = draw(device).cpu()
        share = float((ours != theirs).double().mean())
        same = share <= 1 - SAME_SAMPLES
        yield {"keyed draw": name, "share that differs": share, "verdict": "the same" if same else "OTHER DRAWS"}
