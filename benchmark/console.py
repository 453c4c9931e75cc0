"""Tables for terminals of any width: where one is too narrow, what matters least is left out and named, never the names
of rows or their first figure."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, JustifyMethod, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from benchmark.tables import Table, Tone

GAP = 2  # columns that a column of a table takes beside its cells
WIDE = 200  # columns in a pipe or a file
_STYLES: dict[Tone | None, str] = {"bad": "bold red", "unsure": "yellow"}


def console() -> Console:
    """Standard output: as wide as the terminal, or wide enough for every table."""
    return Console(width=None if sys.stdout.isatty() else WIDE)


def progress_console() -> Console:
    """Standard error, where bars do not mix with results; in a pipe or a file they are not drawn."""
    return Console(stderr=True)


def show(table: Table) -> None:
    """Print a table."""
    console().print(Sheet(table))


@dataclass(frozen=True)
class Sheet:
    """A table, fitted to the width at which it is printed. Cells are plain text: no markup."""

    content: Table

    @property
    def _lines(self) -> list[tuple[list[str], str]]:
        """The cells of each row, and their style."""
        table = self.content
        ranked = [(row, _STYLES.get(table.tones.get(index), "")) for index, row in enumerate(table.rows)]
        lines = [*ranked, *((row, "dim") for row in table.below)]
        return [([f"{entry.text} {entry.more}".rstrip() for entry in row], style) for row, style in lines]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        kept = list(range(len(self.content.heads)))
        while sum(self._least(index) + GAP for index in kept) > options.max_width:
            losable = [index for index in kept if self.content.heads[index].rank]
            if not losable:
                break
            kept.remove(max(losable, key=lambda index: (self.content.heads[index].rank, index)))
        yield self._table(kept, options.max_width)

    def _whole(self, index: int) -> int:
        """The width of a column whose cells are not broken."""
        cells = [self.content.heads[index].title, *(cells[index] for cells, _ in self._lines)]
        return max(cell_len(line) for cell in cells for line in (cell.splitlines() or [""]))

    def _least(self, index: int) -> int:
        return min(self._whole(index), self.content.heads[index].least or self._whole(index))

    def _table(self, kept: Sequence[int], width: int) -> RichTable:
        left_out = [heading.title for index, heading in enumerate(self.content.heads) if index not in kept]
        notes = [f"too narrow for: {', '.join(left_out)}"] if left_out else []
        caption = "\n".join(filter(None, [*self.content.notes, *notes]))
        table = RichTable(
            title=Text(self.content.caption, "bold") if self.content.caption else None,
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
            justify: JustifyMethod = "right" if self.content.heads[index].number else "left"
            table.add_column(
                Text(self.content.heads[index].title), justify=justify, overflow="fold", width=self._least(index) + more
            )
        for cells, style in self._lines:
            table.add_row(*(Text(cells[index]) for index in kept), style=style)
        return table
