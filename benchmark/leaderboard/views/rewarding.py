"""Rows that were tuned to please a reward: what they earn against how far they went for it, and what it cost them."""

from __future__ import annotations

from collections.abc import Iterator

from benchmark.leaderboard.columns import Column, column, value_of
from benchmark.leaderboard.dataset import Dataset, Group, seeds_cell
from benchmark.leaderboard.plots import Against, Spot
from benchmark.leaderboard.rows import Run
from benchmark.leaderboard.texts import words
from benchmark.tables import Entry, Head, Table

#: Beside the reward: how far, from where, and what real text earns; then what is lost.
BESIDE = ("kl_before", "reward_before", "reward_of_text", "nats_per_token", "distinct_words", "overlap")
#: What is drawn as a line in the figure.
KNOWN = {"before tuning": "reward_before", "held-out text": "reward_of_text"}


def rewarded(dataset: Dataset, group: Group) -> Iterator[tuple[str, Table, Against]]:
    """A table and a figure for each reward, with its name, and for each protocol; nothing where no row has one."""
    reward, divergence, beside = column("mean_reward"), column("kl_before"), [column(name) for name in BESIDE]
    for ranking in dataset.rankings(group, reward):
        name = str(ranking.protocol["reward"])
        heads = [
            Head("model"),
            *(Head(one.title, number=True) for one in (reward, *beside)),
            Head("seeds", number=True),
        ]
        lines: list[list[Entry]] = []
        spots: list[Spot] = []
        for entry in ranking.entries:
            row, runs = entry.row, entry.runs
            cells = dataset.score_cells(runs, [reward, *beside])
            lines.append([Entry(row.name, page=dataset.page_of(row), head=True), *cells, seeds_cell(row, runs)])
            if pairs := _pairs(runs, divergence, reward):
                x, y = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
                spots.append(Spot(row.name, x, y, pairs))
        runs = tuple(run for entry in ranking.entries for run in entry.runs)
        floors = {what: _mean(values) for what, of in KNOWN.items() if (values := dataset.values(runs, column(of)))}
        title = f"Reward ({name}) against KL, {group.data}, {group.budget}"
        colour = dataset.colours.get(ranking.entries[0].row.family, 0)
        table = Table(f"Tuned to please a reward: {words(ranking.protocol)}", heads, lines)
        yield name, table, Against(title, divergence.title, reward.title, colour, spots, floors)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _pairs(runs: tuple[Run, ...], first: Column, second: Column) -> list[tuple[float, float]]:
    """Both scores of each run that has both."""
    found = [(value_of(first.score(run.record)), value_of(second.score(run.record))) for run in runs]
    return [(x, y) for x, y in found if x is not None and y is not None]
