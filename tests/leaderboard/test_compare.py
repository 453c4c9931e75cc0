"""Comparing two models: differences and intervals against closed forms, and what is no comparison at all."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NATS_PER_DIM_BIT, TEST, distance, likelihood, record, shown
from click.testing import CliRunner
from scipy import stats

from benchmark.__main__ import cli
from benchmark.facts import metrics, metrics_of, modality
from benchmark.leaderboard.compare import Comparison, NotComparable, Side, compare, comparison_table, side
from benchmark.leaderboard.rows import Run
from benchmark.record import write_per_example, write_record
from benchmark.spec import BadInput, Score


def run_of(
    folder: Path, bits: np.ndarray, seed: int = 0, model: str = "vae", how: str = "exact", **changes: Any
) -> Run:
    """A run with these bits per dimension of each example `[N]`, in a folder of its own."""
    folder = folder / model / str(seed)
    scores = likelihood(float(bits.mean()), how)
    path = write_record(folder, record(scores, seed=seed, model=model, **changes))
    write_per_example(folder, {"log_prob" if how == "exact" else "elbo": -bits * NATS_PER_DIM_BIT})
    return Run(path, record(scores, seed=seed, model=model, **changes))


def noise(seed: int, n: int = 180) -> np.ndarray:
    return np.random.RandomState(seed).randn(n)


def scored(values: list[float], model: str, make: Any = likelihood, **changes: Any) -> Side:
    """Runs with these scores and nothing beside them."""
    runs = [
        Run(Path("none.json"), record(make(value), seed=i, model=model, **changes)) for i, value in enumerate(values)
    ]
    return Side(model, tuple(runs))


# Statistics ----------------------------------------------------------------------------------------------------------


def test_pairs_of_examples_have_the_paired_t_interval(tmp_path):
    """Differences of 0.1 with a spread of 0.05, on examples whose own spread is 1: unpaired one would see nothing."""
    examples = 2 + noise(0)
    better, worse = examples, examples + 0.1 + 0.05 * noise(1)
    a = Side("a", (run_of(tmp_path, worse, how="bound"),))
    b = Side("b", (run_of(tmp_path, better, model="gpt"),))
    found = compare(a, b).by_example
    assert found is not None
    expected = stats.ttest_rel(worse, better).confidence_interval(0.95)
    assert found.difference.n == 180
    assert found.difference.centre == pytest.approx((worse - better).mean(), rel=1e-4)
    assert found.difference.low == pytest.approx(expected.low, rel=1e-4)
    assert found.difference.high == pytest.approx(expected.high, rel=1e-4)
    assert found.better == pytest.approx((worse < better).mean())


def test_seeds_are_averaged_before_examples_are_paired(tmp_path):
    """More seeds of one model do not make more examples."""
    examples = 2 + noise(0)
    a = Side("a", tuple(run_of(tmp_path, examples + shift, seed) for seed, shift in enumerate((0.0, 0.2))))
    b = Side("b", (run_of(tmp_path, examples + 0.01 * noise(1), model="gpt"),))
    found = compare(a, b).by_example
    assert found is not None
    assert found.difference.n == 180
    assert found.difference.centre == pytest.approx(0.1 - 0.01 * noise(1).mean(), rel=1e-3)
    assert found.difference.high - found.difference.low == pytest.approx(
        2 * stats.t.ppf(0.975, 179) * 0.01 * noise(1).std(ddof=1) / math.sqrt(180), rel=1e-3
    )


def test_seeds_in_common_are_paired():
    a, b = scored([1.90, 1.80, 1.70], "vae"), scored([1.85, 1.77, 1.60, 9.0], "gpt")
    found = compare(a, b).by_seed
    assert found is not None
    expected = stats.ttest_rel([1.90, 1.80, 1.70], [1.85, 1.77, 1.60]).confidence_interval(0.95)
    assert (found.difference.n, found.better) == (3, 0.0)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))


def test_probability_of_improvement_is_over_all_pairs_of_runs():
    a, b = [1.9, 1.7], [1.8, 1.7, 2.0]
    found = compare(scored(a, "vae"), scored(b, "gpt")).improvement
    assert found == pytest.approx(1 - stats.mannwhitneyu(a, b).statistic / 6) == pytest.approx(3.5 / 6)


def test_where_higher_is_better_the_higher_wins():
    def precision(value: float) -> dict[str, Score]:
        return {"precision": Score("1", 1, value, 0.01, 180, {"split": "test"})}

    found = compare(scored([0.9, 0.8], "vae", precision), scored([0.7, 0.6], "gpt", precision), "precision")
    assert found.improvement == 1
    assert found.by_seed is not None
    assert found.by_seed.better == 1
    assert found.by_seed.difference.centre == pytest.approx(0.2)


def test_neighbouring_tokens_count_as_blocks(tmp_path):
    runs = []
    for model, seed in (("gpt", 0), ("lstm", 1)):
        nats = 1.5 + 0.1 * noise(seed, 25_000)
        shown = {"split": "test", "context": 64}
        scores = {"nats_per_token": Score("nats/token", 1, float(nats.mean()), 0.01, len(nats), shown)}
        one = record(scores, model=model, modality="text", data="text8")
        path = write_record(tmp_path / model, one)
        write_per_example(tmp_path / model, {"token_log_prob": -nats})
        runs.append(Run(path, one))
    gpt, lstm = (Side(run.record.model, (run,)) for run in runs)
    found = compare(gpt, lstm).by_example
    assert found is not None
    assert found.difference.n == 25
    assert found.difference.centre == pytest.approx(0.1 * (noise(0, 25_000) - noise(1, 25_000)).mean(), abs=1e-5)


def test_distances_have_no_pairs_of_examples(tmp_path):
    found: Comparison = compare(scored([1.2, 1.3], "sngan", distance), scored([2.0, 1.9], "vae", distance))
    assert found.column.metric == "fid"
    assert found.by_example is None
    assert found.improvement == 1


# What is no comparison -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            lambda: scored([1.8], "gpt", lambda bits: likelihood(bits, split="validation")),
            "split is test and validation",
        ),
        (lambda: scored([1.8], "gpt", data="mnist"), "data is digits and mnist"),
        (lambda: scored([1.8], "gpt", fingerprint="cd" * 32), "fingerprint of the data is abababab"),
        (lambda: scored([1.8], "gpt", modality="text"), "vae is a model of images, gpt of texts"),
        (lambda: scored([1.2], "sngan", distance), "no score in common"),
        (
            lambda: scored(
                [1.8], "gpt", lambda bits: {"bits_per_dim": Score("bits/dim", 2, bits, 0.1, 9, {"split": "test"})}
            ),
            "version is 1 and 2",
        ),
    ],
)
def test_different_protocols_are_refused(other, words):
    with pytest.raises(NotComparable, match=words):
        compare(scored([1.9], "vae"), other())


def test_another_sampler_or_a_bound_is_the_same_protocol():
    exact, bound = scored([1.9], "gpt"), scored([1.8], "vae", lambda bits: likelihood(bits, "bound"))
    assert compare(exact, bound).improvement == 0


def test_names_and_paths(tmp_path):
    run = run_of(tmp_path, 2 + noise(0))
    records = {run.path: run.record}
    current = {("digits", "vae", "standard"): {run.record.identity}}
    assert side("vae", records, current, "digits", "standard").runs == (run,)
    assert side(str(run.path.parent), {}, {}, None, "standard").runs[0].record == run.record
    with pytest.raises(BadInput, match="say on which data"):
        side("vae", records, current, None, "standard")
    with pytest.raises(BadInput, match="did you mean 'vae'"):
        side("vea", records, current, "digits", "standard")
    with pytest.raises(BadInput, match="unknown data with records 'digit'; did you mean 'digits'"):
        side("vae", records, current, "digit", "standard")
    with pytest.raises(BadInput, match="unknown budget with records on digits 'standart'; did you mean 'standard'"):
        side("vae", records, current, "digits", "standart")


def metric_of(name: str) -> Any:
    """What makes the scores of a record that has this metric alone, in its unit and at its version."""
    fact = metrics()[name]
    return lambda value: {name: Score(fact.unit, fact.version, value, 0.01, 180, TEST)}


OF_IMAGES = [name for name in metrics_of(modality("image")) if name != "importance_bound"]


@pytest.mark.parametrize("name", OF_IMAGES)  # boards show an importance-weighted bound in bits, where lower is better
def test_which_direction_is_better_follows_from_the_metric(name):
    fact = metrics()[name]
    more, less = (scored(values, who, metric_of(name)) for values, who in (([0.9, 0.8], "a"), ([0.1, 0.2], "b")))
    found = compare(more, less, name)
    assert found.improvement == (1.0 if fact.better == "higher" else 0.0)
    assert found.by_seed.better == found.improvement
    text = shown(comparison_table(found), 160)
    said = {"higher": "higher is better", "lower": "lower is better", "neither": "neither high nor low is better"}
    assert f"{fact.title} on digits, {said[fact.better]}" in text
    assert ("A lower" if fact.better == "neither" else "A better") in text
    assert f"{0.85:.{fact.digits}f}" in text


def test_the_verb_prints_one_table_and_its_exit_code_says_whether_it_could(tmp_path):
    examples = 2 + noise(0)
    a, b = run_of(tmp_path, examples + 0.1, how="bound"), run_of(tmp_path, examples + 0.01 * noise(1), model="gpt")
    done = CliRunner().invoke(cli, ["compare", str(a.path), str(b.path)])
    assert done.exit_code == 0, done.output
    for words in ("bits/dim on digits, lower is better", "A − B by example", "180", "A − B by seed", "a bound"):
        assert words in done.output
    other = run_of(tmp_path, examples, model="lstm", fingerprint="cd" * 32)
    done = CliRunner().invoke(cli, ["compare", str(a.path), str(other.path)])
    assert done.exit_code == 4
    assert done.output.startswith("not comparable: bits_per_dim stands under two protocols: ")
    assert len(done.output.splitlines()) == 1
