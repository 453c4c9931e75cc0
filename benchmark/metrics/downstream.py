"""What samples are good for: a classifier that learns from them, examined on real images.

The classifier is kernel ridge regression onto the classes (Rifkin, Yeo and Poggio 2003), which has no randomness and
takes a second: models differ only in their samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmark.metrics.fidelity import at_most, jackknife_error
from benchmark.metrics.probe import metric
from benchmark.metrics.samples import Labelled, LabelledSamples, Lessons
from benchmark.spec import Estimate

LESSONS = 2_000  # images of each kind that the classifier learns from, at most
RIDGE = 0.1

PROTOCOL: Mapping[str, Any] = {
    "classifier": f"kernel ridge, gaussian kernel, ridge {RIDGE}",
    "lessons": f"min({LESSONS}, all draws, train)",
}


@metric(Lessons, protocol=PROTOCOL)
def downstream_accuracy(samples: LabelledSamples) -> Estimate:
    """Accuracy on held-out images of a classifier trained only on samples (Ravuri and Vinyals 2019).

    The error is binomial over held-out images and, by a jackknife, over draws.
    """
    return _accuracy(samples, samples.levels, real=[])


@metric(Lessons, protocol=PROTOCOL)
def augmented_accuracy(samples: LabelledSamples) -> Estimate:
    """The same of a classifier trained on real images and samples together (Ravuri and Vinyals 2019)."""
    order = at_most(torch.arange(len(samples.reference.x)), LESSONS)
    real = Labelled(samples.reference.x[order], samples.reference.labels[order])
    return _accuracy(samples, samples.levels, real=[real])


def _accuracy(samples: LabelledSamples, levels: int, real: Sequence[Labelled]) -> Estimate:
    k, n = len(samples.generated), len(samples.held_out.x)
    each = min(LESSONS, len(samples.reference.x)) // k  # from each draw
    draws = [Labelled(draw.x[:each], draw.labels[:each]) for draw in samples.generated]
    accuracy = _examined([*real, *draws], samples.held_out, levels)
    variance = accuracy * (1 - accuracy) / n
    if k > 1:
        without = [_examined([*real, *draws[:i], *draws[i + 1 :]], samples.held_out, levels) for i in range(k)]
        variance += jackknife_error(without) ** 2
    return Estimate(accuracy, math.sqrt(variance), n)


def _examined(lessons: Sequence[Labelled], exam: Labelled, levels: int) -> float:
    """Share of `exam` that a classifier gets right after `lessons`."""
    from sklearn.kernel_ridge import KernelRidge

    x, questions = _pixels(torch.cat([lesson.x for lesson in lessons]), levels), _pixels(exam.x, levels)
    y = torch.cat([lesson.labels for lesson in lessons])
    classes = int(max(y.max(), exam.labels.max())) + 1
    gamma = 1 / (x.shape[1] * max(x.var().item(), 1e-12))
    classifier = KernelRidge(alpha=RIDGE, kernel="rbf", gamma=gamma)
    classifier.fit(x.numpy(), torch.nn.functional.one_hot(y, classes).double().numpy())
    answers = torch.from_numpy(classifier.predict(questions.numpy())).argmax(1)
    return (answers == exam.labels).double().mean().item()


def _pixels(x: Tensor, levels: int) -> Tensor:
    """Rows `[n, D]` in [0, 1]."""
    return x.flatten(1).double() / (levels - 1)
