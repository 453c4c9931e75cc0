"""A suite: parallel processes, past failures, skipping what has a record; and a user's own configurations."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import benchmark
from rich.console import Console

from benchmark import catalogue
from benchmark.config import choices, compose, load_suite
from benchmark.launch import Display
from benchmark.record import (
    carrying_on,
    code_hash,
    is_running,
    is_unfinished,
    publish,
    read_record,
    read_records,
    write_record,
)
from benchmark.reference import reference_seconds
from benchmark.server import Child, Task, begin
from benchmark.spec import BadInput

SUITE = """\
description: two short runs, one of which cannot work
budget: smoke
seeds: [0]
experiments:
  - {data: digits, model: vae}
  - {data: digits, model: broken}
"""
ONE = SUITE.replace("  - {data: digits, model: broken}\n", "")
BROKEN = """\
name: broken
target: benchmark.models.vae.vae.VAE
structures: [grid]
latent: 4
network: mlp
width: 16
depth: 1
likelihood: bernoulli
components: 1
beta: 1.0
importance_samples: 1
dropout: 0.0
learning_rate: 0.001
weight_decay: 0.0
"""


@pytest.fixture
def own_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    for name, content in {"suite/short.yaml": SUITE, "model/broken.yaml": BROKEN}.items():
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(content)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(folder))
    return folder


def test_a_users_own_folder_is_searched_too(own_configs: Path) -> None:
    assert {"short", "quick"} <= set(choices("suite"))
    assert compose(["model=broken", "budget.examples=10"]).model.options["latent"] == 4
    vae, broken = load_suite("short", ["budget.examples=10"])
    assert (vae.model.name, broken.model.name) == ("vae", "broken")
    assert load_suite("short", ["budget.examples=10", "seed=7"])[0].seed.init == 7


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("model: vae", "modle: vae", "experiments.0.model"),
        ("budget: smoke", "budgt: smoke", "short.yaml: budget"),
        ("seeds: [0]", "seeds: 0", "seeds=0"),
        ("seeds: [0]", "seeds: [-1]", "seeds.0=-1"),
        ("seeds: [0]", "seeds: []", r"seeds=\[\]"),
        ("model: vae", "model: vea", "did you mean 'vae'"),
    ],
)
def test_a_suite_that_is_none_is_refused_in_one_line(own_configs: Path, right: str, wrong: str, words: str) -> None:
    (own_configs / "suite" / "short.yaml").write_text(SUITE.replace(right, wrong, 1))
    with pytest.raises(BadInput, match=words) as refused:
        load_suite("short")
    assert len(str(refused.value).splitlines()) == 1


def test_a_configuration_of_ones_own_that_is_none_is_named_by_the_list(own_configs: Path) -> None:
    (own_configs / "model" / "broken.yaml").write_text("name: broken\nlatent: 4\n")
    (line,) = catalogue.read()[1]
    assert re.search(r"broken.yaml: target is missing", line)


SHORT = ("jobs=2", "budget.examples=64", "training.validations=1", "evaluation.importance_samples=2")


@pytest.mark.xdist_group("server")
def test_a_suite_goes_on_past_failures_and_skips_what_is_done(own_configs: Path, tmp_path: Path) -> None:
    done = benchmark("suite", "short", *SHORT, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("importing torch\n")
    assert "failed: broken on digits" in done.stderr
    assert "likelihood 'bernoulli' needs 2 levels" in done.stderr
    assert "Traceback" not in done.stderr
    (file,) = tmp_path.glob("runs/digits/vae/*/record.json")
    for shown in (file, file.parent / "samples" / "final.png", tmp_path / "runs" / "board" / "digits.md"):
        assert shown.is_file()
        assert str(shown.relative_to(tmp_path)) in done.stdout
    record = read_record(file)
    assert record.hardware["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    assert record.code_hash == code_hash()

    (own_configs / "suite" / "one.yaml").write_text(ONE)
    again = benchmark("suite", "one", *SHORT, cwd=tmp_path)
    assert again.returncode == 0
    assert again.stderr.startswith("vae on digits, smoke, seed 0: 100 % has a record\n"), "nothing is imported for it"
    assert list(tmp_path.glob("runs/digits/vae/*/record.json")) == [file]


@pytest.mark.xdist_group("server")
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere each child imports for itself")
def test_children_are_forked_from_one_server_with_one_thread(tmp_path: Path) -> None:
    """And one that is killed leaves a run that resumes."""
    begin()
    runs = [f"runtime.runs={tmp_path}", "runtime.threads=1", "budget.examples=100000", "training.validations=50"]
    task = Task(compose(["model=vae", *runs]).container())
    servers, folders = set(), set()
    for child in (Child(task), Child(task)):
        for event in child.events():
            if event.get("phase") == "training":
                status = Path("/proc", str(child.pid), "status").read_text()
                servers.add(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid")))
                os.kill(child.pid, signal.SIGKILL)
            elif "folder" in event:
                folders.add(Path(event["folder"]))
        assert child.problem.startswith("killed by SIGKILL")
    (server,) = servers
    assert len(list(Path("/proc", server, "task").iterdir())) == 1
    assert len(folders) == 2
    assert all(is_unfinished(folder) and not is_running(folder) for folder in folders)


def test_progress_without_a_terminal_is_a_line_with_loss_throughput_and_time_left() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=200)) as display:
        event = {"phase": "training", "examples": 50, "total": 200, "loss": 1.5, "rate": 2000.0, "left": 75.0}
        for _ in range(3):  # said once in a while, not at every step
            display.show("vae on digits", event)
        display.show("vae on digits", {"phase": "scoring", "examples": 200, "total": 200})
    assert out.getvalue().splitlines() == [
        "vae on digits:  25 % loss 1.5, 2,000 examples/s, 1:15 left",
        "vae on digits: 100 % scoring",
    ]


def test_progress_on_a_terminal_is_a_bar() -> None:
    out = io.StringIO()
    with Display(Console(file=out, width=120, force_terminal=True)) as display:
        event = {"phase": "training", "examples": 50, "total": 200, "loss": 1.5, "rate": 2000.0, "left": 75.0}
        display.show("vae on digits", event)
        display.show("gpt on pydocs", {**event, "loss": 2.5})
    assert "━" in out.getvalue()
    assert "loss 1.5, 2,000 examples/s, 1:15 left" in out.getvalue()
    assert "loss 2.5" in out.getvalue()


def test_a_suite_is_one_table_of_what_runs_is_done_failed_and_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    out, clock = io.StringIO(), 1000.0
    monkeypatch.setattr("benchmark.launch.time.monotonic", lambda: clock)
    experiments = [compose(["model=vae", "budget=quick", f"seed={seed}"]) for seed in range(4)]
    experiments.append(compose(["model=sngan", "budget=quick"]))
    event = {"phase": "training", "examples": 50, "total": 200, "loss": 1.5, "rate": 2000.0, "left": 75.0}
    with Display(Console(file=out, width=120, height=7, force_terminal=True)) as display:
        display.expect(experiments, jobs=2)
        first, second, third, *_ = (experiment.title for experiment in experiments)
        display.show(first, event)
        display.show(second, event)
        clock += 60
        display.show(first, {"phase": "finished", "examples": 200, "total": 200})
        display.show(second, {"phase": "failed: no memory", "examples": 0, "total": 1})
        display.show(third, event)
        clock += 20
    last = out.getvalue().split("vae on digits, quick, seed 2")[-1]
    # a VAE took 60 s, and 40 + 60 s of them are left; the GAN may take what its budget allows; two at a time
    left = round((40 + 60 + reference_seconds(experiments[-1])) / 2)
    assert f"1 done, 1 running, 1 failed, 2 waiting; about {left // 60}:{left % 60:02d} left" in last
    assert "failed: no memory" in last
    assert "and 2 more" in last
    assert "vae on digits, quick, seed 0" not in last  # what is done makes room for what is not


@pytest.mark.xdist_group("server")
def test_a_suite_that_was_stopped_goes_on_where_it_stopped(own_configs: Path, tmp_path: Path) -> None:
    (own_configs / "suite" / "one.yaml").write_text(ONE)
    long = ("jobs=1", "runtime.threads=1", "budget.examples=20000", "training.validations=10", *SHORT[3:])

    def stop() -> None:
        while not list(tmp_path.glob("runs/digits/vae/*/last.ckpt")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    stopped = benchmark("suite", "one", *long, cwd=tmp_path)
    assert stopped.returncode == 130
    assert stopped.stderr.splitlines()[-1] == "stopped; repeat the command to resume"
    assert "0 % stopped" in stopped.stderr
    assert "failed" not in stopped.stderr.replace("0 failed", "")
    (folder,) = tmp_path.glob("runs/digits/vae/*")
    assert not (folder / "record.json").exists()
    again = benchmark("suite", "one", *long, cwd=tmp_path)
    assert again.returncode == 0
    assert f"going on with {folder.name}" in again.stderr
    assert [file.parent for file in tmp_path.glob("runs/digits/vae/*/record.json")] == [folder]


def test_a_run_belongs_to_one_process(tmp_path: Path) -> None:
    with carrying_on(tmp_path):
        script = (
            "import sys, pathlib; from benchmark.record import is_running; print(is_running(pathlib.Path(sys.argv[1])))"
        )
        other = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
        assert other.stdout.strip() == "True"
        with pytest.raises(BadInput, match="another process is carrying on"), carrying_on(tmp_path):
            pass
    assert not is_running(tmp_path)


def variant(finished_run: Path, folder: Path, **changes: object) -> Path:
    """The finished run once more, with `changes` at the top of its record."""
    run = folder / "0a1b2c3d"
    run.mkdir()
    content = json.loads((finished_run / "record.json").read_text()) | changes
    (run / "record.json").write_text(json.dumps(content))
    (run / "likelihoods.npz").write_bytes((finished_run / "likelihoods.npz").read_bytes())
    return run


CLEAN = {"code_hash": "c0de", "git": {"commit": "abc", "dirty": False}}


def test_publishing_copies_once_and_never_overwrites(finished_run: Path, tmp_path: Path) -> None:
    run = variant(finished_run, tmp_path, **CLEAN)
    files = publish(run, tmp_path / "records")
    stem = f"0-{read_record(run).config_hash[:8]}-0a1b2c3d"
    assert [file.relative_to(tmp_path / "records").as_posix() for file in files] == [
        f"digits/vae/{stem}.json",
        f"digits/vae/{stem}.npz",
    ]
    assert read_records(tmp_path / "records").keys() == {files[0]}
    files[0].write_text("mine")
    with pytest.raises(BadInput, match="never overwritten"):
        publish(run, tmp_path / "records")
    assert files[0].read_text() == "mine"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"git": {"commit": "abc", "dirty": True}}, "not committed"),
        ({"git": None}, "no commit is known"),
        ({"kind": "trial"}, "evidence for a study"),
        ({"dataset": {"publishable": False, "note": "it differs"}}, "never published: it differs"),
        ({"seconds": "long"}, "not a valid record: seconds"),
        ({"colour": "red"}, "not a valid record: colour"),
        ({"status": "great"}, "not a valid record: status"),
    ],
)
def test_what_is_no_evidence_is_not_published(
    finished_run: Path, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    run = variant(finished_run, tmp_path, **{**CLEAN, **changes})
    with pytest.raises(BadInput, match=words):
        publish(run, tmp_path / "records")
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "null"])
def test_a_number_that_is_none_is_no_score(finished_run: Path, tmp_path: Path, number: str) -> None:
    content = json.loads((finished_run / "record.json").read_text())
    content["scores"]["nll"]["value"] = "HERE"
    (tmp_path / "record.json").write_text(json.dumps(content).replace('"HERE"', number))
    with pytest.raises(BadInput, match="not a valid record"):
        read_record(tmp_path)


def test_a_record_is_written_whole_or_not_at_all(finished_run: Path, tmp_path: Path) -> None:
    record = read_record(finished_run)
    write_record(tmp_path, record)
    assert read_record(tmp_path) == record
    with pytest.raises(FileExistsError):
        write_record(tmp_path, record)
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
