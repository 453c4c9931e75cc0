"""A model, a dataset, a modality, a metric with evidence of its own: two new files each, outside the package.

Each is built in a temporary folder, as code and YAML, and goes through `run`, `evaluate`, board, site, dashboard,
`check` and docs without a change to any file of ours.
"""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest
from commands import Done, benchmark
from runs import FEW_DRAWS

SHORT = ["budget=smoke", "budget.examples=320", "training.validations=1", *FEW_DRAWS, "runtime.threads=1"]

MODEL = '''
"""Independent pixels. Paper: none."""
import torch
from torch import nn
from benchmark.models.base import GenerativeModel
from benchmark.spec import Likelihood, NonNegative, Sampler


class Pixels(GenerativeModel, Likelihood):
    def __init__(self, spec, learning_rate: NonNegative = 0.1):
        super().__init__(spec)
        self.learning_rate = learning_rate
        self.logits = nn.Parameter(torch.zeros(spec.dims, spec.levels))

    @property
    def sampler(self):
        return Sampler("ancestral", 1)

    def log_prob(self, x):
        log_p = self.logits.log_softmax(1)
        return log_p[torch.arange(len(log_p)), x.flatten(1).long()].sum(1)

    def sample(self, n):
        p = self.logits.softmax(1)
        return torch.multinomial(p, n, replacement=True).T.reshape(n, *self.spec.shape)

    def training_step(self, batch, batch_idx):
        return {"loss": -self.log_prob(batch.x).mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
'''

DATASET = '''
import torch
from benchmark.data.base import Card, InMemory, Split, generator
from benchmark.spec import Batch, DataSpec


class Stripes(InMemory):
    """Pictures of 4x4 pixels in which a row is all dark or all bright."""

    card = Card("stripes", "drawn when needed", "none needed", "none")

    def __init__(self, root, brightest: int = 3):
        self.x = {name: self.draw(n, seed, brightest) for seed, (name, n) in enumerate(
            (("train", 400), ("validation", 80), ("test", 80)))}
        super().__init__(DataSpec((1, 4, 4), 4, "grid"), {name: Split(x) for name, x in self.x.items()})

    def draw(self, n, seed, brightest):
        rows = torch.randint(2, (n, 1, 4, 1), generator=generator(seed)) * brightest
        return rows.expand(n, 1, 4, 4).contiguous()

    def batch(self, seed, step, batch_size):
        train = self.split("train").x
        return Batch(train[torch.randint(len(train), (batch_size,), generator=generator(seed, step))])
'''

MODALITY = """
import math
import torch
from benchmark.metrics.likelihood import LogProb, LogProbs
from benchmark.metrics.probe import Found
from benchmark.modalities.base import Modality, Universe
from benchmark.spec import DataSpec


class Melodies(Modality):
    universe = Universe(
        DataSpec((8,), 5, "sequence"), DataSpec((4,), 3, "sequence"), DataSpec((16,), 12, "sequence")
    )

    def show(self, x, spec, decode, stem):
        file = stem.with_suffix(".txt")
        file.write_text("\\n".join(" ".join("cdefgahC"[note] for note in row) for row in x.tolist()))
        return file

    def references(self, session):
        nats = torch.full((len(session.split.x),), -session.spec.dims * math.log(session.spec.levels)).double()
        found = Found(LogProbs(nats, session.spec.dims), {"split": session.protocol.split})
        return {"any note": {LogProb: found}}
"""

TUNES = '''
import torch
from benchmark.data.base import Card, InMemory, Split, generator
from benchmark.spec import Batch, DataSpec


class Tunes(InMemory):
    """Scales of eight notes that go up by one, from a random note."""

    card = Card("tunes", "drawn when needed", "none needed", "none")

    def __init__(self, root):
        splits = {}
        for seed, (name, n) in enumerate((("train", 400), ("validation", 80), ("test", 80))):
            first = torch.randint(8, (n, 1), generator=generator(seed))
            splits[name] = Split((first + torch.arange(8)) % 8)
        super().__init__(DataSpec((8,), 8, "sequence"), splits)

    def batch(self, seed, step, batch_size):
        train = self.split("train").x
        return Batch(train[torch.randint(len(train), (batch_size,), generator=generator(seed, step))])
'''

METRIC = '''
from dataclasses import dataclass
import torch
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.samples import Draws
from benchmark.spec import Absence, Estimate


@dataclass(frozen=True)
class Brightness:
    samples: torch.Tensor
    real: torch.Tensor


class Lamps(Probe[Brightness]):
    """The mean brightness of each sample, and of real images."""

    key = "lamps"
    says = ("split", "lamp")
    collected = 0

    def collect(self, session):
        Lamps.collected += 1
        draws = session[Draws]
        if isinstance(draws, Absence):
            return draws
        sets = draws.evidence
        means = [x.double().flatten(1).mean(1) for x in (torch.cat(sets.generated), sets.held_out)]
        return Found(Brightness(*means), {**draws.protocol, "lamp": "mean of pixels"})


@metric(Lamps, protocol={"scale": "levels"})
def brightness_gap(found):
    """How much brighter samples are than real images, in levels."""
    return Estimate(abs(float(found.samples.mean() - found.real.mean())), None, len(found.samples))
'''

FILES = {
    "model": {
        "mine/pixels.py": MODEL,
        "configs/model/pixels.yaml": "target: mine.pixels.Pixels\nstructures: [grid]\nlearning_rate: 0.1\n",
    },
    "dataset": {
        "mine/stripes.py": DATASET,
        "configs/data/stripes.yaml": """
            target: mine.stripes.Stripes
            modality: image
            minutes: {smoke: 0.1}
            brightest: 3
            """,
    },
    "modality": {
        "mine/melodies.py": MODALITY,
        "configs/modality/melody.yaml": """
            target: mine.melodies.Melodies
            structure: sequence
            title: melodies
            unit: [melody, melodies]
            likelihood: [nll, bits_per_dim]
            select: [nll]
            shown: 3
            """,
        "mine/tunes.py": TUNES,
        "configs/data/tunes.yaml": "target: mine.tunes.Tunes\nmodality: melody\nminutes: {smoke: 0.1}\n",
    },
    "metric": {
        "mine/lamps.py": METRIC,
        "configs/metric/brightness_gap.yaml": """
            target: mine.lamps.brightness_gap
            title: brightness gap
            unit: levels
            better: lower
            low: 0
            digits: 3
            version: 1
            modalities: [image]
            of: samples
            section: Light
            formula: "|mean of samples - mean of held-out images|"
            protocol: all draws together
            source: none
            weaknesses: a grey picture has none
            """,
    },
}

#: What is new -> the settings of a run that shows it, and what its board must say.
SHOWN = {
    "model": (["model=pixels", "data=digits"], "pixels"),
    "dataset": (["model=vae", "data=stripes", "model.width=16", "model.depth=1", "model.latent=2"], "vae"),
    "modality": (
        ["model=gpt", "data=tunes", "model.layers=1", "model.width=32", "model.heads=2", "training.batch_size=16"],
        "any note",
    ),
    "metric": (["model=vae", "data=digits", "model.width=16", "model.depth=1"], "brightness gap"),
}


def written(folder: Path, what: str) -> None:
    for place, text in FILES[what].items():
        file = folder / place
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip(), encoding="utf-8")
    (folder / "mine" / "__init__.py").write_text("")


def done(command: Done) -> str:
    assert command.returncode == 0, command.stderr
    return command.stdout


@pytest.mark.parametrize("what", list(FILES))
def test_two_files_and_none_of_ours(what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = f"mine_{what}"  # imported once a process, so each has a name of its own
    written(tmp_path, what)
    (tmp_path / "mine").rename(tmp_path / package)
    for file in (tmp_path / "configs").rglob("*.yaml"):
        file.write_text(file.read_text().replace("target: mine.", f"target: {package}."))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("BENCHMARK_CONFIGS", str(tmp_path / "configs"))
    settings, said = SHOWN[what]
    data = next(setting for setting in settings if setting.startswith("data=")).removeprefix("data=")

    refused = benchmark("run", *SHORT, *settings, cwd=tmp_path)
    assert refused.returncode == 2
    assert f"add --trust {package}" in refused.stderr
    assert not (tmp_path / "runs").exists()
    done(benchmark("run", *SHORT, *settings, "--trust", package, cwd=tmp_path))
    (file,) = tmp_path.glob("runs/*/*/*/record.json")
    record = json.loads(file.read_text())
    assert record["status"] == "finished"
    assert list(record["sources"]) == [package]
    assert (file.parent / "samples").is_dir()

    again = done(benchmark("evaluate", file.parent, "--trust", package, cwd=tmp_path))
    first = "nll"
    assert f"{record['scores'][first]['value']:.2f}"[:4] in again, again

    (tmp_path / "ours").mkdir()
    places = ["--records", "ours", "--records", "runs"]
    done(benchmark("leaderboard", *places, "--to", "board", cwd=tmp_path))
    board = (tmp_path / "board" / f"{data}.md").read_text()
    assert said in board, board
    done(benchmark("site", *places, "--to", "pages", cwd=tmp_path))
    assert said in (tmp_path / "pages" / "data" / f"{data}.html").read_text()
    done(benchmark("dashboard", "--to", "views.json", cwd=tmp_path))
    assert said in done(benchmark("list", "--json", cwd=tmp_path)) + board
    content = record | {"code_hash": "c" * 40, "git": {"commit": "d" * 40, "dirty": False}}
    file.write_text(json.dumps(content))
    checked = benchmark("check", file.parent, "--trust", package, cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, f"{file.parent}: well-formed\n"), checked.stderr
    done(benchmark("docs", "--to", "pages", "--trust", package, cwd=tmp_path))
    page = (tmp_path / "pages" / "metrics.md").read_text()
    if what == "metric":
        assert "## Light\n\n### `brightness_gap`" in page
        gap = record["scores"]["brightness_gap"]
        assert gap["protocol"]["scale"] == "levels"
        assert gap["protocol"]["lamp"] == "mean of pixels"
        assert record["dataset"]["references"]["held-out data"]["brightness_gap"]["value"] == 0
        assert "test/brightness_gap" not in (tmp_path / "views.json").read_text(), "no modality has it in its columns"
    if what == "modality":
        assert "| melody | a sequence | nll, bits_per_dim | — | nll |" in page
        assert "likelihood of melodies" in (tmp_path / "views.json").read_text()
        sample = next((file.parent / "samples").glob("final.txt")).read_text().splitlines()
        assert len(sample) == 3
        assert record["dataset"]["references"]["any note"]["bits_per_dim"]["value"] == pytest.approx(3)
        assert record["scores"]["nll"]["value"] < 8 * 2.08, "it has learnt something"
        assert "fid" not in record["scores"]
