"""Speeches of plays: found whole, in order, with their speakers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

from benchmark.data.base import DataModule
from benchmark.data.plays import Speech, sections, speeches
from benchmark.data.text import TinyShakespeare

TEXT = "First Citizen:\nSpeak: speak.\nNow.\n\nAll:\n\nMARCIUS:\nThanks. What's the matter,\nyou rogues?\n"


def test_speeches_have_their_speakers_and_places() -> None:
    first, second = speeches(TEXT)
    assert first == Speech("First Citizen", "Speak: speak.\nNow.", 0, 33)
    assert (second.speaker, second.text) == ("MARCIUS", "Thanks. What's the matter,\nyou rogues?")
    assert TEXT[second.start : second.end].startswith("MARCIUS:\n")


def test_sections_follow_on_each_other() -> None:
    found = speeches("\n".join([TEXT] * 5))
    runs = sections(found, 4)
    assert [len(run) for run in runs] == [4, 4, 2]
    assert [speech for run in runs for speech in run] == found


def test_tinyshakespeare_is_nothing_but_speeches(stored: Callable[..., DataModule]) -> None:
    data = stored(TinyShakespeare)
    text = "".join(data.decode(data.split(name).x) for name in ("train", "validation", "test"))
    found = speeches(text)
    assert len(found) == 7097
    assert Counter(one.speaker for one in found).most_common(2) == [("GLOUCESTER", 211), ("DUKE VINCENTIO", 189)]
    assert all(text[one.start : one.end] == f"{one.speaker}:\n{one.text}" for one in found)
    silent = text[: found[0].start] + "".join(text[a.end : b.start] for a, b in pairwise(found)) + text[found[-1].end :]
    assert set(re.sub(r"[^\n:]+:\n\n", "", silent)) == {"\n"}, "and between them nothing but names that say nothing"
