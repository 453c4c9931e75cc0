"""Texts with a label in front: baselines that know how frequent labels and words are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from benchmark.metrics.labels import Labels, LabelScores
from benchmark.metrics.probe import Found
from benchmark.metrics.session import Session
from benchmark.modalities.base import Given, Modality, log_frequencies
from benchmark.modalities.text import Texts
from benchmark.spec import DataSpec

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = tuple(10.0**k for k in range(-3, 3))  # of the classifier's fit, chosen on validation


class LabelledTexts(Modality):
    universe = Texts.universe

    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """One file with all samples, one below another."""
        return Texts().show(x, spec, decode, stem)

    def references(self, session: Session) -> Mapping[str, Given]:
        """How often each label is in training, and a classifier by words."""
        data, name, count = session.data, session.protocol.split, session.data.labels_in_front
        split, train = session.split.x, session.train.x
        labels = split[:, 0].long()
        frequent = log_frequencies(torch.bincount(train[:, 0].long(), minlength=count)).expand(len(labels), -1)
        of = train, data.split("validation").x, split
        texts = [[_said(data.decode(row)) for row in x] for x in of]
        bag = bag_of_words(texts, [x[:, 0].long().numpy() for x in of], count)
        known = {"label frequencies": frequent, "bag of words": bag}
        protocol = {"split": name, "labels": count}
        return {title: {Labels: Found(LabelScores(log_p, labels), protocol)} for title, log_p in known.items()}


def _said(decoded: str) -> str:
    """A decoded example without its label."""
    return decoded.partition(": ")[2]


def bag_of_words(texts: Sequence[Sequence[str]], labels: Sequence[np.ndarray], count: int) -> Tensor:
    """log p `[N, K]` of a logistic regression on how often each word is in a text; validation chooses its strength.

    Texts and their labels are those of training, of validation, and those that are asked for.
    """
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.linear_model import LogisticRegression

    words = CountVectorizer(token_pattern=r"[a-z']+")
    train, validation, asked = words.fit_transform(texts[0]), words.transform(texts[1]), words.transform(texts[2])
    fits = [LogisticRegression(C=strength, max_iter=300).fit(train, labels[0]) for strength in STRENGTHS]
    best = max(fits, key=lambda fit: _log_p(fit, validation, count)[np.arange(len(labels[1])), labels[1]].mean())
    return torch.from_numpy(_log_p(best, asked, count))


def _log_p(classifier: LogisticRegression, x: Any, count: int) -> np.ndarray:
    """log p `[N, K]` of all labels, -∞ for one that training had not."""
    log_p = np.full((x.shape[0], count), -np.inf)
    log_p[:, classifier.classes_] = classifier.predict_log_proba(x)
    return log_p
