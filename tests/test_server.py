"""What a command's children have from their server, and what becomes of them. Real processes, in which nothing trains:
the server imports a stand-in for `benchmark.train`, so that each takes a second."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from files import REPOSITORY

from benchmark.server import MALLOC

COMMAND = """\
import os, sys
from benchmark import server
from benchmark.__main__ import main
if "SPAWN" in os.environ:
    import stand_in
    server.METHOD = "spawn"
if __name__ == "__main__":
    server.PRELOAD = "stand_in"
    if "OTHER" in os.environ:
        server.code_hash = lambda: os.environ["OTHER"]
    main()
"""
STAND_IN = """\
import os, signal, sys, time, types
from pathlib import Path

def prepare(experiment, folder=None):
    folder = Path(experiment.runtime.runs, str(experiment.seed.init))
    folder.mkdir(parents=True)
    return folder

def carry_out(folder, report, trust, purpose):
    exec(os.environ["DO"])

def tell(name, content=""):
    Path("writing").write_text(content)
    Path("writing").rename(name)

preload, train = types.ModuleType("benchmark.preload"), types.ModuleType("benchmark.train")
preload.problem = ""
train.prepare, train.carry_out, train.Purpose = prepare, carry_out, lambda: None
sys.modules |= {"benchmark.preload": preload, "benchmark.train": train}
exec(os.environ.get("IMPORT", ""))
"""
SUITE = """\
description: one run
budget: smoke
seeds: [0]
experiments:
  - {data: digits, model: vae}
"""


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts `benchmark suite one` in a session of its own. Its run does `do`."""
    files = {"command.py": COMMAND, "stand_in.py": STAND_IN, "suite/one.yaml": SUITE}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)

    def start(do: str = "", **environment: str) -> subprocess.Popen[str]:
        paths = {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{tmp_path}", "BENCHMARK_CONFIGS": str(tmp_path)}
        return subprocess.Popen(
            [sys.executable, "command.py", "suite", "one", "jobs=1"],
            cwd=tmp_path,
            env=os.environ | paths | {"DO": do} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
        )

    return start


def wait_for(something: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not something():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def said(command: subprocess.Popen[str]) -> list[str]:
    """The lines of its standard error, when it has ended."""
    _, lines = command.communicate(timeout=60)
    assert "Traceback" not in lines
    return lines.splitlines()


def is_there(pid: str) -> bool:
    """Whether a process runs; one that waits to be buried does not."""
    file = Path(f"/proc/{pid}/stat")
    return file.is_file() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def test_settings_are_the_servers_and_the_environment_the_commands(suite: Callable, tmp_path: Path) -> None:
    do = """
import json
server = Path("/proc", str(os.getppid()))
theirs = dict(line.split("=", 1) for line in (server / "environ").read_text().split("\\0") if line)
tell("seen", json.dumps([theirs, dict(os.environ), len(list((server / "task").iterdir())), os.getcwd()]))
"""
    for name in MALLOC:
        os.environ.pop(name, None)
    command = suite(do, MINE="1", OMP_NUM_THREADS="7")
    assert said(command)[-1].startswith("failed: vae on digits")  # a stand-in leaves no record
    theirs, ours, threads, directory = json.loads((tmp_path / "seen").read_text())
    assert MALLOC.items() <= theirs.items()
    assert theirs["OMP_NUM_THREADS"] == "1"
    assert not MALLOC.keys() & ours.keys()
    assert (ours["MINE"], ours["OMP_NUM_THREADS"]) == ("1", "7")
    assert threads == 1, "threads do not survive a fork"
    assert directory == str(tmp_path)


@pytest.mark.parametrize("method", [{}, {"SPAWN": "1"}], ids=["forked", "not forked, as on macOS"])
def test_a_child_that_dies_is_reported_with_its_signal_and_its_last_lines(
    method: dict[str, str], suite: Callable, tmp_path: Path
) -> None:
    ends = {
        "os.kill(os.getpid(), signal.SIGKILL)": "killed by SIGKILL, as the system does where memory is short",
        "os.abort()": "killed by SIGABRT",
        "os._exit(7)": "exit code 7",
        "raise MemoryError('no room')": "MemoryError: no room",
    }
    (tmp_path / "suite" / "one.yaml").write_text(SUITE.replace("[0]", str(list(range(len(ends))))))
    do = f"print('first', flush=True); os.system('echo half way >&2'); exec({list(ends)}[int(folder.name)])"
    command = suite(do, **method)
    printed = ["; its last lines: first / half way"] * 3 + [""]  # an exception says enough
    assert said(command)[-len(ends) :] == [
        f"failed: vae on digits, smoke, seed {seed}: {how}{more}"
        for seed, (how, more) in enumerate(zip(ends.values(), printed, strict=True))
    ]
    assert command.returncode == 1


def test_children_end_when_their_command_is_killed(suite: Callable, tmp_path: Path) -> None:
    command = suite("tell('pids', f'{os.getpid()} {os.getppid()}'); time.sleep(600)")
    wait_for((tmp_path / "pids").exists)
    pids = (tmp_path / "pids").read_text().split()
    assert all(map(is_there, pids))
    command.kill()
    command.communicate()
    wait_for(lambda: not any(map(is_there, pids)))


@pytest.mark.parametrize(
    ("how", "told"),
    [(os.kill, signal.SIGTERM), (os.killpg, signal.SIGTERM), (os.killpg, signal.SIGINT)],
    ids=["kill", "Slurm", "Ctrl-C"],
)
def test_a_command_that_is_stopped_stops_its_children(
    how: Callable, told: signal.Signals, suite: Callable, tmp_path: Path
) -> None:
    do = "tell('pid', str(os.getpid()))\ntry: time.sleep(600)\nexcept KeyboardInterrupt: tell('told'); raise"
    command = suite(do)
    wait_for((tmp_path / "pid").exists)
    how(command.pid, told)
    lines = said(command)
    assert command.returncode == 130
    assert lines[-2:] == [
        "vae on digits, smoke, seed 0:   0 % stopped",
        "stopped; repeat the command to resume",
    ]
    assert (tmp_path / "told").exists()
    assert not is_there((tmp_path / "pid").read_text())


def test_a_command_that_is_stopped_while_its_server_imports_ends_at_once(suite: Callable, tmp_path: Path) -> None:
    wait = "signal.signal(signal.SIGINT, signal.SIG_DFL); tell('pid', str(os.getpid())); time.sleep(600)"
    command = suite(IMPORT=wait)
    wait_for((tmp_path / "pid").exists)
    os.killpg(command.pid, signal.SIGINT)
    assert said(command) == ["importing torch", "stopped; repeat the command to resume"]
    assert command.returncode == 130
    wait_for(lambda: not is_there((tmp_path / "pid").read_text()))


def test_a_server_that_dies_over_its_imports_is_said_in_one_line(suite: Callable) -> None:
    command = suite(IMPORT="os.kill(os.getpid(), signal.SIGKILL)")
    _, line = said(command)
    assert line.startswith("error: the process that imports for all runs ended over it")
    assert command.returncode == 2


def test_a_library_that_cannot_be_imported_is_named_in_one_line(tmp_path: Path) -> None:
    """With what the server imports in earnest."""
    (tmp_path / "torch.py").write_text("raise ImportError('libcudnn.so.9: no such file')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "benchmark", "suite", "quick", "jobs=1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2
    reason = "what training needs cannot be imported: ImportError: libcudnn.so.9: no such file"
    assert done.stderr.splitlines() == ["importing torch", f"error: {reason}"]
    assert not (tmp_path / "runs").exists()


def test_code_that_changed_while_it_was_imported_is_not_run(suite: Callable, tmp_path: Path) -> None:
    command = suite(OTHER="c0de")
    assert said(command)[-1] == "error: the code changed while it was being imported: give the command again"
    assert command.returncode == 2
    assert not (tmp_path / "runs").exists()


def test_a_run_says_so_before_it_imports_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch is imported')\n")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"}
    command = [sys.executable, "-m", "benchmark", "run", "model=vae"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stderr.splitlines() == ["vae on digits, standard, seed 0:   0 % importing torch", "torch is imported"]
