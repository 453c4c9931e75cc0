"""Numbers that cannot be: a likelihood that beats the known source of its data is named, and ranked nowhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor

import benchmark.launch
from benchmark.__main__ import cli
from benchmark.config import Experiment
from benchmark.launch import Outcome
from benchmark.metrics.truth import impossible
from benchmark.record import read_record
from benchmark.spec import DataSpec

SHORT = ["budget=smoke", "budget.examples=64", "training.validations=1", "runtime.threads=1", "runtime.device=cpu"]

MODEL = '''
"""Every pixel by itself, and half of the sum forgotten."""

import torch
from torch import nn

from benchmark.models.base import GenerativeModel
from benchmark.spec import Likelihood, Sampler


class Half(GenerativeModel, Likelihood):
    def __init__(self, spec, learning_rate=0.05):
        super().__init__(spec)
        self.learning_rate = learning_rate
        self.logits = nn.Parameter(torch.zeros(spec.dims, spec.levels))

    @property
    def sampler(self):
        return Sampler("ancestral", evaluations=1)

    def log_prob(self, x):
        each = self.logits.log_softmax(-1).expand(len(x), -1, -1).gather(-1, x.flatten(1)[..., None])[..., 0]
        return each[:, ::2].sum(1)

    def sample(self, n):
        drawn = torch.distributions.Categorical(logits=self.logits.expand(n, -1, -1)).sample()
        return drawn.reshape(n, *self.spec.shape)

    def training_step(self, batch, batch_idx):
        return {"loss": -self.log_prob(batch.x).mean()}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)
'''


def benchmark_(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, env={"COLUMNS": "160"})


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Result]]:
    """The folder of a run of a user's own model, which cannot be right, and what the command said. The working folder
    is the user's until the last test here."""
    home = tmp_path_factory.mktemp("home")
    (home / "half_sums").mkdir()
    (home / "half_sums" / "__init__.py").write_text(MODEL)
    (home / "configs" / "model").mkdir(parents=True)
    (home / "configs" / "model" / "mine.yaml").write_text(
        "target: half_sums.Half\nstructures: [grid]\nlearning_rate: 0.05\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(home)
        patch.setenv("BENCHMARK_CONFIGS", str(home / "configs"))
        patch.setenv("WANDB_MODE", "disabled")
        patch.chdir(home)
        done = benchmark_("run", "model=mine", "data=synthetic_images", *SHORT, "--trust", "half_sums")
        assert not isinstance(done.exception, Exception), done.exception
        (record,) = home.glob("runs/synthetic_images/mine/*/record.json")
        yield record.parent, done
    sys.modules.pop("half_sums")


def test_the_run_shows_it_and_fails(ran: tuple[Path, Result]) -> None:
    folder, done = ran
    assert done.exit_code == 1, done.output
    record = read_record(folder)
    assert record.status == "finished"
    assert record.impossible is not None
    said = " ".join(done.output.split())
    assert f"mine, seed 0: impossible: {record.impossible}" in said
    assert "log_prob cannot be right" in record.impossible
    assert "standard errors of the paired difference" in record.impossible


def test_boards_rank_it_nowhere(ran: tuple[Path, Result]) -> None:
    folder, _ = ran
    home, why = folder.parents[3], read_record(folder).impossible
    assert why is not None
    page = (home / "runs" / "board" / "synthetic_images.md").read_text()
    assert "## Impossible numbers, ranked nowhere: 1 run" in page
    assert why in page
    assert "|  | mine§ | half_sums | — | — |" in page, "a row without a rank or a number"
    (home / "committed").mkdir()  # what is tuned counts there, and everything in the other folder
    done = benchmark_("site", "--records", "committed", "--records", "runs", "--to", "site")
    assert done.exit_code == 0, done.output
    html = (home / "site" / "data" / "synthetic_images.html").read_text()
    assert '<h2 id="impossible">Impossible numbers</h2>' in html
    assert why.replace("'", "&#39;") in html


def test_check_and_compare_name_it(ran: tuple[Path, Result]) -> None:
    folder, _ = ran
    why = read_record(folder).impossible
    done = benchmark_("check", str(folder))
    assert done.exit_code == 2
    assert f"its numbers cannot be right: {why}" in done.output
    done = benchmark_("compare", str(folder), str(folder))
    assert done.exit_code == 4
    assert "reports what cannot be" in done.output


def test_the_truth_runs_models_of_the_user(ran: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = ran
    asked: list[tuple[str, str, tuple[str, ...]]] = []

    def here(experiments: list[Experiment], jobs: int, display: object, fresh: bool, trust: tuple[str, ...]) -> object:
        asked.extend((one.model.name, one.data.name, trust) for one in experiments)
        return [Outcome(one, folder, read_record(folder)) for one in experiments]

    refused = benchmark_("truth", "model=mine")
    assert "add --trust half_sums" in str(refused.exception)
    monkeypatch.setattr(benchmark.launch, "run_suite", here)
    done = benchmark_("truth", "model=mine", "--trust", "half_sums")
    assert asked == [("mine", "synthetic_images", ("half_sums",))]  # a model of images, and no text
    assert done.exit_code == 1
    assert "nothing is tuned for mine on synthetic_images: it trains on 88,000 examples" in done.output
    assert "beats the entropy" in done.output


# What convicts --------------------------------------------------------------------------------------------------------


def noise(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


IMAGES, TEXT = DataSpec((1, 4, 4), 4, "grid"), DataSpec((32,), 8, "sequence")
SOURCE = -15 + noise(400)  # nats of each image under the source


@pytest.mark.parametrize(
    ("ours", "convicted"),
    [
        (SOURCE / 2, True),
        (SOURCE + 0.01, True),  # a forgotten constant: no luck makes each example better
        (SOURCE + 0.3 + noise(400, 1), True),
        (SOURCE + 0.2 + noise(400, 1), False),  # four standard errors
        (SOURCE, False),  # the source itself
        (SOURCE.float() + 1e-5, False),  # rounding
        (SOURCE - 1, False),
    ],
)
def test_what_beats_the_source_by_more_than_luck_is_impossible(ours: Tensor, convicted: bool) -> None:
    assert (impossible(ours, SOURCE, IMAGES.dims, "elbo") is not None) == convicted


def test_it_says_how_much_in_the_unit_of_the_board_and_by_which_promise() -> None:
    found = impossible(SOURCE / 2, SOURCE, IMAGES.dims, "elbo")
    assert found is not None
    assert found.startswith("bits_per_dim 0.678 beats the source's own 1.36 by ")
    assert found.endswith("standard errors of the paired difference: elbo cannot be right")


def test_few_examples_convict_nobody() -> None:
    lucky = SOURCE[:3] + 1 + 0.1 * noise(3, 1)
    assert impossible(lucky, SOURCE[:3], IMAGES.dims, "log_prob") is None
    assert impossible(SOURCE[:1] + 9, SOURCE[:1], IMAGES.dims, "log_prob") is None
    assert impossible(SOURCE * torch.inf, SOURCE, IMAGES.dims, "log_prob") is None  # another absence says so


def test_neighbouring_tokens_are_no_independent_witnesses() -> None:
    source = -1.5 + noise(40_000)
    runs = noise(40).repeat_interleave(1000)  # a thousand neighbours rise and fall together
    assert impossible(source + 0.05 + runs, source, TEXT.dims, "token_log_prob") is None
    found = impossible(source / 2, source, TEXT.dims, "token_log_prob")
    assert found is not None
    assert found.startswith("nats_per_token 0.754 beats the source's own 1.51 by ")
