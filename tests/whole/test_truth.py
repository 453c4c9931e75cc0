"""Known truth: the entropy of synthetic data is right, it stands beside every score, and no model gets below it."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import exact
import numpy as np
import pytest
import torch
from builders import likelihood, record
from click.testing import CliRunner
from files import RECORDS, REPOSITORY
from known_data import PROTOCOL, data_of

from benchmark import testing
from benchmark.__main__ import cli
from benchmark.build import build_examination, build_model
from benchmark.config import load_suite
from benchmark.data.synthetic import MarkovChain, PixelNetwork
from benchmark.evaluate import Experts, evaluate, references, selection_metric
from benchmark.leaderboard.truth import SIGMAS, truth_page, verdicts
from benchmark.record import Record, read_records, write_record
from benchmark.spec import DataSpec, Score


def strings(levels: int, length: int) -> np.ndarray:
    return np.array(list(product(range(levels), repeat=length)))


# The entropy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("height", "side", "levels", "parents"), [(2, 3, 3, 2), (3, 3, 2, 4), (4, 2, 2, 3)])
def test_entropy_of_pixels_is_that_of_the_enumerated_images(height, side, levels, parents, seed):
    source = PixelNetwork(height, side, levels, parents, seed)
    log_p = source.log_prob(strings(levels, height * side))
    assert np.exp(log_p).sum() == pytest.approx(1)
    assert source.entropy() == pytest.approx(-(np.exp(log_p) * log_p).sum(), rel=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_entropy_rate_is_what_one_more_symbol_adds(order):
    source = MarkovChain(3, order, seed=4)

    def block(n: int) -> float:
        log_p = np.array([source.log_prob(string).sum() for string in strings(3, n)])
        assert np.exp(log_p).sum() == pytest.approx(1)
        return float(-(np.exp(log_p) * log_p).sum())

    assert source.entropy() == pytest.approx(block(5) - block(4), rel=1e-10)
    assert source.entropy() == pytest.approx(block(4) - block(3), rel=1e-10)  # stationary: any place will do


def test_samples_follow_their_sources():
    pixels, spec = PixelNetwork(2, 2, 3, 2, seed=0), DataSpec((1, 2, 2), 3, "grid")
    p = torch.from_numpy(np.exp(pixels.log_prob(strings(3, 4))))
    x = torch.from_numpy(pixels.sample(4000, seed=1)).long().view(-1, 1, 2, 2)
    testing.assert_frequencies_agree(x, p, spec)
    chain, spec = MarkovChain(3, 2, seed=0), DataSpec((4,), 3, "sequence")
    p = torch.tensor([math.exp(chain.log_prob(string).sum()) for string in strings(3, 4)])
    stream = torch.tensor(chain.sample(40_000, seed=1))
    testing.assert_frequencies_agree(stream.view(-1, 10)[:, :4], p, spec)  # six symbols apart: all but independent


@pytest.mark.parametrize("name", ["synthetic_images", "synthetic_text"])
def test_every_split_costs_its_source_the_entropy_but_for_luck(name):
    data = data_of(name)
    for split in ("train", "validation", "test"):
        truth = data.truth(split)
        surprise = -truth["source"]
        stderr = float(surprise.std()) / math.sqrt(len(surprise))
        entropy = -float(truth["entropy"][0])
        assert entropy == data.describe()["entropy"]
        assert abs(float(surprise.mean()) - entropy) < testing.SIGMAS * stderr
        assert stderr < 0.005 * entropy, "too few examples to tell one percent"


def test_training_batches_are_of_the_training_split():
    data = data_of("synthetic_images")
    one, again = data.batch(0, 3, 64), data.batch(0, 3, 64)
    assert one.condition is None
    assert torch.equal(one.x, again.x)
    assert one.x.shape == (64, *data.spec.shape)
    assert not torch.equal(one.x, data.batch(1, 3, 64).x)


# Beside every score --------------------------------------------------------------------------------------------------


def test_entropy_stands_among_the_references_in_each_unit():
    table = references(data_of("synthetic_images"), PROTOCOL, build_examination("image"), Experts())
    nats = data_of("synthetic_images").describe()["entropy"]
    assert table["entropy"]["nll"].value == pytest.approx(nats)
    assert table["entropy"]["bits_per_dim"].value == pytest.approx(nats / math.log(2) / 16)
    assert table["entropy"]["nll"].stderr == pytest.approx(0, abs=1e-9)
    assert table["source"]["nll"].value == pytest.approx(nats, abs=4 * table["source"]["nll"].stderr)
    order = [table[name]["nll"].value for name in ("uniform", "histogram", "pixel_histogram", "source")]
    assert order == sorted(order, reverse=True)
    table = references(data_of("synthetic_text"), PROTOCOL, build_examination("text"), Experts())
    rate = data_of("synthetic_text").describe()["entropy"]
    assert table["entropy"]["nats_per_token"].value == pytest.approx(rate)
    assert table["entropy"]["perplexity"].value == pytest.approx(math.exp(rate))


# No model gets below it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "size"), [(50, 64), pytest.param(100, 64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("experiment", load_suite("truth"), ids=lambda experiment: experiment.model.name)
def test_no_model_beats_the_entropy_and_training_approaches_it(experiment, steps, size):
    """The short version of `make truth`: few steps, part of validation."""
    data = data_of(experiment.data.name)
    examination = build_examination(experiment.data.modality)
    metric = selection_metric(build_model(experiment, data.spec), examination)
    protocol = replace(PROTOCOL, split="validation", elbo_draws=2, examples=4 * size, solved_examples=size)
    known = references(data, protocol, examination, Experts())["entropy"]
    entropy = known.get(metric, known[examination.fact.likelihood[0]]).value  # of windows it is that of their tokens
    with testing.seeded(0):
        model = build_model(experiment, data.spec)
    above = []
    for more in (0, steps):
        testing.train(model, lambda step: data.batch(0, step, size), more)
        score = evaluate(model, data, protocol, examination, Experts(), [metric]).scores[metric]
        above.append(score.value - entropy)
        assert above[-1] > -SIGMAS * score.stderr
    assert above[1] < above[0]


@pytest.mark.parametrize(("make", "options"), exact.CASES, ids=lambda value: getattr(value, "__name__", None))
def test_no_bound_is_above_the_exact_value_of_its_model(make, options):
    pairs = make(*options)
    assert [pair.problem for pair in pairs] == [None] * len(pairs)


def test_bounds_that_are_above_or_far_below_are_noticed():
    pair = exact.Pair("vae", "quadrature", "ELBO", exact=-4.0, bound=-3.9, stderr=0.02, gap=0.02)
    assert pair.problem == "above the exact value by 5.0 s.e."
    assert replace(pair, bound=-4.2).problem == "more than 0.02 below the exact value"
    assert replace(pair, bound=-4.2, gap=math.inf).problem is None


# The table -----------------------------------------------------------------------------------------------------------


def scored(bits: float | None, how: str = "exact", stderr: float = 0.004, **changes: Any) -> Record:
    """A run on images whose entropy is 1.342 bits per dimension."""

    def reference(value: float) -> dict[str, Any]:
        return {"bits_per_dim": {"unit": "bits/dim", "version": 1, "value": value, "stderr": 0.0, "n": 180}}

    dataset = {"entropy": 14.9, "references": {"entropy": reference(1.342), "source": reference(1.339)}, "splits": {}}
    scores = {} if bits is None else likelihood(bits, how, stderr)
    return record(scores, data="synthetic_images", dataset=dataset, **changes)


def verdict(one: Record) -> str | None:
    (judged,) = verdicts({Path("record.json"): one})
    return judged.problem


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (scored(1.350), None),
        (scored(1.331), None),  # below by less than three standard errors
        (scored(1.328), "beats the entropy by 3.5 s.e."),
        (scored(1.328, "bound"), "beats the entropy by 3.5 s.e."),
        (scored(1.328, "approximate", stderr=0.005), None),
        (scored(1.360), "exact, but 1.3% above the entropy"),
        (scored(1.360, "bound"), None),
        (scored(None, status="diverged", reason="loss"), "diverged: no likelihood with a standard error"),
    ],
)
def test_verdicts(one, words):
    assert verdict(one) == words


def test_windows_are_judged_where_a_model_has_no_other_likelihood() -> None:
    def text(value: float) -> Record:
        entropy = {"nats_per_token": {"unit": "nats/token", "version": 1, "value": 1.5, "stderr": 0.0, "n": 100}}
        dataset = {"entropy": 1.5, "references": {"entropy": entropy}, "splits": {}}
        how = {"split": "test", "context": 64, "how": {"likelihood": "bound"}}
        scores = {"window_nats": Score("nats/token", 1, value, 0.01, 100, how)}
        return record(scores, data="synthetic_text", modality="text", dataset=dataset)

    assert verdict(text(1.6)) is None
    assert verdict(text(1.4)) == "beats the entropy by 10.0 s.e."
    other_unit = scored(None)
    other_unit.scores["nll"] = Score(
        "nats/example", 1, 14.5, 0.1, 180, {"split": "test", "how": {"likelihood": "exact"}}
    )
    assert verdict(other_unit) == "finished: no likelihood with a standard error", "nats are not compared with bits"


def test_page_shows_what_is_above_the_source_on_the_same_examples_only():
    same, fewer = scored(1.350), scored(1.5, "approximate", model="flow_matching")
    fewer.scores["bits_per_dim"] = Score("bits/dim", 1, 1.5, 0.01, 64, fewer.scores["bits_per_dim"].protocol)
    page = truth_page(verdicts({Path("a.json"): same, Path("b.json"): fewer}))
    assert "| vae | synthetic_images | bits/dim | 1.3420 | 1.3500 | 0.0080 | 0.0040 | 0.0110 | holds |" in page
    assert "≈ 1.5000 | 0.1580 | 0.0100 | — | holds |" in page
    assert "2 of 2 hold." in page


def test_the_committed_page_is_that_of_the_committed_records():
    judged = verdicts(read_records(RECORDS))
    assert {verdict.run.record.model for verdict in judged} == {one.model.name for one in load_suite("truth")}
    assert (REPOSITORY / "docs" / "truth.md").read_text(encoding="utf-8") == truth_page(judged)


def test_the_verb_judges_records_and_says_so_by_its_exit_code(tmp_path):
    write_record(tmp_path / "good", scored(1.350))
    done = CliRunner().invoke(cli, ["truth", "--records", str(tmp_path), "--to", str(tmp_path / "truth.md")])
    assert done.exit_code == 0, done.output
    assert "holds" in done.output
    assert "1 of 1 hold." in (tmp_path / "truth.md").read_text()
    write_record(tmp_path / "bad", scored(1.2, model="realnvp"))
    done = CliRunner().invoke(cli, ["truth", "--records", str(tmp_path)])
    assert done.exit_code == 1
    assert "beats the entropy" in done.output
