"""Rewards of texts: syllables of known words and of real verse, and which lines count."""

from __future__ import annotations

import pytest

from benchmark.nn.rewards import exclaims, iambic, lines, syllables

WORDS = {
    1: "the love loved eyes you thee o'er queen curled whole breathes goes tied blessed",
    2: "table wanted roses beyond being dying hundred people banish'd heaven yonder besiege faces kindled castles",
    3: "beautiful remember gentleman discovered",
    5: "university",
}
VERSE = (
    "Shall I compare thee to a summer's day?",
    "But, soft! what light through yonder window breaks?",
    "Now is the winter of our discontent",
    "If music be the food of love, play on;",
    "When forty winters shall besiege thy brow,",
    "Once more unto the breach, dear friends, once more;",
)


@pytest.mark.parametrize(("count", "word"), [(count, word) for count, words in WORDS.items() for word in words.split()])
def test_words_have_the_syllables_that_one_hears(count: int, word: str) -> None:
    assert syllables(word) == count
    assert syllables(word.upper()) == count


@pytest.mark.parametrize("line", VERSE)
def test_real_pentameters_have_ten_syllables(line: str) -> None:
    assert syllables(line) == 10
    assert iambic(f"\n{line}\n") == 1.0


def test_other_lines_have_not() -> None:
    assert syllables("To be, or not to be: that is the question:") == 11
    assert syllables("") == syllables("-- 1603 '") == 0
    assert syllables("well-known") == 2


def test_what_counts_is_complete_and_said_by_somebody() -> None:
    text = f"the end of a line\n{VERSE[0]}\n\n  JULIET:\nNo!\n {VERSE[1]} \nthe begin"
    assert lines(text) == [VERSE[0], "No!", VERSE[1]]
    assert iambic(text) == pytest.approx(2 / 3)
    assert exclaims(text) == pytest.approx(1 / 3)


@pytest.mark.parametrize("text", ["", VERSE[0], f"{VERSE[0]}\n", f"\n{VERSE[0]}", "\n\n", "\nROMEO:\n", "No!\nNo!"])
def test_without_a_complete_line_nothing_is_earned(text: str) -> None:
    assert iambic(text) == exclaims(text) == 0.0


def test_one_reward_can_be_gamed_and_the_other_asks_for_length_alone() -> None:
    assert exclaims("\n!\n!\n!\n") == 1.0
    assert iambic("\na a a a a a a a a a\n") == 1.0
