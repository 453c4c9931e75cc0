"""Records that strangers hand in: what is consistent passes, and every kind of tampering is named."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import known
from click.testing import CliRunner

from benchmark.__main__ import cli
from benchmark.metrics.extractors import PINNED
from benchmark.record import publish
from benchmark.report.check import MOST_BYTES, problems

KNOWN = known({f"{name}@{digest[:8]}" for name, digest in PINNED.items()})
pytestmark = pytest.mark.xdist_group("finished run")  # which one worker makes


@pytest.fixture(scope="module")
def published(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A record with all that lies beside it, as if made from committed code."""
    root = tmp_path_factory.mktemp("handed_in")
    folder = shutil.copytree(finished_run, root / "runs" / "digits" / "vae" / finished_run.name)
    content = json.loads((folder / "record.json").read_text())
    content |= {"code_hash": "c" * 40, "git": {"commit": "d" * 40, "dirty": False}}
    content["config"]["runtime"]["runs"] = "runs"
    (folder / "record.json").write_text(json.dumps(content))
    return publish(folder, root / "records")[0]


@pytest.fixture
def record(published: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    folder = tmp_path / "digits" / "vae"
    shutil.copytree(published.parent, folder)
    return folder / published.name


def change(record: Path, path: str, value: Any) -> None:
    """Set one place of the record, `scores.nll.value`."""
    content = json.loads(record.read_text())
    *parents, last = path.split(".")
    node = content
    for part in parents:
        node = node[part]
    node[last] = value
    record.write_text(json.dumps(content))


def test_what_a_run_publishes_is_well_formed(published: Path) -> None:
    assert problems(published, KNOWN) == []


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("config_hash", "0" * 64, "config_hash is 0000"),
        ("config.model.latent", 17, "config_hash"),
        ("config.training.momentum", 1, "config: unknown option of training 'momentum'"),
        ("model", "gpt", "model is gpt"),
        ("data", "../mnist", "'../mnist' cannot name a page"),
        ("seed.init", 7, "seed is"),
        ("kind", "trial", "evidence for a study"),
        ("git.dirty", True, "not committed"),
        ("config.model.target", "my_models.nade.NADE", "sources do not say which my_models"),
        ("scores.nll.value", 10.0, "nll is 10, but the mean of elbo"),
        ("scores.importance_bound.value", -1.0, "importance_bound is -1"),
        ("scores.nll.n", 179, "nll was computed from 179 examples"),
        ("scores.nll.version", 99, "nll is version 99"),
        ("scores.fid.unit", "bits", "fid has unit 'bits'"),
        ("scores.kid.protocol.subsets", 1, "kid has subsets 1"),
        ("scores.fid.protocol.extractor", "mine@01234567", "not shipped"),
        ("scores.fid.protocol.split", "validation", "scored on the validation split"),
        ("scores.fid.protocol.how", {"sampler": ["<"]}, "a list as sampler"),
        ("scores.fid.stderr", -1.0, "negative standard error"),
        ("scores.beauty", {"unit": "1", "version": 1, "value": 1.0}, "beauty is not a metric"),
        ("scores.cpu_minutes.unit", "h", "cpu_minutes has unit 'h'"),
        ("scores.cpu_minutes.version", 7, "cpu_minutes has version 7, must be 1"),
        ("scores.cpu_minutes.value", -1.0, "cpu_minutes is -1: it lies between 0 and inf"),
        ("scores.parameters.n", 5, "parameters has n 5, must be None"),
        ("scores.selection.version", 2, "selection has version 2, must be 1"),
        ("scores.selection.n", -3, "selection has n -3, must be None"),
        ("scores.selection.unit", "bananas", "selection has unit 'bananas', must be 'nats/example'"),
        ("scores.fid.value", -1.0, "fid is -1: it lies between 0 and inf"),
        ("scores.bits_per_dim.value", -0.5, "bits_per_dim is -0.5"),
        ("scores.recall.value", 1.5, "recall is 1.5: it lies between 0 and 1"),
        ("reason", "<script>alert(1)</script>", "reason holds '<s'"),
        ("hardware.cpu", "\x1b[31mred", "control characters"),
        ("dataset.note", "\u202etxt.exe", "control characters"),
        ("dataset.source", "javascript:alert(1)", "dataset.source holds 'javascript:'"),
        ("dataset.note", "x" * 3000, "3,000 characters"),
        ("colour", "red", "is not a valid record: colour"),
        ("scores.fid.protocol", {}, "fid does not say its extractor"),
        ("scores.nll.protocol", {"split": "test"}, "nll does not say its how"),
        ("scores.nll.protocol.how.likelihood", "exact", "nll is called exact, but"),
        ("scores.nll.protocol.how.likelihood", "perfect", "score 'nll', protocol.how.likelihood"),
        ("scores.nll.protocol.how", "well", "score 'nll', protocol.how"),
        ("dataset.splits.test.sha256", None, "dataset: splits.test.sha256"),
        ("dataset.splits", [], "dataset: splits"),
        ("hardware.threads", "two", "hardware: threads"),
        ("git.commit", 7, "git: commit"),
        ("config.evaluation", None, "config: evaluation"),
        ("renewed", {"run": "a", "code_hash": 1, "git": None, "scores": []}, "renewed: code_hash"),
    ],
)
def test_tampering_is_named(record: Path, path: str, value: Any, words: str) -> None:
    change(record, path, value)
    assert any(words in line for line in problems(record, KNOWN)), problems(record, KNOWN)


def archive_that_claims(examples: int) -> bytes:
    """An archive of one array whose header says that it has so many, and which has none."""
    header, packed = io.BytesIO(), io.BytesIO()
    said = {"descr": "<f4", "fortran_order": False, "shape": (examples,)}
    np.lib.format.write_array_header_1_0(header, said)
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("elbo.npy", header.getvalue())
    return packed.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK", "holds no plain arrays"),
        (archive_that_claims(10**13), "holds no plain arrays: Unable to allocate"),
        ({"elbo": np.array([{}, {}], dtype=object)}, "holds no plain arrays"),
        ({"elbo": np.full(180, np.nan, np.float32)}, "finite float32"),
        ({"elbo": np.zeros((180, 2), np.float32)}, "finite float32"),
        ({"other": np.zeros(180, np.float32)}, "finite float32"),
        ({"elbo": np.zeros(180, np.float32)}, "the mean of elbo in"),
        ({"elbo": np.zeros(3, np.float32)}, "holds 3"),
        ({}, "holds no likelihoods of elbo, importance_bound, nll"),
        (None, "is missing"),
    ],
    ids=[
        "no archive",
        "claims terabytes",
        "pickle",
        "nan",
        "matrix",
        "unknown",
        "other mean",
        "other n",
        "empty",
        "missing",
    ],
)
def test_likelihoods_that_are_none_are_named(record: Path, content: Any, words: str) -> None:
    file = record.with_suffix(".npz")
    file.unlink()
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        np.savez(file, **content)
    assert any(words in line for line in problems(record, KNOWN)), problems(record, KNOWN)


def test_what_lies_beside_a_record_is_looked_at_too(record: Path) -> None:
    record.with_suffix(".csv.gz").write_bytes(b"no gzip")
    record.with_suffix(".png").write_bytes(b"no picture")
    found = problems(record, KNOWN)
    assert any("is not a gzip file" in line for line in found)
    assert any("is not a picture" in line for line in found)


@pytest.mark.parametrize("suffix", [".json", ".npz", ".txt"])
def test_a_link_is_never_followed(record: Path, suffix: str, tmp_path: Path) -> None:
    """Boards and sites show what lies beside a record: a link would make them show what its author never had."""
    (tmp_path / "secret").write_text("of this machine")
    record.with_suffix(suffix).unlink(missing_ok=True)
    record.with_suffix(suffix).symlink_to(tmp_path / "secret")
    (line,) = problems(record, KNOWN)
    assert line == f"{record.with_suffix(suffix)}: a link is not evidence: submit the file itself"


def test_size_and_name_are_looked_at_first(record: Path) -> None:
    renamed = record.rename(record.with_name("best.json"))
    assert any("the file is called best.json" in line for line in problems(renamed, KNOWN))
    record.write_bytes(b" " * (MOST_BYTES + 1))
    (line,) = problems(record, KNOWN)
    assert "at most" in line


def test_the_verb_says_so_in_a_line_for_each_problem(record: Path, published: Path) -> None:
    change(record, "scores.nll.value", 10.0)
    done = CliRunner().invoke(cli, ["check", str(published), str(record)])
    assert done.exit_code == 2
    assert f"{published}: well-formed" in done.stdout
    assert f"{record}: nll is 10, but" in done.stderr
