"""What exists: models with family, capabilities and paper; datasets; suites. Class headers are read, not imported."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import Any

from benchmark.config import choices, config_folders, family_of, load_data, load_model, read_suite
from benchmark.spec import CAPABILITIES

_CAPABILITIES = {capability.__name__ for capability in CAPABILITIES}


def catalogue() -> dict[str, list[dict[str, Any]]]:
    """Everything that can be named on the command line."""
    tuned = {(file.parent.name, file.stem) for file in _tuned_files()}
    models = []
    for name in choices("model"):
        config = load_model(name)
        header = _header(config.target)
        models.append(
            {
                "name": name,
                "family": family_of(config.target),
                "modalities": config.modalities,
                **header,
                "data": sorted(data for data, model in tuned if model == name),
            }
        )
    datasets = [
        {"name": name, "modality": config.modality, "minutes": config.minutes}
        for name, config in ((name, load_data(name)) for name in choices("data"))
    ]
    suites = []
    for name in choices("suite"):
        suite = read_suite(name)
        runs = [f"{entry.model} on {entry.data}" for entry in suite.experiments]
        suites.append({"name": name, "description": suite.description, "budget": suite.budget, "runs": runs})
    return {"models": models, "data": datasets, "suites": suites}


def as_text(content: dict[str, list[dict[str, Any]]]) -> str:
    """The catalogue as people read it."""
    lines = ["Models (family: capabilities; tuned for)"]
    for row in content["models"]:
        promises = ", ".join(row["capabilities"]) or "samples only"
        lines.append(f"  {row['name']:16}{row['family']}: {promises}; {', '.join(row['data']) or 'nothing yet'}")
        lines.append(f"  {'':16}{row['paper']}")
    lines.append("\nDatasets (CPU minutes of one thread for each budget)")
    for row in content["data"]:
        minutes = ", ".join(f"{name} {value:g}" for name, value in row["minutes"].items())
        lines.append(f"  {row['name']:16}{row['modality']}: {minutes}")
    lines.append("\nSuites")
    for row in content["suites"]:
        lines.append(f"  {row['name']:16}{row['description']} (budget {row['budget']})")
        lines.append(f"  {'':16}{', '.join(row['runs'])}")
    return "\n".join(lines)


def _tuned_files() -> list[Path]:
    return [file for folder in config_folders() for file in sorted((folder / "tuned").glob("*/*.yaml"))]


def _header(target: str) -> dict[str, Any]:
    """Capabilities from the bases of the class, paper from the module's docstring; empty for what cannot be read."""
    module, _, name = target.rpartition(".")
    file = _source(module)
    if file is None:
        return {"capabilities": [], "paper": ""}
    tree = ast.parse(file.read_text())
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
