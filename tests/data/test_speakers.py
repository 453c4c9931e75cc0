"""Windows of speeches behind the number of their speaker."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from benchmark.data.base import SPLITS, DataModule
from benchmark.data.plays import SECTION, divided, speeches
from benchmark.data.speakers import Speakers
from benchmark.data.text import TinyShakespeare
from benchmark.spec import BadInput


@pytest.fixture(scope="module")
def speakers(stored: Callable[..., Speakers]) -> Speakers:
    return stored(Speakers)


def test_all_speakers_speak_in_each_split_and_no_text_is_one_of_their_numbers(speakers: Speakers) -> None:
    assert speakers.names[:3] == ["GLOUCESTER", "DUKE VINCENTIO", "MENENIUS"]
    for name in SPLITS:
        x = speakers.split(name).x
        assert set(x[:, 0].tolist()) == set(range(10))
        assert x[:, 1:].min() >= 10
    assert [len(speakers.split(name).x) for name in SPLITS] == [5854, 129, 187]


def test_what_is_held_out_stands_in_no_training_window_and_in_no_text_that_was_learnt_before(
    speakers: Speakers, stored: Callable[..., DataModule]
) -> None:
    before = stored(TinyShakespeare, split="sections", tokens="bytes")
    learnt = before.decode(before.split("train").x)
    own = "".join(speakers.tokens.decode(row[1:]) for row in speakers.split("train").x)
    for name in ("validation", "test"):
        windows = [speakers.tokens.decode(row[1:]) for row in speakers.split(name).x]
        lines = {line for window in windows for line in window.split("\n")[1:-1] if len(line) > 30}
        assert len(lines) > 50
        assert sum(line in learnt for line in lines) <= 1, "but for a line that is said twice"
        assert sum(line in own for line in lines) <= 1
        there = before.decode(before.split(name).x)
        assert all(line in there for line in lines)


def test_names_are_removed_but_for_who_speaks(speakers: Speakers) -> None:
    text = speakers.decode(speakers.split("test").x[0])
    assert text.startswith(f"{speakers.names[int(speakers.split('test').x[0, 0])]}: ")
    said = "".join(speakers.tokens.decode(row[1:]) for row in speakers.split("train").x[::4])
    assert not any(f"{name}:\n" in said for name in speakers.names)


def test_a_window_without_room_is_refused() -> None:
    with pytest.raises(BadInput, match="context=1 has no room"):
        Speakers.check(context=1)


def test_sections_of_all_plays_are_in_each_split_and_none_in_two() -> None:
    found = speeches("\n\n".join(f"A:\n{number}" for number in range(20 * SECTION)))
    of = divided(found)
    assert {name: [int(one[0].text) // SECTION for one in parts] for name, parts in of.items()} == {
        "train": [0, 1, 2, 4, 5, 6, 8, 9, 10, 11, 12, 14, 15, 16, 18, 19],
        "validation": [7, 17],
        "test": [3, 13],
    }
