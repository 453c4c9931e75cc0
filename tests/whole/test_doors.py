"""Who may import whom: the rooms of the house and the doors between them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from files import REPOSITORY

PACKAGE = "benchmark"

#: room -> what it may import of ours, by prefix. Files of one room may import each other; `models` are the exception:
#: a concrete model never imports another. A room that is not here has no place in the house yet.
DOORS: dict[str, tuple[str, ...]] = {
    "__init__": (),
    "spec": (),
    "facts": ("spec", "config"),
    "console": ("tables",),
    "nn": (),
    "data": ("spec",),
    "models": ("spec", "nn", "models.base"),
    "metrics": ("spec", "facts", "data.base"),  # `data.base` says what a dataset is to whoever collects evidence
    "modalities": ("spec", "data.base", "metrics"),
    "identity": (),
    "tables": (),
    "config": ("spec", "identity"),
    "reference": ("spec", "config"),
    "catalogue": ("spec", "facts", "config"),
    "stages": ("spec", "config", "record"),
    # the laws, and the exam that runs them: only the command line asks for it
    "testing": ("spec", "facts", "config", "data.base", "modalities", "models.base", "build", "exams", "record"),
    "exams": ("spec", "record"),
    "build": ("spec", "facts", "config", "stages", "data", "metrics.probe", "modalities", "models.base"),
    "evaluate": ("spec", "build", "metrics"),
    "tracking": ("spec",),
    # charts what `tracking` logs, by name; a user's own definition comes first
    "dashboard": ("spec", "facts", "config"),
    "loop": ("spec", "build", "metrics.cost"),
    "watch": (),
    "train": (
        *("spec", "facts", "config", "stages", "reference", "build", "loop", "evaluate", "record", "tracking"),
        *("exams", "watch"),
    ),
    "again": ("spec", "facts", "config", "build", "evaluate", "record", "tracking", "train"),
    "bench": ("spec", "config", "reference", "tables", "build", "evaluate", "loop", "record", "train"),
    "peers": ("spec", "tables", "nn", "models", "metrics.cost", "record"),  # only the command line asks for it
    "traces": ("spec",),
    "record": ("spec", "identity", "config", "traces"),
    # a study's statistics are computed in one place, and so is the identity of what is tuned
    "leaderboard": ("spec", "facts", "tables", "config", "record", "traces", "sweep"),
    # a configuration is data, and has a hash
    "report": ("spec", "facts", "tables", "config", "record", "traces", "leaderboard"),
    "server": ("spec", "config", "record", "preload", "train"),  # its children alone import the last two
    "preload": ("data", "metrics", "modalities", "models", "record", "train"),
    "launch": ("spec", "config", "stages", "reference", "record", "server"),
    "sweep": ("spec", "facts", "identity", "config", "record", "launch", "server"),
}
HALL = ("__main__", "cli")  # the command line goes through every door
WITHOUT_TORCH = (
    "__main__",
    "catalogue",
    "cli",
    "config",
    "console",
    "exams",
    "facts",
    "launch",
    "record",
    "traces",
    "leaderboard",
    "report",
    "server",
    "spec",
    "stages",
    "sweep",
    "tables",
    "watch",
)


def room_of(module: str) -> str:
    """`models.vae.vae` -> `models`; the package itself is `__init__`."""
    return module.split(".")[0] or "__init__"


def modules(root: Path) -> dict[str, Path]:
    """Dotted name below the package -> file. The package itself has the name ''."""
    found = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        parts = path.relative_to(root / PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(module: str, path: Path, known: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of everything of ours that a file imports, wherever in the file, also by constant name."""

    def below_package(name: str) -> str | None:
        head, _, rest = name.partition(".")
        return rest if head == PACKAGE else None

    here = [PACKAGE, *module.split(".")] if module else [PACKAGE]
    package = here if path.name == "__init__.py" else here[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.stmt | ast.expr):
            continue
        names: set[str] = set()
        if isinstance(node, ast.Import):
            names = {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*base, node.module] if node.module else base)
            for alias in node.names:  # `from benchmark import spec` names a module, `from benchmark.spec import x` not
                whole = f"{source}.{alias.name}"
                names.add(whole if below_package(whole) in known else source)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in ("import_module", "__import__"):
                names = {str(node.args[0].value)}
        for name in sorted(names):
            if (target := below_package(name)) is not None:
                yield node.lineno, target


def offences(root: Path) -> list[str]:
    """Every import that no door allows: file and line, what it imported, what its room may import."""
    files = modules(root)
    found = []
    for module, path in files.items():
        room, file = room_of(module), path.relative_to(root)
        if room in HALL:
            continue
        if room not in DOORS:
            found.append(f"{file}:1 stands in no room of the house (rooms: {', '.join(DOORS)})")
            continue
        allowed = DOORS[room] if room in ("models", "__init__") else (*DOORS[room], room)
        for line, target in imports(module, path, set(files)):
            if not any(target == door or target.startswith(f"{door}.") for door in allowed):
                may = ", ".join(allowed) or "nothing"
                found.append(f"{file}:{line} imports {PACKAGE}.{target}; {room} may import of ours: {may}")
    return found


def test_nobody_goes_through_a_wall() -> None:
    found = offences(REPOSITORY)
    assert not found, "\n" + "\n".join(found)


def imported_tests(root: Path) -> list[str]:
    """Every import of a test file below `root`, by file and line: what tests share stands in tests/helpers."""
    found = []
    for path in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
                parts = ".".join([module, *(alias.name for alias in node.names)]).split(".")
                if any(part.startswith("test_") for part in parts):
                    found.append(f"{path.relative_to(root)}:{node.lineno}")
    return found


def test_no_test_imports_another() -> None:
    assert imported_tests(REPOSITORY / "tests") == []


@pytest.mark.parametrize(
    "line", ["import os, test_b", "from test_b import x", "from whole.test_b import x", "from . import test_b"]
)
def test_a_test_that_imports_another_is_named(line: str, tmp_path: Path) -> None:
    (tmp_path / "test_b.py").write_text("from helpers import testing\nfrom benchmark import testing\n")
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "test_a.py").write_text(f"def test() -> None:\n    {line}\n")
    assert imported_tests(tmp_path) == ["whole/test_a.py:2"]


def without_torch() -> list[str]:
    return [module for module in modules(REPOSITORY) if module and room_of(module) in WITHOUT_TORCH]


IMPORT = f"""
import importlib, sys
for module in sys.argv[1:]:
    importlib.import_module("{PACKAGE}." + module)
    if "torch" in sys.modules:
        sys.exit("importing {PACKAGE}." + module + " imports torch")
"""


def test_what_needs_no_torch_imports_none() -> None:
    """In a process of their own, one after another: not even through somebody else's package."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, *without_torch()], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_command_line_imports_click_and_little_else() -> None:
    """`--help` is as quick as Python starts: what a verb needs is imported when it runs."""
    script = "import sys; before = {*sys.modules}; import benchmark.__main__; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    names = [name for name in done.stdout.split() if name.split(".")[0] not in sys.stdlib_module_names]
    ours = {room_of(name.removeprefix(f"{PACKAGE}.")) for name in names if name.startswith(f"{PACKAGE}.")}
    assert ours == {*HALL, "spec"}
    assert {name.split(".")[0] for name in names} <= {PACKAGE, "click", "annotated_types", "typing_extensions"}


def test_the_first_that_imports_torch_is_named(tmp_path: Path) -> None:
    """Planted where Python looks first."""
    plant(tmp_path, {"spec.py": "", "train.py": "import torch\n"})
    (tmp_path / "torch.py").touch()
    environment = {**os.environ, "PYTHONPATH": ""}
    command = [sys.executable, "-c", IMPORT, "spec", "train", "build"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stderr == f"importing {PACKAGE}.train imports torch\n"


# The checker can convict ---------------------------------------------------------------------------------------------

OFFENCES = {
    "another model, inside a function": (
        "models/vae/vae.py",
        "def build():\n    from benchmark.models.gan.sngan import SNGAN\n    return SNGAN\n",
        "benchmark/models/vae/vae.py:2 imports benchmark.models.gan.sngan; models may import of ours: "
        "spec, nn, models.base",
    ),
    "a module as a name": ("models/vae/vae.py", "from benchmark import data\n", ":1 imports benchmark.data;"),
    "a neighbour in the family": (
        "models/vae/vae.py",
        "from . import other\n",
        ":1 imports benchmark.models.vae.other",
    ),
    "a relative climb": ("metrics/fidelity.py", "from ..models import base\n", ":1 imports benchmark.models.base"),
    "a plain import": ("data/images.py", "import os\nimport benchmark.train as t\n", ":2 imports benchmark.train;"),
    "the package's first file": ("__init__.py", "from benchmark.spec import Batch\n", "may import of ours: nothing"),
    "a name in a string": (
        "config.py",
        "import importlib\nimportlib.import_module('benchmark.build')\n",
        ":2 imports benchmark.build;",
    ),
    "for types only": (
        "nn/blocks.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from benchmark.spec import DataSpec\n",
        ":3 imports benchmark.spec;",
    ),
    "a room nobody planned": ("utils.py", "", "benchmark/utils.py:1 stands in no room"),
}


def plant(root: Path, files: dict[str, str]) -> None:
    skeleton = ("__init__.py", "spec.py", "train.py", "build.py", "data/__init__.py", "models/__init__.py")
    family = ("models/base.py", "models/vae/__init__.py", "models/vae/other.py", "models/gan/sngan.py")
    for name, text in {**dict.fromkeys((*skeleton, *family), ""), **files}.items():
        (root / PACKAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (root / PACKAGE / name).write_text(text)


@pytest.mark.parametrize(("file", "text", "words"), OFFENCES.values(), ids=OFFENCES.keys())
def test_convicts(tmp_path: Path, file: str, text: str, words: str) -> None:
    plant(tmp_path, {file: text})
    (found,) = offences(tmp_path)
    assert words in found


def test_acquits(tmp_path: Path) -> None:
    plant(
        tmp_path,
        {
            "models/vae/vae.py": "import torch\nfrom benchmark.models.base import x\nfrom ...spec import Batch\n",
            "data/images.py": "from .base import Split\nfrom benchmark.spec import DataSpec\n",
            "__main__.py": "from benchmark.train import run\nfrom benchmark.models.gan import sngan\n",
            "cli/run.py": "from benchmark.train import run\nfrom benchmark.models.gan import sngan\n",
            "build.py": "import importlib\nfrom benchmark.data.base import y\nimportlib.import_module(target)\n",
        },
    )
    assert offences(tmp_path) == []
