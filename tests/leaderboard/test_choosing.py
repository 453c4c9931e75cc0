"""The page on choosing: its names and numbers are those of the records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders import absent, distance, likelihood, record, spent
from studies import study

from benchmark.leaderboard.choosing import Advice, advice
from benchmark.leaderboard.library import all_views
from benchmark.leaderboard.pages import boards
from benchmark.record import Record
from benchmark.spec import Score
from benchmark.sweep.studies import Study

MODELS = [
    {"name": "vae", "capabilities": ["ImportanceBound", "Reconstructs"]},
    {"name": "pixelcnn", "capabilities": ["Likelihood"]},
    {"name": "gan", "capabilities": ["Interpolates"]},
]


def costs(flops: float, evaluations: float, seconds: float) -> dict[str, Score]:
    """Of training, of one sample, and the time for a thousand."""
    values = {"flops_per_example": flops / 1000, "sampling_evaluations": 1000 * evaluations}
    return {name: spent(name, value) for name, value in (values | {"sampling_seconds": seconds}).items()}


RECORDS = {
    Path("0.json"): record(likelihood(1.9, "bound") | distance(5.0) | costs(1.0, 1, 0.1)),
    Path("1.json"): record(likelihood(1.7) | distance(2.0) | costs(3.0, 64, 9.0), model="pixelcnn"),
    Path("2.json"): record(absent("bits_per_dim", "no") | distance(1.5) | costs(2.0, 1, 0.01), model="gan"),
    Path("3.json"): record(likelihood(0.1), data="truth", model="pixelcnn", dataset={"entropy": 0.1}),
}


def answers(records: dict[Path, Record], models: Any, studies: Sequence[Study] = ()) -> list[Advice]:
    return advice([views.said for views in all_views(records, models, studies=studies)], models)


def parts(records: dict[Path, Record], models: Any, studies: Sequence[Study] = ()) -> dict[str, Advice]:
    return {part.title: part for part in answers(records, models, studies)}


def cells(part: Advice) -> list[list[str]]:
    assert part.table is not None
    return [[entry.text for entry in row] for row in part.table.rows]


def test_each_question_is_answered_from_the_records() -> None:
    found = parts(RECORDS, MODELS)
    likely, samples = found["Density estimation and compression"], found["Samples that look real"]
    assert likely.facts[0] == "digits: pixelcnn (1.700) is first in bits/dim"
    assert likely.facts[1] == "digits: no model beats vae (1) or pixelcnn (3) in both bits/dim and FLOPs of training"
    assert samples.facts[0] == "digits: gan (1.50) is first in FID"
    assert samples.facts[2] == "digits: no model beats gan (1) in both FID and network evaluations per sample"
    able = dict(cells(found["What else a model can do"]))
    assert able["the likelihood itself"] == "pixelcnn"
    assert able["a bound on the likelihood"] == able["encode an example and give it back"] == "vae"
    assert able["samples and nothing else"] == able["walks between samples"] == "gan"
    assert able["samples under a given condition"] == able["the likelihood of a reply"] == "none yet"


def test_the_answers_in_short_stand_first() -> None:
    first, *_ = answers(RECORDS, MODELS, [study(16)])
    assert first.title == "In short"
    assert first.facts == [
        "Density estimation and compression: pixelcnn (1.700), in bits/dim on digits",
        "Samples that look real: gan (1.50), in FID on digits",
        "Fast sampling: gan or vae on digits (1 network evaluation per sample)",
        "No time to tune: vae on digits, judged by nats/example (50% of its settings work)",
    ]


def test_the_fastest_sampler_is_not_always_the_best() -> None:
    slow = {path: one for path, one in RECORDS.items() if one.model != "gan"}
    fast = parts(slow, MODELS)["Fast sampling"]
    assert fast.short == (
        "vae on digits (1 network evaluation per sample); of those that are or share the first in FID, pixelcnn (64)"
    )
    assert [row[0] for row in cells(fast)] == ["vae", "pixelcnn"]
    assert fast.facts == ["digits, on AMD EPYC, 2 cores, 1 thread used: vae is the quickest (0.1 s per 1,000 samples)"]


def test_seconds_are_compared_within_one_hardware_alone() -> None:
    other = record(likelihood(1.7) | distance(2.0) | costs(3, 64, 0.02), model="pixelcnn", hardware={"cpu": "other"})
    assert parts(RECORDS | {Path("1.json"): other}, MODELS)["Fast sampling"].facts == [
        "digits, on AMD EPYC, 2 cores, 1 thread used: gan is the quickest (0.01 s per 1,000 samples)"
    ]


def test_codes_are_of_models_that_encode_or_walk() -> None:
    psnr = {"psnr": Score("dB", 1, 20.0)}
    found = parts(RECORDS | {Path("0.json"): record(likelihood(1.9, "bound") | psnr)}, MODELS)["Latent codes"]
    assert cells(found) == [["vae", "family", "digits", "encodes and decodes", "20.00", "—", "—"]]
    assert found.short == "vae, which encodes and decodes"


def test_texts_under_different_protocols_are_not_ranked() -> None:
    def text(model: str, context: int, nats: float) -> Record:
        score = Score("nats/token", 1, nats, 0.01, 1000, {"split": "test", "context": context})
        return record({"nats_per_token": score}, data="words", model=model, modality="text")

    found = parts({Path("a"): text("lstm", 1, 1.68), Path("b"): text("gpt", 128, 1.69)}, MODELS)
    assert found["Text"].short == "lstm (1.680) or gpt (1.690), in nats/token on words, not ranked against each other"
    assert "Density estimation and compression" not in found


def test_a_first_place_that_is_shared_is_said_to_be() -> None:
    near = {Path("a.json"): record(likelihood(1.70)), Path("b.json"): record(likelihood(1.71), model="pixelcnn")}
    fact = parts(near, MODELS)["Density estimation and compression"].facts[0]
    assert fact == (
        "digits: vae (1.700) and pixelcnn (1.710) share the first place, since their intervals overlap in bits/dim"
    )


def test_studies_say_who_forgives_settings_that_were_not_tuned() -> None:
    robust = parts(RECORDS, MODELS, studies=[study(16)])["No time to tune"]
    assert cells(robust) == [["vae", "vae", "digits", "50%", "0%", "—"]]


def test_the_page_is_markdown_and_leaves_data_of_known_entropy_out() -> None:
    text = boards(RECORDS, models=MODELS)["choosing.md"]
    assert "## Density estimation and compression" in text
    assert "| pixelcnn | family | digits | 1.700 | 1 | 3 | 64 |" in text
    assert "truth" not in text
