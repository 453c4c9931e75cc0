"""What every metric means, pinned: on a fixed input, each version of it has one value for ever."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from builders import page, record
from commands import benchmark
from files import REPOSITORY
from torch import Tensor

from benchmark.build import load_metrics
from benchmark.facts import facts, metrics
from benchmark.metrics.anomaly import AnomalyScores, Outside
from benchmark.metrics.conditions import ClassFeatures, FeaturesOfClasses, Obeyed
from benchmark.metrics.dialogue import Replies, ReplyLogProb, WrongReplies
from benchmark.metrics.evaluations import EVALUATIONS, FeaturesWithin
from benchmark.metrics.extractors.base import Features, Verdicts
from benchmark.metrics.forgetting import EarlierStream, Remembered
from benchmark.metrics.interpolation import Paths
from benchmark.metrics.labels import Labels, LabelScores
from benchmark.metrics.likelihood import Elbo, LogProb, LogProbs, TightBound
from benchmark.metrics.memorisation import NearestImages, nearest_images
from benchmark.metrics.modes import ReachedModes, SampleModes
from benchmark.metrics.probe import Probe
from benchmark.metrics.pseudo import PseudoLogProb
from benchmark.metrics.reading import Read, Reading, ReadWithin
from benchmark.metrics.reconstruction import Pairs, Reconstructions
from benchmark.metrics.reward import Earned, Earnings
from benchmark.metrics.samples import (
    JudgedClasses,
    Labelled,
    LabelledSamples,
    Lessons,
    SampleClasses,
    SampleFeatures,
    SampleSets,
    SeenFeatures,
)
from benchmark.metrics.steps import StepCosts
from benchmark.metrics.text import TokenLogProb, TokenLogProbs, WholeStream, Windows
from benchmark.metrics.truncation import TRUNCATIONS, TruncatedFeatures
from benchmark.metrics.writing import Writing, Written
from benchmark.spec import Score

DOCUMENT = REPOSITORY / "docs" / "metrics.md"

#: Name -> (version, value, standard error) on the evidence below.
#:
#: Has a value moved? If what the metric means has changed, raise its version in its file and put the new numbers
#: here: old rows then leave the board until they are made again. If not, the change is a mistake.
PINNED: dict[str, tuple[int, float, float | None]] = {
    "nll": (1, 79.83354059, 0.1461747881),
    "bits_per_dim": (1, 1.799616455, 0.003295088155),
    "elbo": (1, -85.0458833, 0.07830454637),
    "importance_bound": (1, -82.24349922, 0.1249868923),
    "nats_per_token": (1, 1.500350354, 0.001512893403),
    "perplexity": (1, 4.483259522, 0.006782693757),
    "nats_of_known_works": (1, 1.500257005473419, 0.002077826853),
    "nats_of_new_works": (1, 1.5005681665485493, None),
    "window_nats": (1, 1.6, 0.001481107981),
    "reply_nats": (1, 1.9411764705882353, 0.23033133897083216),
    "reply_bits_per_byte": (1, 1.400262833803994, 0.024928902137911192),
    "reply_perplexity": (1, 6.96694255411878, 1.6047052070230479),
    "reply_nats_wrong": (1, 2.0294117647058822, 0.15475486002638994),
    "distinct_words": (1, 0.8093645484949833, 0.1137123746),
    "overlap": (1, 0.7207357859531773, 0.1053511706),
    "copied_text": (1, 0.07407407407407407, 0.03703703704),
    "bits_per_char": (1, 1.803790013, 0.001818869842),
    "bits_per_byte": (1, 1.546105725, 0.001559031293),
    "bits_per_byte_before": (1, 1.546105725, 0.001559031293),
    "forgetting": (1, 0.246105725, None),
    "sample_entropy": (1, 2.2450486785036894, 0.057536414490356284),
    "sample_perplexity": (1, 4.844334448758957, 0.362645378420892),
    "mean_reward": (1, 0.6666666667, 0.06009252126),
    "reward_before": (1, 0.55, 0.07637626158),
    "reward_of_text": (1, 0.45, None),
    "kl_before": (1, 0.1666666667, 0.04409585518),
    "sample_perplexity_within_8": (1, 5.405948925141167, None),
    "sample_perplexity_within_16": (1, 4.922172509432291, None),
    "sample_perplexity_within_32": (1, 4.69676981955058, None),
    "sample_perplexity_within_64": (1, 4.587969263865388, None),
    "sample_perplexity_within_128": (1, 4.534517802910525, None),
    "sample_entropy_within_8": (1, 2.3025850929940455, None),
    "sample_entropy_within_16": (1, 2.3025850929940455, None),
    "sample_entropy_within_32": (1, 2.187512264013333, None),
    "sample_entropy_within_64": (1, 2.187512264013333, None),
    "sample_entropy_within_128": (1, 2.187512264013333, None),
    "label_nats": (1, 1.387020354667162, 0.0029653573835156577),
    "label_accuracy": (1, 0.23333333333333334, 0.07722022379508468),
    "pseudo_perplexity": (1, 2.459603111, 0.014571690),
    "fid": (1, 0.4562883427, 0.1030808528),
    "kid": (1, 0.122147574, 0.1127924826),
    "inception_score": (1, 1.258611992, 0.01257236242),
    "precision": (1, 0.831249997, 0.03124999702),
    "recall": (1, 0.9645833224, 0.007115944333),
    "fid_infinity": (1, 0.2227730367, 0.0777340644),
    "density": (1, 0.85, 0.05822559495),
    "coverage": (1, 0.9833333333, 0.009394270318),
    "class_histogram": (1, 0.23125, 0.01196783885),
    "modes_covered": (1, 5, 0.5773502692),
    "mode_kl": (1, 1.36067714, 0.1009382608),
    "near_share": (1, 0.9444444444, 0.02777777778),
    "nearest_neighbour_ratio": (1, 1.140988896, 0.07081367006),
    "copies": (1, 0.06140350877, 0.005064476046),
    "near_copies": (2, 0.1535087719, 0.004385964912),
    "downstream_accuracy": (1, 0.4666666667, 0.07167797068),
    "augmented_accuracy": (1, 0.5, 0.06574889099),
    "agreement": (1, 0.83125, 0.01572882174),
    "fid_within_classes": (1, 0.4355086859, 0.06883052535),
    "anomaly_auroc": (1, 0.6055555556, 0.08244868884),
    "anomaly_auroc_corrected": (1, 0.8688888889, 0.04578625819),
    "psnr": (1, 21.82002568, 0.09042344538),
    "ssim": (1, 0.9698050708, 0.0007163702295),
    "interpolation_ratio": (1, 3.13825285, 0.2643511955),
    "fid_within_5": (1, 1.133647277, None),
    "fid_within_10": (1, 0.4567061346, None),
    "fid_within_20": (1, 0.3143720235, None),
    "fid_within_50": (1, 0.2703873262, None),
    "fid_within_100": (1, 0.2551472314, None),
    "bits_of_steps": (1, 13.16352327, None),
    "fid_truncated_30": (1, 1.636494487, None),
    "precision_truncated_30": (1, 1.0, None),
    "recall_truncated_30": (1, 0.2166666667, None),
    "fid_truncated_50": (1, 0.7252154384, None),
    "precision_truncated_50": (1, 0.975, None),
    "recall_truncated_50": (1, 0.5, None),
    "fid_truncated_70": (1, 0.3869074567, None),
    "precision_truncated_70": (1, 0.975, None),
    "recall_truncated_70": (1, 0.8083333333, None),
    "fid_truncated_100": (1, 0.4539140677, None),
    "precision_truncated_100": (1, 0.775, None),
    "recall_truncated_100": (1, 0.9916666667, None),
}


class _Draws:
    """Numbers from numpy's legacy generator, whose stream is frozen (NEP 19)."""

    def __init__(self) -> None:
        self.random = np.random.RandomState(0)

    def normal(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.from_numpy(scale * self.random.standard_normal(shape))

    def below(self, n: int, *shape: int) -> Tensor:
        return torch.from_numpy(self.random.randint(n, size=shape))


@cache
def evidence() -> dict[type[Probe[Any]], Any]:
    """A little of everything that probes bring, with no meaning."""
    draw = _Draws()

    def features(n: int, scale: float = 1.0) -> Features:
        return Features(draw.normal(n, 4, scale=scale), draw.normal(n, 3))

    def images(n: int) -> Tensor:
        """Noise around one of ten prototypes, of which it is the class."""
        return (prototypes[torch.arange(n) % 10] + draw.below(5, n, 1, 8, 8)).clamp(max=16)

    def labelled(n: int) -> Labelled:
        """Four labels in ten are drawn anew."""
        return Labelled(images(n), torch.where(draw.below(10, n) < 4, draw.below(10, n), torch.arange(n) % 10))

    def verdicts(n: int) -> Verdicts:
        return Verdicts(draw.below(10, n), torch.ones(n))

    def of_classes(n: int, scale: float = 1.0) -> tuple[Features, Tensor]:
        return features(n, scale), torch.arange(n) % 3

    def reached(modes: list[Tensor]) -> SampleModes:
        weights = torch.arange(1, 11, dtype=torch.float64) / 55
        return SampleModes(tuple(modes), tuple(one >= 0 for one in modes), weights)

    prototypes = draw.below(13, 10, 1, 8, 8)
    reference, held_out = images(120), images(40)
    share = torch.linspace(0, 0.5, len(reference)).view(-1, 1, 1, 1)  # of pixels that are changed, image by image
    changed = torch.where(_Draws().below(100, 120, 1, 8, 8) < 100 * share, 16 - reference, reference)
    generated = tuple(torch.cat([images(30), reference[i : i + 3], changed[i::5]]) for i in range(4))
    examples = {
        LogProb: LogProbs(-80 + draw.normal(50), dims=64),
        Elbo: LogProbs((-85 + draw.normal(3, 50)).mean(0), dims=64),  # of three draws
        TightBound: LogProbs(-82 + draw.normal(50), dims=64),
    }

    def reading(scale: float) -> Reading:
        return Reading(
            scale * torch.linspace(-1, -2, 20).double(), torch.arange(20 * 30).view(20, 30) % round(9 * scale)
        )

    new = torch.arange(5_000) >= 3_500
    stream = TokenLogProbs(-1.5 + draw.normal(5_000, scale=0.1), characters=6_000, bytes=7_000, new=new)
    words = "the cat sat on a mat that the dog ate", "a dog ate the mat and the cat sat on the dog on the mat"
    return {
        **examples,
        TokenLogProb: stream,
        WholeStream: stream,
        EarlierStream: Remembered(stream, before=1.3),
        Labels: LabelScores(torch.linspace(-1, 1, 120).double().sin().view(30, 4).log_softmax(1), torch.arange(30) % 4),
        Read: tuple(reading(scale) for scale in (1.0, 1.1)),
        ReadWithin: {most: reading(1 + 1 / most) for most in (8, 16, 32, 64, 128)},
        Earned: Earnings(
            [torch.linspace(low, 0.9, 20).double() for low in (0.5, 0.6, 0.2)],
            [torch.linspace(low, 0.9, 20).double() for low in (0.1, 0.0, 0.5)],
            torch.linspace(0, 0.9, 20).double(),
            [torch.linspace(-0.1, high, 20).double() for high in (0.3, 0.4, 0.6)],
        ),
        PseudoLogProb: LogProbs(-0.9 * 16 + torch.linspace(-1, 1, 40).double(), dims=16),
        ReplyLogProb: Replies(torch.tensor([-4.0, -9.0, -20.0]), torch.tensor([3, 5, 9]), torch.tensor([4, 9, 21])),
        WrongReplies: Replies(torch.tensor([-5.0, -9.5, -20.0]), torch.tensor([3, 5, 9]), torch.tensor([4, 9, 21])),
        Windows: LogProbs(-1.6 * 64 + torch.linspace(-1, 1, 40).double(), dims=64),
        Written: Writing(
            (words, (*words[:1], "the mat ate the dog")), words[1], "on the mat that the dog ate a cat sat"
        ),
        SeenFeatures: SampleFeatures(tuple(features(40, 1.2) for _ in range(4)), features(40), features(120)),
        NearestImages: nearest_images(SampleSets(generated, held_out, reference)),
        JudgedClasses: SampleClasses(tuple(verdicts(40) for _ in range(4)), verdicts(40)),
        Lessons: LabelledSamples(tuple(labelled(20) for _ in range(4)), labelled(60), labelled(70), levels=17),
        Outside: AnomalyScores(
            -80 + draw.normal(30), -82 + draw.normal(30, scale=3.0), 90 + draw.normal(30), 88 + draw.normal(30), True
        ),
        Pairs: Reconstructions(held_out, (held_out + draw.below(3, 40, 1, 8, 8)).clamp(max=16), levels=17),
        Paths: draw.normal(20, 9, 4).cumsum(1),
        FeaturesWithin: {
            most: SampleFeatures((features(40, 1 + 2 / most),), features(40), features(120)) for most in EVALUATIONS
        },
        StepCosts: draw.normal(21).abs(),
        ReachedModes: reached([draw.below(8, 12) - 1 for _ in range(3)]),
        Obeyed: tuple(draw.below(10, 40) < 8 for _ in range(4)),
        FeaturesOfClasses: ClassFeatures(tuple(of_classes(60, 1.2) for _ in range(4)), of_classes(150)),
        TruncatedFeatures: {
            truncation: SampleFeatures((features(40, 1.2 * truncation),), features(40), features(120))
            for truncation in TRUNCATIONS
        },
    }


@pytest.mark.parametrize("name", metrics())
def test_a_version_has_one_value(name: str) -> None:
    metric, measured = load_metrics()[name], metrics()[name].version
    found = metric(evidence()[metric.probes[0]])
    assert name in PINNED, f"pin it: {name!r}: ({measured}, {found.value!r}, {found.stderr!r})"
    version, value, stderr = PINNED[name]
    same = found.value == pytest.approx(value, rel=1e-6)
    same &= found.stderr == (None if stderr is None else pytest.approx(stderr, rel=1e-5))
    assert (measured, same) == (version, True), (
        f"{name} version {measured} is {found.value!r} ± {found.stderr!r}; pinned is version {version} at "
        f"{value} ± {stderr}. A new meaning takes a new version in its file and new numbers here, else it is a mistake"
    )


def test_nothing_is_pinned_that_does_not_exist() -> None:
    assert set(PINNED) == set(metrics())


def test_an_old_version_leaves_every_table_with_a_note() -> None:
    """Also where the metric only stands beside the one that ranks."""

    def scores(version: int, precision: float) -> dict[str, Score]:
        shown: dict[str, Any] = {"split": "test", "how": {"sampler": "ancestral"}}
        return {
            "fid": Score("1", 1, 2.0, 0.1, 180, shown),
            "precision": Score("1", 1, 0.7, 0.1, 180, shown),
            "coverage": Score("1", version, precision, 0.1, 180, shown),
        }

    text = page(record(scores(1, 0.123), model="old"), record(scores(2, 0.456), model="new"))
    assert "0.456" in text
    assert "0.123" not in text
    assert "- old, coverage: left out: of version 1, and only version 2 counts" in text


# The document --------------------------------------------------------------------------------------------------------


def documented() -> dict[str, dict[str, str]]:
    """Each `### name` of the document with the facts in the line below it."""
    found = {}
    for name, line in re.findall(r"^### `(\w+)`\n\n(.+)$", DOCUMENT.read_text(), re.MULTILINE):
        assert name not in found, f"{name} is there twice"
        found[name] = dict(part.split(": ", 1) for part in line.split("; ") if ": " in part)
    return found


def test_the_document_has_every_number_with_its_unit_version_and_direction() -> None:
    found = documented()
    for name, fact in facts().items():
        said = {"Unit": fact.unit, "better": fact.better, "version": str(fact.version)}
        said |= {"compare": "within one hardware"} if fact.machine else {}
        assert {key: value for key, value in found[name].items() if key != "needs"} == said, name
    required = {name: metric.needs for name, metric in load_metrics().items()}
    assert {name: said["needs"] for name, said in found.items() if "needs" in said} == {
        name: " or ".join(needs) for name, needs in required.items() if needs
    }
    assert list(found) == list(facts())


def test_the_document_is_what_the_verb_writes(tmp_path: Path) -> None:
    assert benchmark("docs", "--to", str(tmp_path)).returncode == 0
    assert (tmp_path / "metrics.md").read_text() == DOCUMENT.read_text(), "run: python -m benchmark docs"


@pytest.mark.parametrize("name", metrics())
def test_the_document_says_everything_of_a_metric(name: str) -> None:
    (entry,) = re.findall(rf"^### `{name}`\n\n(.+?)(?=^##|\Z)", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
    for part in ("Formula:", "Protocol:", "Source:", "Weaknesses:"):
        assert f"- {part} " in entry, f"{name} lacks {part}"
