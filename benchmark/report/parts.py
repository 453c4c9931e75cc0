"""What a page of the report is made of, as Markdown and as HTML. Parts hold plain text: each rendering escapes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.leaderboard import markdown
from benchmark.tables import Entry, Head, Table


@dataclass(frozen=True)
class Code:
    """Text that a machine reads: a hash, a command."""

    text: str

    def __str__(self) -> str:
        return self.text


Cell = str | Code


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Bullets:
    lines: Sequence[Cell]


@dataclass(frozen=True)
class Folded:
    """Lines as they are, such as a configuration, that a reader opens."""

    title: str
    text: str


Part = Paragraph | Bullets | Table | Folded


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Page:
    title: str
    lead: str
    sections: Sequence[Section]


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]], left: int = 1) -> Table:
    """A table whose first `left` columns are text, the others numbers."""
    heads = [Head(title, number=index >= left) for index, title in enumerate(header)]
    return Table("", heads, [[Entry(str(cell), code=isinstance(cell, Code)) for cell in row] for row in rows])


def as_markdown(page: Page) -> str:
    """The page for a forge or a terminal."""
    parts = [f"# {markdown.escape(page.title)}", markdown.escape(page.lead)]
    for section in page.sections:
        parts += [f"## {markdown.escape(section.title)}", *map(_markdown, section.parts)]
    return markdown.page(parts)


def _markdown(part: Part) -> str:
    match part:
        case Paragraph(text):
            return markdown.escape(text)
        case Bullets(lines):
            return markdown.bullets([_markdown_cell(line) for line in lines])
        case Table():
            return markdown.rendered(part)
        case Folded(title, text):
            indented = "\n".join(f"    {line}".rstrip() for line in text.splitlines())  # no fence that a line could end
            return f"<details>\n<summary>{markdown.escape(title)}</summary>\n\n{indented}\n\n</details>"


def _markdown_cell(cell: Cell) -> str:
    return markdown.code(cell) if isinstance(cell, Code) else markdown.escape(cell)


def as_html(page: Page, home: str | None = None) -> str:
    """The page as one self-contained file: no script, no font, no picture from elsewhere.

    `home` is the page of the boards, to which it leads back where it stands among them.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("benchmark.report", "templates")
    templates = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    tests: dict[str, Callable[[Any], bool]] = {
        "paragraph": lambda part: isinstance(part, Paragraph),
        "bullets": lambda part: isinstance(part, Bullets),
        "table": lambda part: isinstance(part, Table),
        "code": lambda cell: isinstance(cell, Code),
    }
    templates.tests.update(tests)
    return templates.get_template("report.html").render(page=page, home=home) + "\n"
