"""The leaderboard: which records make a row, who is ranked with whom, and what a page says."""

from __future__ import annotations

import io
import json
import math
import re
import subprocess
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from builders import NATS_PER_DIM_BIT, TEST, absent, cost, distance, likelihood, page, record, spent
from files import REPOSITORY
from rich.console import Console

from benchmark.console import Sheet
from benchmark.facts import facts, metrics, modalities
from benchmark.leaderboard.columns import columns_of, quantity
from benchmark.leaderboard.markdown import code, escape, link
from benchmark.leaderboard.pages import boards
from benchmark.leaderboard.published import read_published
from benchmark.leaderboard.recounted import read_recounted, recount
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.statistics import improvement, log_interval, pooled_stderr, rank_ranges, student_interval
from benchmark.leaderboard.terminal import runs_table
from benchmark.leaderboard.texts import words
from benchmark.record import Record, read_records, write_record
from benchmark.spec import BadInput, Score


def tables(text: str, title: str) -> list[list[list[str]]]:
    """The cells of each table under headings that start with `title`, without header and rule."""
    found = []
    for part in re.split(r"^#+ ", text, flags=re.MULTILINE):
        if part.startswith(title):
            lines = [line for line in part.splitlines() if line.startswith("| ")]
            found.append([[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]])
    return found


# Statistics ----------------------------------------------------------------------------------------------------------


def test_student_interval_by_hand() -> None:
    """mean 2, sd 1, n 3; t(2) at 97.5 % solves t/√(2 + t²) = 0.95."""
    t = 0.95 * math.sqrt(2 / (1 - 0.95**2))  # 4.3027
    interval = student_interval([1.0, 2.0, 3.0])
    assert (interval.centre, interval.n) == (2.0, 3)
    assert interval.low == pytest.approx(2 - t / math.sqrt(3), rel=1e-9)
    assert interval.high == pytest.approx(2 + t / math.sqrt(3), rel=1e-9)


def test_student_interval_agrees_with_scipy() -> None:
    from scipy import stats

    values = [1.31, 1.27, 1.44, 1.29, 1.36]
    low, high = stats.t.interval(0.9, 4, loc=sum(values) / 5, scale=stats.sem(values))
    interval = student_interval(values, confidence=0.9)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_log_interval_commutes_with_the_logarithm() -> None:
    interval, logs = log_interval([1.0, 2.0, 4.0]), student_interval([0.0, math.log(2), math.log(4)])
    assert interval.centre == pytest.approx(2.0)
    assert logs.low is not None
    assert logs.high is not None
    assert (interval.low, interval.high) == pytest.approx((math.exp(logs.low), math.exp(logs.high)))
    with pytest.raises(ValueError, match="positive"):
        log_interval([1.0, 0.0])


def test_one_seed_has_no_interval_and_none_no_mean() -> None:
    assert (student_interval([3.0]).low, log_interval([3.0]).high) == (None, None)
    with pytest.raises(ValueError, match="one value at least"):
        student_interval([])


def test_evaluation_error_is_shared_by_seeds() -> None:
    assert pooled_stderr([0.2, 0.2, 0.2]) == pytest.approx(0.2)
    assert pooled_stderr([0.3, 0.4]) == pytest.approx(math.sqrt(0.125))
    assert pooled_stderr([0.3, None]) is None


def test_places_are_shared_where_intervals_overlap() -> None:
    """The first and the third overlap, and so do the third and the second; the first and the second do not."""
    assert rank_ranges([(1.0, 1.3), (1.6, 2.0), (1.2, 3.0), (4.0, 5.0)]) == [(1, 2), (2, 3), (1, 3), (4, 4)]
    assert rank_ranges([(2.0, 2.0), (1.0, 1.0), (2.0, 2.0)]) == [(2, 3), (1, 1), (2, 3)]
    assert rank_ranges([]) == []


def test_probability_of_improvement_by_hand() -> None:
    from scipy.stats import mannwhitneyu

    ours, theirs = [1.0, 2.0, 3.0], [2.0, 2.5, 4.0, 5.0]
    assert improvement(ours, theirs) == pytest.approx((4 + 3.5 + 2) / 12)
    assert improvement(ours, theirs) == pytest.approx(mannwhitneyu(theirs, ours).statistic / 12)
    assert improvement(ours, theirs) + improvement(theirs, ours) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="one value of each"):
        improvement([], theirs)


# Rows ----------------------------------------------------------------------------------------------------------------


def test_a_row_is_the_mean_over_seeds_with_its_interval() -> None:
    (rows,) = tables(page(*(record(likelihood(bits), seed=seed) for seed, bits in enumerate([1.8, 1.9, 2.0]))), "Like")
    assert rows[0][:6] == ["1", "vae", "family", "1.900 ± 0.248", "0.019", "84.29 ± 11.02"]
    assert rows[0][-1] == "3"


def test_only_the_tuned_configuration_stands_on_the_board() -> None:
    current = {("digits", "vae", "standard"): {record().identity}}
    other = record(likelihood(1.2), options={"latent": 8})
    text = page(record(), other, record(model="gan"), current=current)
    (rows,) = tables(text, "Likelihood")
    assert [row[1] for row in rows if row[0]] == ["vae"]
    assert f"other configuration ({other.identity[:8]})" in text
    assert re.search(r"gan, standard, seed 0: finished, .*: nothing is tuned for it", text)


def test_local_runs_take_every_configuration_as_it_is() -> None:
    one, other = record(), record(likelihood(1.2), options={"latent": 8})
    (rows,) = tables(page(one, other), "Likelihood")
    assert [row[1] for row in rows if row[0]] == [f"vae ({run.identity[:8]})" for run in (other, one)]


def test_newest_code_wins_once_it_has_all_seeds() -> None:
    old = [record(likelihood(2.0), seed=seed) for seed in (0, 1)]
    new = [
        record(likelihood(1.5), seed=seed, code_hash="2" * 40, started=datetime(2026, 5, 1, tzinfo=UTC))
        for seed in (0, 1)
    ]
    assert tables(page(*old, *new), "Likelihood")[0][0][3] == "1.500 ± 0.000"
    text = page(*old, new[0])  # one seed of the new code is not yet a row
    assert tables(text, "Likelihood")[0][0][3] == "2.000 ± 0.000"
    assert "other code (22222222), older or with fewer seeds" in text


def test_the_first_record_of_a_seed_counts() -> None:
    lucky = record(likelihood(1.0), started=datetime(2026, 6, 1, tzinfo=UTC))
    text = page(lucky, record(likelihood(1.9)))
    assert tables(text, "Likelihood")[0][0][3] == "1.900"
    assert "repeated seed: the first counts" in text


def test_another_evaluation_seed_is_no_other_training() -> None:
    again = record(likelihood(1.0), started=datetime(2026, 6, 1, tzinfo=UTC)).model_copy(
        update={"seed": {"init": 0, "data": 0, "eval": 5}}
    )
    assert tables(page(record(), again), "Likelihood")[0][0][-1] == "1"


def test_a_failed_run_may_be_repeated_but_stays_in_sight() -> None:
    failed = record({}, status="failed", reason="OSError: disk full")
    text = page(failed, record(likelihood(1.9), started=datetime(2026, 6, 1, tzinfo=UTC)))
    assert tables(text, "Likelihood")[0][0][3] == "1.900"
    assert "## Runs that did not finish: 1 failed" in text
    assert "OSError: disk full" in text


def test_divergence_counts_and_cannot_be_repeated_away() -> None:
    diverged = record({}, seed=1, status="diverged", reason="loss is not finite at step 9")
    again = record(likelihood(1.0), seed=1, started=datetime(2026, 6, 1, tzinfo=UTC))
    text = page(record(), diverged, again)
    (rows,) = tables(text, "Likelihood")
    assert (rows[0][3], rows[0][-1]) == ("1.900", "1 of 2")
    assert "## Runs that did not finish: 1 diverged" in text
    assert "diverged (loss is not finite at step 9)" in text


def test_a_bound_in_nats_never_stands_in_a_column_of_bits() -> None:
    bound = {"importance_bound": Score("nats/example", 1, -87.5, 0.8, 180, TEST | {"how": {"likelihood": "bound"}})}
    assert tables(page(record(likelihood(2.0, "bound") | bound)), "Likelihood")[0][0][6] == "≤ 1.972"
    only_bits = {"bits_per_dim": likelihood(2.0)["bits_per_dim"]}
    assert tables(page(record(only_bits | bound)), "Likelihood")[0][0][6] == "—"


def test_a_model_that_only_diverged_is_a_row_without_a_number() -> None:
    text = page(record(), record({}, model="gan", status="diverged", reason="loss", dataset={}))
    assert tables(text, "Likelihood")[0][1][:4] == ["", "gan", "family", "—"]
    assert "gan: no run finished, see below" in text


def test_a_truncated_run_is_ranked_nowhere_and_listed_with_its_share_of_examples() -> None:
    reason = "the limit of 30 minutes was reached, at 370 of 1,000 examples"
    text = page(record(likelihood(1.0), model="cut", status="truncated", reason=reason), record(likelihood(1.9)))
    (rows,) = tables(text, "Likelihood")
    assert [row[1] for row in rows if row[0]] == ["vae"]
    assert "cut: no run finished, see below" in text
    assert "## Runs that did not finish: 1 truncated" in text
    assert f"truncated at 37 % of its examples ({reason})" in text
    text = page(record(likelihood(1.0), status="truncated", reason="4 CPU minutes were over", seed=1), record())
    assert tables(text, "Likelihood")[0][0][-1] == "1 of 2"
    assert "truncated (4 CPU minutes were over)" in text, "an old record does not say its share"
    text = page(record(likelihood(1.0), schema=2, status="truncated", reason="the limit was reached", share=0.37))
    assert "truncated at 37 % of its examples (the limit was reached)" in text


def test_what_cannot_be_right_is_ranked_nowhere_and_has_a_section_of_its_own() -> None:
    why = "bits_per_dim 0.76 beats the source's own 1.34 by 41 standard errors: log_prob cannot be right"
    wrong = record(likelihood(0.76) | distance(0.1), model="wrong", impossible=why)
    text = page(wrong, record(likelihood(0.76), model="wrong", seed=1), record(likelihood(1.9) | distance(2.0)))
    assert [row[1] for row in tables(text, "Likelihood")[0] if row[0]] == ["vae"]
    assert [row[1] for row in tables(text, "Samples")[0] if row[0]] == ["vae"]
    assert "## Impossible numbers, ranked nowhere: 1 run" in text
    assert why in text
    assert "wrong: it reports what cannot be, see below" in text


def test_a_record_that_does_not_say_so_is_convicted_by_its_own_references() -> None:
    source = {"source": {"bits_per_dim": asdict(Score("bits/dim", 1, 1.34, 0.01, 180, TEST))}}
    dataset = record().dataset | {"references": source}
    found = {bits: Run(Path("x"), record(likelihood(bits), dataset=dataset)).impossible for bits in (0.76, 1.25, 1.34)}
    assert found == {0.76: "bits_per_dim 0.76 beats the source's own 1.34 of the same examples", 1.25: None, 1.34: None}
    fewer = replace(likelihood(0.76)["bits_per_dim"], n=50)  # other examples may be easier
    assert Run(Path("x"), record({"bits_per_dim": fewer}, dataset=dataset)).impossible is None


def test_validation_scores_and_trials_are_no_results() -> None:
    text = page(record(likelihood(1.0), split="validation"), record(likelihood(0.9), kind="trial"), record())
    assert [row[3] for row in tables(text, "Likelihood")[0] if row[0]] == ["1.900"]
    assert "scored on the validation split" in text
    assert "0.900" not in text  # a trial is evidence of a study, not of a board


# Rankings ------------------------------------------------------------------------------------------------------------


def test_rows_that_intervals_do_not_tell_apart_share_their_places() -> None:
    seeds = {"vae": [1.80, 1.90], "flow": [1.85, 1.88], "pixelcnn": [1.20, 1.21], "one seed": [1.22]}
    records = [
        record(likelihood(bits), model=model, seed=seed)
        for model, values in seeds.items()
        for seed, bits in enumerate(values)
    ]
    (rows,) = tables(page(*records), "Likelihood")
    ranked = [(row[0], row[1]) for row in rows if row[0]]
    assert ranked == [("1–3", "pixelcnn"), ("1–3", "one seed"), ("1–4", "vae"), ("3–4", "flow")]
    single = page(record(likelihood(1.9)), record(likelihood(1.93), model="near"), record(likelihood(2.1), model="far"))
    assert [row[0] for row in tables(single, "Likelihood")[0] if row[0]] == ["1–2", "1–2", "3"]


def test_the_index_names_everybody_who_shares_the_first_place() -> None:
    records = [record(likelihood(1.9)), record(likelihood(1.93), model="near"), record(likelihood(2.1), model="far")]
    paths = [Path(f"leaderboards/records/digits/{index}.json") for index in range(3)]
    text = boards(dict(zip(paths, records, strict=True)), None)["README.md"]
    assert "standard: vae, 1.900 bits/dim, shared with near |" in text


def test_two_protocols_are_two_rankings() -> None:
    text = page(record(likelihood(1.9)), record(likelihood(1.1, subset="10 of 180, random"), model="flow"))
    first, second = tables(text, "Likelihood")
    assert sorted([first[0][:2], second[0][:2]]) == [["1", "flow"], ["1", "vae"]]


def test_how_a_model_met_the_protocol_splits_nothing_and_is_marked() -> None:
    records = [
        record(likelihood(1.9, "bound")),
        record(likelihood(1.8, "approximate"), model="ode"),
        record(likelihood(1.7), model="pixelcnn"),
    ]
    (rows,) = tables(page(*records), "Likelihood")
    assert [row[3] for row in rows if row[0]] == ["1.700", "≈ 1.800", "≤ 1.900"]


def test_seeds_under_two_protocols_are_never_averaged() -> None:
    other = record(distance(1.0, extractor="digits-v2"), seed=1)
    first, second = tables(page(record(distance(2.0)), other), "Samples")
    assert {first[0][3], second[0][3]} == {"1.00", "2.00"}
    assert {first[0][-1], second[0][-1]} == {"1 of 2"}


def test_budgets_do_not_mix() -> None:
    text = page(
        record(), record(likelihood(2.5), budget="quick", minutes=0.7), record(likelihood(1.0), seed=1, minutes=9)
    )
    assert [rows[0][0] for rows in tables(text, "Likelihood")] == ["1", "1"]
    assert re.findall(r"## Budget (\w+): .*about ([\d.]+) minutes", text) == [("standard", "9"), ("quick", "0.7")]
    assert tables(text, "Likelihood")[0][0][-1] == "2", "what a budget costs nominally makes no other budget of it"


def test_a_budget_is_a_number_of_examples() -> None:
    def planned(examples: int) -> dict[str, Any]:
        return record().config | {"budget": {"minutes": 4.0, "examples": examples}}

    title = "## Budget standard: {} training examples a run, about 4 minutes of one thread of the reference machine"
    text = page(record(config=planned(118_000)), record(config=planned(118_000), seed=1))
    assert title.format("118,000") in text
    text = page(record(config=planned(118_000)), record(config=planned(1_500_000), seed=1))
    assert title.format("118,000 to 1,500,000") in text


def test_one_seed_without_a_standard_error_may_be_anywhere() -> None:
    unsure = {"bits_per_dim": replace(likelihood(1.0)["bits_per_dim"], stderr=None)}
    rows = tables(page(record(unsure, model="unsure"), record(), record(likelihood(2.9), model="far")), "Likelihood")[0]
    assert [(row[0], row[1]) for row in rows if row[0]] == [("1–3", "unsure"), ("1–2", "vae"), ("2–3", "far")]


def test_times_stand_apart_in_a_table_for_each_hardware() -> None:
    quick = likelihood(1.9) | cost() | {"flops_per_example": spent("flops_per_example", 2e6)}
    other = {"cpu": "other", "cores": 8, "device": "cpu", "threads": 8}
    text = page(
        record(quick),
        record(quick | {"cpu_minutes": spent("cpu_minutes", 9.0)}, seed=1, hardware=other),
        record(likelihood(1.8) | {"cpu_minutes": spent("cpu_minutes", 0.05)}, model="quicker"),
    )
    assert tables(text, "Likelihood")[0][1][-4:-1] == ["259k", "2G", "—"]
    mine, theirs = tables(text, "Times on")
    assert [row[:3] for row in mine] == [["quicker", "family", "0.05"], ["vae", "family", "0.109"]]
    assert [row[:3] for row in theirs] == [["vae", "family", "9"]]
    assert "### Times on AMD EPYC, 2 cores, 1 thread used" in text


def test_old_counts_of_flops_are_replaced_by_newer_ones_or_left_out(tmp_path: Path) -> None:
    old = record(likelihood(1.9) | {"flops_per_example": Score("FLOP/example", 1, 5e6)})
    assert "vae, training FLOPs: left out: of version 1, and only version 2 counts" in page(old)
    file = tmp_path / "recounted.json"
    assert read_recounted(file) == {}
    file.write_text(json.dumps({"c" * 64: {"flops_per_example": 3e6, "version": 2}}))
    (again,) = recount({Path("x"): old}, read_recounted(file)).values()
    assert tables(page(again), "Likelihood")[0][0][-3] == "3G"
    newer = record(likelihood(1.9) | {"flops_per_example": spent("flops_per_example", 7e6)})
    assert recount({Path("x"): newer}, read_recounted(file))[Path("x")] == newer
    file.write_text('{"a": {"flops_per_example": -1, "version": 2}}')
    with pytest.raises(BadInput, match="flops_per_example: Input should be greater than 0"):
        read_recounted(file)


def test_lower_is_better_in_all_that_ranks_or_selects() -> None:
    """Pages and figures say so, and studies count on it."""
    kinds = modalities().values()
    ranks = {column.metric for kind in kinds for column in columns_of(kind).leading}
    selects = {name for kind in kinds for name in kind.select}
    assert ranks == {"bits_per_dim", "fid", "nats_per_token", "nll", "mode_kl", "label_nats", "reply_nats"}
    of_text = {"nats_per_token", "window_nats", "pseudo_perplexity", "label_nats", "reply_nats"}
    assert selects == {"nll", "fid", "mode_kl"} | of_text
    assert {facts()[name].better for name in ranks | selects} == {"lower"}


def test_data_with_other_fingerprints_do_not_mix() -> None:
    text = page(record(), record(likelihood(1.1), model="flow", fingerprint="cd" * 32))
    assert len(tables(text, "Likelihood")) == 2
    assert "data cdcdcdcd-cdcdcdcd-cdcdcdcd" in text


def test_an_old_version_leaves_the_ranking() -> None:
    newer = {name: replace(score, version=2) for name, score in likelihood(1.9).items()}
    text = page(record(likelihood(1.0), model="old"), record(newer, model="new"))
    (rows,) = tables(text, "Likelihood")
    assert [row[1] for row in rows if row[0]] == ["new"]
    assert "old, bits/dim: left out: of version 1, and only version 2 counts" in text


def test_references_stand_below_without_a_rank() -> None:
    text = page(record(likelihood(3.5) | distance(1.2)))
    (rows,) = tables(text, "Likelihood")
    assert [row[:4] for row in rows[1:]] == [
        ["", "*histogram*", "", "2.967"],
        ["", "*uniform*", "", "4.087"],
    ]
    (samples,) = tables(text, "Samples")
    assert samples[1][:5] == ["", "*held-out data*", "", "1.44", "—"]


def test_a_floor_under_another_protocol_is_not_shown() -> None:
    (samples,) = tables(page(record(distance(1.2, extractor="inception-v3"))), "Samples")
    assert len(samples) == 1


def test_baselines_of_text_fit_every_context() -> None:
    def tokens(context: Any, value: float) -> Score:
        return Score("nats/token", 1, value, 0.01, 999, TEST | context)

    references = {"bigram": {"nats_per_token": asdict(tokens({"context": "own"}, 2.4))}}
    text = page(
        record(
            {"nats_per_token": tokens({"context": 128, "stride": 32}, 1.51)},
            model="gpt",
            modality="text",
            dataset=record().dataset | {"references": references},
        )
    )
    (rows,) = tables(text, "Likelihood")
    assert [row[:4] for row in rows] == [["1", "gpt", "family", "1.510"], ["", "*bigram*", "", "2.400"]]
    assert "### Likelihood: test split, context 128, stride 32" in text
    assert "### Samples" not in text


def test_absences_say_which_they_are() -> None:
    gan = absent("bits_per_dim", "SNGAN promises no log_prob or elbo") | distance(1.5)
    broken = likelihood(1.8) | absent("fid", "LinAlgError: singular", "failed")
    text = page(record(gan, model="sngan"), record(broken))
    (rows,) = tables(text, "Likelihood")
    assert rows[1][:4] == ["", "sngan", "family", "—"]
    assert "- sngan, bits/dim: does not apply: SNGAN promises no log_prob or elbo" in text
    assert "- vae, FID: failed: LinAlgError: singular" in text


def test_distances_have_intervals_on_the_log_scale() -> None:
    (rows,) = tables(page(*(record(distance(fid), seed=seed) for seed, fid in enumerate([1.0, 2.0, 4.0]))), "Samples")
    interval = log_interval([1.0, 2.0, 4.0])
    assert rows[0][3] == f"2.00 [{interval.low:.2f}, {interval.high:.2f}]"


def test_importance_bound_is_a_column_in_bits() -> None:
    bound = Score("nats/example", 1, -1.81 * NATS_PER_DIM_BIT, 0.5, 180, TEST | {"how": {"likelihood": "bound"}})
    (rows,) = tables(page(record(likelihood(1.9, "bound") | {"importance_bound": bound})), "Likelihood")
    assert rows[0][6] == "≤ 1.810"


# Pages ---------------------------------------------------------------------------------------------------------------


def test_pages_do_not_depend_on_the_order_of_records() -> None:
    records = {
        Path(f"leaderboards/records/digits/{model}/{seed}.json"): record(
            likelihood(2 - seed / 10) | distance(1 + seed), model=model, seed=seed
        )
        for model in ("vae", "flow")
        for seed in range(3)
    }
    assert boards(records) == boards(dict(reversed(records.items())))


def test_pages_survive_reading_records_back(tmp_path: Path) -> None:
    one = record(likelihood(1.9) | distance(1.2))
    file = write_record(tmp_path / "records" / "run", one)
    again = boards(read_records(tmp_path / "records"), home=tmp_path)
    assert again == boards({file: one}, home=tmp_path)
    assert "[run](records/run/record.json)" in again["digits.md"]


def test_the_index_names_the_first(tmp_path: Path) -> None:
    index = boards({Path("leaderboards/records/a.json"): record(likelihood(1.9, "bound"))})["README.md"]
    assert "| [digits](digits.md) | standard: vae, ≤ 1.900 bits/dim | 1 | 1 |" in index


def test_markup_from_records_is_inert() -> None:
    evil = "<script>x</script> | [a](javascript:b)\n\n# `head`"
    text = page(
        record(model=evil, status="diverged", reason=evil, scores={}),
        record(absent("bits_per_dim", evil), model="m", dataset=record().dataset | {"source": evil}),
        record(),
    )
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(javascript", text)
    assert not re.search(r"^# .head", text, flags=re.MULTILINE)
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if "&lt;script" in line and line[0] == "|"
    }
    assert widths == {12, 8}  # the likelihood table's and the records' own, no cell more


def test_escapes() -> None:
    assert escape("a|b<c>\n&") == "a\\|b&lt;c&gt; &amp;"
    assert escape("gated_pixelcnn _x_") == "gated_pixelcnn \\_x\\_"
    assert code("a`b|c") == "`a'b\\|c`"
    assert link("a]b", Path("x y/(z).json")) == "[a\\]b](x%20y/%28z%29.json)"


def test_a_dataset_that_names_no_page_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot name a page"):
        boards({Path("x.json"): record(data="../../x")})


def test_protocols_in_words() -> None:
    protocol = {"importance_samples": 1000, "split": "test", "of": "a|b", "extra": [1, None], "flag": True}
    assert words(protocol) == "test split, importance samples 1,000, of a|b, extra [1, None], flag True"


def test_quantities() -> None:
    shown = {259_488.0: "259k", 3968.8: "3.97k", 999_999.0: "1M", 0.09454: "0.0945", 12.34: "12.3", 0.0: "0"}
    assert {value: quantity(value) for value in shown} == shown


# Published figures ---------------------------------------------------------------------------------------------------


def test_published_figures_are_shown_and_never_ranked(tmp_path: Path) -> None:
    file = tmp_path / "published.yaml"
    file.write_text(
        "- {data: digits, metric: nll, unit: nats/example, protocol: theirs, comparable: false, why: other split,\n"
        "   figures: [{model: NADE, value: 0.5, likelihood: bound, citation: Larochelle 2011}]}\n"
    )
    text = boards({Path("a.json"): record()}, published=file)["digits.md"]
    assert tables(text, "Published") == [
        [["NADE", "≤ 0.5", "nats/example", "vae 84.29", "no", "theirs", "other split", "Larochelle 2011"]]
    ]
    assert all("NADE" not in row for rows in tables(text, "Likelihood") for row in rows)


def test_the_shipped_figures_are_of_datasets_and_metrics_that_exist() -> None:
    from benchmark.config import choices

    figures = read_published(REPOSITORY / "leaderboards" / "published.yaml")
    assert {group.data for group in figures} <= set(choices("data"))
    assert {group.metric for group in figures} <= set(metrics())
    assert all(group.figures for group in figures)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {data: digits", "not valid YAML"),
        ("- {data: digits}", "Field required"),
        (
            "- {data: d, metric: m, unit: u, protocol: p, comparable: true, why: w, figures: [], typo: 1}",
            "0.typo: Extra inputs",
        ),
        ("", "valid tuple"),
    ],
)
def test_malformed_figures_are_refused_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "published.yaml"
    file.write_text(text)
    with pytest.raises(BadInput, match=words) as refusal:
        read_published(file)
    assert "\n" not in str(refusal.value)
    with pytest.raises(BadInput, match="no published figures"):
        read_published(tmp_path / "missing.yaml")


# The terminal --------------------------------------------------------------------------------------------------------


def shown(*records: Record, width: int = 100) -> str:
    console = Console(width=width, file=io.StringIO())
    for table in runs_table({Path(f"{index}.json"): one for index, one in enumerate(records)}):
        console.print(Sheet(table))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_closing_table_leaves_out_references_that_have_none_of_its_numbers() -> None:
    images = shown(record(likelihood(1.9)))
    assert all(name in images for name in ("uniform", "histogram", "held-out data"))
    points = shown(record(likelihood(1.9), modality="points"))  # whose table has no Fréchet distance
    assert "held-out data" not in points


def test_the_closing_table_fits_and_says_everything() -> None:
    full = likelihood(2.008, "bound") | distance(12.34)
    full |= {"importance_bound": Score("nats/example", 1, -87.5, 0.8, 180, TEST | {"how": {"likelihood": "bound"}})}
    full |= {"sampling_seconds": Score("s/1,000 samples", 1, 1234.5)}
    text = shown(
        record(full, model="gated_pixelcnn", seed=12),
        record(absent("bits_per_dim", "none"), model="sngan", status="diverged", reason="[red]loss[/red] is inf"),
    )
    (line,) = [line for line in text.splitlines() if "gated_pixelcnn" in line]
    assert all(part in line for part in ("12", "finished", "≤ 2.008 ± 0.019", "≤ 1.972", "12.34 ± 0.10", "259k"))
    assert "sngan, seed 0: diverged ([red]loss[/red] is inf)" in text
    assert re.search(r"histogram +2.967 ± 0.015", text)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_a_narrow_terminal_keeps_names_and_the_first_figure(width: int) -> None:
    full = likelihood(2.008, "bound") | distance(12.34) | cost()
    text = shown(
        record(full, model="gated_pixelcnn", seed=12),
        record(full, model="a_model_with_a_long_name", status="truncated", reason="at 370 of 1,000 examples"),
        record(full, model="wrong", impossible="bits_per_dim beats the source"),
        width=width,
    )
    lines = [line.rstrip() for line in text.splitlines()]
    assert max(map(len, lines)) <= width
    (line,) = [line for line in lines if "gated_pixelcnn" in line]
    assert all(part in line for part in ("12", "finished", "≤ 2.008 ± 0.019"))
    assert "…" not in text
    flat = " ".join(text.split())
    assert "truncated at 37 % of its examples" in flat
    assert "wrong, seed 0: impossible: bits_per_dim beats the source" in flat
    assert ("too narrow for: " in flat) == (width < 200)
    assert ("12.34 ± 0.10" in text) == (width >= 80)
    assert text.index("gated_pixelcnn") < text.index("a_model_wit"), "what did not finish is not ahead of what did"


def test_one_table_for_each_dataset_best_first() -> None:
    text = record({"nats_per_token": Score("nats/token", 1, 1.5, 0.01, 9, TEST)}, data="pydocs", modality="text")
    output = shown(record(likelihood(1.9), model="second"), record(likelihood(1.8), model="first"), text)
    assert output.index("first") < output.index("second") < output.index("pydocs, test split")
    assert "nats/token" in output


def test_never_imports_torch() -> None:
    program = (
        "import sys\nfrom pathlib import Path\n"
        "import benchmark.leaderboard.pages as b, benchmark.leaderboard.terminal as t\n"
        "from benchmark.leaderboard.statistics import student_interval\nstudent_interval([1.0, 2.0])\n"
        "b.boards({}, None, Path('leaderboards/published.yaml')), t.runs_table({})\nsys.exit('torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
