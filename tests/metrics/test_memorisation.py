"""A sampler that reproduces training images is found out, by evaluation, record and board; an honest one is not."""

from __future__ import annotations

from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import page, record
from torch import Tensor
from toys import Toy

from benchmark.build import build_examination
from benchmark.data.images import Digits
from benchmark.evaluate import Experts, Protocol, evaluate, load_extractor, load_judge, references
from benchmark.metrics import memorisation
from benchmark.metrics.memorisation import nearest_images, nearest_in_pixels
from benchmark.metrics.samples import SampleSets
from benchmark.record import Record
from benchmark.spec import Batch, DataSpec

PROTOCOL = Protocol("test", seed=0, sample_draws=3)
SHOWN = ["fid", "copies", "near_copies", "nearest_neighbour_ratio"]
pytestmark = pytest.mark.xdist_group("memorisation")  # which share what is submitted


class Returns(Toy):
    """Submitted as a model: images out of a store, each with some pixels set to random levels."""

    def __init__(self, spec: DataSpec, store: Tensor, changed: int = 0, others: Tensor | None = None) -> None:
        super().__init__(spec)
        self.store, self.changed, self.others = store.long(), changed, others

    def sample(self, n: int) -> Tensor:
        x = self.store[torch.randint(len(self.store), (n,))].flatten(1)
        for _ in range(self.changed):
            x = x.scatter(1, torch.randint(64, (n, 1)), torch.randint(17, (n, 1)))
        x = x.view(n, *self.spec.shape)
        if self.others is not None:  # four samples in five are others
            fresh = self.others[torch.randint(len(self.others), (n,))].long()
            x = torch.where((torch.arange(n) % 5 > 0)[:, None, None, None], fresh, x)
        return x

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        raise NotImplementedError("it has nothing to learn")


@cache
def digits() -> Digits:
    return Digits(Path())


@cache
def without_a_model() -> dict[str, dict[str, Any]]:
    data = digits()
    experts = Experts(load_extractor("digits", data.spec), load_judge("digits", data.spec))
    found = references(data, PROTOCOL, build_examination("image"), experts)
    return {name: {metric: asdict(score) for metric, score in scores.items()} for name, scores in found.items()}


@cache
def submitted(kind: str) -> Record:
    data = digits()
    train, fresh = data.split("train").x, data.split("validation").x
    model = {
        "copies": lambda: Returns(data.spec, train),
        "one_pixel": lambda: Returns(data.spec, train, changed=1),
        "three_pixels": lambda: Returns(data.spec, train, changed=3),
        "a_fifth": lambda: Returns(data.spec, train, others=fresh),
        "honest": lambda: Returns(data.spec, fresh),
        "noisy": lambda: Returns(data.spec, fresh, changed=8),
    }[kind]()
    experts = Experts(load_extractor("digits", data.spec))
    scores = evaluate(model, data, PROTOCOL, build_examination("image"), experts, SHOWN).scores
    made = record(scores, model=kind, dataset=data.describe() | {"references": without_a_model()})
    return Record.model_validate_json(made.model_dump_json(by_alias=True))


@pytest.mark.parametrize("kind", ["copies", "one_pixel", "three_pixels", "a_fifth"])
def test_the_board_flags_a_sampler_that_memorises(kind: str) -> None:
    text = page(submitted(kind), submitted("honest"))
    assert f"| {kind}‡ |" in text
    assert "| honest |" in text
    assert f"- {kind} memorises: near copies are " in text
    assert "honest memorises" not in text


def test_a_poor_sampler_is_not_called_a_memoriser() -> None:
    assert "‡ |" not in page(submitted("noisy"), submitted("honest"))


def test_what_copies_and_fresh_images_score() -> None:
    copies, honest = submitted("copies").scores, submitted("honest").scores
    assert copies["copies"].value == copies["near_copies"].value == 1
    assert copies["nearest_neighbour_ratio"].value == pytest.approx(0, abs=1e-6)
    assert honest["copies"].value == 0
    assert honest["near_copies"].value < 0.02
    assert honest["nearest_neighbour_ratio"].value == pytest.approx(1, abs=0.1)
    assert submitted("one_pixel").scores["copies"].value < 0.2  # a pixel that got its own level back
    shares = {name: scores for name, scores in submitted("copies").dataset["references"].items() if "copies" in scores}
    assert {name: scores["copies"]["value"] for name, scores in shares.items()} == {
        "pixel_histogram": 0,
        "categorical_mixture": 0,
        "held-out data": 0,
        "training data": 1,
    }


def test_the_picture_shows_the_nearest_samples_beside_what_they_are_near_to() -> None:
    data = digits()
    model = Returns(data.spec, data.split("train").x, changed=1)
    examination, experts = build_examination("image"), Experts(load_extractor("digits", data.spec))
    neighbours = evaluate(model, data, PROTOCOL, examination, experts, ["copies"]).pictures["neighbours"]
    assert neighbours.shape == (64, 1, 8, 8)
    changes = (neighbours[::2] != neighbours[1::2]).flatten(1).sum(1)
    assert changes.max() <= 1
    assert nearest_in_pixels(neighbours[1::2], data.split("train").x)[0].max() == 0
    assert not evaluate(model, data, PROTOCOL, examination, experts, ["fid"]).pictures  # not asked for, not computed


def test_too_many_training_images_are_not_searched_and_the_score_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    data = digits()
    monkeypatch.setattr(memorisation, "MOST", len(data.split("train").x) - 1)
    model, asked = Returns(data.spec, data.split("train").x), ["copies", "near_copies"]
    result = evaluate(model, data, PROTOCOL, build_examination("image"), Experts(), asked)
    for name in asked:
        absent = result.scores[name].absent
        assert absent is not None
        assert (absent.kind, absent.reason.partition(" are ")[0]) == ("not run", "1,437 training images")
    assert result.samples is None, "nothing was drawn for it"


def test_the_nearest_in_pixels_by_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(17, (50, 1, 4, 4), generator=generator)
    reference = torch.randint(17, (300, 1, 4, 4), generator=generator)
    distance, index = nearest_in_pixels(x, reference)
    every = (x[:, None] - reference).abs().flatten(2).sum(2)  # [50, 300]
    assert torch.equal(distance.long(), every.gather(1, index[:, None])[:, 0])
    assert (distance.long() == every.min(1).values).double().mean() > 0.9  # candidates are chosen in L2
    assert nearest_in_pixels(reference[:20], reference)[0].eq(0).all()
    others = (reference[:20, None] - reference).abs().flatten(2).sum(2).sort(1).values[:, 1]  # 0 is the image itself
    assert (nearest_in_pixels(reference[:20], reference, rank=1)[0] == others).double().mean() > 0.8


def test_near_is_measured_by_the_surroundings_of_the_training_image() -> None:
    """Two clusters, one ten times as wide: a sample may lie as far off in one as would be a copy in the other."""
    reference = torch.tensor([0, 4, 100, 140]).view(4, 1, 1, 1)
    samples = torch.tensor([1, 2, 110, 120, 140]).view(5, 1, 1, 1)  # the first, the third and the last are near
    images = SampleSets((samples,), reference, reference)
    estimate = memorisation.near_copies(nearest_images(images))
    assert estimate.value == pytest.approx(3 / 5)
