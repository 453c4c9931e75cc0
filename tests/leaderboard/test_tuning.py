"""What boards say of rows that start from another model's weights."""

from __future__ import annotations

import math
from typing import Any

from builders import absent, cost, page, record

from benchmark.record import Record
from benchmark.spec import Score

GPT = {"target": "benchmark.models.transformer.gpt.GPT"}
STREAM = {"split": "test", "context": 64, "how": {"likelihood": "exact"}}


def row(model: str, seed: int, bits: float, earlier: float | None = None, **changes: Any) -> Record:
    """A run of text; `earlier`: what it takes of the text that it had learnt before, where that was 2.0."""
    scores = {
        "nats_per_token": Score("nats/token", 1, bits * math.log(2), 0.01, 100, STREAM),
        "bits_per_byte": Score("bits/byte", 1, bits, 0.01, 100, STREAM),
    }
    one = record(cost() | scores, model=model, data="speeches", modality="text", seed=seed, options=GPT)
    config: dict[str, Any] = one.config
    if earlier is not None:
        scores |= {
            "bits_per_byte_before": Score("bits/byte", 1, earlier, 0.01, 100, STREAM),
            "forgetting": Score("bits/byte", 1, earlier - 2.0, None, 100, STREAM),
        }
        before = config | {"model": {"name": "gpt", **GPT}, "data": config["data"] | {"name": "manuals"}}
        origin = {"run": "1a2b", "sha256": "0" * 64, "config": before, "bits_per_byte": 2.0}
        config = config | {"start": {"run": None, "experiment": "model=gpt data=manuals", "origin": origin}}
    return record(
        cost() | scores | absent("fid", "text"),
        **{"model": model, "data": "speeches", "modality": "text", "seed": seed, "config": config, **changes},
    )


def tuned_cells(*records: Record) -> list[str]:
    """The cells of the row of `tuned`."""
    (line,) = [line for line in section(page(*records, data="speeches")).splitlines() if line.startswith("| tuned")]
    return [cell.strip() for cell in line.strip("|").split(" | ")]


def section(text: str) -> str:
    _, _, rest = text.partition("### Tuned from another model's weights: ")
    return rest.partition("\n#")[0]


def test_a_tuned_row_says_what_it_gains_seed_by_seed_and_what_it_forgets() -> None:
    scratch = [row("scratch", seed, bits) for seed, bits in ((0, 3.0), (1, 3.4))]
    tuned = [row("tuned", seed, bits, 2.5) for seed, bits in ((1, 3.1), (0, 2.9))]
    worse = [row("worse", seed, 3.9) for seed in (0, 1)]
    cells = tuned_cells(*scratch, *worse, *tuned)
    assert cells[:2] == ["tuned", "gpt on manuals, 2.000 there"]
    assert cells[3:5] == ["scratch", "+0.200 [-1.071, 1.471]"], "0.1 and 0.3, by Student's t"
    assert cells[5].startswith("2.500")
    assert cells[6].startswith("0.500")


def test_nothing_to_compare_with_is_a_dash_and_no_tuned_row_no_table() -> None:
    assert tuned_cells(row("tuned", 0, 2.9, 2.5))[3:5] == ["—", "—"]
    assert section(page(row("scratch", 0, 2.9), data="speeches")) == ""


def test_other_data_is_no_scratch() -> None:
    short = row("short", 0, 2.0, fingerprint="cd" * 32)
    assert tuned_cells(short, row("tuned", 0, 2.9, 2.5))[3:5] == ["—", "—"]
