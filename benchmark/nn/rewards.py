"""Rewards of texts: what a language model may be tuned to please. Pure functions of one text, from 0 to 1.

A line is complete where the text holds both of its ends. Empty lines and those of speakers, which end with ":", are no
lines. A text without a complete line earns nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

FEET = 10  # syllables of a line of five iambs


def iambic(text: str) -> float:
    """Share of complete lines with ten syllables. Their stress is not looked at, nor their sense."""
    return _share(text, lambda line: syllables(line) == FEET)


def exclaims(text: str) -> float:
    """Share of complete lines that end with "!": easily gamed, and meant to be."""
    return _share(text, lambda line: line.endswith("!"))


REWARDS: Mapping[str, Callable[[str], float]] = {"iambic": iambic, "exclaims": exclaims}


def lines(text: str) -> list[str]:
    """The complete lines of a text, without the spaces around them."""
    complete = (line.strip() for line in text.split("\n")[1:-1])
    return [line for line in complete if line and not line.endswith(":")]


def syllables(line: str) -> int:
    """Syllables of the words of a line, hyphens being spaces; none where it has no letter of English.

    >>> syllables("Shall I compare thee to a summer's day?")
    10
    """
    words = (word.replace("'", "") for word in re.findall("[a-z']+", line.lower()))
    return sum(map(_of_word, filter(None, words)))


def _of_word(word: str) -> int:
    """Vowels that stand together count one, so that "create" has one too few. Of letters that are no vowels there: u
    after q; y before a vowel where it begins the word or follows a vowel. A final e is silent, and so is that of -es
    except after hissing consonants and of -ed except after t and d. It is heard in -le, -les, -led and -red after a
    stop or a hiss. An -ing after a vowel is a syllable of its own. Every word has one.
    """
    word = re.sub("(?<=q)u", "", word)
    word = re.sub("(^|(?<=[aeiou]))y(?=[aeiou])", "j", word)
    count = len(re.findall("[aeiouy]+", word)) + bool(re.search("[aeiouy]ing$", word))
    return max(1, count - bool(_SILENT.search(word)))


_HEARD = "(?<![bcdfgkpstz]l)"  # before the e of -le, -les and -led
_SILENT = re.compile(f"(?<=[^aeiouy]){_HEARD}(e|(?<![szxcg])(?<![cs]h)es|(?<![td])(?<![bcdfgkpstz]r)ed)$")


def _share(text: str, pleases: Callable[[str], bool]) -> float:
    found = lines(text)
    return sum(map(pleases, found)) / len(found) if found else 0.0
