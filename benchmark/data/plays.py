"""Plays as tinyshakespeare prints them: speeches, each below the name of who speaks."""

from __future__ import annotations

from dataclasses import dataclass


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
