"""Who speaks? Windows of speeches behind a label: a task that a model of text can be tuned for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import Card, InMemory, Split, SplitName
from benchmark.data.download import fetch
from benchmark.data.images import visits
from benchmark.data.plays import Speech, divided, speeches
from benchmark.data.text import TinyShakespeare
from benchmark.data.tokens import Bytes
from benchmark.spec import BadInput, Batch, DataSpec


class Speakers(InMemory):
    """What the ten most frequent speakers of tinyshakespeare say, without their names, in bytes.

    The first token of a window is the number of its speaker, a byte that no text has; the others are bytes of what that
    speaker says within one section of the text, speech after speech. Training windows overlap; those of the other
    splits do not, and their sections are those that tinyshakespeare withholds under `split=sections`.
    """

    card = Card(
        name="speakers",
        source="https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt, by speaker",
        licence="public domain",
        citation="Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks",
        note="the text marks no scenes: splits are of runs of 20 speeches, and speakers of different plays are told "
        "apart by what these are about, too",
    )
    count: ClassVar[int] = 10  # speakers
    overlap: ClassVar[int] = 4  # training windows that see each byte

    def __init__(self, root: Path, context: int = 128) -> None:
        found = speeches(fetch(root, TinyShakespeare.remote).read_text(encoding="utf-8"))
        self.names = [name for name, _ in Counter(one.speaker for one in found).most_common(self.count)]
        self.tokens = Bytes()
        splits = {name: self._split(of, name, context) for name, of in divided(found).items()}
        spec = DataSpec((context,), self.tokens.size, "sequence", pieces=self.tokens.pieces)
        super().__init__(spec, splits)

    @classmethod
    def check(cls, *, context: int = 128, **others: Any) -> None:
        if context < 2:
            raise BadInput(f"context={context} has no room for a speaker and what is said: give 2 or more")

    def _split(self, found: Sequence[Sequence[Speech]], name: SplitName, context: int) -> Split:
        size = context - 1
        step = max(1, size // self.overlap) if name == "train" else size
        rows = [np.empty((0, context), np.uint8)]
        for section in found:
            said: dict[str, list[str]] = defaultdict(list)
            for speech in section:
                said[speech.speaker].append(speech.text)
            for label, speaker in enumerate(self.names):
                spoken = np.frombuffer("\n".join(said[speaker]).encode(), np.uint8)
                if len(spoken) < size:
                    continue
                windows = np.lib.stride_tricks.sliding_window_view(spoken, size)[::step]
                rows.append(np.insert(windows, 0, label, axis=1))
        return Split(torch.from_numpy(np.concatenate(rows)))

    @property
    def labels_in_front(self) -> int:
        return self.count

    def decode(self, tokens: Tensor) -> str:
        """`ROMEO: but soft, …`; a first token that is no speaker is shown as it is."""
        label, said = int(tokens[0]), self.tokens.decode(tokens[1:])
        return f"{self.names[label] if label < self.count else self.tokens.decode(tokens[:1])}: {said}"

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        x = self.split("train").x
        return Batch(x=x[visits(len(x), seed, step * batch_size, batch_size).to(x.device)].long())
