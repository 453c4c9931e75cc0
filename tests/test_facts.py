"""Metrics and modalities are files: each names code that exists, a user's own add to ours, and what is malformed is
refused in one line that names its file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import toys
from commands import benchmark, refusal
from files import shipped, write

from benchmark import facts
from benchmark.build import build_examination, load_metrics
from benchmark.config import choices
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate, selection_metric
from benchmark.leaderboard.columns import columns_of
from benchmark.metrics.probe import Metric, Probe
from benchmark.modalities.base import Modality
from benchmark.spec import CAPABILITIES, BadInput

OWN_METRIC = '''
from benchmark.metrics.probe import metric
from benchmark.metrics.samples import Draws
from benchmark.spec import Estimate


@metric(Draws, protocol={"of": "the first draw"})
def brightness(sets):
    """Mean level of the first draw."""
    return Estimate(sets.generated[0].double().mean().item(), None, len(sets.generated[0]))


def no_metric(sets):
    return 1.0
'''
BRIGHTNESS = {
    "target": "own_metrics.brightness",
    "title": "brightness",
    "unit": "levels",
    "better": "neither",
    "digits": 2,
    "version": 1,
    "modalities": ["image"],
    "of": "samples",
    "formula": "the mean of levels",
    "protocol": "the first draw",
    "source": "none",
    "weaknesses": "sees one moment",
}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of configurations, with a module of metrics beside it."""
    folder = tmp_path / "own"
    folder.mkdir()
    (tmp_path / "own_metrics.py").write_text(OWN_METRIC)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_metrics", raising=False)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


# The shipped files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", facts.metrics())
def test_a_metric_is_the_function_that_has_its_name(name: str) -> None:
    found = load_metrics()[name]
    assert isinstance(found, Metric)
    assert found.compute.__name__ == name
    assert found.probes
    for probe in found.probes:
        assert issubclass(probe, Probe)
        assert set(probe.promises) <= set(CAPABILITIES)


def test_every_metric_is_computed_for_a_modality_and_in_an_order_of_its_own() -> None:
    kinds, metrics = facts.modalities(), facts.metrics()
    assert {name for kind in kinds.values() for name in facts.metrics_of(kind)} == set(metrics)
    assert {one for fact in metrics.values() for one in fact.modalities} <= set(kinds)
    orders = [fact.order for fact in metrics.values()]
    assert orders == sorted(set(orders))


@pytest.mark.parametrize("name", facts.modalities())
def test_a_modality_has_code_and_universes_of_its_structure(name: str) -> None:
    examination = build_examination(name)
    assert isinstance(examination.modality, Modality)
    assert list(examination.metrics) == list(facts.metrics_of(examination.fact))
    universe = examination.modality.universe
    for spec in (universe.ordinary, universe.enumerable, universe.build_only):
        assert spec.structure == examination.fact.structure


def test_probes_have_keys_of_their_own() -> None:
    probes = {probe for metric in load_metrics().values() for probe in metric.probes}
    assert len({probe.key for probe in probes}) == len(probes)


@pytest.mark.parametrize(
    ("kind", "modality", "selects"),
    [
        (toys.Independent, "image", "nll"),
        (toys.Latent, "image", "nll"),
        (toys.Adversarial, "image", "fid"),
        (toys.Markov, "text", "nats_per_token"),
        (toys.Masked, "text", "pseudo_perplexity"),
        (toys.Adversarial, "text", "pseudo_perplexity"),  # nobody can compute it, and there is nothing else
    ],
)
def test_the_first_metric_for_which_a_model_promises_the_evidence_selects(
    kind: type[toys.Toy], modality: str, selects: str
) -> None:
    examination = build_examination(modality)
    assert selection_metric(kind(examination.modality.universe.ordinary), examination) == selects


# A user's own --------------------------------------------------------------------------------------------------------


def test_a_users_metric_joins_the_modality_that_it_names_and_comes_last(own: Path) -> None:
    write(own, metric__brightness=BRIGHTNESS)
    assert list(facts.metrics())[-1] == "brightness"
    assert list(facts.metrics_of(facts.modality("image")))[-1] == "brightness"
    assert "brightness" not in facts.metrics_of(facts.modality("text"))
    assert "brightness" not in load_metrics()  # without consent to import its package
    assert list(load_metrics(["own_metrics"]))[-1] == "brightness"
    with pytest.raises(BadInput, match="add --trust own_metrics"):
        build_examination("image")
    data = Digits(Path("unused"))
    examination = build_examination("image", ["own_metrics"])
    assert list(examination.metrics)[-1] == "brightness"
    protocol = Protocol("test", seed=0, sample_draws=2, sample_examples=30)
    score = evaluate(toys.Independent(data.spec), data, protocol, examination, Experts(), ["brightness"]).scores
    (found,) = score.values()
    assert found.value is not None
    assert 0 < found.value < 16
    assert (found.unit, found.n) == ("levels", 30)
    assert found.protocol["of"] == "the first draw"


def test_a_users_metric_is_imported_with_consent_alone(own: Path) -> None:
    write(own, metric__brightness=BRIGHTNESS)
    assert "add --trust own_metrics" in refusal(benchmark("run", "model=vae", "data=digits", "budget=smoke"))
    assert not (own.parent / "runs").exists()


def test_a_users_modality_counts_in_place_of_ours(own: Path) -> None:
    write(own, modality__image=shipped("modality/image.yaml") | {"select": ["fid"], "shown": 9})
    assert (facts.modality("image").select, facts.modality("image").shown) == (("fid",), 9)
    examination = build_examination("image")
    assert selection_metric(toys.Independent(examination.modality.universe.ordinary), examination) == "fid"


def without(content: dict[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in names}


IMAGE = shipped("modality/image.yaml")


@pytest.mark.parametrize(
    ("group", "content", "words"),
    [
        ("metric", without(BRIGHTNESS, "unit"), "unit: Field required"),
        ("metric", BRIGHTNESS | {"better": "more"}, "better: Input should be 'lower', 'higher' or 'neither'"),
        ("metric", BRIGHTNESS | {"of": "luck"}, "of: Input should be 'likelihood' or 'samples'"),
        ("metric", BRIGHTNESS | {"colour": "red"}, "colour: Extra inputs are not permitted"),
        ("metric", "target: [own", "is not valid YAML"),
        ("modality", without(IMAGE, "select"), "select: Field required"),
        ("modality", IMAGE | {"structure": "cube"}, "structure: Input should be 'grid', 'sequence'"),
        ("modality", IMAGE | {"likelihood": []}, "likelihood: Tuple should have at least 1 item"),
        ("modality", IMAGE | {"samples": ["fidd"]}, "unknown metric 'fidd'; did you mean 'fid'?"),
        ("modality", IMAGE | {"metrics": ["copys"]}, "unknown metric 'copys'; did you mean 'copies'?"),
        ("modality", IMAGE | {"trials": ["recal"]}, "unknown metric 'recal'; did you mean 'recall'?"),
        ("modality", IMAGE | {"select": ["importance_bits"]}, "unknown metric 'importance_bits'"),  # boards compute it
        ("modality", IMAGE | {"select": ["nll", "recall"]}, "less of 'recall' is not better, so it cannot select"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_file_is_named_in_one_line(own: Path, group: str, content: Any, words: str) -> None:
    write(own, **{f"{group}__mine": content})
    with pytest.raises(BadInput) as refused:
        facts.modalities()
    assert str(refused.value).startswith(str(own / group / "mine.yaml"))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    done = benchmark("list")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert str(own / group / "mine.yaml") in line
    assert words in line
    assert "  vae" in done.stdout


def test_a_name_in_a_file_does_not_count_beside_the_name_of_the_file(own: Path) -> None:
    write(own, metric__brightness=BRIGHTNESS | {"name": "fid"})
    assert facts.metrics()["brightness"].name == "brightness"
    assert facts.metrics()["fid"].title == "FID"


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("own_metrics.no_metric", "is no metric: decorate it with benchmark.metrics.probe.metric"),
        ("own_metrics.brigthness", "did you mean 'brightness'?"),
        ("own_metrics_of_another.brightness", "add --trust own_metrics_of_another"),
    ],
)
def test_a_target_that_is_no_metric_is_refused(own: Path, target: str, words: str) -> None:
    write(own, metric__brightness=BRIGHTNESS | {"target": target})
    with pytest.raises(BadInput) as refused:
        build_examination("image", ["own_metrics"])
    assert target in str(refused.value) or "'brigthness'" in str(refused.value)
    assert words in str(refused.value)


def test_a_modality_that_does_not_exist_is_refused_with_the_nearest_name(own: Path) -> None:
    with pytest.raises(BadInput, match="unknown modality 'images'; did you mean 'image'"):
        facts.modality("images")
    write(own, data__mine=shipped("data/digits.yaml") | {"modality": "imag"})
    line = refusal(benchmark("run", "model=vae", "data=mine", "budget=smoke", "budget.examples=64"))
    assert str(own / "data" / "mine.yaml") in line
    assert "unknown modality 'imag'; did you mean 'image'" in line


# What selects --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ("nl", "unknown metric 'nl'; did you mean 'nll'"),  # of none
        ("elbo", "unknown metric of images to select by 'elbo'"),  # where more is better
        ("nearest_neighbour_ratio", "unknown metric of images to select by"),  # where neither is
        ("nats_per_token", "unknown metric of images to select by"),  # of another modality
    ],
)
def test_only_metrics_of_the_data_where_less_is_better_select(own: Path, selection: str, words: str) -> None:
    assert selection in choices("metric") or selection == "nl"
    given = ["model=vae", "data=digits", "budget=smoke", f"training.selection={selection}"]
    assert words in refusal(benchmark("run", *given))
    assert not (own.parent / "runs").exists()


def test_boards_have_a_column_for_every_metric_but_those_that_say_no() -> None:
    shown = columns_of(facts.modality("image"))
    columns = {column.metric for column in shown.everything}
    hidden = {name for name, fact in facts.metrics_of(facts.modality("image")).items() if not fact.shown}
    assert hidden == {"elbo", "bits_of_steps"}
    assert columns == set(facts.metrics_of(facts.modality("image"))) - hidden


def test_datasets_that_a_modality_names_come_first_and_exist() -> None:
    named = [name for fact in facts.modalities().values() for name in fact.boards]
    assert set(named) <= set(choices("data"))
    assert facts.as_read(["a", *reversed(named), "zz"]) == [*named, "a", "zz"]
