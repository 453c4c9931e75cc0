"""Quality against variety: measured at each truncation from one training, and shown as curves."""

from __future__ import annotations

from pathlib import Path

import pytest
import toys
from builders import distance, page, record
from torch import Tensor

from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate, load_extractor
from benchmark.metrics.truncation import TRUNCATIONS
from benchmark.spec import Score

OF = ("fid", "precision", "recall")


class Notes(toys.Truncated):
    """Notes how it was truncated."""

    given: list[float]

    def sample_truncated(self, n: int, truncation: float) -> Tensor:
        self.given.append(truncation)
        return super().sample_truncated(n, truncation)


def test_samples_that_are_not_truncated_are_the_first_draw(data_root: str) -> None:
    digits = Digits(Path(data_root))
    model = Notes(digits.spec)
    model.given = []
    names = [*OF, *(f"{name}_truncated_{round(100 * one)}" for name in OF for one in TRUNCATIONS)]
    protocol, experts = Protocol("test", seed=0, sample_draws=1), Experts(load_extractor("digits", digits.spec))
    scores = evaluate(model, digits, protocol, build_examination("image"), experts, names).scores
    assert model.given == list(TRUNCATIONS)  # once for all three, 180 samples in one chunk
    for name in OF:
        assert scores[f"{name}_truncated_100"].value == scores[name].value
    assert (scores["fid_truncated_30"].value or 0) > (scores["fid"].value or 0)
    shown = scores["recall_truncated_30"].protocol
    assert (shown["truncation"], shown["neighbours"], shown["how"]) == (0.3, 3, {"sampler": "ancestral", "draws": 1})


def test_the_board_has_a_table_and_a_curve_of_each_the_best_at_the_end_first() -> None:
    def truncated(values: list[float]) -> dict[str, Score]:
        shown = {"split": "test", "how": {"sampler": "generator", "draws": 1}}
        return {
            f"recall_truncated_{round(100 * one)}": Score("1", 1, value, None, 180, shown | {"truncation": one})
            for one, value in zip(TRUNCATIONS, values, strict=True)
        }

    less = record(distance(2.0) | truncated([0.1, 0.3, 0.5, 0.6]), model="less")
    more = record(distance(3.0) | truncated([0.2, 0.4, 0.6, 0.8]), model="more")
    text = page(less, more, record(distance(9.0), model="never"))
    _, _, below = text.partition("### recall against truncation, from one training: test split\n")
    table, _, picture = below.partition("![")
    assert "| model | family | recall at 0.3 | recall at 0.5 | recall at 0.7 | recall at 1 |" in table
    assert table.index("| more |") < table.index("| less |")
    assert "| 0.100 | 0.300 | 0.500 | 0.600 | 1 |" in table
    assert "never" not in table
    assert picture.startswith(
        "recall against truncation, from one training, digits, standard](pictures/truncation-recall-"
    )
    assert "FID against truncation" not in text
    assert "against truncation" not in page(record(distance(9.0), model="never"))


@pytest.mark.parametrize("name", OF)
def test_protocols_are_those_of_the_metric_and_the_truncation(name: str) -> None:
    metrics = build_examination("image").metrics
    for one in TRUNCATIONS:
        found = metrics[f"{name}_truncated_{round(100 * one)}"]
        assert found.metric.protocol == {**metrics[name].metric.protocol, "truncation": one}
        assert found.fact.truncation is not None
        assert (found.fact.truncation.of, found.fact.truncation.factor) == (name, one)
