"""What a machine needs that has torch and neither a network nor git. Imports nothing but Python's own."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 64 * 2**20  # bytes of checkout, wheels and data together
MNIST = 11_594_722  # bytes of its four files
TORCH = "2.11"
PYTHON = "3.12"

#: What the three parts import, and a machine with torch may lack: distribution -> module.
SMALL = {
    "annotated-types": "annotated_types",
    "antlr4-python3-runtime": "antlr4",
    "certifi": "certifi",
    "charset-normalizer": "charset_normalizer",
    "click": "click",
    "filelock": "filelock",
    "fsspec": "fsspec",
    "hydra-core": "hydra",
    "idna": "idna",
    "lightning-utilities": "lightning_utilities",
    "markdown-it-py": "markdown_it",
    "mdurl": "mdurl",
    "omegaconf": "omegaconf",
    "packaging": "packaging",
    "pydantic": "pydantic",
    "pydantic-core": "pydantic_core",
    "pygments": "pygments",
    "pytorch-lightning": "pytorch_lightning",
    "pyyaml": "yaml",
    "requests": "requests",
    "rich": "rich",
    "safetensors": "safetensors",
    "torch-fidelity": "torch_fidelity",
    "torchmetrics": "torchmetrics",
    "tqdm": "tqdm",
    "typing-extensions": "typing_extensions",
    "typing-inspection": "typing_inspection",
    "urllib3": "urllib3",
}
#: What it must have, or be given by name: together with the rest they would be more than `LIMIT`.
LARGE = {
    "torch": "torch",
    "numpy": "numpy",
    "pillow": "PIL",
    "scipy": "scipy",
    "torchvision": "torchvision",
    "scikit-learn": "sklearn",
    "cloudpickle": "cloudpickle",
    "joblib": "joblib",
    "threadpoolctl": "threadpoolctl",
    "narwhals": "narwhals",
}
SOURCE_ONLY = ("antlr4-python3-runtime",)  # no wheel is published: one is built, of Python alone
OTHERWISE = {"torchvision": "0.26.0"}  # each goes with one torch: this one with `TORCH`

PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")


def missing() -> list[str]:
    """The distributions that cannot be imported here."""
    return [name for name, module in (SMALL | LARGE).items() if importlib.util.find_spec(module) is None]


def locked_versions(lock: str, python: str = PYTHON) -> dict[str, str]:
    """Distribution -> version in a lock file, where that of a newer Python stands beside that of an older one.

    >>> locked_versions("numpy==2.4 ; python_full_version < '3.12'\\nnumpy==2.5 ; python_full_version >= '3.12'")
    {'numpy': '2.5'}
    """
    found = re.findall(r"^([a-z0-9-]+)==(\S+)(?: ; python_full_version (<|>=) '([\d.]+)')?", lock, re.MULTILINE)
    wanted = tuple(map(int, python.split(".")))
    return {
        name: version
        for name, version, comparison, bound in found
        if not comparison or (wanted >= tuple(map(int, bound.split(".")))) == (comparison == ">=")
    }


def fetch_wheels(folder: Path, more: Sequence[str] = ()) -> int:
    """Fetch the wheels of `SMALL`, and of the distributions `more`, as locked; say what all weighs that is to be
    brought. 0, or 1 where that is too much."""
    if unknown := sorted(set(more) - set(LARGE)):
        print(f"error: {', '.join(unknown)}: not needed (large ones are {', '.join(LARGE)})", file=sys.stderr)
        return 2
    versions = locked_versions((REPOSITORY / "requirements.lock").read_text(encoding="utf-8")) | OTHERWISE
    wanted = {name: f"{name}=={versions[name]}" for name in (*SMALL, *more)}
    folder.mkdir(parents=True, exist_ok=True)
    platforms = [option for name in PLATFORMS for option in ("--platform", name)]
    made = ("--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms)
    _pip("download", folder, made, [wanted[name] for name in wanted if name not in SOURCE_ONLY])
    with tempfile.TemporaryDirectory() as built:
        _pip("wheel", Path(built), (), [wanted[name] for name in SOURCE_ONLY])
        for file in Path(built).glob("*.whl"):
            (folder / file.name).write_bytes(file.read_bytes())
    sizes = {
        "wheels": sum(file.stat().st_size for file in folder.glob("*.whl")),
        "checkout": sum((REPOSITORY / name).stat().st_size for name in _tracked()),
        "MNIST": MNIST,
    }
    total = sum(sizes.values())
    print(", ".join(f"{name} {size / 2**20:.1f} MiB" for name, size in (sizes | {"together": total}).items()))
    if total > LIMIT:
        print(f"error: more than {LIMIT / 2**20:.0f} MiB: leave out what is there, or leaderboards/", file=sys.stderr)
    return int(total > LIMIT)


def _pip(verb: str, folder: Path, options: Sequence[str], wanted: Sequence[str]) -> None:
    where = "--dest" if verb == "download" else "--wheel-dir"
    command = [sys.executable, "-m", "pip", verb, "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, where, str(folder), *options, *wanted], check=True)


def _tracked() -> list[str]:
    """The files of the checkout that git tracks; none where there is no git."""
    done = subprocess.run(["git", "-C", str(REPOSITORY), "ls-files", "-z"], capture_output=True, text=True)
    return [name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]
