"""Markdown from strings that others wrote: a name or a reason can break neither a table nor the page."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from urllib.parse import quote

from benchmark.tables import Entry, Table

#: What Markdown may read as markup; an interval such as [0.89, 1.61] is none.
_SPECIAL = re.compile(r"(\[[-+\d., %]+\](?![\[(:]))|[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


class Markdown(str):
    """What is Markdown already: templates do not escape it again."""

    __slots__ = ()


def escape(text: object) -> Markdown:
    """One line that shows `text` as it is, wherever it stands: in a table, a list or a sentence."""
    line = " ".join(str(text).split())
    line = _SPECIAL.sub(lambda found: found[1] or "\\" + found[0], line)
    return Markdown(re.sub("[&<>]", lambda found: _HTML[found[0]], line))


def escaped(value: object) -> Markdown:
    """For templates: whatever an expression gives, escaped unless it is Markdown."""
    return value if isinstance(value, Markdown) else escape(value)


def code(text: object) -> Markdown:
    """A code span. Backticks, which would end it, become apostrophes."""
    return Markdown("`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`")


def spans(text: str) -> Markdown:
    """A sentence whose words between backticks are code."""
    parts = text.split("`")
    return Markdown("".join(code(part) if index % 2 else _inner(part) for index, part in enumerate(parts)))


def _inner(part: str) -> str:
    """A part of a line: the spaces at its ends are kept."""
    start, end = (" " if part[:1].isspace() else ""), (" " if part[-1:].isspace() and part.strip() else "")
    return f"{start}{escape(part)}{end}"


def link(text: str, target: PurePath) -> Markdown:
    return Markdown(f"[{escape(text)}]({quote(target.as_posix())})")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[bool]) -> Markdown:
    """A table of cells that are escaped already; `numbers` says which columns stand to the right."""
    rule = ["---:" if number else "---" for number in numbers]
    return Markdown("\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)))


def rendered(content: Table, place: Callable[[Path], PurePath] = PurePath) -> Markdown:
    """A table with its notes; `place` is where a file lies as seen from the page. Only the notes where it is empty."""
    rows = [[_cell(entry, place) for entry in row] for row in content.rows]
    rows += [[f"*{cell}*" if entry.head else cell for entry, cell in _cells(row, place)] for row in content.below]
    heads = [escape(head.title) for head in content.heads]
    shown = table(heads, rows, [head.number for head in content.heads]) if rows else ""
    notes = "\n".join(f"- {escape(note)}" for note in content.notes)
    return Markdown("\n\n".join(part for part in (shown, notes) if part))


def _cells(row: Sequence[Entry], place: Callable[[Path], PurePath]) -> list[tuple[Entry, str]]:
    return [(entry, _cell(entry, place)) for entry in row]


def _cell(entry: Entry, place: Callable[[Path], PurePath]) -> str:
    text: str = code(entry.text) if entry.code else escape(entry.text)
    if entry.file is not None:
        text = link(entry.text, place(entry.file))
    return f"{text} {escape(entry.more)}" if entry.more else text


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def page(parts: Sequence[str]) -> str:
    """Parts with an empty line between them; empty parts are left out."""
    return "\n\n".join(part for part in parts if part) + "\n"


def tidy(text: str) -> str:
    """A page without the empty lines that a template leaves."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
