"""What the first pages show of a dataset: who leads, all its results, samples of every family, quality against cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmark.leaderboard.columns import COST
from benchmark.leaderboard.dataset import Dataset, Group, place_cell, seeds_cell, value_cells
from benchmark.leaderboard.plots import Pareto
from benchmark.leaderboard.rows import Row
from benchmark.leaderboard.store import stamp
from benchmark.leaderboard.texts import cell_text, marked, words
from benchmark.leaderboard.views.figures import cost_plot
from benchmark.tables import Entry

_PARAMETERS, _FLOPS, _ = COST


@dataclass(frozen=True, slots=True)
class Leader:
    """Who is first in the largest ranking of a quality, and with what."""

    quality: str
    names: tuple[str, ...]
    value: str


@dataclass(frozen=True, slots=True)
class Sampled:
    """The row of a family whose samples are shown, and the run that drew them; `kept` is its files as they lie."""

    family: str
    row: str
    page: str
    colour: int
    record: Path
    kept: str


@dataclass(frozen=True, slots=True)
class Summary:
    """A dataset in short. `first` says who leads in likelihood under each budget, `counts` how many runs there are."""

    data: str
    modality: str
    rows: int
    runs: int
    first: str
    counts: str
    leaders: tuple[Leader, ...]
    published: int
    results: tuple[tuple[Entry, ...], ...]
    costs: tuple[Pareto, ...]
    samples: tuple[Sampled, ...]
    families: tuple[str, ...]


def summary_of(dataset: Dataset) -> Summary:
    groups, rows = dataset.groups, dataset.rows
    largest = groups[0] if groups else None
    configs = [run.record.config for run in dataset.runs] + [study.header.config for study in dataset.studies]
    families = {run.record.family for run in dataset.runs} | {study.header.family for study in dataset.studies}
    return Summary(
        dataset.name,
        str(configs[0].get("data", {}).get("modality", "—")),
        len(rows),
        sum(len(row.runs) for row in rows),
        "; ".join(found for group in groups if (found := _first(dataset, group))) or "—",
        _counts(dataset),
        tuple(_leaders(dataset, largest)) if largest else (),
        sum(len(of.figures) for of in dataset.figures),
        tuple(_results(dataset)),
        tuple(_costs(dataset, largest)) if largest else (),
        tuple(_samples(dataset, largest)) if largest else (),
        tuple(sorted(families)),
    )


def _first(dataset: Dataset, group: Group) -> str:
    """`standard: vae, 1.844 ± 0.010 bits/dim, shared with gpt`."""
    for ranking in dataset.rankings(group, group.columns.likelihood)[:1]:
        first, *others = [entry for entry in ranking.entries if entry.rank == 1]
        value = f"{cell_text(first.cell, ranking.column)} {ranking.column.title}"
        shared = f", shared with {', '.join(entry.row.name for entry in others)}" if others else ""
        return f"{group.budget}: {first.row.name}, {value}{shared}"
    return ""


def _counts(dataset: Dataset) -> str:
    """`12, of which 1 diverged`."""
    statuses = Counter[str](run.record.status for row in dataset.rows for run in (*row.runs, *row.failed))
    total = statuses.total()
    del statuses["finished"]
    statuses += Counter({"impossible": sum(len(row.impossible) for row in dataset.rows)})
    others = ", ".join(f"{n} {status}" for status, n in sorted(statuses.items()))
    return f"{total}, of which {others}" if others else str(total)


def _leaders(dataset: Dataset, group: Group) -> Iterator[Leader]:
    for quality in group.columns.leading:
        for ranking in dataset.rankings(group, quality)[:1]:
            first = [entry for entry in ranking.entries if entry.rank == 1]
            names = tuple(entry.row.name for entry in first)
            yield Leader(quality.title, names, cell_text(first[0].cell, quality))


def _results(dataset: Dataset) -> Iterator[tuple[Entry, ...]]:
    """A line for each place in each ranking; `pages.RESULTS` are its heads."""
    for group in dataset.groups:
        for quality in group.columns.leading:
            for ranking in dataset.rankings(group, quality):
                for entry in ranking.entries:
                    yield (
                        Entry(marked(entry.row), page=dataset.page_of(entry.row), head=True),
                        Entry(group.data, page=f"data/{group.data}.html"),
                        Entry(quality.title),
                        *value_cells(entry, quality),
                        place_cell(entry),
                        seeds_cell(entry.row, entry.runs),
                        dataset.family_cell(entry.row),
                        Entry(group.budget, sort=group.minutes),
                        *dataset.cost_cells(entry.runs, (_PARAMETERS, _FLOPS)),
                        Entry(words(ranking.protocol)),
                    )


def _costs(dataset: Dataset, group: Group) -> Iterator[Pareto]:
    """Each quality against the FLOPs of training."""
    for quality in group.columns.leading:
        for ranking in dataset.rankings(group, quality)[:1]:
            if (plot := cost_plot(dataset, group, ranking, _FLOPS)) is not None:
                yield plot


def _samples(dataset: Dataset, group: Group) -> Iterator[Sampled]:
    """Of each family the row that is best in samples, or in likelihood if no score of samples ranks it."""
    order: list[Row] = []
    for quality in reversed(group.columns.leading):
        for ranking in dataset.rankings(group, quality)[:1]:
            order += [entry.row for entry in ranking.entries]
    best: dict[str, Row] = {}
    for row in order:
        best.setdefault(row.family, row)
    for family, row in sorted(best.items()):
        for run in row.scored:
            files = [run.path.with_suffix(suffix) for suffix in (".png", ".txt")]
            if any(file.is_file() for file in files):
                colour = dataset.colours.get(family, 0)
                yield Sampled(family, marked(row), dataset.page_of(row), colour, run.path, stamp(files))
                break
