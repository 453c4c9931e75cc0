"""What a part finds, on disk as soon as it is found: a page and an archive in OUT."""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch

from benchmark.record import code_hash, environment, git_state, hardware, write_atomic
from benchmark.train import device_named
from benchmark.train.device import described

TITLES = {
    "agreement": "Does the GPU compute what the CPU computes?",
    "speed": "How fast is it on the GPU?",
    "records": "Records made on the GPU",
}
LARGEST = 16 * 2**20  # bytes of the archive

Row = Mapping[str, Any]


class Results:
    """Rows of one table, notes, and files: `OUT/PART.md` shows them and `OUT/PART.tar.gz` holds them, whenever the part
    ends. `deadline` is when it should, by `time.monotonic()`."""

    def __init__(self, out: Path, part: str, deadline: float, rehearsed: bool = False) -> None:
        self.out, self.part, self.deadline, self.rehearsed = out, part, deadline, rehearsed
        self.device = device_named("auto")
        self.rows: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.failed = False
        self.started = time.monotonic()
        self.about: dict[str, Any] = {
            "code": code_hash(),
            "git": git_state(),
            "hardware": hardware() | described(self.device),
            "environment": environment(),
        }

    def __enter__(self) -> Self:
        self.out.mkdir(parents=True, exist_ok=True)
        self._work = tempfile.TemporaryDirectory()
        self.files = Path(self._work.name) / self.part  # what the archive holds
        self.files.mkdir()
        self._state = "under way, or killed: this is what there is so far"
        self.write()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.end(f"it failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
        elif self._state.startswith("under way"):
            self.end()
        self._work.cleanup()

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    def add(self, row: Row) -> None:
        """One more row. Its keys are the headings; what starts with an underscore is in the archive alone."""
        self.rows.append(dict(row))
        with (self.files / "results.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(row)) + "\n")
        print(" | ".join(_shown(value) for name, value in row.items() if not name.startswith("_")))
        self.write()

    def note(self, line: str) -> None:
        """A sentence for the page."""
        self.notes.append(line)
        print(line)
        self.write()

    def end(self, why: str = "") -> None:
        """The last word: how the part ended."""
        self.failed = self.failed or bool(why)
        self._state = f"ended early: {why}" if why else "complete"
        self.write()

    def write(self) -> None:
        """Page and archive, as they are now."""
        page = self.page()
        (self.files / "about.json").write_text(json.dumps(self.about, indent=1) + "\n", encoding="utf-8")
        (self.files / "page.md").write_text(page, encoding="utf-8")
        writing = Path(self._work.name) / "writing.tar.gz"
        with tarfile.open(writing, "w:gz") as archive:
            archive.add(self.files, self.part)
        if writing.stat().st_size > LARGEST:
            page += "\nThe archive is left as it was: it would be too large.\n"
        else:
            shutil.copyfile(writing, self.out / "writing")
            (self.out / "writing").replace(self.out / f"{self.part}.tar.gz")
        write_atomic(self.out / f"{self.part}.md", page)

    def page(self) -> str:
        state, git = self._state, self.about["git"]
        machine, versions = self.about["hardware"], self.about["environment"]
        code = "of no known commit" if git is None else f"{git['commit'][:10]}{' with changes' * git['dirty']}"
        lines = [
            f"# {TITLES[self.part]}",
            f"{'A rehearsal: small, and no measurement. ' * self.rehearsed}The part is {state}. It took "
            f"{time.monotonic() - self.started:.0f} s.",
            f"Device: {machine['device']}. CPU: {machine['cpu']}, {machine['cores']} cores. Python "
            f"{versions['python']}, torch {torch.__version__}. Code: {code}, {self.about['code'][:8]}.",
            *self.notes,
            *table(self.rows),
        ]
        return "\n\n".join(lines) + "\n"


def table(rows: Sequence[Row]) -> list[str]:
    """The rows as Markdown, a table for each set of headings, in the order of their first rows."""
    by_headings: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        by_headings.setdefault(tuple(name for name in row if not name.startswith("_")), []).append(row)
    found = []
    for headings, members in by_headings.items():
        lines = [headings, ("---",) * len(headings), *([_shown(row[name]) for name in headings] for row in members)]
        found.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return found


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).replace("|", "\\|")
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
