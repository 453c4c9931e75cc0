"""Plays as tinyshakespeare prints them: speeches, each below the name of who speaks."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.data.base import SPLITS, SplitName


@dataclass(frozen=True)
class Speech:
    """What somebody says, and where it stands in the text: from its speaker's name to its end."""

    speaker: str
    text: str  # its lines, without the name
    start: int
    end: int


def speeches(text: str) -> list[Speech]:
    """All speeches of a text, in order, an empty line between two: those of no words are left out."""
    found, start = [], 0
    for block in text.rstrip("\n").split("\n\n"):
        speaker, _, spoken = block.partition(":\n")
        if spoken:
            found.append(Speech(speaker, spoken, start, start + len(block)))
        start += len(block) + 2
    return found


def sections(found: list[Speech], size: int) -> list[list[Speech]]:
    """Runs of `size` speeches that follow on each other; the last may be shorter. The plays' scenes are not marked."""
    return [found[start : start + size] for start in range(0, len(found), size)]


SECTION = 20  # speeches, about as long as a scene
HELD_OUT: dict[int, SplitName] = {3: "test", 7: "validation"}  # of each ten sections


def divided(found: list[Speech]) -> dict[SplitName, list[list[Speech]]]:
    """The sections of each split. Parts of all plays are in each, and no section is in two."""
    splits: dict[SplitName, list[list[Speech]]] = {name: [] for name in SPLITS}
    for number, section in enumerate(sections(found, SECTION)):
        splits[HELD_OUT.get(number % 10, "train")].append(section)
    return splits
