"""The dashboard in Weights & Biases: it charts what runs log, can be written without an account, and is saved and fed
through the online paths, against a stub of the API on the loopback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import wandb
from commands import benchmark
from files import REPOSITORY
from pydantic import ValidationError
from runs import carry_out
from wandb_stub import KEY, Stub, running

from benchmark import tracking
from benchmark.config import choices, load_data
from benchmark.dashboard import Dashboard, as_json, read_dashboard, workspaces
from benchmark.facts import modalities, modality
from benchmark.spec import BadInput

LOG = """
import sys
from pathlib import Path
from benchmark.spec import Score
from benchmark.tracking import Tracker
folder = Path(sys.argv[1])
folder.mkdir(parents=True)
config = {"data": {"name": "digits"}}
tracker = Tracker(folder, folder.name, "vae on digits", "digits/vae/smoke", "run", ["vae"], config)
tracker.log({"train/loss": 2.5}, 64)
tracker.summary({"nll": Score("nats/example", 1, 91.5, 0.25, 180)}, "test", {}, {"loss_spikes": 3.0})
tracker.finish()
"""


#: Of samples alone, so many that some are near a mode.
SMALL = ["model.layers=1", "model.width=32"]
GRID = ("data=gaussian_grid", "training.selection=mode_kl", "evaluation.sample_examples=1000")


class _Run:
    """What W&B's run object takes, kept by name."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.summary: dict[str, Any] = {}

    def log(self, values: dict[str, Any], step: int) -> None:
        self.names |= set(values)

    def finish(self, exit_code: int) -> None:
        self.names |= set(self.summary)


def test_every_name_that_is_charted_is_one_that_runs_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, configs = _Run(), []
    monkeypatch.setattr(wandb, "init", lambda **given: configs.append(given["config"]) or run)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    for model, options in {"vae": [], "sngan": [], "gpt": SMALL, "masked_diffusion": SMALL, "bert": SMALL}.items():
        carry_out(tmp_path, model, *options)
    carry_out(tmp_path, "vae", *GRID)
    dashboard = read_dashboard()
    at_hand = [one for one in modalities().values() if one.name not in ("dialogue", "labelled_text")]  # without files
    names = dashboard.names(at_hand)
    assert {"test/bits_per_dim", "val/nll", "val/fid", "val/nats_per_token", "cost/cpu_minutes", "neighbours"} <= names
    assert names <= run.names, names - run.names
    for view in dashboard.views:  # and every group is a setting that runs carry
        for key in view.group:
            value: Any = configs[0]
            for part in key.split("."):
                value = value[part]
            assert isinstance(value, str)
    assert [config["family"] for config in configs] == ["vae", "gan", "transformer", "diffusion", "transformer", "vae"]


def test_views_show_what_their_data_has() -> None:
    data = {"digits": modality("image"), "text8": modality("text")}
    made = {view.name: view for view in workspaces(read_dashboard(), data, "me", "p")}
    assert list(made) == ["all runs", "by family", "by data", "data: digits", "data: text8"]
    content = json.loads(as_json(list(made.values())))
    charted = {name: json.dumps(view["section"]["panelBankConfig"]) for name, view in content.items()}
    assert "test/bits_per_dim" in charted["data: digits"]
    assert "test/nats_per_token" not in charted["data: digits"]
    assert "test/nats_per_token" in charted["data: text8"]
    assert all(name in charted["all runs"] for name in read_dashboard().names(data.values()))
    filters = content["data: digits"]["section"]["runSets"][0]["filters"]["filters"]
    assert [(one["key"]["name"], one["value"]) for one in filters] == [
        ("jobType", ["run"]),
        ("data.value.name", ["digits"]),
    ]
    assert content["by family"]["section"]["runSets"][0]["grouping"] == [{"section": "config", "name": "family.value"}]


def test_a_definition_with_a_typo_is_refused() -> None:
    with pytest.raises(ValidationError, match="pannels"):
        Dashboard.model_validate({"views": [], "media": [], "costs": [], "sections": [{"name": "x", "pannels": []}]})


def test_a_service_of_wandb_that_is_gone_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb.teardown()
    monkeypatch.setenv("WANDB_SERVICE", f"3-{os.getpid()}-unix-{tmp_path / 'socket'}")
    with pytest.warns(UserWarning, match="Weights & Biases failed .*the run continues without it"):
        tracker = tracking.Tracker(tmp_path, "1a2b3c4d", "vae", "digits", "run", [], {})
    tracker.log({"val/nll": 1.0}, 64)
    tracker.finish()


@pytest.fixture
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process nobody is logged in to W&B, and what it has read of its settings is forgotten."""
    wandb.teardown()  # first: it forgets the address of the service that it ends, which must not come back afterwards
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    wandb.teardown()


def in_a_process(cwd: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    own = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    own |= {"HOME": str(cwd), "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=cwd, env={**own, **environment}, timeout=300
    )


def account(stub: Stub) -> dict[str, str]:
    return {"WANDB_BASE_URL": stub.url, "WANDB_API_KEY": KEY}


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("entity", [(), ("--entity", "")], ids=["none", "empty"])
def test_without_an_account_the_views_are_written_down(entity: tuple[str, ...], tmp_path: Path) -> None:
    done = benchmark("dashboard", *entity, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "nothing was sent" in done.stdout
    assert "--entity NAME" in done.stdout
    content = json.loads((tmp_path / "build" / "dashboard.json").read_text())
    assert {f"data: {name}" for name in choices("data")} <= set(content)
    assert load_data("digits").modality == "image"


@pytest.mark.slow
def test_saving_again_replaces_the_views(tmp_path: Path) -> None:
    with running() as stub:
        for _ in range(2):
            done = in_a_process(tmp_path, "-m", "benchmark", "dashboard", "--entity", "me", **account(stub))
            assert done.returncode == 0, done.stderr
        names = {view["displayName"] for view in stub.views.values()}
        assert len(names) == len(stub.views) == 3 + len(choices("data"))
        assert {(view["entityName"], view["projectName"]) for view in stub.views.values()} == {("me", tracking.PROJECT)}
        assert all(f"{stub.url}/me/" in line for line in done.stdout.splitlines())
        assert stub.unknown == []


@pytest.mark.slow
def test_who_is_not_known_there_is_told_so_in_one_line(tmp_path: Path) -> None:
    with running() as stub:
        stub.knows_the_key = False
        done = in_a_process(tmp_path, "-m", "benchmark", "dashboard", "--entity", "me", **account(stub))
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "wandb login" in line
    assert "Traceback" not in done.stderr
    assert stub.views == {}


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("verb", [("dashboard", "--entity", "me"), ("sync",)], ids=lambda verb: verb[0])
def test_a_server_that_does_not_answer_is_named_at_once(verb: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "runs/wandb/offline-run-1-0a1b2c3d").mkdir(parents=True)
    (tmp_path / "runs/wandb/offline-run-1-0a1b2c3d/run-0a1b2c3d.wandb").touch()
    with running() as stub:
        gone = account(stub)
    done = benchmark(*verb, cwd=tmp_path, **gone)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: W&B does not answer at {gone['WANDB_BASE_URL']}: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("nobody")
def test_a_server_that_fails_is_named_at_once(tmp_path: Path) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:  # answers 501 to whatever is asked
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        done = benchmark("dashboard", "--entity", "me", cwd=tmp_path, WANDB_BASE_URL=address)
        server.shutdown()
    assert done.returncode == 2
    assert f"error: W&B does not answer at {address}: HTTP Error 501" in done.stderr


def assert_run_arrived(stub: Stub, run_id: str) -> None:
    run = stub.runs[run_id]
    assert (run["displayName"], run["groupName"], run["jobType"]) == ("vae on digits", "digits/vae/smoke", "run")
    assert json.loads(run["config"])["data"]["value"] == {"name": "digits"}
    (history,) = [json.loads(line) for line in stub.streamed["wandb-history.jsonl"]]
    assert (history["train/loss"], history["_step"]) == (2.5, 64)
    summary = json.loads(stub.streamed["wandb-summary.json"][-1])
    assert (summary["test/nll"], summary["test/nll_stderr"], summary["stability/loss_spikes"]) == (91.5, 0.25, 3)
    assert stub.unknown == []


@pytest.mark.usefixtures("nobody")
def test_offline_runs_are_uploaded_once(tmp_path: Path) -> None:
    logged = in_a_process(tmp_path, "-c", LOG, "runs/digits/vae/0a1b2c3d")
    assert logged.returncode == 0, logged.stderr
    assert len(tracking.offline_runs(tmp_path / "runs")) == 1
    with running() as stub:
        done = benchmark("sync", cwd=tmp_path, WANDB_MODE="offline", **account(stub))
        assert (done.returncode, done.stdout) == (0, "1 uploaded\n"), done.stderr
        assert_run_arrived(stub, "0a1b2c3d")
    assert tracking.offline_runs(tmp_path / "runs") == []
    with pytest.raises(BadInput, match="no offline runs below"):
        tracking.sync(tmp_path / "runs")


@pytest.mark.slow
def test_a_run_that_is_logged_online_arrives(tmp_path: Path) -> None:
    with running() as stub:
        logged = in_a_process(tmp_path, "-c", LOG, "runs/digits/vae/1a1b2c3d", WANDB_MODE="online", **account(stub))
        assert logged.returncode == 0, logged.stderr
        assert_run_arrived(stub, "1a1b2c3d")
    assert tracking.offline_runs(tmp_path / "runs") == []
