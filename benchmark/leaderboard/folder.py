"""The site's folder: replaced as a whole or not at all, and never one that holds anything else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmark.spec import BadInput

MARK = "python -m benchmark site"  # what `index.html` says of itself
_FOLDERS = ("assets", "data", "model", "reproducibility")
_SUFFIXES = (".html", ".css", ".js", ".csv", ".json")


def write_site(content: Iterable[tuple[str, str]], folder: Path) -> Path:
    """Make `folder` hold `content`, pairs of path below it and text, and nothing else; returns its `index.html`.

    All of it is written beside `folder`, which then changes place with what was there: a reader finds the old site or
    the new one. Raises `BadInput` where `folder` exists, is not empty and was not made by this function.
    """
    may_replace(folder)
    place = folder.resolve()  # what a link leads to is replaced, not the link
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as beside:
        new, old = Path(beside, "new"), Path(beside, "old")
        for name, text in content:
            file = new / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        try:
            if place.exists():
                os.replace(place, old)
            os.replace(new, place)
        finally:  # what was there is restored if the new one could not take its place
            if old.exists() and not place.exists():
                os.replace(old, place)
    return folder / "index.html"


def may_replace(folder: Path) -> None:
    """Raises `BadInput` where `folder` holds anything but a site."""
    if (stranger := _stranger(folder.resolve())) is not None:
        raise BadInput(f"{folder} was not made by the verb site ({stranger}): name a new or empty folder by --to")


def _stranger(place: Path) -> str | None:
    """What in `place` is not of a site, if anything: it ends at the first such thing, so that a home folder is safe."""
    if not place.exists():
        return None
    if not place.is_dir():
        return "it is a file"
    entries = sorted(place.iterdir())
    if not entries:
        return None
    for entry in entries:
        inside = sorted(entry.iterdir()) if entry.is_dir() and entry.name in _FOLDERS else [entry]
        for file in inside:
            if file.is_symlink() or not file.is_file() or file.suffix not in _SUFFIXES:
                return f"it holds {file.relative_to(place)}"
    index = place / "index.html"
    if not index.is_file() or MARK not in index.read_text(encoding="utf-8", errors="replace"):
        return "no index.html of a site"
    return None
