"""What stands in a page's tables, as plain values: templates escape every one of them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup, escape


@dataclass(frozen=True)
class Head:
    """A column. `filter` gives it a list to choose from."""

    title: str
    number: bool = False
    filter: bool = False
    wide: bool = False  # sentences, which break into lines


@dataclass(frozen=True)
class Entry:
    """A cell: `sort` is the number behind a text, `href` a page or a file of ours, `colour` that of a family."""

    text: str
    sort: float | None = None
    href: str | None = None
    colour: int | None = None
    code: bool = False
    head: bool = False  # names the row
    more: str = ""  # follows the text, less loud


@dataclass(frozen=True)
class Table:
    """`below` are rows that are never ranked, sorted or filtered away: baselines and floors."""

    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Entry]]
    below: Sequence[Sequence[Entry]] = ()
    notes: Sequence[str] = ()
    titled: bool = True  # whether the caption is shown: a heading of the page may say it already


def dressed(content: Table, pages: Mapping[str, str], colours: Mapping[str, int]) -> Table:
    """The table with models' names as links to their `pages`, and with the `colours` of families."""
    family = next((index for index, head in enumerate(content.heads) if head.title == "family"), None)
    rows = []
    for name, *others in content.rows:
        row = [replace(name, href=pages.get(name.text)), *others]
        if family is not None:
            row[family] = replace(row[family], colour=colours.get(row[family].text))
        rows.append(row)
    return replace(content, rows=rows)


@dataclass(frozen=True)
class Matrix:
    """The probability that row i beats column j, for i < j and where the two can be compared."""

    caption: str
    names: Sequence[str]
    above: Mapping[tuple[int, int], float]

    def __call__(self, row: int, column: int) -> float | None:
        """Of any two; a row against itself has none."""
        if (column, row) in self.above:
            return 1.0 - self.above[column, row]
        return self.above.get((row, column))


_LINK = re.compile(r"https?://[^\s<>\"'()]+|\b(?:doi:10\.\d{4,9}/[^\s,;]+|arXiv:\d{4}\.\d{4,5})")
_RESOLVERS = {"doi:": "https://doi.org/", "arXiv:": "https://arxiv.org/abs/"}


def linked(text: str) -> Markup:
    """The text with its web addresses, DOIs and arXiv numbers as links; anything else, markup too, as it reads."""
    parts, end = [], 0
    for found in _LINK.finditer(text):
        name = found[0].rstrip(".,;:")
        target = name
        for prefix, resolver in _RESOLVERS.items():
            if name.startswith(prefix):
                target = resolver + name.removeprefix(prefix)
        parts += [
            escape(text[end : found.start()]),
            Markup('<a href="{}" rel="noopener noreferrer">{}</a>').format(target, name),
        ]
        end = found.start() + len(name)
    return Markup("").join([*parts, escape(text[end:])])
