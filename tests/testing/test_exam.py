"""The exam of models from outside: its verdicts, what is kept of it, and what records and boards say of it."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import toys
from builders import known, record
from commands import benchmark

from benchmark import exams
from benchmark import record as records
from benchmark.exams import Exam, exam_file, said_of
from benchmark.leaderboard.pages import boards
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.terminal import runs_table
from benchmark.record import Record, read_record, read_records, write_record
from benchmark.report.check import problems
from benchmark.spec import BadInput
from benchmark.testing import LAWS, PATIENT, QUICK, exam
from benchmark.testing.exam import candidate, examine

TRUST = ("toys",)
HASH = records.sources(["toys.Independent"])


def sit(name: str, **given: Any) -> Exam:
    return examine(candidate(name, given.pop("options", {}), trust=TRUST, **given), trust=TRUST)


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_who_keeps_all_promises_passes() -> None:
    found = sit("toys.Independent")
    assert not found.failed
    assert [one.law for one in found.laws] == [law.name for law in LAWS if law.binds(toys.Independent, "grid")]
    assert {one.promise for one in found.laws} == {"GenerativeModel", "Likelihood"}
    assert found.sources == HASH


def test_a_law_that_is_broken_stops_no_other() -> None:
    found = sit("toys.SharpSampler")
    assert found.failed == ["samples_follow_likelihood on grid"]
    (broken,) = (one for one in found.laws if one.problem is not None)
    assert broken.problem.startswith("frequencies of samples disagree")
    assert len(found.laws) == len(sit("toys.Independent").laws)


def test_code_that_fails_fails_the_law_and_is_named() -> None:
    found = sit("toys.Crashes")
    assert {"samples on grid", "comes_back on grid"} <= {*found.failed}
    assert "normalised on grid" not in found.failed
    assert next(one.problem for one in found.laws if one.law == "samples") == "KeyError: '7 samples'"


def test_a_model_that_ends_the_program_ends_a_law_alone() -> None:
    found = sit("toys.Leaves")
    assert next(one.problem for one in found.laws if one.law == "overfits") == "SystemExit: 3"
    assert "builds on grid" not in found.failed


def test_options_and_structures_are_those_that_are_given() -> None:
    found = sit("toys.Conditioned", structures=("sequence", "grid"), conditions=("grid",), options={"width": 8})
    assert not found.failed
    assert found.options == {"width": 8}
    assert {(one.law, one.structure) for one in found.laws if one.promise == "Conditional"} == {
        ("obeys_condition_grid", "sequence"),
        ("obeys_condition_grid", "grid"),
    }
    assert [one.law for one in sit("toys.Conditioned").laws][-1] == "obeys_condition_label"


def test_a_configured_model_has_what_its_file_says() -> None:
    who = candidate("lstm", {"width": 8})
    assert who.structures == ("sequence",)
    assert who.conditions == ()
    assert (who.options["width"], who.options["layers"]) == (8, 2)


def test_at_length_means_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    efforts = []
    monkeypatch.setattr(exam, "LAWS", ())
    monkeypatch.setattr(exam, "Subject", lambda *given: efforts.append(given[3]))
    who = candidate("toys.Independent", {}, trust=TRUST)
    examine(who)
    examine(who, at_length=True)
    assert efforts == [QUICK, PATIENT]
    assert replace(PATIENT, drill=0) != replace(QUICK, drill=0)


def test_a_file_may_say_that_its_model_accepts_no_condition_although_the_class_does() -> None:
    assert candidate("seq2seq", {}).conditions == ("sequence",)
    assert candidate("seq2seq_blind", {}).conditions == ()


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("toys.Nobody", {}, "unknown class in toys 'Nobody'"),
        ("toys.Independent", {"options": {"width": 3}}, "unknown option of model 'width'"),
        ("toys.Conditioned", {"options": {"width": "wide"}}, "model.width='wide'"),
        ("toys.Toy", {}, "abstract"),
        ("toys.categorical", {}, "not a GenerativeModel"),
        ("toys.Independent", {"conditions": ("label",)}, "does not promise Conditional"),
        ("toys.Conditioned", {"conditions": ("coordinates",)}, "(examined are: label, sequence, grid)"),
        ("vae", {"structures": ("sequence",)}, "--structure sequence: model 'vae' accepts grid"),
        ("vea", {}, "did you mean 'vae'"),
        ("yours.Model", {}, "add --trust yours"),
    ],
)
def test_who_cannot_sit_it_is_told_why(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        sit(name, **given)


# The verb ------------------------------------------------------------------------------------------------------------


def test_the_verb_shows_a_table_and_says_what_is_broken(tmp_path: Path) -> None:
    done = benchmark("exam", "toys.SharpSampler", "--trust", "toys", cwd=tmp_path)
    assert done.returncode == 1
    assert "toys.SharpSampler: breaks 1 of 8 laws" in done.stdout
    (line,) = (line for line in done.stdout.splitlines() if "broken" in line)
    assert line.split()[:4] == ["samples_follow_likelihood", "grid", "Likelihood", "broken"]
    assert "frequencies of samples disagree" in line
    assert "samples_follow_likelihood on grid: is broken" in done.stderr
    assert len(list(tmp_path.glob("runs/exams/*.json"))) == 1


def test_the_verb_speaks_to_programs(tmp_path: Path) -> None:
    done = benchmark("exam", "toys.Conditioned", "--set", "width=8", "--json", "--trust", "toys", cwd=tmp_path)
    assert done.returncode == 0
    found = Exam.model_validate_json(done.stdout)
    (kept,) = tmp_path.glob("runs/exams/*.json")
    assert Exam.model_validate_json(kept.read_bytes()) == found
    assert found.options == {"width": 8}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["toys.Independent"], "add --trust toys"),
        (["toys.Independent", "--trust", "toys", "--set", "width"], "key=value"),
        (["toys.Independent", "--trust", "toys", "--structure", "label"], "--structure"),
        (["vae", "--set", "latent=1", "--set", "latent=2"], "latent is given 2 times"),
    ],
)
def test_bad_input_has_exit_code_2_and_is_one_line(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = benchmark("exam", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_ends_the_exam_and_leaves_no_result(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        done = benchmark("exam", "toys.Interrupted", "--trust", "toys", cwd=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)  # Lightning ignores it from then on
    assert done.returncode == 130
    assert "stopped; repeat the command" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_nothing_is_kept_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exam, "LAWS", LAWS[:1])
    assert benchmark("exam", "vae", cwd=tmp_path).returncode == 0
    assert not (tmp_path / "runs").exists()


# What is kept, and what records say ----------------------------------------------------------------------------------


def kept(runs: Path, name: str = "toys.Independent", **given: Any) -> Exam:
    found = sit(name, **given)
    exams.keep(found, runs)
    return found


def test_a_record_says_what_the_exam_of_its_sources_was(tmp_path: Path) -> None:
    assert said_of(["benchmark.models.vae.vae.VAE"], "grid", tmp_path) is None
    not_sat = {"passed": None, "laws": 0, "failed": [], "sources": HASH, "when": None}
    assert said_of(["toys.Independent"], "grid", tmp_path) == not_sat
    found = kept(tmp_path)
    passed = {"passed": True, "laws": 8, "failed": [], "sources": HASH, "when": found.when.isoformat()}
    assert said_of(["toys.Independent"], "grid", tmp_path) == passed
    assert said_of(["toys.Independent"], "sequence", tmp_path) == not_sat  # it was examined on a grid
    assert said_of(["toys.MeanForSum"], "grid", tmp_path) == not_sat  # another class of the same package
    kept(tmp_path, "toys.SharpSampler")
    failed = said_of(["toys.Independent", "benchmark.models.vae.vae.VAE", "toys.SharpSampler"], "grid", tmp_path)
    assert failed is not None
    assert (failed["passed"], failed["laws"], failed["failed"]) == (False, 16, ["samples_follow_likelihood on grid"])


def test_an_exam_of_other_sources_or_laws_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(exams, "sources", lambda targets: {"toys": "0" * 64})
        said = said_of(["toys.Independent"], "grid", tmp_path)
        assert said is not None
        assert said["passed"] is None
    with monkeypatch.context() as patch:
        patch.setattr(exams, "version_of_laws", lambda: "other laws")
        said = said_of(["toys.Independent"], "grid", tmp_path)
        assert said is not None
        assert said["passed"] is None


def test_a_damaged_exam_was_not_sat(tmp_path: Path) -> None:
    kept(tmp_path)
    exam_file(tmp_path, "toys.Independent").write_text("{")
    said = said_of(["toys.Independent"], "grid", tmp_path)
    assert said is not None
    assert said["passed"] is None


def test_exams_are_not_taken_for_records(tmp_path: Path) -> None:
    kept(tmp_path)
    skipped: list[str] = []
    assert read_records(tmp_path, skipped) == {}
    assert skipped == []


PASSED = {"passed": True, "laws": 7, "failed": [], "sources": HASH, "when": "2026-01-01T00:00:00+00:00"}
FAILED = PASSED | {"passed": False, "failed": ["samples on grid"]}
NOT_SAT = {"passed": None, "laws": 0, "failed": [], "sources": HASH, "when": None}


def outside(said: dict[str, Any] | None) -> Record:
    made = record(model="theirs", exam=said, sources=HASH)
    config = made.config | {"model": {"name": "theirs", "target": "toys.Independent", "structures": ["grid"]}}
    return made.model_copy(update={"config": config})


@pytest.mark.parametrize(
    ("said", "note"),
    [
        (NOT_SAT, "it did not sit the exam"),
        (None, "it did not sit the exam"),  # a record older than exams
        (FAILED, "it failed 1 of 7 laws of the exam"),
        (PASSED, None),
    ],
)
def test_boards_mark_who_did_not_pass(said: dict[str, Any] | None, note: str | None) -> None:
    found = {Path("records/ours.json"): record(), Path("records/theirs.json"): outside(said)}
    page = boards(found)["digits.md"]
    assert "§ marks a model from outside" in page
    assert ("| theirs§ |" in page) == (note is not None)
    assert "| vae |" in page
    line = f"theirs is from outside, and nobody knows that it keeps its promises: {note}"
    assert (line in page) == (note is not None)
    (table,) = runs_table(found)
    names = {row[0].text for row in table.rows}
    assert {"vae", "theirs" if note is None else "theirs§"} <= names
    assert (f"§ theirs, seed 0: a model from outside; {note}" in "\n".join(table.notes)) == (note is not None)


def test_a_first_stage_from_outside_has_to_pass_too() -> None:
    made, inner = record(exam=NOT_SAT, sources=HASH), outside(None).config
    of = {"run": "ab", "sha256": "0" * 64, "config": inner}
    made = made.model_copy(update={"config": made.config | {"first_stage": {"origin": of}}})
    assert Run(Path("one.json"), made).unexamined == "it did not sit the exam"
    assert Run(Path("one.json"), made.model_copy(update={"exam": PASSED})).unexamined is None


def test_check_says_whose_exam_it_was(tmp_path: Path) -> None:
    def said_of_exam(made: Record, name: str) -> list[str]:
        write_record(tmp_path / name, made)
        return [line for line in problems(tmp_path / name, known()) if line.startswith("exam ")]

    assert said_of_exam(record(), "ours") == []
    assert "must be null" in said_of_exam(record(exam=PASSED), "ours_examined")[0]
    assert said_of_exam(outside(PASSED), "theirs") == []
    assert said_of_exam(outside(NOT_SAT), "not_sat") == []
    assert said_of_exam(outside(None), "older") == []
    (line,) = said_of_exam(outside(PASSED | {"sources": {"toys": "0" * 64}}), "other")
    assert "exam is of other sources" in line


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (PASSED | {"laws": 0}, "has laws, a date and sources"),
        (PASSED | {"when": None}, "has laws, a date and sources"),
        (NOT_SAT | {"sources": {}}, "has laws, a date and sources"),
        (PASSED | {"failed": ["samples on grid"]}, "passed is True, but 1 of 7 laws failed"),
        (FAILED | {"failed": []}, "passed is False, but 0 of 7 laws failed"),
        (PASSED | {"mark": "A"}, "mark"),
        (PASSED | {"passed": "yes"}, "passed"),
    ],
)
def test_a_malformed_exam_makes_a_malformed_record(said: dict[str, Any], words: str, tmp_path: Path) -> None:
    content = json.loads(record().model_dump_json(by_alias=True)) | {"schema": 2, "exam": said}
    (tmp_path / "record.json").write_text(json.dumps(content))
    with pytest.raises(BadInput, match=f"exam: .*{words}"):
        read_record(tmp_path)
