"""The data room: fixed splits, pure batches, downloads that start again cleanly."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch

from benchmark.data.base import SPLITS, InMemory
from benchmark.data.download import Remote
from benchmark.data.images import Digits, Images
from benchmark.data.text import PyDocs, Text, Text8, TinyShakespeare, WikiText2
from benchmark.spec import BadInput


@pytest.fixture(scope="session")
def digits() -> Digits:
    return Digits(Path("unused"))


def same(one, other) -> bool:
    return all((a is None and b is None) or torch.equal(a, b) for a, b in zip(one, other, strict=True))


def check_batches(data: InMemory) -> None:
    """What every dataset promises of its training batches."""
    x = data.batch(seed=3, step=7, batch_size=5).x
    assert x.shape == (5, *data.spec.shape)
    assert x.dtype == torch.int64
    assert x.min() >= 0
    assert x.max() < data.spec.levels
    assert same(data.batch(3, 7, 5), data.batch(3, 7, 5))
    assert not torch.equal(x, data.batch(3, 8, 5).x)
    assert not torch.equal(x, data.batch(4, 7, 5).x)
    whole = list(islice(data.batches(seed=1, batch_size=4), 6))
    resumed = list(islice(data.batches(seed=1, batch_size=4, start=2), 4))
    assert all(same(a, b) for a, b in zip(whole[2:], resumed, strict=True))


def check_description(data: InMemory) -> None:
    """What every dataset tells a record."""
    described = json.loads(json.dumps(data.describe()))
    assert {"name", "source", "licence", "citation", "publishable"} <= described.keys()
    for name in SPLITS:
        assert described["splits"][name]["n"] == len(data.split(name).x)
        assert len(described["splits"][name]["sha256"]) == 64


def check_text(data: Text) -> None:
    """What every text promises besides."""
    check_batches(data)
    check_description(data)
    assert data.vocabulary == sorted(set(data.vocabulary))
    for name in SPLITS:
        split = data.split(name)
        text = data.decode(split.x)
        assert torch.equal(data.encode(text), split.x.long())
        assert (split.characters, split.bytes) == (len(text), len(text.encode()))
    window = data.decode(data.batch(seed=0, step=0, batch_size=1).x[0])
    assert window in data.decode(data.split("train").x)


def sha256(path: Path) -> str:
    return "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()


def check_visits(data: Images, batch_size: int) -> None:
    """Batches straddle the ends of epochs, and visit all training examples equally often but for the last epoch."""
    n = len(data.split("train").x)
    data.split("train").labels.copy_(torch.arange(n))  # names the examples
    seen: Counter = Counter()
    for batch in islice(data.batches(seed=0, batch_size=batch_size), 3 * n // batch_size):
        seen.update(batch.condition.tolist())
    assert len(seen) == n
    assert max(seen.values()) - min(seen.values()) <= 1


def test_digits_split(digits):
    described = digits.describe()["splits"]
    assert {name: split["n"] for name, split in described.items()} == {"train": 1437, "validation": 180, "test": 180}
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "8f5bffd8c5d47e8d",
        "dced0b443d2ab81f",
        "f1c8c7950617b8d4",
    ]
    assert digits.spec.dims == 64
    assert torch.cat([digits.split(name).x for name in SPLITS]).max() == digits.spec.levels - 1


def test_digits_is_partitioned_and_stratified(digits):
    from sklearn.datasets import load_digits

    splits = [digits.split(name) for name in SPLITS]
    ours = Counter(bytes(image.numpy()) for split in splits for image in split.x)
    assert ours == Counter(image.astype("uint8").tobytes() for image in load_digits().images)
    totals = sum(torch.bincount(split.labels, minlength=10) for split in splits)
    for split in splits:
        expected = totals * len(split.x) / totals.sum()
        assert (torch.bincount(split.labels, minlength=10) - expected).abs().max() <= 1.5


def test_digits_keeps_the_promises(digits):
    check_batches(digits)
    check_description(digits)
    assert digits.batch(0, 0, 64).condition.shape == (64,)


@pytest.mark.parametrize("batch_size", [64, 1000, 2000])
def test_every_example_is_visited_equally_often(batch_size):
    check_visits(Digits(Path("unused")), batch_size)


# Text ------------------------------------------------------------------------------------------------------------


def test_pydocs_is_there_everywhere():
    data = PyDocs(Path("unused"), context=64)
    check_text(data)
    assert data.spec.shape == (64,)
    assert data.split("train").characters > 300_000
    assert data.describe()["publishable"] is False
    assert "Python" in data.describe()["note"]


def test_tinyshakespeare(data_root):
    if not (Path(data_root) / TinyShakespeare.remote.path).exists():
        pytest.skip("tinyshakespeare is not in the data root")
    data = TinyShakespeare(Path(data_root))
    check_text(data)
    assert data.spec.levels == 65
    assert [len(data.split(name).x) for name in SPLITS] == [948_084, 55_770, 111_540]
    described = data.describe()["splits"]
    assert [described[name]["sha256"][:16] for name in SPLITS] == [
        "4f42c3a65f3ec165",
        "62280e3528385310",
        "5f2e6c68a4a35c1d",
    ]
    assert data.decode(data.split("train").x[:14]) == "First Citizen:"


def test_strange_character_and_long_context_are_refused():
    with pytest.raises(BadInput, match="'\u2603' is not one of the characters of pydocs"):
        PyDocs(Path("unused")).encode("snow\u2603man")
    for context in (0, 10**7):
        with pytest.raises(BadInput, match=f"context={context} does not fit pydocs: give 1 to"):
            PyDocs(Path("unused"), context=context)


def test_text8_is_cut_at_90_and_95_percent(tmp_path):
    text = "the quick brown fox jumps over a lazy dog " * 100
    archive = tmp_path / "text8" / "text8.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("text8", text)

    class Small(Text8):
        remote = Remote(Text8.remote.path, (), sha256(archive))

    data = Small(tmp_path, context=16)
    check_text(data)
    assert data.spec.levels == 27
    assert [len(data.split(name).x) for name in SPLITS] == [3780, 210, 210]
    assert "".join(data.decode(data.split(name).x) for name in SPLITS) == text


def test_wikitext2_counts_words_and_characters(tmp_path):
    texts = {
        "train": " \n = Robert <unk> = \n \n Robert is an actor . \n" * 9,
        "valid": " an actor is <unk> \n",
        "test": " Robert \n is an café \n",
    }
    archive = tmp_path / "wikitext2" / "wikitext-2-v1.zip"
    archive.parent.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        for name, text in texts.items():
            file.writestr(f"wikitext-2/wiki.{name}.tokens", text)

    class Small(WikiText2):
        remote = Remote(WikiText2.remote.path, (), sha256(archive))

    data = Small(tmp_path, context=8)
    check_batches(data)
    check_description(data)
    assert data.vocabulary == [".", "<eos>", "<unk>", "=", "Robert", "actor", "an", "is"]
    for name, text in zip(SPLITS, texts.values(), strict=True):
        split = data.split(name)
        assert len(split.x) == len(text.split()) + text.count("\n")
        assert (split.characters, split.bytes) == (len(text), len(text.encode()))
        assert data.decode(split.x) == text.replace("café", "<unk>")  # not a word of the training split
