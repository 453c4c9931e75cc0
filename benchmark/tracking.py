"""Weights & Biases: names, grids, artifacts. Offline unless configured otherwise; its failures never fail a run.

Names are the same for every model: `train/...`, `val/...`, `watch/...`, `test/...`, `cost/...`, `stability/...`; the
step counts examples seen.
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from benchmark.spec import BadInput, Score

try:
    import wandb
    from wandb.sdk.lib.service.service_token import WandbServiceConnectionError  # no kind of wandb.Error

    _FAILURES: tuple[type[Exception], ...] = (
        *(wandb.Error, WandbServiceConnectionError),
        *(OSError, RuntimeError, ValueError, TypeError),
    )
    _MISSING = ""
except ImportError as error:
    _FAILURES, _MISSING = (), str(error)

PROJECT = "generative-benchmark"
ANSWERS = 20.0  # seconds in which a server answers, if at all


class Tracker:
    """One run in Weights & Biases, or a warning and silence where that cannot be had."""

    def __init__(
        self,
        folder: Path,
        run_id: str,
        name: str,
        group: str,
        job_type: str,
        tags: list[str],
        config: Mapping[str, Any],
    ) -> None:
        self._run: Any = None
        if _MISSING:
            warnings.warn(f"Weights & Biases is not there ({_MISSING}): the run continues without it", stacklevel=2)
            return
        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
            os.environ.setdefault(variable, str(folder.resolve() / "wandb"))  # else they land in the home folder
        mode = os.environ.get("WANDB_MODE", "offline")

        def start() -> None:
            (folder / "wandb").mkdir(parents=True, exist_ok=True)
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                id=run_id,
                name=name,
                group=group,
                job_type=job_type,
                tags=tags,
                config=dict(config),
                dir=str(folder),
                mode=mode,  # type: ignore[arg-type]
                resume="allow" if mode == "online" else None,
                settings=wandb.Settings(silent=True, console="off"),
            )

        self._do(start)

    def log(self, values: Mapping[str, Any], examples: int) -> None:
        if self._run is not None:
            self._do(lambda: self._run.log(dict(values), step=examples))

    def samples(self, file: Path, examples: int, name: str = "samples") -> None:
        """A picture, a sound, or a text."""
        if self._run is None:
            return
        match file.suffix:
            case ".png":
                shown: Any = wandb.Image(str(file))
            case ".wav":
                shown = wandb.Audio(str(file))
            case _:
                shown = wandb.Html(f"<pre>{html.escape(file.read_text(encoding='utf-8', errors='replace'))}</pre>")
        self.log({name: shown}, examples)

    def summary(
        self, scores: Mapping[str, Score], split: str, cost: Mapping[str, Any], stability: Mapping[str, float]
    ) -> None:
        """The final scores as `<split>/...`, costs as `cost/...`, how training went as `stability/...`."""
        values: dict[str, Any] = {f"stability/{name}": value for name, value in stability.items()}
        for name, score in scores.items():
            prefix = "cost" if name in cost else split
            if score.value is not None:
                values[f"{prefix}/{name}"] = score.value
            if score.stderr is not None:
                values[f"{prefix}/{name}_stderr"] = score.stderr
        if self._run is not None:
            self._do(lambda: self._run.summary.update(values))

    def finish(self, exit_code: int = 0) -> None:
        if self._run is not None:
            self._do(lambda: self._run.finish(exit_code=exit_code))
            self._run = None

    def _do(self, call: Callable[[], Any]) -> None:
        try:
            call()
        except _FAILURES as error:
            warnings.warn(f"Weights & Biases failed ({error}): the run continues without it", stacklevel=3)
            self._run = None


def offline_runs(runs: Path) -> list[Path]:
    """The W&B folders of runs that were logged offline and not uploaded yet."""
    logged = sorted(file for file in runs.rglob("wandb/offline-run-*/run-*.wandb"))
    return [file.parent for file in logged if not file.with_name(f"{file.name}.synced").exists()]


def ask_server() -> None:
    """Raise `BadInput` where W&B's server does not answer: its own programs keep trying, silently."""
    address = wandb.setup().settings.base_url
    try:
        with urlopen(address, timeout=ANSWERS):
            return
    except HTTPError as error:
        if error.code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return
        reason = str(error)
    except OSError as error:
        reason = str(error)
    raise BadInput(f"W&B does not answer at {address}: {reason}; look at the network, or set WANDB_BASE_URL")


def sync(runs: Path) -> int:
    """Upload every offline run below `runs` by W&B's own tool, which remembers what it uploaded; returns how many.

    Raises `BadInput` where there are none, or where W&B refuses or does not answer.
    """
    folders = offline_runs(runs)
    if not folders:
        raise BadInput(f"no offline runs below {runs} that were not uploaded: run something, or name another folder")
    ask_server()
    command = [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace")
    left = len(offline_runs(runs))
    if done.returncode != 0 or left:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        reason = said[-1] if said else f"exit code {done.returncode}"
        raise BadInput(f"W&B did not take {left} of {len(folders)} runs: {reason}; log in with `wandb login`")
    return len(folders)
