"""Statistics of studies, each against a truth that is known; and the pages that show them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from files import RECORDS
from scipy.stats import binomtest, spearmanr
from studies import CAP, header, study, trial, truth

from benchmark.leaderboard.pages import boards
from benchmark.leaderboard.sensitivity import starts_of
from benchmark.leaderboard.stability import answers, stabilities
from benchmark.leaderboard.statistics import share_interval
from benchmark.record import read_records
from benchmark.spec import BadInput
from benchmark.sweep.confirmation import confirmation, paired, propose
from benchmark.sweep.sensitivity import (
    agreement,
    at_the_edge,
    expected_best,
    expected_loss,
    good_values,
    importances,
    interaction,
    learning_rates,
    scored,
)
from benchmark.sweep.stability import rates, signs, sources, spread
from benchmark.sweep.studies import Study, by_model

# Importances ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_importances_of_a_known_function(seed: int) -> None:
    found = {importance.name: importance for importance in importances(study(seed=seed))}
    assert found["model.learning_rate"].share > 0.6
    assert 0.1 < found["model.dropout"].share < 0.35
    assert not found["model.learning_rate"].chance
    assert not found["model.dropout"].chance
    for null in ("model.depth", "model.nothing", "training.batch_size"):
        assert found[null].share < 0.03
        assert found[null].chance
    for importance in found.values():
        assert importance.low <= importance.high


def test_what_diverges_counts_with_the_score_before_training() -> None:
    """A setting that makes training diverge matters, though the trials that ended well do not know it."""

    def fragile(params: dict[str, Any]) -> float:
        return 1 + 0.01 * params["model.depth"]

    whole = study(score=fragile)
    lost = [
        one.model_copy(update={"status": "diverged", "score": None}) if one.params["model.dropout"] > 0.5 else one
        for one in whole.trials
    ]
    found = {importance.name: importance for importance in importances(whole.model_copy(update={"trials": lost}))}
    assert not found["model.dropout"].chance
    dropped = whole.model_copy(update={"trials": [one for one in lost if one.status != "diverged"]})
    assert {one.value for one in lost if one.status == "diverged"} == {CAP}
    assert {importance.name: importance.share for importance in importances(dropped)} != {
        name: importance.share for name, importance in found.items()
    }


def test_good_values_and_edges() -> None:
    low, high = good_values(study(), "model.learning_rate")
    assert low < 1e-4 * 1000**0.6 < high
    assert math.log10(high / low) < 1.5
    assert "model.dropout" in at_the_edge(study(score=lambda params: -params["model.dropout"]))
    assert "model.learning_rate" not in at_the_edge(study())


def test_an_interaction_is_told_from_two_effects() -> None:
    def product(params: dict[str, Any]) -> float:
        u = math.log(params["model.learning_rate"] / 1e-4) / math.log(1000)
        return (u - 0.5) * (params["model.dropout"] - 0.5)

    pair = ("model.learning_rate", "model.dropout")
    together, apart = interaction(study(score=product), *pair), interaction(study(), *pair)
    assert together.together > 0.5 > together.additive
    assert apart.together < 0.05
    assert apart.additive > 0.8


def test_the_expected_best_of_n_is_the_mean_over_all_draws() -> None:
    values = [3.0, 1.0, 2.0, 2.0, 7.0]
    found = expected_best(values)
    grids = [np.array(np.meshgrid(*[values] * n)).reshape(n, -1).min(0).mean() for n in (1, 2, 3)]
    assert found[:3] == pytest.approx(grids)
    assert len(found) == 5
    assert found == sorted(found, reverse=True)


# Learning rates ------------------------------------------------------------------------------------------------------

FACTORS = [10 ** (i / 2 - 1.5) for i in range(7)]


def test_what_the_best_of_n_loses_falls_from_the_mean_to_nothing() -> None:
    found = expected_loss(study(64))
    values = [one.value for one in scored(study(64)) if one.value is not None]
    caps = [one.cap for one in scored(study(64)) if one.cap is not None]
    assert len(found) == 64
    assert found == sorted(found, reverse=True)
    way = np.mean(caps) - min(values)
    assert found[0] == pytest.approx((np.mean(values) - min(values)) / way)
    assert found[-1] < 0.01


def rates_study(values: list[float], seeds: int = 3) -> Study:
    trials = [
        trial(seed * 7 + i, {"factor": factor, "seed": seed}, values[i])
        for seed in range(seeds)
        for i, factor in enumerate(FACTORS)
    ]
    return Study(header=header("learning_rate"), trials=tuple(trials))


def test_learning_rate_sensitivity_and_its_window() -> None:
    found = learning_rates(rates_study([4.0, 2.0, 1.0, 1.0, 1.0, 50.0, 50.0]))
    assert found is not None
    assert found.sensitivity == pytest.approx((4 + 2 + 1 + 1 + 1 + CAP + CAP) / 7 - 1)  # capped before training
    assert found.regret == pytest.approx(found.sensitivity / (CAP - 1))
    limit = 0.02 * (CAP - 1)  # above the best; between two factors, on the logarithmic scale
    assert found.window[0] == pytest.approx(FACTORS[2] / 10 ** (0.5 * limit / 1))
    assert found.window[1] == pytest.approx(FACTORS[4] * 10 ** (0.5 * limit / 9))
    assert found.open_ends == (False, False)
    assert found.diverged == 6
    open_end = learning_rates(rates_study([4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0]))
    assert open_end is not None
    assert open_end.open_ends == (False, True)
    assert learning_rates(rates_study([1.0] * 7, seeds=0)) is None


def test_a_bad_start_makes_no_model_robust() -> None:
    """Two models learn alike, one from a score of 10, one from far below: by one start for both they are as robust."""
    near = rates_study([4.0, 2.0, 1.0, 1.0, 1.0, 50.0, 50.0])
    stability = near.trials[0].stability | {"initial": 100.0}
    far = Study(
        header=near.header, trials=tuple(one.model_copy(update={"stability": stability}) for one in near.trials)
    )
    own, given, other = learning_rates(far), learning_rates(far, CAP), learning_rates(near, CAP)
    assert own is not None
    assert given is not None
    assert other is not None
    assert own.decades > 1.5 * other.decades
    assert (given.window, given.regret, given.lost) == (other.window, other.regret, other.lost)
    known = {("digits", "nll"): CAP}
    shares = [stabilities([one], [], known)[0].shares["learning rates"] for one in (near, far)]
    assert shares[0] == pytest.approx(shares[1])
    assert min(shares[0]) == 0


def test_shares_have_wilsons_interval() -> None:
    for k, n in ((0, 64), (13, 64), (64, 64), (1, 3)):
        known = binomtest(k, n).proportion_ci(0.95, method="wilson")
        assert share_interval(k, n) == pytest.approx((known.low, known.high), abs=1e-4)


def test_nobody_is_called_robust_by_chance() -> None:
    """Of 64 settings each, 20 and 15 work: chance; 40 and 15: not."""

    def model(name: str, works: int) -> Study:
        trials = [trial(i, {"x": i}, 1.0 if i < works else 8.0) for i in range(64)]
        return Study(header=header(model=name, name=name), trials=tuple(trials))

    alike = answers(stabilities([model("a", 20), model("b", 15)], []))[0]
    assert alike == (
        "digits, judged by nats/example: none is more robust beyond chance: of each, 23% to 31% of settings learn at "
        "least 95% of what the best one learns"
    )
    apart = answers(stabilities([model("a", 40), model("b", 15)], []))[0]
    assert "most robust is a, of which 62% of settings" in apart
    assert apart.endswith("least is b, with 23%")


def test_the_uniform_distribution_knows_nothing() -> None:
    starts = starts_of(read_records(RECORDS))
    assert starts["digits", "nll"] == pytest.approx(64 * math.log(17))
    assert starts["tinyshakespeare", "nats_per_token"] == pytest.approx(math.log(65))


def test_budgets_agree_where_ranks_do() -> None:
    short, long = study(32), study(16, budget="standard")
    found = agreement(short, long)
    assert found is not None
    assert found.n == 17
    assert found.spearman == pytest.approx(1)
    opposite = agreement(short, study(16, score=lambda params: -truth(params)))
    assert opposite is not None
    assert opposite.spearman < -0.5
    assert agreement(short, study(16, seed=5)) is None


def test_equal_scores_share_their_rank() -> None:
    short, long = study(32), study(16, score=lambda params: float(round(truth(params))))
    found = agreement(short, long)
    assert found is not None
    pairs = ([one.value for one in of.trials[:17]] for of in (short, long))
    assert found.spearman == pytest.approx(spearmanr(*pairs).statistic)
    level = long.model_copy(update={"trials": tuple(one.model_copy(update={"score": CAP}) for one in long.trials)})
    assert agreement(short, level) is None


# Stability -----------------------------------------------------------------------------------------------------------


def test_what_trained_longer_is_never_pooled_with_what_trained_shorter() -> None:
    """Of equally large searches the longer one counts, with grids of its length; another grid stands apart."""
    short, long = study(32), study(32, budget="standard")
    few = study(16, budget="standard", name="few")
    quick = rates_study([4.0, 2.0, 1.0, 1.0, 1.0, 5.0, 5.0])
    slow = Study(header=header("learning_rate", "standard"), trials=quick.trials)
    (of,) = by_model([short, few, quick, long, slow])
    assert (of.search, of.rates) == (long, slow)
    assert of.together == (long, slow)
    assert {study.header.name for study in of.others} == {study.header.name for study in (short, few, quick)}
    (alone,) = by_model([long, quick])
    assert alone.rates == quick
    assert alone.together == (long,)
    page = boards({}, studies=[long, quick])["stability.md"]
    assert "| vae | digits | tuned, short | nats/example | 1 |" in page
    assert "after 1,000 training examples the good window" in boards({}, studies=[long, quick, slow])["sensitivity.md"]


def test_rates_count_what_went_wrong() -> None:
    trials = [
        trial(0, {}, 1.0),
        trial(1, {}, CAP + 1),
        trial(2, {}, None, status="diverged", stability={"watched_steps": 100.0, "gradient_tail": 9.0}),
        trial(3, {}, None, status="refused", stability={}),
    ]
    found = rates(trials)
    assert (found.trials, found.diverged, found.worse, found.failed) == (4, 1, 1, 1)
    assert found.unstable == pytest.approx(2 / 3)
    assert found.spikes == pytest.approx(1000 * 4 / 900)
    assert found.tail == 3.0


def test_spread_over_seeds() -> None:
    found = spread([4.0, 1.0, 2.0, 3.0, 10.0])
    assert found is not None
    assert (found.median, found.iqr, found.worst) == (3.0, 2.0, 10.0)
    assert spread([]) is None


def test_sources_of_spread_are_told_apart() -> None:
    """Initialisation moves the score by a known standard deviation, the order of the data by a smaller one."""
    generator = np.random.default_rng(0)
    init, order = 3 * generator.normal(size=40), 0.5 * generator.normal(size=40)
    trials = [
        trial(40 * i + j, {"seed.init": i, "seed.data": j}, init[i] + order[j] + 0.1 * generator.normal() - 20)
        for i in range(40)
        for j in range(40)
    ]
    crossed = Study(header=header("seeds"), trials=tuple(trials))
    found = sources(crossed)
    assert found is not None
    assert found.initialisation == pytest.approx(init.std(ddof=1), rel=0.05)
    assert found.data == pytest.approx(order.std(ddof=1), rel=0.05)
    assert found.rest == pytest.approx(0.1, rel=0.1)
    assert sources(crossed.model_copy(update={"trials": trials[:-1]})) is None, "a cell is missing"


def test_signs_are_those_at_the_end_beside_those_before_training() -> None:
    trials = [trial(i, {}, 1.0, stability={"active_units": 0.2 * i, "active_units_start": 0.0}) for i in range(5)]
    (sign,) = signs(trials)
    assert (sign.name, sign.start, sign.low, sign.median, sign.high) == pytest.approx(
        ("active_units", 0.0, 0.0, 0.4, 0.8)
    )


# Confirmation --------------------------------------------------------------------------------------------------------


def confirmed(of: Study, again: float, long: list[float], tuned: list[float]) -> Study:
    best = min(of.proposed, key=lambda one: one.value)
    cases = [("best", "study", again + 0.1 * i) for i in range(5)]
    cases += [("best", "standard", value) for value in long] + [("tuned", "standard", value) for value in tuned]
    counts: dict[tuple[str, str], int] = {}
    trials = []
    for number, (setting, budget, score) in enumerate(cases):
        seed = counts[setting, budget] = counts.get((setting, budget), 99) + 1
        trials.append(trial(number, {"setting": setting, "budget": budget, "seed": seed}, score))
    confirms = {"study": of.header.name, "trial": best.number, "value": best.value, "params": best.params}
    return Study(header=header("confirm", confirms=confirms), trials=tuple(trials))


def test_a_winner_pays_for_having_been_chosen() -> None:
    of = study()
    found = confirmation(of, confirmed(of, 1.5, [0.5, 0.6, 0.5, 0.6, 0.5], [0.9, 1.0, 0.9, 1.0, 0.9]))
    assert found is not None
    assert found.gap == pytest.approx(1.7 - min(one.value for one in of.proposed))
    assert found.difference is not None
    assert found.difference.centre == pytest.approx(-0.4)
    assert found.verdict == "beats the tuned setting"
    tied = confirmation(of, confirmed(of, 1.5, [0.5, 1.6, 0.5, 1.6, 0.5], [0.9, 1.0, 0.9, 1.0, 0.9]))
    assert tied is not None
    assert tied.verdict == "cannot be told from the tuned setting"
    other = of.model_copy(update={"header": header(name="another")})
    assert confirmation(other, confirmed(of, 1.5, [1.0], [1.0])) is None


def test_paired_differences_are_students() -> None:
    found = paired([1.0, 2.0, 3.0])
    assert found.centre == 2.0
    assert found.high == pytest.approx(2 + 4.30265 / 3**0.5, rel=1e-5)
    assert paired([1.0]).low is None


def test_a_proposal_is_todays_setting_with_the_best_one_in_it(tmp_path: Path) -> None:
    file = propose(study(), tmp_path)
    assert file == tmp_path / "tuned.yaml"
    text = file.read_text()
    assert text.startswith("# @package _global_\n")
    assert "examples:" in text
    assert "network: conv" in text
    assert "batch_size:" in text


# Pages ---------------------------------------------------------------------------------------------------------------


def studies() -> list[Study]:
    search = study(64)
    crossed = [trial(3 * i + j, {"seed.init": i, "seed.data": j}, 1 + 0.1 * i) for i in range(3) for j in range(3)]
    return [
        search,
        study(16, budget="standard"),
        rates_study([4.0, 2.0, 1.0, 1.0, 1.0, 50.0, 50.0]),
        Study(header=header("seeds"), trials=tuple(crossed)),
        confirmed(search, 1.5, [0.5, 0.6, 0.5, 0.6, 0.5], [0.9, 1.0, 0.9, 1.0, 0.9]),
    ]


def test_the_page_of_sensitivity_answers_in_one_look() -> None:
    pages = boards({}, studies=studies())
    page = pages["sensitivity.md"]
    assert page.splitlines()[4] == "- digits: tune first the learning rate of vae"
    first = next(line for line in page.splitlines() if line.startswith("| vae |"))
    assert first.startswith("| vae | vae | digits | `learning_rate` ")
    assert "`dropout`" in first
    assert "winner's curse" in page
    assert "beats the tuned setting" in page
    assert "1,000 and 8,000 training examples rank 17 settings alike with Spearman's ρ = 1.00" in page
    assert "best of n: 1: " in page
    pictures = {name for name in pages if name.startswith("pictures/")}
    assert pictures == {f"pictures/{name}-digits.svg" for name in ("learning-rates", "stability")} | {
        "pictures/slices-digits-vae.svg"
    }
    assert all(f"]({name})" in page + pages["stability.md"] for name in pictures)
    assert boards({}, studies=studies()) == pages, "the same studies give the same bytes"
    assert boards({}) == {}


def test_the_page_of_stability_has_every_group_of_runs() -> None:
    page = boards({}, studies=studies())["stability.md"]
    assert "- digits: diverged, or ended worse than before training: no setting of any model" in page
    assert "| vae | digits | tuned, short | nats/example | 13 |" in page
    assert "| vae | digits | learning rates | 21 | 0 | 6 | 0 |" in page
    assert "3 × 3" in page
    assert "active units" in page


def test_a_broken_study_is_refused(tmp_path: Path) -> None:
    from benchmark.sweep.studies import read_study

    file = tmp_path / "s.jsonl"
    file.write_text("{}\n")
    with pytest.raises(BadInput, match="line 1"):
        read_study(file)
