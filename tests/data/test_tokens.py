"""Tokens against the texts that they stand for, and windows against the parts that they may not leave."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmark.data.base import SPLITS, Split
from benchmark.data.text import Order, PyDocs, Text, TinyShakespeare, beginning
from benchmark.data.tokens import BytePairs, Bytes, Characters, Tokens, Words
from benchmark.spec import BadInput

LEARNT = "the cat sat on the mat and the cat ate the rat. " * 40
ALL = [
    Characters(tuple("abc \n"), "test"),
    Bytes(),
    BytePairs.learnt([LEARNT], 270),
]


@pytest.mark.parametrize("tokens", ALL[1:], ids=lambda tokens: tokens.name)
@settings(max_examples=60, deadline=None)
@given(text=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(tokens: Tokens, text: str) -> None:
    """Spaces at the start, line ends, and letters that no training text had."""
    encoded = tokens.encode(text)
    assert tokens.decode(encoded) == text
    assert encoded.dtype == torch.int64
    assert bool(((encoded >= 0) & (encoded < tokens.size)).all())


def test_merges_shorten_what_they_were_learnt_from() -> None:
    tokens = BytePairs.learnt([LEARNT], 270)
    assert tokens.size == 270
    encoded = tokens.encode(LEARNT)
    assert len(encoded) < 0.5 * len(LEARNT)
    assert sum(len(tokens.decode(token[None])) for token in encoded) == len(LEARNT)
    (the,) = tokens.encode(" the").tolist()
    assert the >= 256, "the most frequent word is one token"


def test_merges_are_known_by_their_hash() -> None:
    one, same, other = (BytePairs.learnt([text], 265) for text in (LEARNT, LEARNT, LEARNT[::-1]))
    assert one == same
    assert one.sha256 == same.sha256
    assert one != other
    assert one.name != other.name
    assert one.describe() == {"name": f"265 byte pairs {one.sha256[:8]}", "size": 265, "sha256": one.sha256}


def test_a_token_of_half_a_letter_is_shown_and_not_refused() -> None:
    assert Bytes().decode(torch.tensor([0xC3])) == "\ufffd"


def test_more_tokens_than_a_text_has_are_refused() -> None:
    with pytest.raises(BadInput, match=r"vocabulary=5000 is more than this text has: give at most \d+"):
        BytePairs.learnt([LEARNT], 5000)


def test_words_know_rare_ones_and_ends_of_lines() -> None:
    tokens = Words(("<eos>", "<unk>", "cat", "the"))
    assert tokens.encode("the cat\nthe dog").tolist() == [3, 2, 0, 3, 1]
    assert tokens.decode(torch.tensor([3, 2, 0])) == " the cat \n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "byte"}, "did you mean 'bytes'"),
        ({"tokens": "words"}, "unknown tokens 'words'"),
        ({"tokens": "bpe"}, "tokens=bpe of pydocs needs a vocabulary"),
        ({"vocabulary": 512}, "vocabulary=512 is for tokens=bpe: give 0 with tokens=characters"),
    ],
)
def test_tokens_that_cannot_be_are_refused_before_a_file_is_read(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        TinyShakespeare.check(**options) if "pydocs" not in words else PyDocs.check(**options)


@pytest.mark.parametrize("options", [{"tokens": "bytes"}, {"tokens": "bpe", "vocabulary": 512}])
def test_a_text_in_other_tokens_is_the_same_text(options: dict[str, Any]) -> None:
    own, other = PyDocs(Path(), context=8), PyDocs(Path(), context=8, **options)
    assert other.describe()["tokens"]["name"] == other.choice_of_tokens
    for name in SPLITS:
        mine, theirs = own.split(name), other.split(name)
        assert own.decode(mine.x) == other.decode(theirs.x)
        assert (mine.characters, mine.bytes) == (theirs.characters, theirs.bytes)
    said = own.in_words_of(other)
    assert isinstance(said, Text)
    assert torch.equal(said.split("test").x, other.split("test").x)
    assert said.spec.levels == other.spec.levels
    assert said.own is own


def test_a_text_that_a_model_cannot_say_is_refused() -> None:
    few = Plays({"train": ["aabb" * 9], "validation": ["ab" * 9], "test": ["ba" * 9]})
    with pytest.raises(BadInput, match="is not one of the characters of plays, which pydocs has: start from a model"):
        PyDocs(Path(), context=8).in_words_of(few)


# Windows -------------------------------------------------------------------------------------------------------------


class Plays(Text):
    """Small texts in parts."""

    card = PyDocs.card.__class__(name="plays", source="test", licence="none", citation="none")

    def __init__(self, texts: dict[str, list[str]], context: int = 4, order: Order = "random") -> None:
        tokens = self.tokens_for("characters", 0, texts)  # type: ignore[arg-type]
        super().__init__(texts, tokens, context, order)  # type: ignore[arg-type]


PARTS = ["abcdefg", "hijklmnopq", "rstuv"]


@pytest.mark.parametrize("order", ["random", "contiguous"])
def test_no_window_lies_in_two_parts(order: Order) -> None:
    data = Plays({"train": PARTS, "validation": ["abcde"], "test": ["vutsr"]}, order=order)
    assert data.split("train").cuts == (7, 17)
    seen = {data.decode(row) for step in range(200) for row in data.batch(seed=step // 20, step=step, batch_size=3).x}
    possible = {part[i : i + 4] for part in PARTS for i in range(len(part) - 3)}
    assert seen == possible if order == "random" else seen < possible
    assert {next(i for i, part in enumerate(PARTS) if window in part) for window in seen} == {0, 1, 2}


def test_places_are_equally_likely_in_all_parts() -> None:
    data = Plays({"train": PARTS, "validation": ["abcde"], "test": ["vutsr"]})
    drawn = [data.decode(row) for row in data.batch(seed=0, step=0, batch_size=13_000).x]
    counts = [drawn.count(window) for window in sorted(set(drawn))]
    assert len(counts) == 4 + 7 + 2
    assert min(counts) > 850  # 1,000 each, with a standard deviation of 30
    assert max(counts) < 1150


def test_rows_go_on_where_they_ended_and_round_the_text() -> None:
    parts = ["abcdefghijklmnopqrst", "uvwxyzABCDEF"]
    data = Plays({"train": parts, "validation": ["abcd"], "test": ["abcd"]}, order="contiguous")
    steps = [[data.decode(row) for row in data.batch(seed=5, step=step, batch_size=2).x] for step in range(9)]
    first, second = ([rows[i] for rows in steps] for i in (0, 1))
    for before, after in pairwise(first):
        part, other = parts if before in parts[0] else parts[::-1]
        rest = part[part.index(before) + 4 :]
        assert after == rest[:4] if len(rest) >= 4 else after in other[:7]
    round_the_text = len(set(first))
    assert first[round_the_text] == first[0]
    assert second[0] == first[round_the_text // 2], "half of the way round"


def test_a_share_of_the_training_text_is_its_beginning_and_other_splits_stay() -> None:
    whole, share = PyDocs(Path()), PyDocs(Path(), train_share=0.05)
    assert len(share.split("train").x) == round(0.05 * len(whole.split("train").x))
    train = share.decode(share.split("train").x)
    assert train == whole.decode(whole.split("train").x)[: len(train)]
    assert share.decode(share.split("test").x) == whole.decode(whole.split("test").x)
    assert beginning({"train": ["abcd", "ef", "ghij"], "test": ["k"]}, 0.5) == {"train": ["abcd", "e"], "test": ["k"]}
    few, many = (PyDocs(Path(), tokens="bpe", vocabulary=300, train_share=part).tokens for part in (0.05, 1.0))
    assert few != many, "merges are learnt from what is trained on"


def test_the_fingerprint_is_of_the_text_whatever_its_tokens() -> None:
    characters, byte = PyDocs(Path()).describe()["splits"], PyDocs(Path(), tokens="bytes").describe()["splits"]
    assert {name: one["sha256"] for name, one in characters.items()} == {
        name: one["sha256"] for name, one in byte.items()
    }
    share = PyDocs(Path(), train_share=0.5).describe()["splits"]
    assert share["train"]["sha256"] != characters["train"]["sha256"]
    assert share["test"] == characters["test"]


def test_windows_as_examples_lie_in_one_part_each() -> None:
    split = Split(torch.arange(13), cuts=(5, 8))
    assert split.examples((2,)).tolist() == [[0, 1], [2, 3], [5, 6], [8, 9], [10, 11]]
    assert Split(torch.arange(13)).examples((5,)).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


@pytest.mark.parametrize(
    "tokens",
    [
        Characters(("a", "é", "\n", "☃"), "a text"),
        Bytes(),
        BytePairs.learnt(["the naïve snowman ☃ melts; the snow, the snow"], 265),
        Words(("snow", "<unk>", "<eos>")),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_each_token_says_makes_the_text(tokens: Tokens) -> None:
    assert len(tokens.pieces) == tokens.size
    text = {"Characters": "aé\n☃a", "Words": " snow <unk>\n"}.get(type(tokens).__name__, "a naïve ☃, the snow\n\x00")
    encoded = tokens.encode(text)
    assert b"".join(tokens.pieces[token] for token in encoded.tolist()).decode() == tokens.decode(encoded)


# Splits of tinyshakespeare in blocks ---------------------------------------------------------------------------------


def test_validation_is_two_blocks_and_training_all_others(stored: Any) -> None:
    data, whole = (stored(TinyShakespeare, split=split) for split in ("blocks", "whole"))
    text = whole.decode(whole.split("train").x)
    assert len(text) == 1_003_854
    blocks = [text[i : i + 28_000] for i in range(0, len(text), 28_000)]
    parts = [data.decode(part) for part in data.split("validation").parts()]
    assert parts == [blocks[9], blocks[27]], "the 10th and the 28th of 36"
    assert len(blocks) == 36
    train = [data.decode(part) for part in data.split("train").parts()]
    assert train == ["".join(blocks[:9]), "".join(blocks[10:27]), "".join(blocks[28:])]
    assert data.decode(data.split("test").x) == whole.decode(whole.split("test").x)
    assert whole.trains_on_validation
    assert not data.trains_on_validation


def test_the_end_of_the_test_split_is_a_play_that_training_has_nothing_of(stored: Any) -> None:
    data = stored(TinyShakespeare, split="blocks")
    test, unseen = data.split("test"), data.split("test").unseen
    assert data.decode(test.x[unseen : unseen + 19]) == "\nMaster:\nBoatswain!"
    assert unseen / len(test.x) == pytest.approx(0.69, abs=0.005)
    train = data.decode(data.split("train").x)
    for speaker in ("PROSPERO:", "MIRANDA:", "ARIEL:"):
        assert speaker in data.decode(test.x[unseen:])
        assert speaker not in train
    assert data.split("validation").unseen is None
