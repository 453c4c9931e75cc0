"""Where things are, and configuration files of a test's own. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGS = REPOSITORY / "configs"
RECORDS = REPOSITORY / "leaderboards" / "records"


def shipped(place: str) -> dict[str, Any]:
    """What the file at `place` below configs/ says."""
    content: dict[str, Any] = yaml.safe_load((CONFIGS / place).read_text(encoding="utf-8"))
    return content


def write(folder: Path, **files: Any) -> Path:
    """Files below `folder`, named as in `model__vae`: a mapping becomes YAML."""
    for name, content in files.items():
        file = folder / f"{name.replace('__', '/')}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            text = content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True)
            file.write_text(text, encoding="utf-8")
    return folder
