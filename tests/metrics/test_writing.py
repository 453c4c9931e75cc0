"""Counts over texts by hand, by the definition, and of texts that copy."""

from __future__ import annotations

import numpy as np
import pytest
from evidence import value

from benchmark.metrics import writing
from benchmark.metrics.writing import Writing

TRAIN = "to be, or not to be, that is the question: whether 'tis nobler in the mind to suffer"
HELD_OUT = "the question is whether to be or not to be"


def texts(*drawn: list[str]) -> Writing:
    return Writing(drawn, HELD_OUT, TRAIN)


def test_pairs_of_words_by_hand() -> None:
    evidence = texts(["to be to be", "not to"], ["a b", "c d"])
    assert value("distinct_words", evidence) == pytest.approx((3 / 4 + 2 / 2) / 2)  # to be, be to, to be; not to
    assert value("overlap", evidence) == pytest.approx((3 / 4 + 0) / 2)  # "be to" does not stand there


def test_copied_strings_are_those_of_the_definition() -> None:
    drawn = ["or not to be, that is the answer, I suffer", "whether 'tis nobler in the mind to suffer"]
    strings = [text[i : i + 20] for text in drawn for i in range(len(text) - 19)]
    assert value("copied_text", texts(drawn)) == pytest.approx(np.mean([string in TRAIN for string in strings]))
    assert 0 < value("copied_text", texts(drawn)) < 1
    assert value("copied_text", texts([TRAIN])) == 1
    assert value("copied_text", texts([TRAIN.upper()])) == 0


def test_different_strings_have_different_numbers() -> None:
    text = "".join(np.random.default_rng(0).choice(list("ab"), 200_000))
    strings = {text[i : i + 20] for i in range(len(text) - 19)}
    assert len(np.unique(writing._hashes(text))) == len(strings)


@pytest.mark.parametrize("name", ["distinct_words", "overlap", "copied_text"])
def test_samples_too_short_to_count_are_no_zero(name: str) -> None:
    with pytest.raises(ValueError, match="no sample has"):
        value(name, texts(["word", ""]))


def test_the_error_is_over_draws() -> None:
    one = writing.overlap(texts(["to be"]))
    two = writing.overlap(texts(["to be"], ["a b"]))
    assert one.stderr is None
    assert two.stderr == pytest.approx(np.std([0, 1], ddof=1) / 2**0.5)
