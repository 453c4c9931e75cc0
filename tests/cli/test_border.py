"""What a user writes in files and on the command line: it counts, or one line says why not; nothing runs without
consent, and nothing that failed looks like a beginning."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import benchmark, refusal
from files import CONFIGS, REPOSITORY, shipped, write

from benchmark import launch, record, train
from benchmark.config import compose, config_folders, load_data, load_model, tuned_identity
from benchmark.metrics.extractors import load_extractor
from benchmark.spec import Absence, BadInput
from benchmark.sweep.command import plan_of

QUICK = ["budget.examples=64", "training.validations=1", "evaluation.importance_samples=2", "runtime.threads=1"]

#: A package outside the benchmark: data and a model of the user's own. Importing it leaves a trace.
SLY = """\
import os
from pathlib import Path

import torch

from benchmark.data.base import Card, InMemory, Split
from benchmark.data.images import Images
from benchmark.models.vae.vae import VAE
from benchmark.spec import DataSpec

Path(os.environ["SLY_TRACE"]).touch()


class Blobs(Images):
    card = Card("blobs", "made here", "none needed", "nobody")

    def __init__(self, root: Path, examples: int = 64) -> None:
        made = torch.Generator().manual_seed(0)
        splits = {}
        for name in ("train", "validation", "test"):
            labels = torch.arange(examples) % 10
            x = (torch.rand(examples, 1, 8, 8, generator=made) * 4).to(torch.uint8) + labels.view(-1, 1, 1, 1) % 13
            splits[name] = Split(x.to(torch.uint8), labels)
        super().__init__(DataSpec((1, 8, 8), 17, "grid", DataSpec.label(10)), splits)


class Own(VAE):
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of configurations."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def sly(own: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package and configurations that name its classes; yields the trace that importing it leaves."""
    package, trace = own.parent / "packages" / "sly", own.parent / "trace"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(SLY)
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setenv("SLY_TRACE", str(trace))
    importlib.invalidate_caches()
    write(
        own,
        data__blobs=shipped("data/digits.yaml") | {"target": "sly.Blobs", "examples": 64},
        model__own=shipped("model/vae.yaml") | {"target": "sly.Own"},
        suite__own={
            "description": "one",
            "budget": "smoke",
            "seeds": [0],
            "experiments": [{"data": "digits", "model": "own"}],
        },
        sweep__own=shipped("sweep/vae.yaml"),
        tuned__digits__own={"examples": dict.fromkeys(("smoke", "quick", "standard", "full"), 64)},
        tuned__blobs__vae={"examples": dict.fromkeys(("smoke", "quick", "standard", "full"), 64)},
    )
    yield trace
    sys.modules.pop("sly", None)


# What the user wrote counts, for every verb -------------------------------------------------------------------------


def test_a_users_own_file_counts_in_place_of_the_shipped_one_for_every_verb(own: Path) -> None:
    write(own, model__vae=shipped("model/vae.yaml") | {"structures": ["grid", "sequence"], "latent": 3})
    listed = json.loads(benchmark("list", "--json").stdout)
    found = {tuple(model["structures"]) for model in listed["models"] if model["name"] == "vae"}
    assert found == {("grid", "sequence")}
    assert load_model("vae").options["latent"] == compose(["model=vae"]).model.options["latent"] == 3
    assert {one.model.options["latent"] for one in launch_suite("quick") if one.model.name == "vae"} == {3}
    assert tuned_identity("digits", "vae", "standard") == compose(["model=vae"]).config_hash


def test_a_model_that_names_modalities_is_told_to_name_structures(own: Path) -> None:
    content = shipped("model/vae.yaml")
    del content["structures"]
    write(own, model__mine=content | {"modalities": ["image"]})
    line = refusal(benchmark("run", "model=mine", "data=digits", "budget=smoke"))
    assert f"{own / 'model' / 'mine.yaml'}: modalities=['image']" in line
    assert "structures: [grid, sequence, coordinates, label]" in line
    assert not (own.parent / "runs").exists()


def launch_suite(name: str) -> list[Any]:
    from benchmark.config import load_suite

    return load_suite(name)


def test_what_the_user_says_wins_over_what_is_tuned_for_the_shipped_file(own: Path) -> None:
    """The tuned values that the user left alone still count; those of another class do not."""
    tuned, vae = shipped("tuned/digits/vae.yaml")["model"], shipped("model/vae.yaml")
    write(own, model__vae=vae | {"width": 7})
    options = compose(["model=vae"]).model.options
    assert options["width"] == 7
    assert options["dropout"] == tuned["dropout"]
    write(own, tuned__digits__vae={"model": {"width": 9}, "examples": {"standard": 5}})
    folders, fresh = config_folders(), own.parent / "again"
    shutil.copytree(folders[0], fresh)  # files are read once a process
    os.environ["BENCHMARK_CONFIGS"] = str(fresh)
    assert compose(["model=vae"]).model.options["width"] == 9
    assert compose(["model=vae", "model.width=11"]).model.options["width"] == 11


def test_the_files_name_is_the_name(own: Path) -> None:
    """A file that was copied, with the name of the one that it was copied from still in it."""
    write(own, model__mine=shipped("model/vae.yaml") | {"name": "vae", "latent": 3})
    experiment = compose(["model=mine", "budget.examples=64"])
    assert experiment.model.name == "mine"
    folder = train.prepare(experiment)
    assert folder.parent == Path("runs/digits/mine")
    assert "mine" in benchmark("list").stdout


def test_the_users_own_defaults_and_renames_count(own: Path) -> None:
    write(
        own,
        experiment=shipped("experiment.yaml") | {"defaults": {"data": "digits", "model": "vdm", "budget": "smoke"}},
        renames={"renames": [{"group": "model", "old": "vee", "new": "vae"}]},
    )
    assert (compose().model.name, compose().budget.name) == ("vdm", "smoke")
    assert plan_of(["trials=1"])[0].base.model.name == "vdm"
    from datetime import UTC, datetime

    from benchmark.config import name_today

    assert name_today("model", "vee", datetime(2026, 1, 1, tzinfo=UTC)) == "vae"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("model/mine.yml", "mine.yml is not read: call it mine.yaml"),
        ("modle/mine.yaml", "unknown group 'modle'; did you mean 'model'"),
        ("experimnt.yaml", "did you mean 'experiment.yaml'"),
        ("model/deep/mine.yaml", "its place is model/NAME.yaml"),
        ("tuned/vae.yaml", "its place is tuned/DATA/MODEL.yaml"),
        ("tuned/digits/vea.yaml", "unknown model 'vea'; did you mean 'vae'"),
    ],
)
def test_a_file_that_nothing_reads_is_named(own: Path, place: str, words: str) -> None:
    (own / place).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(CONFIGS / "model" / "vae.yaml", own / place)
    done = benchmark("list")
    assert done.returncode == 1
    assert words in done.stderr
    assert "gated_pixelcnn" in done.stdout


def test_a_folder_that_is_not_there_and_a_setting_that_is_given_twice_are_named(own: Path) -> None:
    assert "which is not a folder" in refusal(benchmark("list", BENCHMARK_CONFIGS=str(own / "nowhere")))
    line = refusal(benchmark("run", "model=vae", "model=vdm"))
    assert "model is given 2 times: decide between model=vae and model=vdm" in line


# A result of other code is not today's ------------------------------------------------------------------------------


def forget_code() -> None:
    """As a new process starts: what code is, is read anew."""
    record.provenance._source_hash.cache_clear()
    sys.modules.pop("sly", None)


@pytest.mark.parametrize("change", ["model", "other module", "nothing"])
def test_a_suite_runs_again_what_other_code_of_the_users_own_has_made(sly: Path, change: str) -> None:
    (experiment,) = launch_suite_trusting("own")
    forget_code()
    folder = train.prepare(experiment)
    assert launch._stopped([experiment])
    made = finished(experiment)
    record.write_record(folder, made)
    assert list(launch._finished([experiment]).values()) == [folder]
    package = sly.parent / "packages" / "sly"
    changed = {"model": package / "__init__.py", "other module": package / "blocks.py", "nothing": package / "x.txt"}
    with changed[change].open("a") as file:
        file.write("# another line\n")
    forget_code()
    assert len(launch._finished([experiment])) == (change == "nothing")
    (folder / "record.json").unlink()
    assert len(launch._stopped([experiment])) == (change == "nothing")
    if change != "nothing":
        with pytest.raises(BadInput, match=r"began with other code \(sly changed since\).*--changed-code"):
            record.check_code(folder, experiment.targets)
        record.check_code(folder, experiment.targets, changed_code=True)
        assert record.CHANGED in record.changed_code(folder)


def launch_suite_trusting(name: str) -> list[Any]:
    from benchmark.config import load_suite

    return load_suite(name, QUICK, ["sly"])


def finished(experiment: Any) -> record.Record:
    """A record of the experiment, made by the code of today."""
    from builders import record as made

    return made(
        schema=2,
        config=experiment.container(),
        config_hash=experiment.config_hash,
        model=experiment.model.name,
        budget=experiment.budget.name,
        code_hash=record.code_hash(),
        sources=record.sources(experiment.targets),
    )


def test_the_code_of_a_package_in_parts_of_one_file_and_of_none_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As wheels bring it: without a repository, as a folder without __init__.py in two places, as one module."""
    for place, text in {"a/parts/one.py": "1", "b/parts/two.py": "2", "a/alone.py": "3"}.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    for folder in ("a", "b"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    targets = ["parts.one.Model", "alone.Model", "no_such_package.Model"]
    before = record.sources(targets)
    assert before["no_such_package"] == "unknown"
    for place in ("b/parts/two.py", "a/alone.py"):
        (tmp_path / place).write_text("4")
    record.provenance._source_hash.cache_clear()
    after = record.sources(targets)
    assert before["parts"] != after["parts"]
    assert before["alone"] != after["alone"]


# Consent ------------------------------------------------------------------------------------------------------------


def run_of(model: str, data: str) -> Callable[[], Path]:
    """The folder of a run that was begun with consent, which the next command does not give."""

    def begun() -> Path:
        experiment = compose([f"model={model}", f"data={data}", *QUICK], ["sly"])
        folder = train.prepare(experiment)
        (folder / "model.safetensors").touch()
        return folder

    return begun


@pytest.mark.parametrize(
    "command",
    [
        ["data", "blobs"],
        ["run", "model=own", *QUICK],
        ["run", "data=blobs", *QUICK],
        ["run", "model=vae", "model.target=sly.Own", *QUICK],
        ["run", "model=vae", "evaluation.outliers=blobs", *QUICK],
        ["run", "--resume", run_of("own", "digits")],
        ["run", "--resume", run_of("vae", "blobs")],
        ["evaluate", run_of("own", "digits")],
        ["sample", run_of("own", "digits")],
        ["suite", "own", *QUICK],
        ["suite", "quick", "evaluation.outliers=blobs", *QUICK],
        ["sweep", "model=own", "trials=1"],
        ["sweep", "model=vae", "data=blobs", "trials=1", "budget=quick"],
        ["truth", "model=own", "budget.examples=64"],
        ["bench", "own@digits"],
        ["bench", "vae@blobs"],
    ],
    ids=lambda command: " ".join(word if isinstance(word, str) else "RUN" for word in command[:3]),
)
def test_no_class_of_the_users_own_is_imported_without_consent(sly: Path, command: list[Any]) -> None:
    given = [word if isinstance(word, str) else word() for word in command]
    sys.modules.pop("sly", None)
    sly.unlink(missing_ok=True)
    before = sorted(Path.cwd().rglob("*"))
    assert "--trust sly" in refusal(benchmark(*given))
    assert not sly.exists()
    assert sorted(Path.cwd().rglob("*")) == before


def test_what_a_record_names_is_not_imported_without_consent(sly: Path, tmp_path: Path) -> None:
    experiment = compose(["model=own", *QUICK], ["sly"])
    file = record.write_record(tmp_path / "handed in", finished(experiment))
    sys.modules.pop("sly", None)
    sly.unlink(missing_ok=True)
    assert "--trust sly" in refusal(benchmark("verify", file))
    for verb in (["check", file], ["leaderboard", "--records", file.parent], ["report", file], ["list"]):
        benchmark(*verb)
    assert not sly.exists()


def test_consent_reaches_every_class(sly: Path) -> None:
    assert benchmark("data", "blobs", "--trust", "sly").returncode == 0
    assert sly.exists()
    given = ["model=own", "data=blobs", "evaluation.outliers=blobs", *QUICK]
    train.prepare(compose(given, ["sly"]))
    assert "--trust sly" in refusal(benchmark("data", "blobs", "--trust", "sly.data"))
    assert "add --trust sly" in refusal(benchmark("data", "blobs", "--trust", "other"))


# Paths and locales --------------------------------------------------------------------------------------------------

ODD = ["mein Ordner ü", "a=b,c(d)'e", "~tilde~", "日本", "[x] {y}", "100 %", "$HOME", '"quoted"', "-dash", "#hash;&|"]


@pytest.mark.parametrize("name", ODD)
def test_any_letter_may_stand_in_a_path(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the working folder, in `runtime.runs`, in `BENCHMARK_CONFIGS`, and in a record that is read again."""
    place = tmp_path / name
    place.mkdir()
    monkeypatch.chdir(place)
    write(place / "configs", model__mine=shipped("model/vae.yaml"))
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(place / "configs"))
    runs = place / f"runs {name}"
    experiment = compose(["model=mine", f"runtime.runs={runs}", *QUICK])
    assert Path(experiment.runtime.runs) == runs
    folder = train.prepare(experiment)
    again = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    assert again["runtime"]["runs"] == str(runs)
    record.write_record(folder, finished(experiment))
    assert list(record.read_records(runs)) == [folder / "record.json"]
    done = benchmark("leaderboard", "--records", runs, "--to", place / "board")
    assert done.returncode == 0, done.stderr
    assert "mine" in (place / "board" / "digits.md").read_text(encoding="utf-8")
    assert refusal(benchmark("run", "--resume", folder, "model.latent=3"))


def test_the_users_home_is_understood_and_another_users_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose(["runtime.runs=~/runs"]).runtime.runs == f"{tmp_path}/runs"
    assert "write the whole path" in refusal(benchmark("run", "runtime.runs=~nobody_of_that_name/runs"))


def test_a_locale_without_the_letters_is_no_hindrance(tmp_path: Path) -> None:
    place, description = tmp_path / "mein Ordner ü", "schön: 日本"
    write(place / "own", suite__mine=shipped("suite/quick.yaml") | {"description": description}, model__bad="# ü\na: [")
    own = {"BENCHMARK_CONFIGS": str(place / "own"), "PYTHONPATH": str(REPOSITORY)}
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "benchmark", "list"]
    done = subprocess.run(command, capture_output=True, cwd=place, env={**os.environ, **own, **ascii_only})
    assert done.returncode == 1
    assert description.encode() in done.stdout
    assert b"bad.yaml is not valid YAML" in done.stderr
    assert b"Traceback" not in done.stderr


# Values and files ---------------------------------------------------------------------------------------------------


def below(hints: Any) -> Any:
    """A number below the range of a type, `None` where it has none."""
    for limit in getattr(hints, "__metadata__", ()):
        if (least := getattr(limit, "ge", None)) is not None:
            return least - 1
        if (least := getattr(limit, "gt", None)) is not None:
            return least
    return None


def numbers_of(name: str) -> dict[str, Any]:
    """The options of a model that are numbers, with their types."""
    from typing import get_type_hints

    module, _, attribute = load_model(name).target.rpartition(".")
    cls = getattr(importlib.import_module(module), attribute)
    hints = get_type_hints(cls.__init__, include_extras=True)
    options = {option: hints[option] for option in load_model(name).options}
    return {option: hint for option, hint in options.items() if getattr(hint, "__origin__", hint) in (int, float)}


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml")))
def test_every_number_of_a_model_has_a_range_and_one_below_it_is_refused_before_a_folder_exists(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = "digits" if "grid" in load_model(model).structures else "pydocs"
    for option, hint in numbers_of(model).items():
        least = -1 if below(hint) is None else below(hint)
        for value in (least, "nan", "inf", "true", "x"):
            if option not in ("time_mean", "sigma_mean") or value != least:  # which may be any number
                given = [f"model={model}", f"data={data}", "budget.examples=64", f"model.{option}={value}"]
                assert option in refusal(benchmark("run", *given))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["seed=0,1"], ["seed.init='0,1'", "integer"]),
        (["seed=1.5"], ["seed.init=1.5"]),
        (["budget.examples=0"], ["budget.examples=0", "greater than or equal to 1"]),
        (["budget.examples=1e400"], ["budget.examples"]),
        (["budget.minutes=inf"], ["budget.minutes=inf"]),
        (["training.warmup=0.7", "training.decay=0.7"], ["at most 1 together"]),
        (["training.ema_decay=1"], ["training.ema_decay=1", "less than 1"]),
        (["training.batch_size=99999"], ["training.batch_size=99999", "give 1 to 1437"]),
        (["training.precision=float16"], ["'float32' or 'bfloat16'"]),
        (["training.selection=nl"], ["training.selection='nl'"]),
        (["training.weights=last", "training.patience=3"], ["weights=last", "patience=3"]),
        (["training.schedule=ladder"], ["set warmup=0 and decay=0"]),
        (["training.schedule=cosine"], ["set decay=0"]),
        (["evaluation.split=train"], ["'validation' or 'test'"]),
        (["evaluation.outliers=minst"], ["did you mean 'mnist'"]),
        (["evaluation.outliers=synthetic_images"], ["name data of the same kind"]),
        (["data=pydocs", "model=gpt", "data.context=999999"], ["context=999999", "give 1 to"]),
        (["data=pydocs", "model=gpt", "data.order=rnadom"], ["data.order='rnadom'", "'random' or 'contiguous'"]),
        (["model.width=3000000000000"], ["model.width=3000000000000"]),
        (["runtime.threads=-1"], ["runtime.threads=-1"]),
        (["runtime.runs="], ["runtime.runs=''"]),
        (["runtime.limit_minutes=0"], ["runtime.limit_minutes=0"]),
        (["runtime.inception=nowhere.pth"], ["runtime.inception=nowhere.pth is not a file"]),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, list) and "=" in words[0] else "",
)
def test_a_value_that_cannot_be_is_refused_before_a_folder_exists(
    settings: list[str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refusal(benchmark("run", "budget.examples=64" if "budget" not in settings[0] else "seed.eval=0", *settings))
    assert all(word in line for word in words), line
    assert not list(tmp_path.iterdir())


MALFORMED = {
    "a tab": (b"target:\tbenchmark.models.vae.vae.VAE\n\tx: 1\n", "is not valid YAML"),
    "nothing": (b"", "is empty"),
    "a comment": (b"# later\n", "is empty"),
    "a list": (b"- 1\n", "holds list, not a mapping"),
    "Latin-1": ("# schön\n".encode("latin-1"), "is not UTF-8"),
    "UTF-16": ("target: x\n".encode("utf-16"), "is not UTF-8"),
    "one key twice": (b"a: 1\na: 2\n", "'a' stands there twice"),
    "an anchor in itself": (b"a: &a [*a]\n", "nested more than"),
    "many brackets": (b"a: " + b"[" * 100 + b"]" * 100, "nested more than"),
    "anchors that multiply": (
        b"a: &a [1]\n" + b"".join(b"%c: &%c [*%c, *%c]\n" % (n, n, n - 1, n - 1) for n in range(98, 121)),
        "more than 100,000 values",
    ),
    "code": (b"a: !!python/object/apply:os.getcwd []\n", "is not valid YAML"),
    "a key that is not text": (b"1: a\n", "is not a name"),
    "no class": (b"structures: [grid]\n", "target is missing"),
    "a class that is none": (b"structures: [grid]\ntarget: VAE\n", "import path of a class"),
    "a value that is no number": (b"structures: [grid]\ntarget: a.B\nx: .nan\n", "give a finite number"),
    "a wrong kind": (b"structures: [pictures]\ntarget: a.B\n", "'grid', 'sequence'"),
    "half": (b"target: [benchmark", "is not valid YAML"),
}


@pytest.mark.parametrize(("content", "words"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_malformed_file_is_named_and_the_others_work(own: Path, content: bytes, words: str) -> None:
    write(own, model__bad=content, model__good=shipped("model/vae.yaml"))
    done = benchmark("list")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"{own / 'model' / 'bad.yaml'}" in line
    assert words in line
    assert "  good" in done.stdout
    line = refusal(benchmark("run", "model=bad", "budget.examples=64"))
    assert "bad.yaml" in line
    assert words in line
    assert not (own.parent / "runs").exists()
    assert compose(["model=good", "budget.examples=64"]).model.name == "good"


@pytest.mark.parametrize(
    ("place", "content", "words"),
    [
        ("budget__mine", {"minutes": 1, "examples": 0}, "mine.yaml: budget.examples=0"),
        (
            "budget__mine",
            {"minutes": 1, "examples": 9, "x": 9},
            "mine.yaml: unknown option of budget 'x'",
        ),
        ("experiment", {"training": 3}, "experiment.yaml: training must be a mapping"),
        ("experiment", {"defaults": None}, "experiment.yaml: defaults must name"),
        ("experiment", {"seed": {"init": -1, "data": 0, "eval": 0}}, "experiment.yaml: seed.init=-1"),
        ("tuned__digits__vae", {"modle": {}}, "vae.yaml: unknown section 'modle'; did you mean 'model'"),
        ("tuned__digits__vae", {"model": {"widht": 3}}, "vae.yaml: unknown option of model 'widht'; did you mean"),
        ("tuned__digits__vae", {"training": {"batch_size": 0}}, "vae.yaml: training.batch_size=0"),
        ("tuned__digits__vae", {"training": [1]}, "vae.yaml: training=[1]"),
    ],
)
def test_a_file_whose_values_do_not_fit_is_named(own: Path, place: str, content: dict[str, Any], words: str) -> None:
    content = shipped("experiment.yaml") | content if place == "experiment" else content
    write(own, **{place: content})
    budget = ["budget=mine"] if place.startswith("budget") else []
    length = [] if budget else ["budget.examples=64"]
    assert words in refusal(benchmark("run", "model=vae", *budget, *length))


def test_a_suite_with_an_entry_too_many_is_refused(own: Path) -> None:
    entry = {"data": "digits", "model": "vae", "seeds": 3}
    write(own, suite__mine={"description": "x", "budget": "smoke", "seeds": [0], "experiments": [entry]})
    assert "unknown option of experiments.0 'seeds' (allowed: data, model, settings)" in refusal(
        benchmark("suite", "mine")
    )


# Whose commit it is -------------------------------------------------------------------------------------------------


@pytest.fixture
def around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package, as installed in an environment that lies inside the repository of something else."""
    site = tmp_path / "project" / ".venv" / "lib" / "site-packages"
    shutil.copytree(REPOSITORY / "benchmark", site / "benchmark", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(CONFIGS, site / "benchmark" / "configs")
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "theirs"]):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run(["git", *identity, *command], cwd=tmp_path / "project", check=True, capture_output=True)
    monkeypatch.setattr(record.provenance, "_PACKAGE", site / "benchmark")
    monkeypatch.setattr(record.provenance, "_REPOSITORY", site)
    record.git_state.cache_clear()
    record.code_hash.cache_clear()
    yield site
    record.git_state.cache_clear()
    record.code_hash.cache_clear()


def test_a_record_names_no_commit_of_a_repository_that_surrounds_the_package(around: Path) -> None:
    assert record.git_state() is None
    installed = record.code_hash()
    (around / ".git").mkdir()  # nor one at its very top that does not hold its files
    record.git_state.cache_clear()
    assert record.git_state() is None
    record.code_hash.cache_clear()
    with (around / "benchmark" / "configs" / "model" / "vae.yaml").open("a") as file:
        file.write("# changed\n")
    assert record.code_hash() != installed


def test_the_code_has_one_name_installed_and_in_a_checkout(around: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its content, with git and without."""
    installed = record.code_hash()
    monkeypatch.undo()
    monkeypatch.setenv("PATH", "")
    record.code_hash.cache_clear()
    record.git_state.cache_clear()
    assert record.code_hash() == installed
    assert record.git_state() is None


# Leftovers, and data of one's own -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "tinyshakespeare", "text8", "wikitext2"])
def test_data_that_cannot_be_fetched_leave_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("benchmark.data.download.Retry", lambda **_: 0)
    nowhere: dict[str, Any] = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    nowhere |= {"no_proxy": "", "BENCHMARK_DATA": str(tmp_path / "data")}
    line = refusal(benchmark("data", name, **nowhere))
    assert "by hand" in line
    assert "its checksum is" in line
    refusal(benchmark("run", f"data={name}", f"model={of(name)}", "budget.examples=64", **nowhere))
    assert not list(tmp_path.iterdir())


def of(name: str) -> str:
    return "gpt" if load_data(name).modality == "text" else "vae"


def test_an_extractor_is_trained_on_the_users_own_images_and_found_by_its_runs(
    sly: Path, own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "scripts")
    script = importlib.import_module("train_extractor")
    with pytest.raises(BadInput, match="add --trust sly"):
        script.main(["data=blobs", "epochs=1"])
    assert not sly.exists()
    with torch.random.fork_rng():
        script.main(["data=blobs", "epochs=1", "--trust", "sly"])
    weights = own / "extractors" / "blobs-v1.safetensors"
    assert weights.is_file()
    with pytest.raises(BadInput, match="give version=2"):
        script.main(["data=blobs", "epochs=1", "--trust", "sly"])
    from benchmark.build import build_data
    from benchmark.evaluate import load_extractor as of_runs
    from benchmark.metrics.extractors.base import Extractor
    from benchmark.spec import sha256

    spec = build_data(load_data("blobs", ["sly"]), None).spec
    extractor, of_ours = of_runs("blobs", spec), load_extractor("blobs", spec)
    assert isinstance(extractor, Extractor)
    assert extractor.name == f"blobs-v1@{sha256(weights)[:8]}"
    assert isinstance(of_ours, Absence)
    assert of_ours.kind == "does not apply"  # the user's folders alone have one


# Folders of runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.yaml", b"\t", "config.yaml is not valid YAML"),
        ("config.yaml", b"a: 1\n", "is missing"),
        ("begun.json", b'{"code": ', "begun.json is damaged: start a new run"),
        ("begun.json", b'{"code": 3}', "begun.json is damaged: start a new run"),
        ("spent", b"an hour\n", "spent does not say how many seconds"),
        ("curves.csv", b"examples,name,value\n64,loss,low\n", "curves.csv does not hold the curves of a run"),
        ("last.ckpt", b"half a checkpoint", "last.ckpt is damaged: remove it"),
        ("record.json", b"{}", "record.json is not a valid record"),
    ],
)
def test_a_damaged_file_of_a_run_is_named_and_stops_no_other_run(
    own: Path, name: str, content: bytes, words: str
) -> None:
    experiment = compose(["model=vae", *QUICK])
    damaged, other = train.prepare(experiment), train.prepare(experiment)
    (damaged / name).write_bytes(content)
    line = refusal(benchmark("run", "--resume", damaged))
    assert words in line
    assert (damaged / name).read_bytes() == content
    assert other in launch._stopped([experiment]).values() or name in ("spent", "curves.csv", "last.ckpt")
