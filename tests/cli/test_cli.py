"""The command line as a person meets it: quick, one line for what is wrong, exit codes that mean something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import benchmark
from files import REPOSITORY
from runs import FEW_DRAWS

from benchmark.__main__ import main
from benchmark.leaderboard.recounted import outdated, read_recounted
from benchmark.record import read_records, write_record

QUICK = ["budget.examples=64", "training.validations=1", *FEW_DRAWS, "runtime.threads=1"]


@pytest.mark.parametrize("verb", ["--help", "list"])
def test_asking_what_there_is_does_not_load_torch(verb: str) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "benchmark", verb]
    before = os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    after = os.times()
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert not imported & {"torch", "pytorch_lightning", "wandb", "sklearn", "hydra"}
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1.5


def test_the_list_says_what_each_model_promises() -> None:
    content = json.loads(benchmark("list", "--json").stdout)
    models = {model["name"]: model for model in content["models"]}
    assert models["vae"]["family"] == "vae"
    assert models["vae"]["capabilities"] == [
        "ImportanceBound",
        "Reconstructs",
        "Autoencodes",
        "Interpolates",
        "Diagnosable",
    ]
    assert models["sngan"]["capabilities"] == ["Interpolates", "Diagnosable"]
    assert all("arXiv" in model["paper"] or "20" in model["paper"] for model in models.values())
    assert {data["name"] for data in content["data"]} >= {"digits", "mnist", "tinyshakespeare", "pydocs"}
    assert "quick" in {suite["name"] for suite in content["suites"]}
    text = benchmark("list").stdout
    assert all(name in text for name in models)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["rnu"], ["'rnu'", "did you mean 'run'"]),
        (["run", "model=vea"], ["unknown model 'vea'", "did you mean 'vae'"]),
        (["run", "data=digit"], ["did you mean 'digits'"]),
        (["run", "model.latnet=16"], ["unknown option of model 'latnet'", "did you mean 'latent'"]),
        (["run", "modle=vae"], ["'modle'", "did you mean 'model'"]),
        (["run", "training.batch_size=x"], ["training.batch_size='x'", "integer"]),
        (["run", "training.batch_size=0"], ["training.batch_size=0", "greater"]),
        (["run", "model.latent=x"], ["model.latent='x'", "integer"]),
        (["run", "seed=-1"], ["seed.init=-1", "greater"]),
        (["run", "model"], ["key=value"]),
        (["run", "+model.x=1"], ["key=value"]),
        (["run", "model.latent=[1"], ["model.latent=[1"]),
        (["run", "training=3"], ["group of settings", "training.batch_size"]),
        (["run", "model=gpt", "data=digits"], ["'gpt' accepts a sequence", "'digits' is a grid (image)"]),
        (["run", "model=vae", "data=cifar10"], ["nothing is tuned", "budget.examples"]),
        (["run", "model.target=os.path.X"], ["--trust os"]),
        (["run", "--resume", "nowhere"], ["config.yaml"]),
        (["run", "--sed", "1"], ["--sed"]),
        (["suite", "quikc"], ["did you mean 'quick'"]),
        (["suite", "quick", "jobs=many"], ["jobs=many"]),
        (["suite", "quick", "jobs=0"], ["jobs=0"]),
        (["data", "minst"], ["did you mean 'mnist'"]),
        (["sample", "nowhere"], ["config.yaml"]),
        (["evaluate", "nowhere"], ["config.yaml"]),
        (["publish", "nowhere"], ["no record"]),
        (["sample", ".", "-n", "0"], ["-n"]),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmark", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err.strip()
    if arguments == ["run", "model.latent=x"]:  # the model's own code says what its options are
        importing, said = said.splitlines()
        assert importing == "vae on digits, standard, seed 0:   0 % importing torch"
    assert stopped.value.code == 2
    assert len(said.splitlines()) == 1, said
    assert all(word in said for word in words), said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["leaderboard", "sweep"])
def test_a_place_that_cannot_be_written_is_named_in_one_line(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file stands where a folder is needed: as good as a read-only one, for root too."""
    (tmp_path / "file").touch()
    place = str(tmp_path / "file" / "folder")
    more = {"leaderboard": ["--to", place], "sweep": ["trials=1", f"runtime.runs={place}"]}
    monkeypatch.setattr("sys.argv", ["benchmark", verb, *more[verb]])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "file") in line
    assert "name another place" in line


def test_a_mistake_ends_the_process_with_2() -> None:
    command = [sys.executable, "-m", "benchmark", "run", "model=vea"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "did you mean 'vae'" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_says_where_to_put_the_file(tmp_path: Path) -> None:
    environment = {"BENCHMARK_DATA": str(tmp_path / "data"), "https_proxy": "http://127.0.0.1:9"}
    done = benchmark("data", "tinyshakespeare", cwd=tmp_path, **environment)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "tinyshakespeare/input.txt" in line
    assert "86c4e6aa" in line


def test_a_dataset_is_checked_and_described() -> None:
    done = benchmark("data", "digits")
    assert done.returncode == 0
    assert json.loads(done.stdout)["splits"]["train"]["n"] == 1437


def test_a_run_from_start_to_samples(tmp_path: Path) -> None:
    done = benchmark("run", "model=vae", "data=digits", "seed=1", *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (record,) = tmp_path.glob("runs/digits/vae/*/record.json")
    folder = record.parent
    assert str(record.relative_to(tmp_path)) in done.stdout
    assert "samples/final.png" in done.stdout
    assert json.loads(record.read_text())["seed"] == {"init": 1, "data": 1, "eval": 0}
    sampled = benchmark("sample", str(folder), "-n", "4", cwd=tmp_path)
    assert (tmp_path / sampled.stdout.strip()).read_bytes().startswith(b"\x89PNG")
    scored = json.loads(benchmark("evaluate", str(folder), cwd=tmp_path).stdout)
    assert scored["nll"]["value"] == json.loads(record.read_text())["scores"]["nll"]["value"]


def test_a_run_that_diverges_ends_with_1(tmp_path: Path) -> None:
    done = benchmark("run", "model=vae", "model.learning_rate=1e30", *QUICK, cwd=tmp_path)
    assert done.returncode == 1
    assert "diverged" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(tmp_path: Path) -> None:
    settings = ["model=vae", "budget.examples=6000", "training.validations=40", "budget.minutes=10", *QUICK[2:]]
    command = [sys.executable, "-m", "benchmark", "run", *settings]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGKILL)
    child.wait()
    (folder,) = tmp_path.glob("runs/digits/vae/*")
    assert not (folder / "record.json").exists()
    assert benchmark("run", "--resume", str(folder), cwd=tmp_path).returncode == 0
    whole = benchmark("run", *settings, cwd=tmp_path)
    assert whole.returncode == 0
    (other,) = (path for path in tmp_path.glob("runs/digits/vae/*") if path != folder)
    assert (folder / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_what_kill_and_slurm_send_stops_as_ctrl_c_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_: object, **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr("benchmark.train.prepare", lambda experiment: Path("runs/digits/vae/0a1b2c3d"))
    monkeypatch.setattr("benchmark.train.carry_out", work)
    monkeypatch.setattr(sys, "argv", ["benchmark", "run", "model=vae", "--trust", "mine"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stopped:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stopped.value.code == 130
    resume = "python -m benchmark run --resume runs/digits/vae/0a1b2c3d --trust mine"
    assert capsys.readouterr().err.splitlines()[-1] == f"stopped; resume with: {resume}"


@pytest.mark.slow
@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_how_to_go_on(told: signal.Signals, tmp_path: Path) -> None:
    settings = ["model=vae", "budget.examples=300000", "training.validations=2000", "budget.minutes=10", *QUICK[2:]]
    command = [sys.executable, "-m", "benchmark", "run", *settings]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    child = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/*/*/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(told)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "run --resume runs/digits/vae/" in said.splitlines()[-1]
    assert "Traceback" not in said


def test_flops_of_old_records_are_counted_again_and_agree_with_the_committed_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = REPOSITORY / "leaderboards"
    committed = read_recounted(home / "recounted.json")
    everything = read_records(home / "records").values()
    assert outdated(everything, committed, 2) == {}
    cheap = {f"{one.model}@{one.data}": one for one in everything}
    for name in ("vae@digits", "gpt@synthetic_text"):
        write_record(tmp_path / "records" / name, cheap[name])
    vae = cheap["vae@digits"]
    config = {**vae.config, "model": {**vae.config["model"], "target": "benchmark.models.vae.vae.Gone"}}
    unknown = vae.model_copy(update={"config_hash": "0" * 64, "config": config})
    write_record(tmp_path / "records" / "unknown", unknown)
    monkeypatch.setattr(sys, "argv", ["benchmark", "recount", "--records", str(tmp_path / "records")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert "vae on digits: unknown class in benchmark.models.vae.vae 'Gone'" in capsys.readouterr().err
    found = read_recounted(tmp_path / "recounted.json")
    assert len(found) == 2
    assert all(committed[name] == count for name, count in found.items())
