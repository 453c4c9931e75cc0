"""Everything that pages show, dataset by dataset: one is in memory at a time, and what is known of it is remembered."""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from benchmark.config import config_folders, tuned_identity
from benchmark.facts import as_read
from benchmark.leaderboard.choosing import Advice, said_of
from benchmark.leaderboard.columns import value_of
from benchmark.leaderboard.dataset import Dataset, by_data, colours_of
from benchmark.leaderboard.published import Published, read_published
from benchmark.leaderboard.recounted import read_recounted, recount
from benchmark.leaderboard.rows import Current
from benchmark.leaderboard.store import Packed, Store, digest, stamp
from benchmark.leaderboard.views.board import Board, board_of
from benchmark.leaderboard.views.collapse import Collapse, collapse_of
from benchmark.leaderboard.views.exports import record_lines, row_lines
from benchmark.leaderboard.views.front import Summary, summary_of
from benchmark.leaderboard.views.model import ModelOnData, models_of
from benchmark.leaderboard.views.studies import Studies, studies_of
from benchmark.record import Record, checked_record, record_files
from benchmark.spec import BadInput
from benchmark.sweep.space import DesignName
from benchmark.sweep.studies import Study, read_study

_Found = TypeVar("_Found")

Models = Sequence[Mapping[str, Any]]  # the catalogue's entries: name, family, capabilities, paper


@dataclass(frozen=True)
class Views:
    """All that pages show of one dataset; `problems` name files that could not be read."""

    data: str
    board: Packed[Board]
    summary: Summary
    models: Mapping[str, ModelOnData]
    studies: Packed[Studies] | None
    collapse: Packed[Collapse] | None  # studies of remedies
    said: Sequence[Advice]
    records: Packed[Sequence[Mapping[str, Any]]]  # lines of records.csv
    rows: Packed[Sequence[Mapping[str, Any]]]  # of rows.json
    problems: Sequence[str]
    made_of: str = ""  # what is different if anything above is; empty where it is not known


def views_of(dataset: Dataset, models: Models, store: Store) -> Views:
    studies = store.remember("studies", _what_studies_show(dataset), lambda: studies_of(dataset))
    collapse = collapse_of(dataset)
    studied = {model.model: model for model in studies.models} if studies else {}
    return Views(
        dataset.name,
        Packed.of(board_of(dataset)),
        summary_of(dataset),
        models_of(dataset, studied),
        Packed.of(studies) if studies is not None else None,
        Packed.of(collapse) if collapse is not None else None,
        said_of(dataset, models),
        Packed.of(list(record_lines(dataset))),
        Packed.of(list(row_lines(dataset))),
        dataset.problems,
    )


def _what_studies_show(dataset: Dataset) -> str:
    """Of everything that decides it: most records do not."""
    pages = sorted({run.record.model for run in dataset.runs})
    board = [
        (row.name, row.budget, [value_of(run.record.scores.get("selection")) for run in row.scored])
        for row in dataset.rows
    ]
    return digest(dataset.name, dataset.studies, dataset.starts, pages, board, dataset.colours)


def all_views(
    records: Mapping[Path, Record],
    models: Models = (),
    current: Current | None = None,
    figures: Sequence[Published] = (),
    studies: Sequence[Study] = (),
) -> list[Views]:
    """Of records that are in memory already."""
    families = [str(model["family"]) for model in models if "family" in model]
    colours = colours_of(
        [*families, *(record.family for record in records.values()), *(s.header.family for s in studies)]
    )
    by_name = _with_studies(by_data(records), studies)
    return [
        views_of(
            Dataset(
                data,
                by_name[data],
                current,
                [figure for figure in figures if figure.data == data],
                [study for study in studies if study.header.data == data],
                colours,
            ),
            models,
            Store(),
        )
        for data in as_read(by_name)
    ]


def _with_studies(
    records: Mapping[str, Mapping[Path, Record]], studies: Sequence[Study]
) -> dict[str, Mapping[Path, Record]]:
    """Data that was studied alone has no records."""
    return {study.header.data: {} for study in studies} | dict(records)


@dataclass(frozen=True)
class _About:
    """What a record says of itself, as far as it decides where it belongs."""

    data: str
    model: str
    family: str
    budget: str
    identity: str


class Library:
    """Records in folders: the first is the committed one, where the tuned configurations count; of one's own, in the
    others, everything counts. Beside the first lie studies and figures that were counted anew.

    What is malformed is left out and named in `problems`.
    """

    def __init__(
        self, folders: Sequence[Path], published: Path | None, models: Models, store: Store, problems: list[str]
    ) -> None:
        self.models, self.store, self.problems = models, store, problems
        home = folders[0].parent
        self._recounted = home / "recounted.json"
        self._published = published
        self._about: dict[Path, _About] = {}
        self._stamps: dict[str, str] = {}
        self._own = {file for folder in folders[1:] for file in record_files(folder)}
        for files in _by_folder([*record_files(folders[0]), *sorted(self._own)]):
            self._about |= self._remembered("records", _about, files)
        self._studies: dict[str, list[Path]] = defaultdict(list)
        self._designs: set[DesignName] = set()
        families = {about.family for about in self._about.values()}
        for files in _by_folder(sorted((home / "studies").rglob("*.jsonl"))):
            for file, (data, family, design) in self._remembered("studies", _about_study, files).items():
                self._studies[data].append(file)
                self._designs.add(design)
                families.add(family)
        self.colours = colours_of([*families, *(str(model["family"]) for model in models)])
        self._files: dict[str, list[Path]] = defaultdict(list)
        for file, about in self._about.items():
            self._files[about.data].append(file)

    @cached_property
    def _configured(self) -> str:
        """Of all that configurations say."""
        found = [file for folder in config_folders() for file in sorted(folder.rglob("*.yaml"))]
        return digest([(file.name, file.parent.name, file.read_bytes()) for file in found])

    @property
    def datasets(self) -> list[str]:
        """Those with a record or a study."""
        return as_read({*self._files, *self._studies})

    @property
    def of_studies(self) -> list[str]:
        """The pages that studies make."""
        return pages_of_studies(self._designs)

    def records(self, data: str) -> dict[Path, Record]:
        """Those of one dataset; costs are counted as they are today."""
        found = {file: checked_record(file) for file in self._files[data]}
        return recount(found, read_recounted(self._recounted))

    def figures(self, data: str) -> list[Published]:
        """What papers report."""
        figures = read_published(self._published) if self._published else ()
        return [figure for figure in figures if figure.data == data]

    def views(self, data: str) -> Views:
        """What pages show of one dataset."""
        current = self.current(data)
        counting = sorted((setting, sorted(identities)) for setting, identities in current.items())
        made_of = digest(self.stamp(data), counting, self.colours, self.models)
        found = self.store.remember("views", made_of, lambda: self._views(data, current))
        self.problems += found.problems
        return replace(found, made_of=made_of)

    def stamp(self, data: str) -> str:
        """Of all files that decide what is said of a dataset: records and what lies beside them, studies, figures."""
        if data not in self._stamps:
            self._stamps[data] = self._stamp(data)
        return self._stamps[data]

    def _stamp(self, data: str) -> str:
        folders = sorted({file.parent for file in self._files[data]})
        beside = [file for folder in folders for file in sorted(folder.iterdir()) if file.is_file()]
        others = [self._recounted, *([self._published] if self._published else [])]
        return stamp([*beside, *self._studies[data], *others])

    def current(self, data: str) -> dict[tuple[str, str, str], set[str]]:
        """The identities that count: the tuned ones of today, and all of one's own."""
        found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        for file in self._files[data]:
            about = self._about[file]
            setting = about.data, about.model, about.budget
            if file in self._own:
                found[setting].add(about.identity)
            elif setting not in found:
                made_of = digest(self._configured, setting)
                tuned = self.store.remember("tuned", made_of, partial(tuned_identity, *setting))
                found[setting] |= {tuned} if tuned is not None else set()
        return {setting: identities for setting, identities in found.items() if identities}

    def _views(self, data: str, current: Current) -> Views:
        studies = [read_study(file) for file in self._studies[data]]
        dataset = Dataset(data, self.records(data), current, self.figures(data), studies, self.colours)
        found = views_of(dataset, self.models, self.store)
        del dataset, studies
        gc.collect()  # a dataset's records and rows know each other
        return found

    def _remembered(self, what: str, read: Callable[[Path], _Found], files: Sequence[Path]) -> dict[Path, _Found]:
        """What `read` finds in the files of one folder, without those that are malformed."""

        def all_of_them() -> tuple[dict[Path, _Found], list[str]]:
            found, problems = {}, []
            for file in files:
                try:
                    found[file] = read(file)
                except BadInput as error:
                    problems.append(str(error))
            return found, problems

        found, problems = self.store.remember(what, stamp(files), all_of_them)
        self.problems += problems
        return found

    def __iter__(self) -> Iterator[Views]:
        return map(self.views, self.datasets)


def _about(file: Path) -> _About:
    record = checked_record(file)
    return _About(record.data, record.model, record.family, record.budget, record.identity)


def _about_study(file: Path) -> tuple[str, str, DesignName]:
    """Its dataset, family and design."""
    header = read_study(file).header
    return header.data, header.family, header.design


def pages_of_studies(designs: Collection[DesignName]) -> list[str]:
    """The pages that studies of these designs make."""
    others = [design for design in designs if design not in ("remedies", "confirm")]
    return [*(["studies"] if others else []), *(["mode_collapse"] if "remedies" in designs else [])]


def _by_folder(files: Sequence[Path]) -> list[list[Path]]:
    found: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        found[file.parent].append(file)
    return list(found.values())
