"""The folders of configurations, the user's own before the shipped one, and what their files say."""

from __future__ import annotations

import os
import re
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from benchmark.spec import BadInput, unknown

GROUPS = ("data", "model", "budget")
#: What may stand in a folder of configurations: groups of files, and single files.
FOLDERS = (*GROUPS, "modality", "metric", "tuned", "suite", "sweep")
FILES = ("experiment.yaml", "dashboard.yaml", "published.yaml", "reference.yaml", "renames.yaml")


def config_folders() -> list[Path]:
    """Where configurations are looked for: `BENCHMARK_CONFIGS` (the user's own), then the shipped ones."""
    given = os.environ.get("BENCHMARK_CONFIGS", "").split(os.pathsep)
    own = [_resolved(folder, os.getcwd()) for folder in given if folder]
    for folder in own:
        if not folder.is_dir():
            raise BadInput(
                f"BENCHMARK_CONFIGS names {str(folder)!r}, which is not a folder: correct or unset it "
                f"({os.pathsep!r} stands between folders)"
            )
    return [*own, _shipped()]


@cache
def _resolved(folder: str, here: str) -> Path:
    return Path(here, Path(folder).expanduser()).resolve()


@cache
def _shipped() -> Path:
    package = Path(__file__).resolve().parents[1]
    return package / "configs" if (package / "configs").is_dir() else package.parent / "configs"


def find(place: str) -> Path | None:
    """The file at `place`, such as `model/vae.yaml`, in the first folder that has it: a user's own comes first."""
    return next((file for file in (folder / place for folder in config_folders()) if os.path.lexists(file)), None)


def choices(group: str) -> dict[str, Path]:
    """Name → file of every configuration in `group`; a user's own comes first. The file's name is the name."""
    folders = tuple(folder / group for folder in config_folders())
    changed = tuple(map(_changed, folders))
    if max(changed) > time.time_ns() - _SETTLED:  # a file more would not show in the time of change
        return _listed.__wrapped__(folders, changed)
    return dict(_listed(folders, changed))


_SETTLED = 10**9  # nanoseconds


def _changed(folder: Path) -> int:
    """When a folder last changed; 0 where there is none."""
    try:
        return os.stat(folder).st_mtime_ns
    except OSError:
        return 0


@cache
def _listed(folders: tuple[Path, ...], changed: tuple[int, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.yaml")):
            if not file.name.startswith("."):  # what an editor keeps beside the file
                found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def read_group(group: str, name: str) -> dict[str, Any]:
    """What the file of `name` in `group` says, with what it inherits by a list of `defaults`."""
    files = choices(group)
    if name not in files:
        for folder in config_folders()[:-1]:
            if (misnamed := folder / group / f"{name}.yml").is_file():
                raise BadInput(f"{misnamed} is not read: call it {name}.yaml")
        raise unknown(group, name, files)
    if not re.fullmatch(r"[\w.-]+", name):
        raise BadInput(f"{files[name]}: {name!r} cannot name a configuration: letters, digits, '_', '-' and '.' can")
    content = read_yaml(files[name])
    return inherited(group, name) if "defaults" in content else content


_COMPOSING = threading.Lock()  # Hydra composes one at a time


def inherited(group: str, name: str) -> dict[str, Any]:
    """Hydra's composition of a file with a list of `defaults`, as plain containers."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    def quoted(text: str) -> str:
        return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"

    first, *others = config_folders()
    places = ",".join(quoted(f"file://{folder}") for folder in others)
    try:
        with _COMPOSING, initialize_config_dir(str(first), version_base="1.3"):
            content = hydra_compose(None, [f"+{group}@found={quoted(name)}", f"hydra.searchpath=[{places}]"])
        found: Any = OmegaConf.to_container(content, resolve=False)
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError, TypeError) as error:
        raise BadInput(f"{group}/{name}.yaml: {' '.join(str(error).split())[:300]}") from error
    return dict(found["found"])


#: How much a configuration may hold.
DEEPEST, MOST_VALUES = 32, 100_000
_TOO_DEEP = f"it is nested more than {DEEPEST} deep"


class _Loader(yaml.SafeLoader):
    """YAML as OmegaConf reads it: 1e-3 is a number, a date is text, and no key may stand twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1 and key != "<<":
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, shape)
        for tag, shape in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:float")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?(\d[\d_]*\.[\d_]*([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*([eE][-+]?\d+)?|\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+0123456789."),
)


def parse_yaml(text: str) -> Any:
    """The value of a YAML text. Raises `ValueError`, in one line, where it has none that a configuration can hold."""
    try:
        content = yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    waiting = [(content, 0)]
    for node, depth in waiting:  # which grows; an anchor may stand for itself, or multiply
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting += [(one, depth + 1) for one in inner]
        if depth > DEEPEST or len(waiting) > MOST_VALUES:
            raise ValueError(_TOO_DEEP if depth > DEEPEST else f"it holds more than {MOST_VALUES:,} values")
    return content


class _Dumper(yaml.SafeDumper):
    """Quotes the text that `_Loader` would read as something else, such as 795e02, the id of a run."""


_Dumper.yaml_implicit_resolvers = _Loader.yaml_implicit_resolvers


def dump_yaml(content: Any) -> str:
    """What `parse_yaml` reads as the same content.

    >>> dump_yaml({"run": "795e02", "rate": 0.5})
    "run: '795e02'\\nrate: 0.5\\n"
    """
    text: str = yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    return text


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML mapping in UTF-8, or the line that says where it is malformed."""
    try:
        content = parse_yaml(file.read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise BadInput(f"{file} is not UTF-8 (byte {error.start}): save it in that encoding") from error
    except FileNotFoundError as error:
        raise BadInput(f"{file} leads nowhere: restore what it links to, or remove it") from error
    except OSError as error:
        raise BadInput(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"{file} is not valid YAML: {error}") from error
    if content is None:
        raise BadInput(f"{file} is empty: it must hold a mapping of keys to values")
    if not isinstance(content, dict):
        raise BadInput(f"{file} holds {type(content).__name__}, not a mapping of keys to values")
    for key in content:
        if not isinstance(key, str):
            raise BadInput(f"{file}: {key!r} is not a name: a key must be text")
    return content
