"""The files about the project agree with each other: version, licence, checks."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml
from files import REPOSITORY
from locked import differences

import benchmark


def read_yaml(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def hooks() -> dict[str, dict[str, Any]]:
    repositories = read_yaml(".pre-commit-config.yaml")["repos"]
    assert [repository["repo"] for repository in repositories] == ["local"]  # anything else would be fetched
    return {hook["id"]: hook for hook in repositories[0]["hooks"]}


def test_the_citation_is_of_this_version(project: dict[str, Any]) -> None:
    citation = read_yaml("CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] == "software"
    assert citation["message"]
    same = {name: citation[key] for name, key in {"name": "title", "description": "abstract"}.items()}
    same |= {name: citation[name] for name in ("version", "license", "authors")}
    assert same == {name: project[name] for name in same}
    assert benchmark.__version__ == project["version"]


def test_the_licence_is_the_one_that_is_named(project: dict[str, Any]) -> None:
    first = " ".join((REPOSITORY / "LICENSE").read_text(encoding="utf-8").split()[:4])
    assert (first, project["license"]) == ("Apache License Version 2.0,", "Apache-2.0")


def test_the_changelog_names_versions_the_newest_first(project: dict[str, Any]) -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)
    released = [re.fullmatch(r"\[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}", title) for title in titles[1:]]
    assert titles[0] == "[Unreleased]"
    assert all(released)
    versions = [tuple(map(int, found[1].split("."))) for found in released if found]
    assert versions == sorted(versions, reverse=True)
    assert not versions or ".".join(map(str, versions[0])) == project["version"]
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert kinds
    assert {*kinds} <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_workflow_runs_the_checks_on_every_python_that_is_supported(project: dict[str, Any]) -> None:
    (job,) = read_yaml(".github/workflows/ci.yml")["jobs"].values()
    versions = job["strategy"]["matrix"]["python"]
    assert f">={versions[0]}" == project["requires-python"]
    assert job["env"]["PYTHON"] == "python${{ matrix.python }}"
    setup = next(step for step in job["steps"] if step.get("uses", "").startswith("actions/setup-python"))
    assert setup["with"]["python-version"] == "${{ matrix.python }}"
    assert job["steps"][-1] == {"run": ".ci/run"}
    assert os.access(REPOSITORY / ".ci/run", os.X_OK)


def test_every_extra_is_locked(project: dict[str, Any]) -> None:
    """So that `make setup` installs the tools of the tests and the peers that ours is compared with."""
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    for extra, wanted in project["optional-dependencies"].items():
        assert f" --extra {extra} " in makefile
        names = [re.split(r"[\[<>=~!]", requirement)[0] for requirement in wanted]
        assert [name for name in names if not re.search(rf"^{name}(\[.*\])?==", lock, re.MULTILINE)] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_environment_is_built_with_the_python_that_is_asked_for() -> None:
    command = ["make", "--dry-run", "--always-make", "setup"]
    environment = {**os.environ, "PYTHON": "python3.99"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
    assert "python3.99 -m venv .venv" in done.stdout


def test_hooks_are_the_checks_of_make(hooks: dict[str, dict[str, Any]]) -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8").replace("$(BIN)", ".venv/bin")
    for name in ("ruff", "format", "types"):
        assert f"\n\t{hooks[name]['entry'].removesuffix(' --force-exclude')}" in makefile


def test_the_hook_of_yaml_convicts(hooks: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    if not (REPOSITORY / ".venv/bin/python").exists():
        pytest.skip("there is no .venv: make setup")
    (tmp_path / "bad.yaml").write_text("a: [1, 2\n")
    (tmp_path / "good.yaml").write_text("a: [1, 2]\n")
    codes = [
        subprocess.run(f"{hooks['yaml']['entry']} {file}", shell=True, cwd=REPOSITORY, capture_output=True).returncode
        for file in (tmp_path / "good.yaml", tmp_path / "bad.yaml")
    ]
    assert codes == [0, 1]


def test_the_hook_of_last_lines_convicts(hooks: dict[str, dict[str, Any]]) -> None:
    pattern = re.compile(hooks["last-line"]["entry"].encode(), re.MULTILINE)
    assert [bool(pattern.search(text)) for text in (b"a\nb", b"a\nb\n", b"")] == [True, False, False]


def test_the_package_says_that_it_is_typed() -> None:
    assert (files("benchmark") / "py.typed").is_file()


def test_warnings_are_errors_under_the_lock(locked: bool) -> None:
    with pytest.raises(UserWarning, match="planted") if locked else pytest.warns(UserWarning, match="planted"):
        warnings.warn("planted", UserWarning, stacklevel=1)


def test_a_version_that_is_not_locked_is_named() -> None:
    hashes = " \\\n    --hash=sha256:0\n"
    lock = f"a==1.0{hashes}b==2.0 ; python_version < '3.12'{hashes}b==2.1 ; python_version >= '3.12'{hashes}"
    assert differences(lock, {"a": "1.0", "b": "2.1", "other": "3"}) == []
    assert differences(lock, {"a": "1.1", "b": "2.2"}) == ["a 1.1 is not 1.0", "b 2.2 is not 2.0 or 2.1"]
