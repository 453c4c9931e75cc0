"""Whatever stands on a command line, in a file or in a record ends in a result or in one line, and changes nothing.

The quick tier examines fixed examples, the slow one random ones, and more of them. Nothing is trained.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import Done, benchmark
from files import CONFIGS, RECORDS
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from benchmark.config import (
    as_setting,
    compose,
    from_container,
    identity,
    load_suite,
    overrides_of,
    value_of,
)
from benchmark.config.files import dump_yaml, parse_yaml
from benchmark.spec import BadInput

EXIT_CODES = (0, 1, 2, 3, 4, 130)


@dataclass(frozen=True)
class Tier:
    fixed: bool
    times: int

    def holds(self, law: Callable[[], None], examples: int) -> None:
        """Examine a law by so many examples, or by more."""
        settings(
            max_examples=examples * self.times,
            derandomize=self.fixed,
            phases=[Phase.generate] if self.fixed else [Phase.generate, Phase.shrink],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )(law)()


TIERS = pytest.mark.parametrize(
    "tier",
    [pytest.param(Tier(True, 1), id="fixed"), pytest.param(Tier(False, 20), id="random", marks=pytest.mark.slow)],
)


def said_in_one_line(text: str) -> None:
    assert len(text.splitlines()) == 1, text
    assert text.isprintable()
    assert len(text) < 1500


def at_once(line: str) -> bool:
    """What a command says before it knows whether the input is good."""
    return line.endswith("importing torch")


def ended_well(done: Done) -> None:
    """With an exit code of the design; where the input was bad, with one line."""
    assert done.returncode in EXIT_CODES, done
    assert "Traceback" not in done.stderr
    if done.returncode == 2:
        (line,) = [line for line in done.stderr.splitlines() if not line.startswith("skipped: ") and not at_once(line)]
        said_in_one_line(line)


# Values and settings ------------------------------------------------------------------------------------------------

BASE = compose(["data=digits", "model=vae"]).container()


def leaves(node: dict[str, Any], place: str = "") -> Iterator[str]:
    for name, value in node.items():
        key = f"{place}.{name}".lstrip(".")
        yield from leaves(value, key) if isinstance(value, dict) else [key]


KEYS = [
    *leaves(BASE),
    "seed",
    "model",
    "data",
    "budget",
    "examples",
    "examples.quick",
    "training",
    "before",
    "defaults",
]
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
ODD = [
    *("", "null", "true", "1", "0", "-1", "1e400", "nan", "-inf", "1e-3", "1_000", "0x10", "007", "1.", "~", "'", '"'),
    *("[]", "[1, 2]", "[[[[", "{", "{}", "{a: 1}", "{name: x}", "[null]", '"a"', "'a'", "'a''b'", '"\\u0000"', "a\nb"),
    *(
        "${seed.init}",
        "${nope}",
        "${budget.minutes}",
        "${",
        "$",
        "???",
        "${oc.env:HOME}",
        "${model}",
        '"${model.name}"',
    ),
    *("!!python/object:os.system x", "[&a [*a]]", "*a", "[!x y]", "2026-01-01", "vae", "digits", "é", "\ud800", "\0"),
    *("x" * 300, "9" * 5000, "../../x", "benchmark.models.vae.vae.VAE", "os.system"),
]
near = st.builds(
    lambda key, at, text: f"{key[:at]}{text}{key[at:]}", st.sampled_from(KEYS), st.integers(0, 30), st.text(max_size=2)
)
texts = st.sampled_from(ODD) | st.text(max_size=12) | SCALARS.map(str)
overrides = st.builds(lambda key, text: f"{key}={text}", st.sampled_from(KEYS) | near, texts) | st.text(max_size=10)


@TIERS
def test_a_value_comes_back_from_its_text(tier: Tier) -> None:
    @given(SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=3), max_size=3))
    def law(value: Any) -> None:
        key, text = as_setting("model.x", value).split("=", 1)
        assert value_of(key, text) == value
        assert type(value_of(key, text)) is type(value)

    tier.holds(law, 250)


@TIERS
def test_a_file_that_is_written_is_read_as_what_was_meant(tier: Tier) -> None:
    """Also text that looks like a number, a date or a truth, such as 795e02, the id of a run."""
    words = st.text("0123456789abcdefxnoyes_.:-+~ ", max_size=8) | st.sampled_from(["null", "1e3", "2026-11-27", "no"])
    known = SCALARS | words

    @given(st.dictionaries(words.map(lambda word: f"k{word}"), known | st.lists(known, max_size=3), max_size=3))
    def law(content: dict[str, Any]) -> None:
        assert parse_yaml(dump_yaml(content)) == content

    tier.holds(law, 250)


@TIERS
def test_any_setting_gives_an_experiment_or_one_line(tier: Tier) -> None:
    @given(st.lists(overrides, min_size=1, max_size=3))
    def law(given_: list[str]) -> None:
        try:
            experiment = compose(["data=digits", "model=vae", *given_])
        except BadInput as error:
            said_in_one_line(str(error))
            return
        content = json.loads(json.dumps(experiment.container(), allow_nan=False))
        assert from_container(content) == experiment
        assert from_container(parse_yaml(dump_yaml(content))) == experiment
        assert identity(content) == experiment.config_hash

    tier.holds(law, 400)


@cache
def shipped() -> list[dict[str, Any]]:
    """The configurations of a suite, as records hold them."""
    return [experiment.container() for experiment in load_suite("quick")]


@TIERS
def test_the_settings_of_an_experiment_give_it_again(tier: Tier) -> None:
    """All that it says, key by key; and the few that `overrides_of` finds necessary."""

    @given(st.sampled_from(shipped()), st.data())
    def law(content: dict[str, Any], data: st.DataObject) -> None:
        content = copy.deepcopy(content)
        numbers = [key for key in leaves(content) if key.startswith(("training", "budget.ex", "seed", "model"))]
        for key in data.draw(st.lists(st.sampled_from(numbers), max_size=3)):
            group, name = key.split(".", 1)
            if isinstance(content[group][name], int) and not isinstance(content[group][name], bool):
                content[group][name] += 1
        experiment = from_container(content)
        again = compose(overrides_of(content))
        assert (again.config_hash, again.seed) == (experiment.config_hash, experiment.seed)
        names = [f"{group}={content[group]['name']}" for group in ("data", "model", "budget")]
        flat = {f"{group}.{name}": value for group, options in content.items() for name, value in options.items()}
        whole = [
            as_setting(key, value)
            for key, value in flat.items()
            if not key.endswith((".name", ".minutes", ".identity"))
        ]
        assert compose([*names, *whole]).config_hash == experiment.config_hash

    tier.holds(law, 30)


def shuffled(node: Any, draw: Callable[[Any], Any]) -> Any:
    """The same with keys in another order, and some whole numbers of the other type."""
    if isinstance(node, dict):
        return {key: shuffled(node[key], draw) for key in draw(st.permutations(list(node)))}
    if isinstance(node, list):
        return [shuffled(one, draw) for one in node]
    if isinstance(node, int) and not isinstance(node, bool) and draw(st.booleans()):
        return float(node)
    return int(node) if isinstance(node, float) and node.is_integer() and draw(st.booleans()) else node


@TIERS
def test_identity_is_of_what_changes_a_result_and_of_nothing_else(tier: Tier) -> None:
    @given(st.sampled_from(shipped()), st.data())
    def law(content: dict[str, Any], data: st.DataObject) -> None:
        same = shuffled(content, data.draw)
        same["seed"] = dict.fromkeys(("init", "data", "eval"), data.draw(st.integers(0, 2**31 - 1)))
        same["runtime"] = data.draw(st.dictionaries(st.text(max_size=5), SCALARS, max_size=3))
        same["budget"] |= {"name": data.draw(st.text(max_size=5)), "minutes": data.draw(st.floats(0.1, 99))}
        assert identity(same) == identity(content)
        other = copy.deepcopy(content)
        place = data.draw(st.sampled_from([*changing(content)]))
        group, name = place.split(".", 1)
        value = data.draw(SCALARS.filter(lambda value: value != other[group][name]))
        other[group][name] = value
        assert identity(other) != identity(content), f"{place}={value!r}"

    tier.holds(law, 60)


def changing(content: dict[str, Any]) -> Iterator[str]:
    """The options that change a result."""
    without = {"target", "modality", "structures", "conditions", "minutes"}
    for group in ("data", "model", "training", "evaluation"):
        yield from (f"{group}.{name}" for name in content[group] if name not in without)
    yield "budget.examples"


# What is out of range -----------------------------------------------------------------------------------------------


def stop(*_: Any, **__: Any) -> None:
    """Stands where training would begin."""
    raise KeyboardInterrupt


OUT_OF_RANGE = st.sampled_from([-1, -0.5, math.inf, -math.inf, math.nan, True, "x", []])


@TIERS
def test_a_number_out_of_range_is_refused_before_a_folder_exists(tier: Tier, tmp_path: Path, monkeypatch: Any) -> None:
    """Of training, evaluation, seeds and budget, through the command itself."""
    monkeypatch.setattr("benchmark.train.carry_out", stop)
    places = [
        key
        for key, value in ((key, value_at(BASE, key)) for key in leaves(BASE))
        if isinstance(value, (int, float)) and key.startswith(("training", "evaluation", "seed", "budget"))
    ]

    @given(st.sampled_from(places), OUT_OF_RANGE)
    def law(key: str, value: Any) -> None:
        text = as_setting(key, value) if isinstance(value, (str, list)) else f"{key}={value}".lower()
        done = benchmark("run", "data=digits", "model=vae", text, cwd=tmp_path)
        assert done.returncode == 2
        assert key in done.stderr
        ended_well(done)
        assert not list(tmp_path.iterdir())

    tier.holds(law, 40)


def value_at(content: dict[str, Any], key: str) -> Any:
    group, name = key.split(".", 1)
    return content[group].get(name)


# Files of the user's own --------------------------------------------------------------------------------------------

FOREIGN = st.sampled_from(
    [
        *(None, True, 0, -1, 10**400, 0.5, 1e308, math.nan, math.inf, "", "x", "vae", "digits", "../../x", "a\nb", "é"),
        *("x" * 500, ".", [], [1], ["a"], [[]], {}, {"a": 1}, {"": {}}, {"name": "x"}, {1: 2}, {None: 1}),
        *("benchmark.models.vae.vae.VAE", "os.system", "a.b.c", "${seed.init}", "${nope}", "${", "???"),
        *({"x": "${data}"}, ["${model}"], ["vae"], {"value": None}, "2026-01-01", 10**12, "\x1b[31m", "<b>&"),
    ]
).map(copy.deepcopy)
NAMES = st.sampled_from(["x", "", "name", "defaults", "before", "target", "é", "a.b", "a\nb"])


def paths(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in inner:
        yield from paths(value, (*place, key))


@st.composite
def changed(draw: Callable[[Any], Any], content: Any) -> Any:
    """The content with one to three values removed, replaced or added, at every depth alike."""
    content = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        places = list(paths(content))
        if not places:
            break
        depth = draw(st.sampled_from(sorted({len(place) for place in places})))
        *parents, last = draw(st.sampled_from([place for place in places if len(place) == depth]))
        node = content
        for key in parents:
            node = node[key]
        how = draw(st.sampled_from(["remove", "replace", "replace", "add"]))
        if how == "remove":
            del node[last]
        elif how == "replace":
            node[last] = draw(FOREIGN)
        elif isinstance(node, dict):
            node[draw(st.sampled_from(["x", "", "name", "defaults", "before", "target", "é", "a.b", "a\nb"]))] = draw(
                FOREIGN
            )
    return content


#: How the bytes of a file go wrong: text -> bytes.
DAMAGES: list[Callable[[bytes, int], bytes]] = [
    lambda text, at: text[:at] + b"\t" + text[at:],
    lambda text, at: text[:at],
    lambda text, at: text[:at] + b"\xff" + text[at:],
    lambda text, at: text[:at] + b"\0" + text[at:],
    lambda text, at: b"\xef\xbb\xbf" + text,
    lambda text, at: text.decode().encode("utf-16"),
    lambda text, at: text + b"\n" + text,
    lambda text, at: text + b"\nx: &a [*a]\n",
    lambda text, at: text + b"\nx: &a [1, 2]\ny: *a\n",
    lambda text, at: text + b"\n<<: {q: 1}\n",
    lambda text, at: text + b"\nx: " + b"[" * (1 + at % 90),
    lambda text, at: text + b"\n---\n" + text,
    lambda text, at: text.replace(b"\n", b"\r\n"),
    lambda text, at: text + b"\nx: !!python/object/apply:os.getcwd []\n",
    lambda text, at: b"- 1\n",
    lambda text, at: b"3",
    lambda text, at: b"",
]


@st.composite
def damaged(draw: Callable[[Any], Any], file: Path) -> bytes:
    text = file.read_bytes()
    if draw(st.booleans()):
        return yaml.safe_dump(draw(changed(yaml.safe_load(text))), allow_unicode=draw(st.booleans())).encode()
    return draw(st.sampled_from(DAMAGES))(text, draw(st.integers(0, len(text))))


FILES = [
    *("model/vae.yaml", "data/digits.yaml", "budget/quick.yaml", "suite/quick.yaml", "sweep/vae.yaml"),
    *("tuned/digits/vae.yaml", "experiment.yaml", "reference.yaml", "renames.yaml"),
]


@TIERS
def test_any_file_of_the_users_own_works_or_is_named(tier: Tier, tmp_path: Path, monkeypatch: Any) -> None:
    """By verbs that list, compose, run and search; where nothing is refused, they are stopped before they train."""

    for name in ("train.prepare", "launch.run_suite", "sweep.search.sweep"):
        monkeypatch.setattr(f"benchmark.{name}", stop)
    monkeypatch.setattr("benchmark.bench.measure", stop)
    numbers = count()

    @given(st.sampled_from(FILES).flatmap(lambda place: st.tuples(st.just(place), damaged(CONFIGS / place))))
    def law(given_: tuple[str, bytes]) -> None:
        place, content = given_
        home = tmp_path / str(next(numbers))  # files are read once a process
        folder = home / "mine"
        (folder / place).parent.mkdir(parents=True)
        (folder / place).write_bytes(content)
        for verb in (
            ["list"],
            ["run", "data=digits", "model=vae", "budget=quick"],
            ["run", "data=synthetic_images", "model=vdm", "budget=smoke"],
            ["suite", "quick"],
            ["data", "digits"],
            ["sweep", "model=vae", "trials=1"],
        ):
            done = stopped_or_done(*verb, cwd=home, BENCHMARK_CONFIGS=str(folder))
            ended_well(done)
            if verb == ["list"]:
                assert "gated_pixelcnn" in done.stdout
                assert all(str(folder) in line for line in done.stderr.splitlines())
        assert [file for file in folder.rglob("*") if file.is_file()] == [folder / place]
        assert (folder / place).read_bytes() == content
        assert list(home.iterdir()) == [folder]
        shutil.rmtree(home)

    tier.holds(law, 15)


def stopped_or_done(*arguments: str, cwd: Path, **environment: str) -> Done:
    try:
        return benchmark(*arguments, cwd=cwd, **environment)
    except KeyboardInterrupt:
        return Done(130, "", "")


# Records ------------------------------------------------------------------------------------------------------------


def newest(data: str, model: str) -> Path:
    return sorted((RECORDS / data / model).glob("*.json"))[-1]


def of_today(content: dict[str, Any]) -> dict[str, Any]:
    """As schema 2 writes it."""
    experiment = compose([f"data={content['data']}", f"model={content['model']}", f"budget={content['budget']}"])
    later = {"share": 1.0, "impossible": None, "precision": "float32", "processes": 1, "sources": {}}
    return content | later | {"schema": 2, "config": experiment.container(), "config_hash": experiment.config_hash}


KNOWN = [("digits", "vae"), ("digits", "sngan"), ("synthetic_images", "vdm"), ("tinyshakespeare", "gpt")]


@TIERS
def test_any_record_is_read_or_named(tier: Tier, tmp_path: Path) -> None:
    """By every verb that reads records, beside one that is whole."""
    numbers = count()

    @given(st.sampled_from(KNOWN), st.booleans(), st.booleans(), st.data())
    def law(known: tuple[str, str], today: bool, cut: bool, data: st.DataObject) -> None:
        records, out = tmp_path / str(next(numbers)), tmp_path / "out"
        whole = newest(*known)
        target = records / known[0] / known[1]
        target.mkdir(parents=True)
        for file in whole.parent.glob(f"{whole.stem}*"):
            shutil.copy(file, target)
        content = json.loads(whole.read_bytes())
        text = json.dumps(data.draw(changed(of_today(content) if today else content)))
        odd = target / f"9{whole.name[1:]}"
        odd.write_text(text[: data.draw(st.integers(0, len(text)))] if cut and data.draw(st.booleans()) else text)
        if whole.with_suffix(".npz").is_file():
            shutil.copy(whole.with_suffix(".npz"), odd.with_suffix(".npz"))
        before = {file: file.read_bytes() for file in records.rglob("*") if file.is_file()}
        beside: list[str | Path] = ["--records", records]
        verbs: list[list[str | Path]] = [
            ["leaderboard", *beside, "--to", out],
            ["compare", odd, target / whole.name, *beside],
            ["report", odd, *beside, "--runs", out / "none", "--to", out],
            ["verify", target / whole.name, "--against", odd, *beside],
            ["truth", *beside],
        ]
        for verb in verbs:
            ended_well(benchmark(*verb))
        checked = benchmark("check", odd)
        assert checked.returncode in (0, 2)
        assert all(line.startswith(str(odd)) for line in checked.stderr.splitlines())
        assert {file: file.read_bytes() for file in records.rglob("*") if file.is_file()} == before
        shutil.rmtree(records)

    tier.holds(law, 20)
