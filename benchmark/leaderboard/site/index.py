"""The site's first page: all results in one table, each dataset in a card, all models."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmark.leaderboard.columns import COST
from benchmark.leaderboard.site.cells import place_cell, seeds_cell, value_cells
from benchmark.leaderboard.site.contents import Contents, Group
from benchmark.leaderboard.site.tables import Entry, Head, Table
from benchmark.leaderboard.texts import cell_text, marked, words


def index_page(contents: Contents) -> dict[str, Any]:
    costs = COST[:2]
    heads = [Head("model"), Head("dataset", filter=True), Head("quantity", filter=True)]
    heads += [Head(title, number=True) for title in ("value", "s.e.", "rank", "seeds")]
    heads += [Head("family", filter=True), Head("budget", filter=True)]
    heads += [*(Head(column.title, number=True) for column in costs), Head("protocol", filter=True)]
    lines = [
        [
            Entry(marked(entry.row), href=contents.row_page(group, entry.row, ""), head=True),
            Entry(group.data, href=f"data/{group.data}.html"),
            Entry(quality.title),
            *value_cells(entry, quality),
            place_cell(entry),
            seeds_cell(entry.row, entry.runs),
            contents.family_cell(entry.row),
            Entry(group.budget, sort=group.minutes),
            *contents.cost_cells(entry.runs, costs),
            Entry(words(ranking.protocol)),
        ]
        for group in contents.groups
        for quality in group.columns.leading
        for ranking in contents.judge.rankings(group.rows, quality)
        for entry in ranking.entries
    ]
    return {
        "results": Table("All results", heads, lines, titled=False),
        "cards": [_card(contents, data) for data in contents.datasets if contents.groups_of(data)],
        "models": _models_table(contents),
    }


def _card(contents: Contents, data: str) -> dict[str, Any]:
    """A dataset that has rows, in short."""
    groups = contents.groups_of(data)
    return {
        "name": data,
        "modality": groups[0].columns.kind.name,
        "rows": sum(len(group.rows) for group in groups),
        "runs": sum(len(row.runs) for group in groups for row in group.rows),
        "leaders": list(_leaders(contents, groups[0])),
        "published": sum(len(of.figures) for of in contents.figures if of.data == data),
    }


def _leaders(contents: Contents, group: Group) -> Iterator[tuple[str, str, str]]:
    """What is measured, who is first in its largest ranking, and with what."""
    for quality in group.columns.leading:
        for ranking in contents.judge.rankings(group.rows, quality)[:1]:
            first = [entry for entry in ranking.entries if entry.rank == 1]
            yield quality.title, ", ".join(e.row.name for e in first), cell_text(first[0].cell, quality)


def _models_table(contents: Contents) -> Table:
    lines = []
    for name in contents.models:
        card = contents.catalogue.get(name)
        shown = sorted({group.data for group, _ in contents.rows_of(name)})
        family = contents.family_of(name)
        promises = ", ".join(card["capabilities"]) if card else ""
        lines.append(
            [
                Entry(name, href=f"model/{name}.html", head=True),
                Entry(family, colour=contents.colours[family]),
                Entry(promises or "samples only" if card else "not in the catalogue"),
                Entry(", ".join(shown) or "—"),
            ]
        )
    heads = [Head("model"), Head("family", filter=True), Head("promises"), Head("on the board for")]
    return Table("Models", heads, lines, titled=False)
