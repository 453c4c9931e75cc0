"""The page on choosing: its names and numbers are those of the records."""

from __future__ import annotations

from pathlib import Path

from builders import absent, distance, likelihood, record
from test_sensitivity import study

from benchmark.leaderboard.choosing import advice, choosing_page
from benchmark.spec import Score

MODELS = [
    {"name": "vae", "capabilities": ["ImportanceBound", "Reconstructs"]},
    {"name": "pixelcnn", "capabilities": ["Likelihood"]},
    {"name": "gan", "capabilities": ["Interpolates"]},
]


def spent(minutes: float, seconds: float) -> dict[str, Score]:
    return {"cpu_minutes": Score("min", 1, minutes), "sampling_seconds": Score("s", 1, seconds)}


RECORDS = {
    Path("0.json"): record(likelihood(1.9, "bound") | distance(5.0) | spent(1.0, 0.1)),
    Path("1.json"): record(likelihood(1.7) | distance(2.0) | spent(3.0, 9.0), model="pixelcnn"),
    Path("2.json"): record(absent("bits_per_dim", "no") | distance(1.5) | spent(2.0, 0.01), model="gan"),
    Path("3.json"): record(likelihood(0.1), data="truth", model="pixelcnn", dataset={"entropy": 0.1}),
}


def test_each_question_is_answered_from_the_records() -> None:
    likely, samples, promises = advice(RECORDS, MODELS)
    assert likely.facts[0] == "digits, bits/dim: first: pixelcnn (1.700)"
    assert (
        likely.facts[1]
        == "digits: nothing beats these in both bits/dim and CPU minutes of training: vae (1), pixelcnn (3)"
    )
    assert samples.facts[0] == "digits, FID: first: gan (1.50)"
    assert samples.facts[2] == "digits: nothing beats these in both FID and seconds per 1,000 samples: gan (0.01)"
    assert promises.table is not None
    able = {row[0].text: row[1].text for row in promises.table.rows}
    assert able["the likelihood itself"] == "pixelcnn"
    assert able["a bound on the likelihood"] == able["encode an example and give it back"] == "vae"
    assert able["samples and nothing else"] == able["walks between samples"] == "gan"
    assert able["samples of a given class"] == "none yet"


def test_a_first_place_that_is_shared_is_said_to_be() -> None:
    near = {Path("a.json"): record(likelihood(1.70)), Path("b.json"): record(likelihood(1.71), model="pixelcnn")}
    fact = advice(near, MODELS)[0].facts[0]
    assert fact == "digits, bits/dim: a first place that intervals do not settle: vae (1.700), pixelcnn (1.710)"


def test_studies_say_who_forgives_settings_that_were_not_tuned() -> None:
    *_, robust = advice(RECORDS, MODELS, studies=[study(16)])
    assert robust.title == "No time to tune"
    assert robust.table is not None
    assert [entry.text for entry in robust.table.rows[0]] == ["vae", "vae", "digits", "0%", "—"]


def test_the_page_is_markdown_and_leaves_data_of_known_entropy_out() -> None:
    text = choosing_page(advice(RECORDS, MODELS))
    assert "## How likely is an example?" in text
    assert "| pixelcnn | family | digits | 1.700 | 1 | 3 | 9 |" in text
    assert "truth" not in text
