"""Markdown from strings that somebody else wrote: a name or a reason can break neither a table nor the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import quote

_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape(text: object) -> str:
    """One line that shows `text` as it is, wherever it stands: in a table, a list or a sentence."""
    line = " ".join(str(text).split())
    line = _SPECIAL.sub(lambda found: "\\" + found[0], line)
    return re.sub("[&<>]", lambda found: _HTML[found[0]], line)


def code(text: object) -> str:
    """A code span. Backticks, which would end it, become apostrophes."""
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"


def link(text: str, target: PurePath) -> str:
    return f"[{escape(text)}]({quote(target.as_posix())})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of cells that are escaped already; the first `left` columns are text, the others numbers."""
    rule = ["---" if index < left else "---:" for index in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def folded(title: str, content: str) -> str:
    """Markdown that a reader opens; the empty lines make forges render what is inside."""
    return f"<details>\n<summary>{escape(title)}</summary>\n\n{content.strip()}\n\n</details>"


def page(parts: Sequence[str]) -> str:
    """Parts with an empty line between them; empty parts are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
