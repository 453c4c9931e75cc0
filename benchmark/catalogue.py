"""What exists: models with family, capabilities and paper; datasets; suites. Class headers are read, not imported."""

from __future__ import annotations

import ast
import importlib.util
import textwrap
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmark import facts
from benchmark.config import choices, config_folders, family_of, load_data, load_model, read_suite, read_yaml, strangers
from benchmark.spec import CAPABILITIES, BadInput

_CAPABILITIES = {capability.__name__ for capability in CAPABILITIES}


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Everything that can be named on the command line; what is malformed is left out."""
    return read()[0]


def read() -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Everything that can be named on the command line, and a line for each file that is malformed or never read."""

    def dataset(name: str) -> dict[str, Any]:
        config = load_data(name)
        return {"name": name, "modality": config.modality, "minutes": config.minutes}

    def suite(name: str) -> dict[str, Any]:
        content = read_suite(name)
        runs = [f"{entry.model} on {entry.data}" for entry in content.experiments]
        return {"name": name, "description": content.description, "budget": content.budget, "runs": runs}

    broken: list[str] = []
    found: dict[str, list[dict[str, Any]]] = {}
    for title, group, describe in (
        ("models", "model", _describing_models()),
        ("data", "data", dataset),
        ("suites", "suite", suite),
    ):
        found[title] = []
        for name in choices(group):
            try:
                found[title].append(describe(name))
            except BadInput as error:
                broken.append(str(error))
    others = [file for group in ("budget", "sweep") for file in choices(group).values()] + _tuned_files()
    for file in others:
        try:
            read_yaml(file)
        except BadInput as error:
            broken.append(str(error))
    try:
        facts.modalities()  # and the metrics that they name
    except BadInput as error:
        broken.append(str(error))
    return found, [*broken, *strangers()]


def models() -> list[dict[str, Any]]:
    """The models alone; what is malformed is left out."""
    describe, found = _describing_models(), []
    for name in choices("model"):
        with suppress(BadInput):
            found.append(describe(name))
    return found


def _describing_models() -> Callable[[str], dict[str, Any]]:
    tuned = {(file.parent.name, file.stem) for file in _tuned_files()}

    def model(name: str) -> dict[str, Any]:
        config = load_model(name)
        header = _header(config.target)
        if "Conditional" in header["capabilities"] and not config.conditions:  # its file says that it is told nothing
            header["capabilities"] = [one for one in header["capabilities"] if one != "Conditional"]
        return {
            "name": name,
            "family": family_of(config.target),
            "structures": config.structures,
            **header,
            "data": sorted(data for data, model in tuned if model == name),
        }

    return model


def as_text(content: dict[str, list[dict[str, Any]]], width: int | None = None) -> str:
    """The catalogue as people read it: names stand alone at the left, whatever the `width` in columns (`None`: any)."""
    names = [str(row["name"]) for rows in content.values() for row in rows]
    column = 4 + max(map(len, names), default=0)

    def entry(name: str, text: str) -> str:
        first = f"  {name}".ljust(column)
        if width is None:
            return f"{first}{text}".rstrip()
        indent = min(column, max(4, width // 3))
        start = first if len(first) <= indent else f"{first.rstrip()}\n{'':{indent}}"
        room = max(20, width - indent)
        return start + f"\n{'':{indent}}".join(textwrap.wrap(text, room, break_on_hyphens=False) or [""])

    lines = ["Models (family: capabilities; tuned for)"]
    for row in content["models"]:
        promises = ", ".join(row["capabilities"]) or "samples only"
        lines.append(entry(row["name"], f"{row['family']}: {promises}; {', '.join(row['data']) or 'nothing yet'}"))
        lines.append(entry("", row["paper"]))
    lines.append("\nDatasets (nominal minutes of each budget, in one thread of the reference machine)")
    for row in content["data"]:
        minutes = ", ".join(f"{name} {value:g}" for name, value in row["minutes"].items())
        lines.append(entry(row["name"], f"{row['modality']}: {minutes}"))
    lines.append("\nSuites")
    for row in content["suites"]:
        lines.append(entry(row["name"], f"{row['description']} (budget {row['budget']})"))
        lines.append(entry("", ", ".join(row["runs"])))
    return "\n".join(lines)


def _tuned_files() -> list[Path]:
    return [file for folder in config_folders() for file in sorted((folder / "tuned").glob("*/[!.]*.yaml"))]


def _header(target: str) -> dict[str, Any]:
    """Capabilities from the bases of the class, paper from the module's docstring; empty for what cannot be read."""
    module, _, name = target.rpartition(".")
    file = _source(module)
    if file is None:
        return {"capabilities": [], "paper": ""}
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise BadInput(f"{file} is not Python: {error}") from error
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name]
    bases = [base.id for node in classes for base in node.bases if isinstance(base, ast.Name)]
    lines = [line.strip() for line in (ast.get_docstring(tree) or "").split("\n\n") if line.startswith("Paper:")]
    paper = " ".join(lines[0].removeprefix("Paper:").split()) if lines else ""
    return {"capabilities": [base for base in bases if base in _CAPABILITIES], "paper": paper}


def _source(module: str) -> Path | None:
    """The file of a module below `benchmark.`; other packages are not touched."""
    root, *parts = module.split(".")
    if root != "benchmark":
        spec = importlib.util.find_spec(root)
        if spec is None or not spec.submodule_search_locations:
            return None
        base = Path(next(iter(spec.submodule_search_locations)))
    else:
        base = Path(__file__).parent
    file = base.joinpath(*parts).with_suffix(".py")
    return file if file.is_file() else None
