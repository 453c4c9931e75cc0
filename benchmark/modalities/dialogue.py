"""Dialogue: replies beside what was said and what was really answered, and baselines that hear nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmark.data.base import Split
from benchmark.metrics.dialogue import ReplyLogProb, of, protocol_of
from benchmark.metrics.probe import Found
from benchmark.metrics.session import Session
from benchmark.metrics.writing import Replied, replies, written
from benchmark.modalities.base import Given, Modality
from benchmark.modalities.ngram import KneserNey, best_order
from benchmark.modalities.text import Texts, unigram
from benchmark.spec import DataSpec


class Dialogues(Modality):
    universe = Texts.universe  # what a reply is given, and how it ends, the laws of conditions add

    def show(self, x: Tensor, spec: DataSpec, decode: Callable[[Tensor], str], stem: Path) -> Path:
        """One file with all samples, one below another. Where `x` is `[n, S + 2 T]`, each stands between what was said
        and the real reply."""
        file = stem.with_suffix(".txt")
        titles = ["said", "sample", "real reply"] if x.shape[1] > spec.dims else ["sample"]
        widths = [x.shape[1] - 2 * spec.dims, spec.dims, spec.dims] if len(titles) > 1 else [spec.dims]
        texts = (
            f"--- {title} {i + 1}\n{decode(part)}"
            for i, row in enumerate(x)
            for title, part in zip(titles, row.split(widths), strict=True)
        )
        file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
        return file

    def references(self, session: Session) -> Mapping[str, Given]:
        data, spec, everyone = session.data, session.spec, torch.arange(len(session.split.x))
        train, validation, test = (
            stream(one, spec) for one in (session.train, data.split("validation"), session.split)
        )
        model = KneserNey(train.x, spec.levels, train.cuts)
        order = best_order(model, validation.x, validation.cuts)
        known = {
            "unigram": unigram(train.x, test.x, spec.levels),
            "n_gram": model.log_prob(test.x, order, test.cuts),
        }
        table: dict[str, Given] = {}
        for name, nats in known.items():
            evidence = of(session, torch.stack([part.sum() for part in nats.tensor_split(test.cuts)]), everyone)
            table[name] = {ReplyLogProb: Found(evidence, protocol_of(session))}
        for title, real in {"held-out data": session.split, "training data": session.train}.items():
            texts = [data.decode(x) for x in real.x[replies(session, real)]]
            table[title] = {Replied: written(session, (texts,), {})}
        return table


def stream(split: Split, spec: DataSpec) -> Split:
    """The tokens of all replies that count, their ends among them, as a stream of as many parts."""
    counted = spec.counted(split.x)
    return Split(split.x[counted], cuts=tuple(counted.sum(1).cumsum(0)[:-1].tolist()))
