"""Quality against evaluations of the network, and what each step of a bound costs: measured, kept and shown."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import toys
from builders import distance, page, record
from runs import carry_out
from torch import Tensor

from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, Result, evaluate, load_extractor
from benchmark.metrics.evaluations import EVALUATIONS
from benchmark.record import read_records
from benchmark.spec import Score
from benchmark.traces import read_curves

WITHIN = [f"fid_within_{most}" for most in EVALUATIONS]


class Counts(toys.Wanders):
    """Notes how many evaluations it was given."""

    given: list[int]

    def sample_within(self, n: int, evaluations: int) -> Tensor:
        self.given.append(evaluations)
        return super().sample_within(n, evaluations)


@pytest.fixture(scope="module")
def digits(data_root: str) -> Digits:
    return Digits(Path(data_root))


def scored(model: toys.Toy, digits: Digits, names: list[str], draws: int = 1) -> Result:
    protocol = Protocol("test", seed=0, elbo_draws=2, sample_draws=draws)
    return evaluate(
        model, digits, protocol, build_examination("image"), Experts(load_extractor("digits", digits.spec)), names
    )


def test_samples_within_as_many_evaluations_as_the_sampler_takes_are_its_first_draw(
    digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toys.Wanders, "steps", 20)
    model = Counts(digits.spec)
    model.given = []
    scores = scored(model, digits, ["fid", *WITHIN]).scores
    assert scores["fid_within_20"].value == scores["fid"].value
    assert scores["fid_within_5"].value != scores["fid"].value
    assert model.given == [20, *EVALUATIONS]  # 180 samples are one chunk
    shown = scores["fid_within_5"].protocol
    assert (shown["evaluations_at_most"], shown["how"]) == (5, {"sampler": "steps", "draws": 1})


def test_the_costs_of_steps_sum_to_the_bound_and_are_kept_as_a_curve(digits: Digits) -> None:
    found = scored(toys.Wanders(digits.spec), digits, ["bits_of_steps", "bits_per_dim"])
    costs, together = found.curves["bits_per_dim"], found.scores["bits_of_steps"].value
    assert together == pytest.approx(float(costs.sum()))
    assert together == pytest.approx(found.scores["bits_per_dim"].value, rel=0.05)  # other images, other draws
    with torch.no_grad():
        nats = toys.Wanders.step_costs(toys.Wanders(digits.spec), digits.split("test").x.long())
    assert costs.shape == nats.shape == (2,)


def test_a_run_keeps_the_costs_of_its_steps_beside_its_curves(tmp_path: Path) -> None:
    steps = ["model.diffusion_steps=20", "model.sampler_steps=5"]
    folder = carry_out(tmp_path, "ddpm", *steps, "training.validations=2", "budget.examples=128")
    (made,) = read_records(tmp_path).values()
    curve = read_curves(folder / "record.json")["steps/bits_per_dim"]
    assert [step for step, _ in curve] == list(range(21))
    assert sum(value for _, value in curve) == pytest.approx(made.scores["bits_of_steps"].value)
    assert math.isfinite(made.scores["fid_within_5"].value or math.nan)


def test_the_board_has_a_table_of_them_the_best_at_the_end_first() -> None:
    def within(values: list[float]) -> dict[str, Score]:
        shown = {"split": "test", "how": {"sampler": "ddim", "draws": 1}}
        scores = zip(EVALUATIONS, values, strict=True)
        return {
            f"fid_within_{most}": Score("1", 1, value, None, 180, shown | {"evaluations_at_most": most})
            for most, value in scores
        }

    slow = record(distance(2.0) | within([50.0, 20.0, 9.0, 3.0, 2.0]), model="slow")
    quick = record(distance(3.0) | within([6.0, 4.0, 3.5, 3.2, 3.1]), model="quick")
    text = page(slow, quick, record(distance(9.0), model="once"))
    _, _, below = text.partition("### FID against network evaluations, from one training: test split\n")
    table = below.partition("![")[0]
    assert "| model | family | FID within 5 | FID within 10 | FID within 20 | FID within 50 | FID within 100 |" in table
    assert table.index("| slow |") < table.index("| quick |")
    assert "| 50.00 | 20.00 | 9.00 | 3.00 | 2.00 | 1 |" in table
    assert "once" not in table
    assert "FID against network evaluations" not in page(record(distance(9.0), model="once"))
