"""Text: one token stream a split; training batches are windows of the training stream."""

from __future__ import annotations

import copy
import platform
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, DataModule, InMemory, Split, SplitName, generator
from benchmark.data.download import Remote, fetch
from benchmark.spec import BadInput, Batch, DataSpec, unknown

Order = Literal["random", "contiguous"]
ORDERS: tuple[Order, ...] = get_args(Order)


class Text(InMemory):
    """Text under a fixed, sorted vocabulary. `context` is the length T of a training window.

    Windows lie at random places, or in contiguous `order`: row b of each batch continues row b of the batch before
    it ended, round and round the stream, and rows start at equal distances.
    """

    shortest: ClassVar[int | None] = None  # tokens in its shortest split, where the text is always the same

    def __init__(self, texts: Mapping[SplitName, str], vocabulary: list[str], context: int, order: Order) -> None:
        self.order = order
        self.vocabulary = vocabulary
        self._own = self
        splits = {name: self._split(text) for name, text in texts.items()}
        spec = DataSpec((context,), len(vocabulary), "sequence", contiguous=order == "contiguous")
        super().__init__(spec, splits)
        self._check(context, order, min(len(split.x) for split in splits.values()))

    @classmethod
    def check(cls, *, context: int = 1, order: str = "random", **others: Any) -> None:
        cls._check(context, order, cls.shortest)

    @classmethod
    def _check(cls, context: int, order: str, shortest: int | None) -> None:
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if context < 1 or (shortest is not None and context > shortest):
            allowed = "1 or more" if shortest is None else f"1 to {shortest}, the tokens of its shortest split"
            raise BadInput(f"context={context} does not fit {cls.card.name}: give {allowed}")

    @property
    def own(self) -> Text:
        return self._own

    def in_words_of(self, other: DataModule) -> DataModule:
        """The same text under the vocabulary of another. Fingerprints stay: they are of the text."""
        if not isinstance(other, Text):
            return super().in_words_of(other)
        if self.vocabulary == other.vocabulary:
            return self
        missing = sorted(set(self.vocabulary) - set(other.vocabulary))
        if missing:
            few = ", ".join(map(repr, missing[:5])) + (", …" if len(missing) > 5 else "")
            raise BadInput(
                f"{other.card.name} has no {few}, which {self.card.name} has: start from a model of a text with these"
            )
        place = {word: index for index, word in enumerate(other.vocabulary)}
        table = torch.tensor([place[word] for word in self.vocabulary])  # [V]
        table = table.to(torch.uint8) if len(place) <= 256 else table
        splits = {name: replace(self.split(name), x=table[self.split(name).x.long()]) for name in SPLITS}
        fingerprints = self._fingerprints
        said = copy.copy(self)
        said.vocabulary, said._splits, said._fingerprints = other.vocabulary, splits, fingerprints
        said.spec = replace(self.spec, levels=other.spec.levels)
        return said

    def _split(self, text: str) -> Split:
        tokens = self.encode(text)
        fits = len(self.vocabulary) <= 256
        return Split(tokens.to(torch.uint8) if fits else tokens, characters=len(text), bytes=len(text.encode()))

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """The tokens `[N]` int64 of a text. `decode` gives the text back."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[N]`, as `encode` made them."""

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        if self.order == "contiguous":
            return Batch(x=self._contiguous(seed, step, batch_size))
        (context,) = self.spec.shape
        windows = self.split("train").x.unfold(0, context, 1)  # [N - T + 1, T], a view
        start = torch.randint(len(windows), (batch_size,), generator=generator(seed, step))
        return Batch(x=windows[start.to(windows.device)].long())

    def _contiguous(self, seed: int, step: int, batch_size: int) -> Tensor:
        """Windows `[B, T]` of the stream closed to a ring; the seed says where on it the rows start."""
        stream, (context,) = self.split("train").x, self.spec.shape
        shift = int(torch.randint(len(stream), (), generator=generator(seed)))
        start = torch.arange(batch_size) * len(stream) // batch_size + shift + step * context  # [B]
        index = start[:, None].to(stream.device) + torch.arange(context, device=stream.device)
        return stream[index % len(stream)].long()


class Characters(Text):
    """A token is a character."""

    def encode(self, text: str) -> Tensor:
        """Raises `BadInput` for a character that the vocabulary does not have."""
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)  # [N] code points
        known = np.array([ord(character) for character in self.vocabulary])
        table = np.full(known.max() + 2, -1, dtype=np.int16)  # its last entry stands for all that lies beyond
        table[known] = np.arange(len(known))
        tokens = table[codes.clip(max=len(table) - 1)]  # [N]
        strange = tokens < 0
        if strange.any():
            raise BadInput(f"{chr(codes[strange.argmax()])!r} is not one of the characters of {self.card.name}")
        return torch.from_numpy(tokens).long()

    def decode(self, tokens: Tensor) -> str:
        return "".join(self.vocabulary[token] for token in tokens.tolist())


class PyDocs(Characters):
    """The language reference that CPython ships: there on every machine, another one in every version of Python."""

    card = Card(
        name="pydocs",
        source=f"pydoc_data.topics of Python {platform.python_version()}, by topic",
        licence="PSF-2.0",
        citation="Python Software Foundation, The Python Language Reference",
        publishable=False,
        note="the text differs between versions of Python, so scores compare only under one fingerprint",
    )

    @classmethod
    def check(cls, **options: Any) -> None:
        cls(Path(), **options)  # it is made at once, and of no files

    def __init__(self, root: Path, context: int = 128, order: Order = "random") -> None:
        from pydoc_data.topics import topics

        text = "\n".join(topics[name] for name in sorted(topics))
        super().__init__(divide(text, 0.85, 0.9), sorted(set(text)), context, order)


class TinyShakespeare(Characters):
    """A million characters of Shakespeare's plays. The test split is what nanoGPT calls validation: the last 10 %."""

    card = Card(
        name="tinyshakespeare",
        source="https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
        licence="public domain",
        citation="Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks",
    )
    remote: ClassVar = Remote(
        path="tinyshakespeare/input.txt",
        urls=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        checksum="sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
    shortest = 55_770

    def __init__(self, root: Path, context: int = 128, order: Order = "random") -> None:
        text = fetch(root, self.remote).read_text(encoding="utf-8")
        super().__init__(divide(text, 0.85, 0.9), sorted(set(text)), context, order)


class Text8(Characters):
    """The first 10⁸ characters of a cleaned English Wikipedia: 26 letters and the space."""

    card = Card(
        name="text8",
        source="https://mattmahoney.net/dc/textdata.html",
        licence="CC BY-SA 3.0 and GFDL (Wikipedia)",
        citation="Mahoney 2011, Large Text Compression Benchmark",
    )
    remote: ClassVar = Remote(
        path="text8/text8.zip",
        urls=("https://mattmahoney.net/dc/text8.zip", "http://mattmahoney.net/dc/text8.zip"),
        checksum="sha256:a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
    )
    shortest = 5_000_000

    def __init__(self, root: Path, context: int = 128, order: Order = "random") -> None:
        with zipfile.ZipFile(fetch(root, self.remote)) as archive:
            text = archive.read("text8").decode("ascii")
        super().__init__(divide(text, 0.9, 0.95), list(" abcdefghijklmnopqrstuvwxyz"), context, order)


class WikiText2(Text):
    """WikiText-2 in its official word tokens: `<unk>` for rare words, `<eos>` for the end of a line.

    Characters and bytes are those of the official files, where a rare word is already `<unk>`.
    """

    card = Card(
        name="wikitext2",
        source="https://wikitext.smerity.com, wikitext-2-v1.zip",
        licence="CC BY-SA 3.0",
        citation="Merity and others 2017, Pointer Sentinel Mixture Models, https://arxiv.org/abs/1609.07843",
    )
    remote: ClassVar = Remote(
        path="wikitext2/wikitext-2-v1.zip",
        urls=(
            "https://wikitext.smerity.com/wikitext-2-v1.zip",
            "https://s3.amazonaws.com/research.metamind.io/wikitext/wikitext-2-v1.zip",
        ),
        checksum="sha256:92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
    )
    shortest = 217_646

    def __init__(self, root: Path, context: int = 128, order: Order = "random") -> None:
        with zipfile.ZipFile(fetch(root, self.remote)) as archive:
            texts = {
                name: archive.read(f"wikitext-2/wiki.{file}.tokens").decode("utf-8")
                for name, file in zip(SPLITS, ("train", "valid", "test"), strict=True)
            }
        vocabulary = sorted(set(words(texts["train"])))
        super().__init__(texts, vocabulary, context, order)

    def encode(self, text: str) -> Tensor:
        """A word that the training split does not have becomes `<unk>`; runs of spaces are one separator."""
        index = {word: i for i, word in enumerate(self.vocabulary)}
        return torch.tensor([index.get(word, index["<unk>"]) for word in words(text)])

    def decode(self, tokens: Tensor) -> str:
        """Laid out as the official files are: a space before every word and before every end of line."""
        return "".join(" " + self.vocabulary[token] for token in tokens.tolist()).replace("<eos>", "\n")


def words(text: str) -> list[str]:
    """The words of a text, with `<eos>` for the end of a line."""
    return text.replace("\n", " <eos> ").split()


def divide(text: str, validation: float, test: float) -> dict[SplitName, str]:
    """A text cut in order at two shares of its length: training, validation, test."""
    a, b = int(validation * len(text)), int(test * len(text))
    return {"train": text[:a], "validation": text[a:b], "test": text[b:]}
