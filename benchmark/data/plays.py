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


def split_of(section: int) -> SplitName:
    """Which split the section with this number is in, from 0 on: of each ten the fourth is test, the eighth validation.
    So all have parts of the same plays, and a scene stands in two of them only where a section ends within it."""
    held_out: dict[int, SplitName] = {3: "test", 7: "validation"}
    return held_out.get(section % 10, "train")


def divided(found: list[Speech]) -> dict[SplitName, list[list[Speech]]]:
    """The sections of each split."""
    splits: dict[SplitName, list[list[Speech]]] = {name: [] for name in SPLITS}
    for number, section in enumerate(sections(found, SECTION)):
        splits[split_of(number)].append(section)
    return splits
