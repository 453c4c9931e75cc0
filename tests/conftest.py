"""Fixtures that every test may use. Imports no torch: the process that only hands tests out to workers needs none."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from files import REPOSITORY
from locked import unlocked

from benchmark.data import download
from benchmark.data.base import DataModule
from benchmark.data.download import Remote
from benchmark.reference import loop_seconds

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
pytest.register_assert_rewrite("commands", "runs", "signatures")  # helpers that assert say what they saw

_loops: list[float] = []  # seconds
_unlocked: list[str] = unlocked((REPOSITORY / "requirements.lock").read_text(encoding="utf-8"))


def pytest_configure(config: pytest.Config) -> None:
    """Warnings are errors under the lock, but for those that pyproject.toml excepts; with other versions, shown."""
    if not _unlocked:
        config.getini("filterwarnings").insert(0, "error")  # later ones win
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="benchmark-tests-")  # what users computed is not believed


@pytest.fixture(scope="session")
def locked() -> bool:
    return not _unlocked


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Measures the machine before several processes share it."""
    if session.config.getoption("numprocesses", None):
        _loops.append(loop_seconds())


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if _unlocked:
        terminalreporter.write_line(f"warnings are shown, but are no errors: {', '.join(_unlocked)}")
    for seconds in _loops:
        terminalreporter.write_line(f"on a machine that does ten million additions in a Python loop in {seconds:.2f} s")


def _data_root() -> Path:
    """`BENCHMARK_DATA`, else data shared beside the checkout, else `data/`."""
    shared = REPOSITORY.parent / "shared" / "data"
    return Path(os.environ.get("BENCHMARK_DATA") or (shared if shared.is_dir() else REPOSITORY / "data"))


@pytest.fixture(scope="session")
def data_root() -> str:
    return str(_data_root())


class _NotHere(Exception):
    pass


@pytest.fixture(scope="session")
def stored(data_root: str) -> Callable[..., DataModule]:
    """Reads a dataset whose verified files are in the data root, and skips the test where they are not: nothing is
    fetched. Files that are there and damaged fail the test."""

    def absent(remote: Remote, path: Path) -> None:
        raise _NotHere

    @cache
    def read(cls: Callable[..., DataModule], **options: object) -> DataModule:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(download, "acquire", absent)
            try:
                return cls(Path(data_root), **options)
            except _NotHere:
                pytest.skip(f"the files of {cls.__name__} are not in {data_root}: set BENCHMARK_DATA")

    return read


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are their training alone: scoring and counting FLOPs take longer, and change nothing of it."""
    from benchmark.spec import Score
    from benchmark.train import run

    monkeypatch.setattr(run._Run, "_score", lambda self, parts, loop: None)
    monkeypatch.setattr(run, "count_flops", lambda *_: Score("1", 1, 1.0))


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short, finished run of a VAE on digits, for all who read it: copy it to change it."""
    from runs import carry_out

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "disabled")
        return carry_out(tmp_path_factory.mktemp("finished"), "vae")


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in torch-fidelity's format, under the name of its download, with random weights."""
    import torch
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    path = tmp_path_factory.mktemp("hub") / "checkpoints" / theirs.URL_INCEPTION_V3.rpartition("/")[2]
    path.parent.mkdir()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(theirs, "load_state_dict_from_url", lambda url, progress: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], verbose=False)
    torch.save(network.state_dict(), path)
    return path
