"""One table for every page and terminal: what stands in it, as plain values.

`markdown.rendered` writes it for a forge, `console.Sheet` for a terminal, a template's macro `table` as HTML: each
escapes every text in its own way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

Tone = Literal["bad", "unsure"]


@dataclass(frozen=True, slots=True)
class Head:
    """A column. `filter` gives it a list to choose from.

    Where a terminal is too narrow, the column of the highest `rank` is left out first, one of rank 0 never; cells break
    into lines of no less than `least` characters, 0: never.
    """

    title: str
    number: bool = False
    filter: bool = False
    wide: bool = False  # sentences, which break into lines
    rank: int = 0
    least: int = 0


class Entry(NamedTuple):
    """A cell: `sort` is the number behind a text, `colour` that of a family.

    `page` is a page of the site, below its folder; `file` a file of ours, which every page links from where it stands.
    A tuple, since pages hold hundreds of thousands: it is read from a file ten times as fast as a dataclass.
    """

    text: str
    sort: float | None = None
    page: str | None = None
    file: Path | None = None
    colour: int | None = None
    code: bool = False
    head: bool = False  # names the row
    more: str = ""  # follows the text, less loud


@dataclass(frozen=True, slots=True)
class Table:
    """`below` are rows that are never ranked, sorted or filtered away: baselines and floors."""

    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Entry]]
    below: Sequence[Sequence[Entry]] = ()
    notes: Sequence[str] = ()
    titled: bool = True  # whether the caption is shown: a heading of the page may say it already
    tones: Mapping[int, Tone] = field(default_factory=dict)  # of rows, by number: how a terminal colours them


DASH = Entry("—")


def entries(cells: Sequence[str]) -> list[Entry]:
    """A row of plain texts."""
    return [Entry(cell) for cell in cells]


def dressed(content: Table, pages: Mapping[str, str], colours: Mapping[str, int]) -> Table:
    """The table with models' names as links to their `pages`, and with the `colours` of families."""
    family = next((index for index, head in enumerate(content.heads) if head.title == "family"), None)
    rows = []
    for name, *others in content.rows:
        row = [name._replace(page=pages.get(name.text)), *others]
        if family is not None:
            row[family] = row[family]._replace(colour=colours.get(row[family].text))
        rows.append(row)
    return replace(content, rows=rows)


@dataclass(frozen=True, slots=True)
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
