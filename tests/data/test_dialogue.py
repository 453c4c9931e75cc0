"""Dialogue: pairs that never cross a border, replies that end once, and speeches that end right before them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmark.data.base import SPLITS, DataModule
from benchmark.data.dialogue import CornellDialogues, Dialogue, ShakespeareDialogue
from benchmark.data.download import Remote
from benchmark.data.plays import SECTION, sections, speeches, split_of
from benchmark.data.text import TinyShakespeare
from benchmark.data.tokens import BytePairs, Bytes
from benchmark.spec import BadInput, DataSpec

PLAY = "".join(f"{'AB'[n % 2]}:\nspeech {n}, {'xz'[n // SECTION == 3] * (n % 7)}\n\n" for n in range(10 * SECTION))


@pytest.fixture
def plays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ShakespeareDialogue]:
    """Ten sections in the place of tinyshakespeare."""
    file = tmp_path / "plays.txt"
    file.write_text(PLAY)
    checksum = f"sha256:{sha256(PLAY.encode()).hexdigest()}"
    monkeypatch.setattr(TinyShakespeare, "remote", Remote("plays.txt", (), checksum))
    usual: dict[str, Any] = {"context": 24, "speech": 12, "tokens": "characters", "vocabulary": 0}
    return lambda **options: ShakespeareDialogue(tmp_path, **usual | options)


def pairs_of(data: Dialogue, name: Any) -> list[tuple[str, str]]:
    split = data.split(name)
    assert split.condition is not None
    return [(data.decode(said), data.decode(x)) for said, x in zip(split.condition, split.x, strict=True)]


def test_splits_are_whole_sections_and_no_pair_crosses_a_border(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays(context=40, speech=40)
    found = [pair for name in SPLITS for pair in pairs_of(data, name)]
    spoken = PLAY.rstrip("\n").split("\n\n")
    assert sorted(found) == sorted((a, b) for i, (a, b) in enumerate(pairwise(spoken), start=1) if i % SECTION), (
        "all neighbours but those of two sections"
    )
    for name, numbers in (("test", {3}), ("validation", {7}), ("train", {0, 1, 2, 4, 5, 6, 8, 9})):
        assert {spoken.index(reply) // SECTION for _, reply in pairs_of(data, name)} == numbers
    assert [split_of(number) for number in (3, 13, 7, 170)] == ["test", "test", "validation", "train"]


def test_a_reply_ends_once_and_is_filled_up_with_its_end(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays()
    end, split = data.spec.end, data.split("test")
    assert end == data.tokens.size == data.spec.levels - 1
    spoken = PLAY.rstrip("\n").split("\n\n")[3 * SECTION + 1 : 4 * SECTION]
    for x, counted, size, text in zip(split.x, data.spec.counted(split.x), split.sizes, spoken, strict=True):
        kept = [*data.tokens.encode(text).tolist(), end][:24]
        assert x.tolist() == kept + [end] * (24 - len(kept))
        assert counted.tolist() == [True] * len(kept) + [False] * (24 - len(kept))
        assert size == min(len(text), 24)
    assert data.describe()["cut"]["test"] == sum(len(text) >= 24 for text in spoken) == 0
    cut = plays(context=16)
    assert cut.describe()["cut"]["test"] == sum(len(text) > 15 for text in spoken) > 0
    assert (cut.split("test").x == end).any(1).sum() == sum(len(text) <= 15 for text in spoken)


def test_what_was_said_ends_right_before_the_reply(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays(speech=16)
    condition = data.split("validation").condition
    assert condition is not None
    spoken = PLAY.rstrip("\n").split("\n\n")[7 * SECTION : 8 * SECTION - 1]
    assert {len(text) > 16 for text in spoken} == {True, False}
    for row, text in zip(condition, spoken, strict=True):
        assert data.decode(row) == text[-16:]
        assert not (row[-min(len(text), 16) :] == data.spec.end).any()
    assert data.spec.condition == DataSpec((16,), data.spec.levels, "sequence", end=data.spec.end)


def test_merges_are_learnt_from_training_speeches_alone(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays(tokens="bpe", vocabulary=262)
    spoken = PLAY.rstrip("\n").split("\n\n")
    train, test = (
        [text for i, text in enumerate(spoken) if split_of(i // SECTION) == name] for name in ("train", "test")
    )
    assert data.tokens == BytePairs.learnt(train, 262) != BytePairs.learnt(train + 9 * test, 262)
    sizes = data.split("train").sizes
    assert sizes is not None
    assert sizes.tolist() == [len(reply) for _, reply in pairs_of(data, "train")]


def test_batches_are_pairs_and_visit_each_once(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays(context=40, speech=40)
    known = pairs_of(data, "train")
    seen = []
    for step in range(len(known) // 8):
        batch = data.batch(0, step, 8)
        assert batch.condition is not None
        assert batch.x.dtype == batch.condition.dtype == torch.int64
        seen += [(data.decode(said), data.decode(x)) for said, x in zip(batch.condition, batch.x, strict=True)]
    assert len(seen) == len(known)
    assert sorted(seen) == sorted(known)


def test_fingerprints_are_of_the_text_whatever_its_tokens(plays: Callable[..., ShakespeareDialogue]) -> None:
    one, other = (plays(tokens=tokens).describe()["splits"] for tokens in ("characters", "bytes"))
    assert one == other
    assert len({split["sha256"] for split in one.values()}) == 3


def test_other_words_are_refused(plays: Callable[..., ShakespeareDialogue]) -> None:
    data = plays()
    assert data.in_words_of(plays()) is data
    with pytest.raises(BadInput, match="start from a model of dialogue with the same tokens"):
        data.in_words_of(plays(context=25))
    with pytest.raises(BadInput, match="tokens=bpe of dialogue needs a vocabulary"):
        ShakespeareDialogue.check(tokens="bpe", vocabulary=0)


def test_a_letter_of_two_bytes_has_two_however_it_is_cut() -> None:
    said = {name: [["A:\nyes", f"É:\n{'é' * length}"] for length in (1, 2, 9)] for name in SPLITS}
    for tokens in (Bytes(), BytePairs.learnt(["é" * 99], 257)):
        cut = Dialogue(said, tokens, context=6, speech=4)
        sizes = cut.split("test").sizes
        assert sizes is not None
        for size, x in zip(sizes.tolist(), cut.split("test").x, strict=True):
            assert size == sum(len(cut.spec.pieces[token]) for token in x.tolist()) <= 2 * 6
        assert sizes[0] == len("É:\né".encode()), "a whole one has the bytes of its text"


def test_dialogue_of_tinyshakespeare_is_as_it_was(stored: Callable[..., DataModule]) -> None:
    data = stored(ShakespeareDialogue)
    described = data.describe()
    assert {name: split["n"] for name, split in described["splits"].items()} == {
        "train": 5393,
        "validation": 665,
        "test": 684,
    }
    assert described["cut"] == {"train": 881, "validation": 94, "test": 107}
    assert described["splits"]["test"]["sha256"][:8] == "176eae44"
    text = "".join(stored(TinyShakespeare).decode(stored(TinyShakespeare).split(name).x) for name in SPLITS)
    assert sum(split["n"] for split in described["splits"].values()) == sum(
        len(section) - 1 for section in sections(speeches(text), SECTION)
    )


LINES = [
    ("L1", "m0", "ANNA", "You?"),
    ("L2", "m0", "BEN", "Me. It\x92s me."),
    ("L3", "m0", "ANNA", ""),
    ("L4", "m0", "BEN", "Well +++ then."),
    *((f"L{10 * m}", f"m{m}", "CARL", f"film {m}?") for m in range(1, 10)),
    *((f"L{10 * m + 1}", f"m{m}", "DORA", f"film {m}.") for m in range(1, 10)),
]


def archive(root: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    told = [f"u0 +++$+++ u1 +++$+++ m{m} +++$+++ ['L{10 * m}', 'L{10 * m + 1}']" for m in range(1, 10)]
    told += ["u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L1', 'L2', 'L3', 'L4']"]
    file = root / CornellDialogues.remote.path
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as made:
        for name, rows in (("movie_lines", lines), ("movie_conversations", told)):
            content = "".join(f"{row}\n" for row in rows).encode("latin-1")
            made.writestr(f"cornell movie-dialogs corpus/{name}.txt", content)
    checksum = f"sha256:{sha256(file.read_bytes()).hexdigest()}"
    monkeypatch.setattr(CornellDialogues, "remote", Remote(CornellDialogues.remote.path, (), checksum))


def test_films_are_in_one_split_each_and_conversations_are_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive(
        tmp_path,
        monkeypatch,
        [" +++$+++ ".join((number, "u0", film, name, text)) for number, film, name, text in LINES],
    )
    data = CornellDialogues(tmp_path, 40, 40, "characters", 0)
    assert pairs_of(data, "test") == [("CARL:\nfilm 3?", "DORA:\nfilm 3.")]
    assert pairs_of(data, "validation") == [("CARL:\nfilm 7?", "DORA:\nfilm 7.")]
    found = pairs_of(data, "train")
    assert len(found) == 7 + 2
    assert ("ANNA:\nYou?", "BEN:\nMe. It\x92s me.") in found
    assert ("BEN:\nMe. It\x92s me.", "BEN:\nWell +++ then.") in found, "a line without words is left out"


def test_a_damaged_table_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive(tmp_path, monkeypatch, ["L1 +++$+++ u0 +++$+++ m0"])
    with pytest.raises(BadInput, match=r"line 1 of movie_lines.txt has 3 columns, expected 5"):
        CornellDialogues(tmp_path)
