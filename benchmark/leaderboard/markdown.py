"""Markdown from strings that others wrote: a name or a reason can break neither a table nor the page."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import quote

from benchmark.leaderboard.site.tables import Entry, Table

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


def rendered(content: Table) -> str:
    """A table of the site with its notes; columns of text stand before those of numbers. Empty without rows."""
    if not content.rows:
        return ""
    rows = [[_cell(entry) for entry in row] for row in content.rows]
    left = sum(not head.number for head in content.heads)
    lines = table([escape(head.title) for head in content.heads], rows, left)
    return page([lines, bullets([escape(note) for note in content.notes])]).rstrip()


def _cell(entry: Entry) -> str:
    text = code(entry.text) if entry.code else escape(entry.text)
    return f"{text} {escape(entry.more)}" if entry.more else text


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def folded(title: str, content: str) -> str:
    """Markdown that a reader opens; the empty lines make forges render what is inside."""
    return f"<details>\n<summary>{escape(title)}</summary>\n\n{content.strip()}\n\n</details>"


def page(parts: Sequence[str]) -> str:
    """Parts with an empty line between them; empty parts are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"
