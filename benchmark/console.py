"""Tables for terminals of any width: where one is too narrow, what matters least is left out and named, never the names
of rows or their first figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table
from rich.text import Text

GAP = 2  # columns that a column of a table takes beside its cells
WIDE = 200  # columns in a pipe or a file


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


@dataclass(frozen=True)
class Heading:
    """A column. `rank` 0 is never left out; of the others the highest goes first. Cells break into lines of no less
    than `least` columns; 0: never."""

    title: str
    rank: int = 0
    least: int = 0
    number: bool = True


@dataclass
class Sheet:
    """Rows below headings, fitted to the width at which they are printed. Cells are plain text: no markup."""

    headings: Sequence[Heading]
    title: str = ""
    caption: str = ""
    rows: list[tuple[Sequence[str], str]] = field(default_factory=list)  # cells, style

    def add(self, cells: Sequence[str], style: str = "") -> None:
        self.rows.append((cells, style))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.headings)))
        while sum(self._least(index) + GAP for index in kept) > options.max_width:
            losable = [index for index in kept if self.headings[index].rank]
            if not losable:
                break
            kept.remove(max(losable, key=lambda index: (self.headings[index].rank, index)))
        yield self._table(kept, options.max_width)

    def _whole(self, index: int) -> int:
        """The width of a column whose cells are not broken."""
        cells = [self.headings[index].title, *(cells[index] for cells, _ in self.rows)]
        return max(cell_len(line) for cell in cells for line in (cell.splitlines() or [""]))

    def _least(self, index: int) -> int:
        return min(self._whole(index), self.headings[index].least or self._whole(index))

    def _table(self, kept: Sequence[int], width: int) -> Table:
        left_out = [heading.title for index, heading in enumerate(self.headings) if index not in kept]
        notes = [f"too narrow for: {', '.join(left_out)}"] if left_out else []
        caption = "\n".join(filter(None, [self.caption, *notes]))
        table = Table(
            title=Text(self.title, "bold") if self.title else None,
            title_justify="left",
            caption=Text(caption) if caption else None,
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            collapse_padding=True,
            pad_edge=False,
        )
        spare = max(0, width - sum(self._least(index) + GAP for index in kept))
        for index in kept:
            more = min(spare, self._whole(index) - self._least(index))
            spare -= more
            justify: JustifyMethod = "right" if self.headings[index].number else "left"
            table.add_column(
                Text(self.headings[index].title), justify=justify, overflow="fold", width=self._least(index) + more
            )
        for cells, style in self.rows:
            table.add_row(*(Text(cells[index]) for index in kept), style=style)
        return table
