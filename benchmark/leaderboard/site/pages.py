"""Records and the catalogue to pages. The same records always give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2

from benchmark.leaderboard.choosing import LEAD, Advice, advice
from benchmark.leaderboard.published import read_published
from benchmark.leaderboard.rows import Current
from benchmark.leaderboard.site.contents import Contents, Models
from benchmark.leaderboard.site.dataset import dataset_page
from benchmark.leaderboard.site.index import index_page
from benchmark.leaderboard.site.model import model_page
from benchmark.leaderboard.site.studies import studies_page
from benchmark.leaderboard.site.tables import dressed, linked
from benchmark.record import Record
from benchmark.sweep.studies import Study

_STUDIES = {
    "sensitivity.md": "Which hyperparameters matter, in full",
    "stability.md": "Which models are stable, in full",
}


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
    """The site's files, path below `home` → text: `index.html`, a page a dataset and a model, style and script.

    `models` are the catalogue's entries: name, family, capabilities, paper. `current` and `published` are those of
    `boards`, `studies` the committed ones; links to records are relative to `home`. `beside` are whole pages that
    others make, name → HTML: each page links to them. A file beside a record that cannot be read is left out and named
    in `problems`. Raises `BadInput` where a record's names cannot be shown, and without `problems` for such a file.
    """
    figures = read_published(published) if published else ()
    contents = Contents(records, models, current, figures, home, studies, problems)
    parts = advice(records, list(contents.catalogue.values()), current, studies)
    return _pages(contents, parts, tuple(beside)) | {f"{name}.html": html for name, html in beside.items()}


def _pages(contents: Contents, parts: Sequence[Advice], beside: Sequence[str]) -> dict[str, str]:
    """Pages, style and script; every page links to those `beside`."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("benchmark.leaderboard.site"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"linked": linked}
    committed = {name: title for name, title in _STUDIES.items() if (contents.home.parent / name).is_file()}
    others = ("choosing", *(["studies"] if contents.stable else []), *beside)

    def render(template: str, up: str, **content: Any) -> str:
        studies = {title: f"{up}../{name}" for name, title in committed.items()}
        shared = {"up": up, "datasets": contents.datasets, "studies": studies, "others": others}
        return templates.get_template(template).render(**shared, **content)

    assets = files("benchmark.leaderboard.site") / "assets"
    found = {f"assets/{name}": (assets / name).read_text(encoding="utf-8") for name in ("site.css", "tables.js")}
    found["index.html"] = render("index.html", "", **index_page(contents))
    for data in contents.datasets:
        found[f"data/{data}.html"] = render("dataset.html", "../", **dataset_page(contents, data))
    for model in contents.models:
        found[f"model/{model}.html"] = render("model.html", "../", **model_page(contents, model))
    links, colours = {name: f"model/{name}.html" for name in contents.models}, contents.colours
    if contents.stable:
        content = studies_page(contents.sensitive, contents.stable, links, colours)
        found["studies.html"] = render("studies.html", "", **content)
    shown = [replace(part, table=part.table and dressed(part.table, links, colours)) for part in parts]
    found["choosing.html"] = render("choosing.html", "", lead=LEAD, parts=shown)
    return found
