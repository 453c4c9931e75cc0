"""Whether a likelihood tells images from what is none: held-out images beside outliers of the same shape and levels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmark.metrics.likelihood import how_bounded
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session
from benchmark.spec import Estimate, Likelihood, LikelihoodBound, SolvesLikelihood

EXAMPLES = 200  # held-out images, at most, and as many outliers
DRAWS = 4  # of a bound
SOLVED_DRAWS = 1  # of one through an ODE, whose draws differ by little beside images, and cost a hundred times as much
CORRUPTIONS = ("noise", "blur", "mirror", "shift")

PROTOCOL: Mapping[str, Any] = {"statistic": "-log p"}
CORRECTED_PROTOCOL: Mapping[str, Any] = {"statistic": "-log p - complexity", "complexity": "bits of the PNG"}


@dataclass(frozen=True)
class AnomalyScores:
    """How a model rates held-out images beside outliers, and how many bytes a lossless codec makes of each."""

    log_prob: Tensor  # [N] nats, exact or the mean draw of a bound
    outlier_log_prob: Tensor  # [M] nats
    length: Tensor  # [N] bytes
    outlier_length: Tensor  # [M] bytes
    paired: bool  # outlier i is a corruption of held-out image i: their scores are not independent


class Outside(Probe[AnomalyScores]):
    """How the model rates some images of the split and as many outliers."""

    key = "anomalies"
    says = ("split", "outliers")
    promises = (Likelihood, LikelihoodBound)

    def collect(self, session: Session) -> Found[AnomalyScores]:
        model, outliers = session.model, session.experts.outliers
        x, _ = session.examples()
        solved = session.protocol.solved_examples if isinstance(model, SolvesLikelihood) else None
        inside = x[session.subset(len(x), min(EXAMPLES, solved or EXAMPLES), "anomalies")].long()
        if outliers is None:
            outside, name = corrupted(inside, session.spec.levels), f"corrupted: {', '.join(CORRUPTIONS)}"
        else:
            outside, name = outliers.x[session.subset(len(outliers.x), len(inside), "outliers")].long(), outliers.name
        scores = AnomalyScores(
            _rated(session, inside, "inside"),
            _rated(session, outside, "outside"),
            code_length(inside),
            code_length(outside),
            paired=outliers is None,
        )
        how: dict[str, Any] = {"by": "exact likelihood"}
        if not isinstance(model, Likelihood):
            bounded = how_bounded(model)  # what is computed from a bound is not one itself
            how = {"by": bounded.pop("likelihood")} | bounded | {"draws": _draws(model)}
        return Found(
            scores,
            {
                "split": session.protocol.split,
                "inside": len(inside),
                "outliers": f"{len(outside)} {name}",
                "how": how,
            },
        )


def _rated(session: Session, x: Tensor, key: str) -> Tensor:
    """log p(x) `[N]` nats, exact or the mean of a few draws of a bound."""
    model = session.model
    if isinstance(model, Likelihood):
        return session.batched(model.log_prob, x, "anomalies", key)
    draws = range(_draws(model))
    return torch.stack([session.batched(model.elbo, x, "anomalies", key, draw) for draw in draws]).mean(0)


def _draws(model: LikelihoodBound) -> int:
    return SOLVED_DRAWS if isinstance(model, SolvesLikelihood) else DRAWS


@metric(Outside, protocol=PROTOCOL)
def anomaly_auroc(found: AnomalyScores) -> Estimate:
    """Probability that an outlier has the lower likelihood, or bound, of a pair (area under the ROC curve)."""
    return auroc(-found.log_prob, -found.outlier_log_prob, found.paired)


@metric(Outside, protocol=CORRECTED_PROTOCOL)
def anomaly_auroc_corrected(found: AnomalyScores) -> Estimate:
    """The same by −log p(x) − L(x), where L is the length of a lossless code: simple images are likely under any model,
    so what counts is how much better than the codec the model knows an image (Serrà and others 2020)."""
    inside, outside = (
        -log_prob - length * 8 * math.log(2)  # bytes to nats
        for log_prob, length in ((found.log_prob, found.length), (found.outlier_log_prob, found.outlier_length))
    )
    return auroc(inside, outside, found.paired)


def auroc(inside: Tensor, outside: Tensor, paired: bool) -> Estimate:
    """P(outside > inside) + ½ P(outside = inside) over all pairs of `inside` `[N]` and `outside` `[M]`.

    The standard error is that of DeLong and others 1988; `paired` says that entries i of both (N = M) are not
    independent, and then the components of each pair vary together. One image alone has none.
    """
    greater = torch.sign(outside[None, :] - inside[:, None]).double() / 2 + 0.5  # [N, M]
    of_inside, of_outside = greater.mean(1), greater.mean(0)
    n = len(inside) + len(outside)
    if min(greater.shape) < 2:
        return Estimate(greater.mean().item(), None, n)
    if paired:
        variance = (of_inside + of_outside).var() / len(of_inside)
    else:
        variance = of_inside.var() / len(of_inside) + of_outside.var() / len(of_outside)
    return Estimate(greater.mean().item(), math.sqrt(variance.item()), n)


def corrupted(x: Tensor, levels: int) -> Tensor:
    """Image i of `x` `[n, C, H, W]` under corruption i mod 4, always the same: in the data's own levels.

    `noise` redraws one pixel in thirty, `blur` goes halfway to means over 3×3 pixels, `mirror` swaps left and right,
    `shift` moves by an eighth of the width, what leaves on the right coming in on the left.
    """
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(levels, x.shape, generator=generator)
    redrawn = torch.rand(x.shape, generator=generator) < 1 / 30
    x, width = x.long(), x.shape[-1]
    means = F.avg_pool2d(F.pad(x.double(), (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    outliers = {
        "noise": torch.where(redrawn, drawn, x),
        "blur": ((x + means) / 2).round().long(),
        "mirror": x.flip(3),
        "shift": x.roll(max(1, width // 8), 3),
    }
    kinds = torch.stack([outliers[name] for name in CORRUPTIONS])  # [4, n, C, H, W]
    index = torch.arange(len(x))
    return kinds[index % len(CORRUPTIONS), index]


def code_length(x: Tensor) -> Tensor:
    """Bytes `[n]` of each image of `x` `[n, C, H, W]` as PNG; channels lie below each other unless there are three."""
    from torchvision.io import encode_png

    pictures = x.to(torch.uint8)
    if x.shape[1] != 3:
        pictures = pictures.flatten(1, 2)[:, None]  # [n, 1, C·H, W]
    return torch.tensor([len(encode_png(picture, compression_level=9)) for picture in pictures.cpu()]).double()
