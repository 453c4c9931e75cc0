"""How long boards and site take where many records stand, and how much memory: measured, beside the goals.

python scripts/boards_at_scale.py FOLDER [--records 10000] [--studies 1000]

Makes up FOLDER from the committed records and studies: they get names of models and datasets that do not exist, seeds
and runs of their own, and scores that are a little worse. Likelihoods of single examples are worse by as much, except
for large files; these, curves and pictures are linked. FOLDER/configs tunes the made-up names, so that records stand
on boards as the committed ones do. Models are three times as many as datasets. Each has three seeds under two budgets,
and as far as records go, runs that are superseded: of older code, or at another setting. A FOLDER that was made before
is timed as it is, whatever the options say.

Each verb runs in a process of its own: from nothing, again with nothing new, and after one new record. Goals are for
10,000 records and 1,000 studies on a core whose Python loop of ten million additions takes half a second. Exit code 1:
a goal is missed.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.config import Experiment, choices, compose, dump_yaml, identity, read_group, read_yaml, tuned_identity
from benchmark.leaderboard.recounted import read_recounted, recount
from benchmark.record import SCHEMA, Record, per_example_file, read_records, write_atomic
from benchmark.reference import loop_seconds
from benchmark.spec import Score
from benchmark.sweep.studies import Study, as_lines, read_studies

REPOSITORY = Path(__file__).resolve().parents[1]
COMMITTED = REPOSITORY / "leaderboards"
MADE = "made.json"  # in a folder that this script made, and may clear
INPUTS = (MADE, "records", "studies", "configs")

SEEDS = 3
#: Budget and state of the records of a model on a dataset, three seeds each; the first two stand on boards.
LAYERS = (
    ("standard", "current"),
    ("quick", "current"),
    ("standard", "older code"),
    ("standard", "other setting"),
    ("quick", "older code"),
)
EXAMPLES = {"quick": 50_000, "standard": 500_000}
CODE = {"current": "c" * 40, "other setting": "c" * 40, "older code": "b" * 40}
LARGE = 2**16  # bytes of likelihoods that are linked as they are: a copy of each would fill a disk
EXACT = ("parameters", "flops_per_example")  # scores that all seeds share
UNTOLD = ("latent_flow",)  # whose records need those of another model

GOALS = {"from nothing": 1800.0, "nothing new": 15.0, "one new record": 20.0}  # seconds
GOAL_LOOP, GOAL_MEGABYTES = 0.5, 500.0


# Made-up names -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Name:
    """A made-up configuration, and the committed one that it is a copy of."""

    name: str
    source: str


@dataclass(frozen=True)
class Names:
    """As many models and datasets as records are enough for."""

    datasets: tuple[Name, ...]
    models: tuple[Name, ...]

    @classmethod
    def enough_for(cls, records: int) -> Names:
        cells = records / (SEEDS * len(LAYERS))
        n = max(1, round(math.sqrt(cells / 3)))
        data = ("digits", "tinyshakespeare", "digits", "synthetic_images", "digits", "synthetic_text")
        models = [name for name in choices("model") if name not in UNTOLD]
        return cls(_copies(data, n), _copies(models, max(1, math.ceil(cells / n))))

    @property
    def cells(self) -> list[tuple[Name, Name]]:
        return [(data, model) for data in self.datasets for model in self.models]


def _copies(sources: tuple[str, ...] | list[str], n: int) -> tuple[Name, ...]:
    return tuple(Name(f"{source}_{i}", source) for i, source in enumerate(islice(cycle(sources), n)))


def write_configs(folder: Path, names: Names) -> None:
    """Configurations of the made-up names; every model takes every dataset."""

    def write(place: str, content: Mapping[str, Any]) -> None:
        write_atomic(folder / f"{place}.yaml", dump_yaml(dict(content)))

    for data in names.datasets:
        write(f"data/{data.name}", read_group("data", data.source))
    for model in names.models:
        write(f"model/{model.name}", read_group("model", model.source) | {"structures": ["grid", "sequence"]})
        space = read_group("sweep", model.source)
        length = next(iter(space["trial"].values()))
        write(f"sweep/{model.name}", space | {"trial": {data.name: length for data in names.datasets}})
    for data, model in names.cells:
        file = choices(f"tuned/{data.source}").get(model.source)
        write(f"tuned/{data.name}/{model.name}", (read_yaml(file) if file else {}) | {"examples": EXAMPLES})


# Records -------------------------------------------------------------------------------------------------------------


class Records:
    """Made-up records, in the order of `LAYERS`: all models on all datasets in the first, and so on."""

    def __init__(self, folder: Path, names: Names) -> None:
        self.folder, self.names = folder, names
        found = recount(read_records(COMMITTED / "records"), read_recounted(COMMITTED / "recounted.json"))
        self.templates: dict[str, dict[str, list[tuple[Path, Record]]]] = defaultdict(lambda: defaultdict(list))
        for path, record in found.items():
            if record.status == "finished" and record.model not in UNTOLD:
                self.templates[record.data][record.model].append((path, record))
        self.experiments: dict[tuple[str, str, str, bool], tuple[dict[str, Any], str]] = {}
        self.number = 0

    def write(self, n: int) -> int:
        """Write `n` records; how many of them stand on boards."""
        places = (
            (layer, cell, seed)
            for layer in range(len(LAYERS))
            for cell in range(len(self.names.cells))
            for seed in range(SEEDS)
        )
        return sum(self.one(*place) for place in islice(places, n))

    def one(self, layer: int, cell: int, seed: int) -> bool:
        """Write a record and what lies beside it; whether it stands on a board."""
        (data, model), (budget, state) = self.names.cells[cell], LAYERS[layer]
        alike = self.templates[data.source]
        candidates = alike.get(model.source) or alike[sorted(alike)[cell % len(alike)]]
        path, template = candidates[(SEEDS * layer + seed) % len(candidates)]
        config, config_hash = self._config(data.name, model.name, budget, state == "other setting")
        seeds = {"init": seed, "data": seed, "eval": 0}
        generator = np.random.default_rng([layer, cell, seed])
        worse = 0.2 * float(np.random.default_rng(cell).random()) + 0.01 * float(generator.random())
        splits = {
            name: split | {"sha256": sha256(f"{data.name}{split['sha256']}".encode()).hexdigest()}
            for name, split in template.dataset["splits"].items()
        }
        record = template.model_copy(
            update={
                "schema_version": SCHEMA,
                "model": model.name,
                "data": data.name,
                "budget": budget,
                "seed": seeds,
                "config": config | {"seed": seeds},
                "config_hash": config_hash,
                "code_hash": CODE[state],
                "dataset": template.dataset | {"name": data.name, "splits": splits},
                "started": datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=self.number),
                "scores": {name: _worse(name, score, worse) for name, score in template.scores.items()},
                "renewed": None,
            }
        )
        stem = f"{seed}-{config_hash[:8]}-{self.number:08x}"
        target = self.folder / data.name / model.name
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{stem}.json").write_text(record.model_dump_json(by_alias=True, indent=1), encoding="utf-8")
        for file in path.parent.glob(f"{path.stem}*"):
            if file == per_example_file(path) and file.stat().st_size < LARGE:
                with np.load(file) as likelihoods:
                    np.savez_compressed(
                        target / f"{stem}.npz", **{name: (1 + worse) * x for name, x in likelihoods.items()}
                    )
            elif file != path:
                _link(file, target / f"{stem}{file.name.removeprefix(path.stem)}")
        self.number += 1
        return state == "current"

    def _config(self, data: str, model: str, budget: str, other: bool) -> tuple[dict[str, Any], str]:
        """A configuration as records hold it, and its identity: the tuned one, or one at another setting."""
        key = (data, model, budget, other)
        if key not in self.experiments:
            settings = [f"data={data}", f"model={model}", f"budget={budget}", *["training.batch_size=48"] * other]
            experiment: Experiment = compose(settings)
            config = experiment.to_record()
            assert identity(config) == experiment.config_hash
            assert (tuned_identity(data, model, budget) == experiment.config_hash) is not other
            self.experiments[key] = config, experiment.config_hash
        return self.experiments[key]


def _worse(name: str, score: Score, by: float) -> Score:
    """A score a little worse, or a share a little smaller: never better than what is possible."""
    if score.value is None or name in EXACT:
        return score
    return replace(score, value=score.value * (1 + by if abs(score.value) > 1 else 1 - by))


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


# Studies -------------------------------------------------------------------------------------------------------------


def write_studies(folder: Path, names: Names, n: int) -> int:
    """Write `n` studies, or as many as there are names for: all committed ones of a model for each made-up one."""
    of_model: dict[str, list[Study]] = defaultdict(list)
    for study in read_studies(COMMITTED / "studies").values():
        of_model[study.header.model].append(study)

    def made() -> Iterator[Study]:
        data_of = {study.header.data for studies in of_model.values() for study in studies}
        cells = sorted(names.cells, key=lambda cell: cell[0].source not in data_of)
        for number, (data, model) in enumerate(cells):
            source = model.source if model.source in of_model else sorted(of_model)[number % len(of_model)]
            for study in of_model[source]:
                yield _renamed(study, data.name, model.name, np.random.default_rng(number))

    count = 0
    for study in islice(made(), n):
        write_atomic(folder / study.header.data / f"{study.header.name}.jsonl", as_lines(study))
        count += 1
    return count


def _renamed(study: Study, data: str, model: str, generator: np.random.Generator) -> Study:
    old = study.header
    before = f"{old.data}-{old.model}"
    named = {f"data={old.data}": f"data={data}", f"model={old.model}": f"model={model}"}
    groups = {"data": old.config["data"] | {"name": data}, "model": old.config["model"] | {"name": model}}
    confirms = dict(old.confirms)
    if "study" in confirms:
        confirms["study"] = confirms["study"].replace(before, f"{data}-{model}", 1)
    header = old.model_copy(
        update={
            "name": old.name.replace(before, f"{data}-{model}", 1),
            "data": data,
            "model": model,
            "config": old.config | groups,
            "confirms": confirms,
            "settings": tuple(named.get(setting, setting) for setting in old.settings),
        }
    )
    factors = 1 + 0.02 * generator.random(len(study.trials))
    trials = tuple(
        trial if trial.score is None else trial.model_copy(update={"score": trial.score * float(factor)})
        for trial, factor in zip(study.trials, factors, strict=True)
    )
    return Study(header=header, trials=trials)


# Making and timing ---------------------------------------------------------------------------------------------------


def _made_up(folder: Path, records: int) -> Names:
    """The names of a folder, whose configurations, written where there are none, count from now on."""
    os.environ["BENCHMARK_CONFIGS"] = ""  # nobody's own
    names = Names.enough_for(records)
    if not (folder / "configs").is_dir():
        write_configs(folder / "configs", names)
    os.environ["BENCHMARK_CONFIGS"] = str(folder / "configs")
    return names


def make(folder: Path, records: int, studies: int) -> None:
    """Make up everything in `folder`; how much it is stands in `MADE`, which comes last."""
    names = _made_up(folder, records)
    current = Records(folder / "records", names).write(records)
    content = {
        "records": records,
        "on boards": current,
        "studies": write_studies(folder / "studies", names, studies),
        "models": len(names.models),
        "datasets": len(names.datasets),
    }
    write_atomic(folder / MADE, json.dumps(content, indent=1) + "\n")


def add_record(folder: Path, records: int) -> None:
    """One more seed of the first model on the first dataset."""
    names = _made_up(folder, records)
    made = Records(folder / "records", names)
    made.number = records
    made.one(0, 0, SEEDS)


def apart(work: Any, *given: Any) -> None:
    """Call a function in a process of its own, since the peak of a verb's memory counts that of this one."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=given)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(f"{work.__name__} failed")


@dataclass(frozen=True)
class Timing:
    """One call of a verb."""

    verb: str
    new: str
    seconds: float  # of wall time
    busy: float  # of the processor
    loop: float  # of ten million additions, around it
    megabytes: float  # its peak

    @property
    def scaled(self) -> float:
        """Seconds where the loop takes half a second."""
        return self.seconds * GOAL_LOOP / self.loop

    @property
    def missed(self) -> bool:
        return self.scaled > GOALS[self.new] or self.megabytes > GOAL_MEGABYTES


def timed(folder: Path, verb: str, new: str) -> Timing:
    """Carry out a verb on the made-up folder. Exits where it fails."""
    target = folder / "site" if verb == "site" else folder
    command = [sys.executable, "-m", "benchmark", verb, "--records", str(folder / "records"), "--to", str(target)]
    own = {"BENCHMARK_CONFIGS": str(folder / "configs"), "XDG_CACHE_HOME": str(folder / "cache")}
    loops = [loop_seconds()]
    with tempfile.TemporaryFile("w+") as errors:
        before = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | own, stdout=subprocess.DEVNULL, stderr=errors
        )
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - before
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{verb} ended with {process.returncode}: {errors.read()[-2000:]}")
    loops.append(loop_seconds())
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes there, in KiB elsewhere
    return Timing(verb, new, seconds, used.ru_utime + used.ru_stime, sum(loops) / 2, used.ru_maxrss / unit)


def clear(folder: Path, records: int) -> None:
    """Remove everything that was not made up: pages, what verbs keep, and the record that was added."""
    for file in folder.iterdir():
        if file.name not in INPUTS:
            shutil.rmtree(file) if file.is_dir() else file.unlink()
    for file in list((folder / "records").rglob(f"*-{records:08x}*")):
        file.unlink()


def measure(folder: Path, records: int) -> Iterator[Timing]:
    """Both verbs in the three cases, each from nothing."""
    for verb in ("leaderboard", "site"):
        clear(folder, records)
        yield timed(folder, verb, "from nothing")
        yield timed(folder, verb, "nothing new")
        apart(add_record, folder, records)
        yield timed(folder, verb, "one new record")
    clear(folder, records)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--studies", type=int, default=1_000)
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not (folder / MADE).is_file():
        if folder.exists() and any(folder.iterdir()):
            parser.error(f"{folder} was not made by this script, or not to its end: name a folder that does not exist")
        folder.mkdir(parents=True, exist_ok=True)
        apart(make, folder, arguments.records, arguments.studies)
    made: dict[str, int] = json.loads((folder / MADE).read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for name in ("records", "studies") for file in (folder / name).rglob("*.*"))
    print(", ".join(f"{made[name]:,} {name}" for name in made) + f": {size / 2**20:,.0f} MB")
    print("\n| verb | from | seconds | CPU seconds | loop | seconds at a loop of 0.5 | goal | peak MB | goal |")
    print("| --- | --- " + "| ---: " * 7 + "|")
    missed = False
    for one in measure(folder, made["records"]):
        missed |= one.missed
        print(
            f"| {one.verb} | {one.new} | {one.seconds:.1f} | {one.busy:.1f} | {one.loop:.2f} | {one.scaled:.1f} | "
            f"{GOALS[one.new]:,.0f} | {one.megabytes:,.0f} | {GOAL_MEGABYTES:.0f} |",
            flush=True,
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
