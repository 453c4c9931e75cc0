"""Views to pages: Markdown for a forge, HTML for the site, from two sets of templates. The same records always give the
same bytes: nothing here depends on when or where it runs."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

import jinja2
from markupsafe import Markup

from benchmark.leaderboard import markdown
from benchmark.leaderboard.choosing import advice
from benchmark.leaderboard.columns import COST
from benchmark.leaderboard.dataset import check_page_name, colours_of
from benchmark.leaderboard.html import linked, spans
from benchmark.leaderboard.library import Models, Views, all_views, pages_of_studies
from benchmark.leaderboard.plots import Curves, Plot, drawn, standalone, themed
from benchmark.leaderboard.published import read_published
from benchmark.leaderboard.rows import Current
from benchmark.leaderboard.store import Packed, Store, digest, fingerprint
from benchmark.leaderboard.views.board import Board
from benchmark.leaderboard.views.collapse import Collapse, sentences
from benchmark.leaderboard.views.exports import as_csv, as_json
from benchmark.leaderboard.views.front import Sampled
from benchmark.leaderboard.views.model import Section
from benchmark.leaderboard.views.studies import Studies
from benchmark.record import Record
from benchmark.spec import CAPABILITIES, BadInput
from benchmark.sweep.studies import Study
from benchmark.tables import Entry, Head, Table, dressed
from benchmark.traces import PICTURES, last_moment, pictures_beside, read_curves, read_picture, read_text

_Content = TypeVar("_Content")

_RESULTS = (
    *(Head("model"), Head("dataset", filter=True), Head("quantity", filter=True)),
    *(Head(title, number=True) for title in ("value", "s.e.", "rank", "seeds")),
    *(Head("family", filter=True), Head("budget", filter=True)),
    *(Head(column.title, number=True) for column in COST[:2]),
    Head("protocol", filter=True),
)
_MODELS = (Head("model"), Head("family", filter=True), Head("promises"), Head("on the board for"))
_IN_FULL = {
    "sensitivity.md": "Which hyperparameters matter, in full",
    "stability.md": "Which models are stable, in full",
}


def boards(
    records: Mapping[Path, Record],
    current: Current | None = None,
    published: Path | None = None,
    home: Path = Path("leaderboards"),
    models: Models = (),
    studies: Sequence[Study] = (),
    problems: list[str] | None = None,
) -> dict[str, str]:
    """The Markdown pages of records in memory, file name → text: one a dataset, and what else `Boards` makes.

    `current` maps (data, model, budget) to the identity of the tuned configuration, or of several, each of whose
    runs make a row; `None` takes every configuration as it is. `published` is the file of reported figures. `home` is
    the folder of the pages: links to records are relative to it. `models` are the catalogue's entries, `studies` the
    committed ones. A file beside a record that cannot be read is left out and named in `problems`. Raises `BadInput`
    where references or `published` are malformed, and without `problems` for such a file.
    """
    figures = read_published(published) if published is not None else ()
    views = all_views(records, models, current, figures, studies)
    _name([problem for one in views for problem in one.problems], problems)
    return dict(Boards(home).pages(views, models))


def _name(found: Sequence[str], problems: list[str] | None) -> None:
    """Files that could not be read are named, or raised where there is no one to tell."""
    if problems is not None:
        problems += found
    elif found:
        raise BadInput(found[0])


class Boards:
    """The Markdown pages below `home`."""

    def __init__(self, home: Path, store: Store | None = None) -> None:
        self.home, self.store = home, store or Store()
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("benchmark.leaderboard", "templates/markdown"),
            finalize=markdown.escaped,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {
            "table": partial(markdown.rendered, place=self._place),
            "code": markdown.code,
            "spans": markdown.spans,
            "page": lambda file, text: markdown.link(text, PurePosixPath(file)),
            "link": lambda file, text: markdown.link(text, self._place(file)),
        }

    def pages(self, views: Iterable[Views], models: Models) -> Iterator[tuple[str, str]]:
        """File name below `home` → text, dataset by dataset, then those on all of them."""
        seen: list[Views] = []
        for one in views:
            made_of = one.made_of and digest(str(self.home), one.made_of)
            yield from self.store.remember("board", made_of, partial(self._of_dataset, one))
            seen.append(one)
        if not seen:
            return
        collapses = _collapses(seen)
        yield "README.md", self.render("index.md", summaries=[one.summary for one in seen], collapse=bool(collapses))
        yield "choosing.md", self.render("choosing.md", parts=advice([one.said for one in seen], models))
        studies = [one.studies.open() for one in seen if one.studies is not None]
        if studies:
            yield "sensitivity.md", self.render("sensitivity.md", studies=studies, picture=picture_name)
            yield "stability.md", self.render("stability.md", studies=studies, picture=picture_name)
        if collapses:
            yield (
                "mode_collapse.md",
                self.render("mode_collapse.md", said=sentences(collapses), collapses=collapses, picture=picture_name),
            )
        yield "records.csv", as_csv(line for one in seen for line in one.records.open())
        yield "rows.json", as_json(line for one in seen for line in one.rows.open())

    def _of_dataset(self, views: Views) -> list[tuple[str, str]]:
        board = views.board.open()
        pages = [(f"{views.data}.md", self.render("dataset.md", board=board, picture=picture_name))]
        studies = views.studies.open() if views.studies is not None else None
        collapse = views.collapse.open() if views.collapse is not None else None
        for name, plot in (*_pictures(board, studies), *_of_remedies(collapse)):
            svg = self.store.remember("plot", digest(plot), partial(drawn, plot))
            pages.append((f"pictures/{name}", standalone(svg)))
        return pages

    def render(self, template: str, **content: Any) -> str:
        return markdown.tidy(self.templates.get_template(template).render(**content))

    def _place(self, file: Path) -> PurePosixPath:
        return PurePosixPath(Path(os.path.relpath(file, self.home)).as_posix())


def picture_name(kind: str, data: str, model: str = "") -> str:
    return f"{'-'.join(filter(None, (kind, data, model)))}.svg"


def _pictures(board: Board, studies: Studies | None) -> Iterator[tuple[str, Plot]]:
    """What the Markdown pages show of a dataset: file name below `pictures/` and figure."""
    for budget in board.budgets:
        for one in budget.varied:
            yield picture_name(one.kind, board.data, budget.anchor), one.plot
    if studies is None:
        return
    if studies.wrong_rates is not None:
        yield picture_name("learning-rates", board.data), studies.wrong_rates
    if studies.shares is not None:
        yield picture_name("stability", board.data), studies.shares
    for model in studies.models:
        if model.slices is not None:
            yield picture_name("slices", board.data, model.model), model.slices


def _of_remedies(collapse: Collapse | None) -> Iterator[tuple[str, Plot]]:
    if collapse is None:
        return
    for study in collapse.studies:
        if study.effects is not None:
            yield picture_name("remedies", collapse.data, study.model), study.effects
        for place, curves in enumerate(study.courses):
            yield picture_name(("worst", "best")[place], collapse.data, study.model), curves


def _collapses(views: Iterable[Views]) -> list[Collapse]:
    return [one.collapse.open() for one in views if one.collapse is not None]


# The site ------------------------------------------------------------------------------------------------------------


def site(
    records: Mapping[Path, Record],
    models: Models,
    current: Current | None = None,
    published: Path | None = None,
    home: Path = Path("leaderboards/site"),
    studies: Sequence[Study] = (),
    beside: Mapping[str, str] = MappingProxyType({}),
    problems: list[str] | None = None,
) -> dict[str, str]:
    """The site of records in memory, path below `home` → text: a page a dataset and a model, an index, style, script.

    What is given is as in `boards`; `beside` are whole pages that others make, name → HTML: each page links to them.
    """
    figures = read_published(published) if published else ()
    views = all_views(records, models, current, figures, studies)
    found: list[str] = [problem for one in views for problem in one.problems]
    of_studies = pages_of_studies({study.header.design for study in studies})
    pages = dict(Site(home, models, found).pages(views, [one.data for one in views], of_studies, tuple(beside)))
    _name(found, problems)
    return pages | {f"{name}.html": html for name, html in beside.items()}


@dataclass(frozen=True)
class Gallery:
    """Samples of every family on a dataset, beside real examples: pictures as addresses inside the page, or texts."""

    data: str
    real: str | None
    picture: bool
    shown: tuple[tuple[Sampled, str], ...]


class Site:
    """The HTML pages below `home`; files that cannot be read are named in `problems`. `examples` is the folder with a
    picture or a text of each dataset's real examples."""

    def __init__(
        self,
        home: Path,
        models: Models,
        problems: list[str],
        store: Store | None = None,
        examples: Path = Path("leaderboards/examples"),
    ) -> None:
        self.home, self.problems, self.store, self.examples = home, problems, store or Store(), examples
        self.catalogue = {str(model["name"]): model for model in models}
        self.templates = jinja2.Environment(
            loader=jinja2.PackageLoader("benchmark.leaderboard", "templates/html"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.templates.filters |= {"linked": linked, "spans": spans, "plot": self._plot}

    def pages(
        self,
        views: Iterable[Views],
        datasets: Sequence[str],
        of_studies: Sequence[str],
        beside: Sequence[str] = (),
        reports: Collection[str] = (),
    ) -> Iterator[tuple[str, str]]:
        """Path below `home` → text. `datasets` are those of `views`, `of_studies` the pages that their studies make.

        Every page links to those `beside`, that of a dataset to its report of reproducibility,
        `reproducibility/<data>.html`, if it is among `reports`: others make these.
        """
        in_full = {title: name for name, title in _IN_FULL.items() if (self.home.parent / name).is_file()}
        others = ("choosing", *of_studies, *beside)
        render = partial(self._page, datasets=datasets, others=others, in_full=in_full, reports=reports)

        assets = files("benchmark.leaderboard") / "assets"
        for name in ("site.css", "tables.js"):
            yield f"assets/{name}", (assets / name).read_text(encoding="utf-8")
        seen: list[Views] = []
        for one in views:
            yield render(f"data/{one.data}.html", "dataset.html", partial(_board_of, one), one.made_of)
            seen.append(one)
        names = sorted({*self.catalogue, *(name for one in seen for name in one.models)})
        for name in names:
            check_page_name("model", name)
        families = {str(card["family"]) for card in self.catalogue.values()}
        families |= {family for one in seen for family in one.summary.families}
        self.colours = colours_of(list(families))
        for name in names:
            yield render(f"model/{name}.html", "model.html", *self._model(name, seen))
        if "studies" in of_studies:
            studies = [one.studies for one in seen if one.studies is not None]
            yield render("studies.html", "studies.html", partial(_all_of, studies), fingerprint(studies))
        if "mode_collapse" in of_studies:
            remedied = [one.collapse for one in seen if one.collapse is not None]
            yield render(
                "mode_collapse.html", "mode_collapse.html", partial(_all_remedied, remedied), fingerprint(remedied)
            )
        parts = advice([one.said for one in seen], list(self.catalogue.values()))
        links = {name: f"model/{name}.html" for name in names}
        parts = [replace(part, table=part.table and dressed(part.table, links, self.colours)) for part in parts]
        yield render("choosing.html", "choosing.html", lambda: {"parts": parts})
        yield "records.csv", as_csv(line for one in seen for line in one.records.open())
        yield "rows.json", as_json(line for one in seen for line in one.rows.open())
        results = [line for one in seen for line in one.summary.results]
        content = {
            "galleries": [gallery for one in seen if (gallery := self._gallery(one)) is not None],
            "summaries": [one.summary for one in seen if one.summary.rows],
            "results": Table("All results", _RESULTS, results, titled=False),
            "models": self._models(names, seen),
        }
        yield render("index.html", "index.html", lambda: content)

    def _page(
        self, page: str, template: str, content: Callable[[], Mapping[str, Any]], made_of: str = "", **navigation: Any
    ) -> tuple[str, str]:
        """A page; links to other pages start with `up`, to files where the page stands.

        `made_of` stands for its content, where that is known: then nobody asks for the content of a page that has been
        made before.
        """
        folder = (self.home / page).parent

        def href(entry: Entry) -> str | None:
            if entry.page is not None:
                return up + entry.page
            return None if entry.file is None else file_href(entry.file)

        def file_href(file: Path) -> str:
            return quote(Path(os.path.relpath(file, folder)).as_posix())

        def render() -> tuple[str, list[str]]:
            before = len(self.problems)
            links = {"up": up, "href": href, "file_href": file_href, "kept": self._kept}
            html = self.templates.get_template(template).render(**links, **navigation, **content())
            found = self.problems[before:]  # remembered with the page, and named below
            del self.problems[before:]
            return html, found

        up = "../" * page.count("/")
        made_of = made_of or fingerprint(content())
        html, problems = self.store.remember("page", digest(str(self.home), page, made_of, navigation), render)
        self.problems += problems
        return page, html

    # What one page shows ---------------------------------------------------------------------------------------------

    def _model(self, name: str, seen: Sequence[Views]) -> tuple[Callable[[], dict[str, Any]], str]:
        """What the page of a model shows, and what that is made of."""
        card = self.catalogue.get(name)
        on_data = [one.models[name] for one in seen if name in one.models]
        promised = set(card["capabilities"]) if card else set()
        family = str(card["family"]) if card else on_data[0].family
        promises = [
            (capability.__name__, (capability.__doc__ or "").split("\n")[0])
            for capability in CAPABILITIES
            if capability.__name__ in promised
        ]
        about = {"name": name, "card": card, "family": family, "colour": self.colours[family], "promises": promises}

        def content() -> dict[str, Any]:
            shown = [of.shown.open() for of in on_data]
            return about | {
                "sections": [section for of in shown for section in of.sections],
                "superseded_records": [entry for of in shown for entry in of.superseded],
            }

        return content, fingerprint((about, on_data))

    def _kept(self, section: Section) -> dict[str, Any]:
        """What was kept with a row's runs: samples over training, near copies, curves."""
        kept = digest([(run.record, run.kept) for run in section.runs])
        found, problems = self.store.remember(
            "kept", digest(kept, section.row, section.colour), partial(_kept, section)
        )
        self.problems += problems
        return found

    def _gallery(self, views: Views) -> Gallery | None:
        """`None` where no run kept samples."""
        shown: list[tuple[Sampled, str]] = []
        pictures = False
        for one in views.summary.samples:
            picture = self._read(last_moment, one.record.with_suffix(".png"))
            text = None if picture else self._read(read_text, one.record.with_suffix(".txt"))
            pictures = pictures or picture is not None
            if picture is not None or text is not None:
                shown.append((one, _inline(picture) if picture is not None else _ending(text or "")))
        if not shown:
            return None
        stem = self.examples / views.data
        picture, text = (
            self._read(last_moment, stem.with_suffix(".png")),
            self._read(read_text, stem.with_suffix(".txt")),
        )
        real = _inline(picture) if picture is not None else None if text is None else _ending(text)
        return Gallery(views.data, real, pictures, tuple(shown))

    def _models(self, names: Sequence[str], seen: Sequence[Views]) -> Table:
        lines = []
        for name in names:
            card = self.catalogue.get(name)
            on_data = {one.data: one.models[name] for one in seen if name in one.models}
            family = str(card["family"]) if card else next(iter(on_data.values())).family
            shown = [data for data, of in on_data.items() if of.ranked]
            promises = ", ".join(card["capabilities"]) if card else ""
            lines.append(
                [
                    Entry(name, page=f"model/{name}.html", head=True),
                    Entry(family, colour=self.colours[family]),
                    Entry(promises or "samples only" if card else "not in the catalogue"),
                    Entry(", ".join(shown) or "—"),
                ]
            )
        return Table("Models", _MODELS, lines, titled=False)

    def _plot(self, plot: Plot) -> Markup:
        return themed(self.store.remember("plot", digest(plot), partial(drawn, plot)), plot.title)

    def _read(self, read: Callable[[Path], _Content | None], file: Path) -> _Content | None:
        return _read(read, file, self.problems)


def _board_of(views: Views) -> dict[str, Board]:
    return {"board": views.board.open()}


def _all_of(studies: Sequence[Packed[Studies]]) -> dict[str, list[Studies]]:
    return {"all_studies": [one.open() for one in studies]}


def _all_remedied(remedied: Sequence[Packed[Collapse]]) -> dict[str, Any]:
    collapses = [one.open() for one in remedied]
    return {"collapses": collapses, "said": sentences(collapses)}


def _kept(section: Section) -> tuple[dict[str, Any], list[str]]:
    problems: list[str] = []
    content = {
        "strip": _strip(section, problems),
        "pictures": list(_beside(section, problems)),
        "curves": list(_curves(section, problems)),
    }
    return content, problems


def _strip(section: Section, problems: list[str]) -> dict[str, Any] | None:
    """Samples over training of the first run that kept some."""
    for run in section.runs:
        picture = _read(read_picture, run.record.with_suffix(".png"), problems)
        if picture is not None:
            return {"seed": run.seed, "image": _inline(picture[0]), "moments": picture[1], "text": None}
        text = _read(read_text, run.record.with_suffix(".txt"), problems)
        if text is not None:
            return {"seed": run.seed, "image": None, "moments": (), "text": text}
    return None


def _beside(section: Section, problems: list[str]) -> Iterator[dict[str, str]]:
    """Each of `PICTURES`, of the first run that kept it."""
    for name, caption in PICTURES.items():
        for run in section.runs:
            picture = _read(read_picture, pictures_beside(run.record)[name], problems)
            if picture is not None:
                yield {"caption": caption, "seed": run.seed, "image": _inline(picture[0])}
                break


def _curves(section: Section, problems: list[str]) -> Iterator[Curves]:
    """Validation first, then the training loss, then what is over steps of the model; one figure each over all seeds
    that kept curves."""
    kept = [curves for run in section.runs if (curves := _read(read_curves, run.record, problems))]
    for name in [*sorted({name for curves in kept for name in curves if name.startswith("val/")}), "train/loss"]:
        found = tuple(curves[name] for curves in kept if len(curves.get(name, ())) > 1)
        if found:
            what = f"{'validation' if name.startswith('val/') else 'training'}: {name.partition('/')[2]}"
            title = f"{section.row} on {section.data}, {what}, {len(found)} seeds"
            yield Curves(title, what.replace("_", " "), found, section.colour)
    for name in sorted({name for curves in kept for name in curves if name.startswith("steps/")}):
        found = tuple(curves[name] for curves in kept if len(curves.get(name, ())) > 1)
        if found and all(value > 0 for curve in found for _, value in curve):
            what = name.removeprefix("steps/").replace("_", " ")
            title = f"{section.row} on {section.data}, {what} of each step, {len(found)} seeds"
            yield Curves(title, f"{what} of a step", found, section.colour, "step", log=True)


def _read(read: Callable[[Path], _Content | None], file: Path, problems: list[str]) -> _Content | None:
    """What lies beside a record; `None` where it is malformed."""
    try:
        return read(file)
    except BadInput as error:
        problems.append(str(error))
        return None


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def _ending(text: str) -> str:
    """Of samples over training the last."""
    return text.rpartition("=== ")[2].partition("\n")[2].strip()
