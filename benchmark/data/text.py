"""Text: one token stream a split; training batches are windows of the training stream."""

from __future__ import annotations

import copy
import platform
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, DataModule, InMemory, Split, SplitName, generator
from benchmark.data.download import Remote, fetch
from benchmark.data.plays import divided, speeches
from benchmark.data.tokens import KINDS, Kind, Tokens, Words, tokens_of, words
from benchmark.data.tokens import check as check_tokens
from benchmark.spec import BadInput, Batch, DataSpec, Probability, unknown

Order = Literal["random", "contiguous"]
ORDERS: tuple[Order, ...] = get_args(Order)


class Text(InMemory):
    """Text in `tokens`. `context` is the length T of a training window.

    Windows lie at random places, or in contiguous `order`: row b of each batch continues row b of the batch before
    it ended, round and round the stream, and rows start at equal distances. A split may be of several parts, which do
    not follow on each other: no window lies in two of them.
    """

    shortest: ClassVar[int | None] = None  # characters in the shortest part of its splits, where the text never changes
    kinds: ClassVar[tuple[str, ...]] = KINDS  # of tokens that it may be read in

    def __init__(self, texts: Mapping[SplitName, Sequence[str]], tokens: Tokens, context: int, order: Order) -> None:
        self.order = order
        self.tokens = tokens
        self._own = self
        self._digests = {name: sha256("".join(parts).encode()).hexdigest() for name, parts in texts.items()}
        splits = {name: self._split(parts) for name, parts in texts.items()}
        spec = DataSpec((context,), tokens.size, "sequence", None, order == "contiguous", tokens.pieces)
        super().__init__(spec, splits)
        shortest = min(len(part) for split in splits.values() for part in split.parts())
        self._check(context, order, shortest, "tokens")

    @classmethod
    def check(
        cls, *, context: int = 1, order: str = "random", tokens: str = "", vocabulary: int = 0, **others: Any
    ) -> None:
        check_tokens(tokens or cls.kinds[0], vocabulary, cls.card.name, cls.kinds)
        cls._check(context, order, cls.shortest if tokens in ("", "characters") else None, "characters")

    @classmethod
    def _check(cls, context: int, order: str, shortest: int | None, what: str) -> None:
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if context < 1 or (shortest is not None and context > shortest):
            allowed = "1 or more" if shortest is None else f"1 to {shortest}, the {what} of its shortest split"
            raise BadInput(f"context={context} does not fit {cls.card.name}: give {allowed}")

    @property
    def own(self) -> Text:
        return self._own

    @property
    def choice_of_tokens(self) -> str | None:
        return self.tokens.name if len(self.kinds) > 1 else None

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        """Of the text itself where its tokens are a choice: whatever they are, these are the same data."""
        if self.choice_of_tokens is None:
            return super()._fingerprints
        return {name: {"n": len(self.split(name).x), "sha256": self._digests[name]} for name in SPLITS}

    def in_words_of(self, other: DataModule) -> DataModule:
        """The same text in the tokens of another. Fingerprints stay: they are of the text in its own."""
        if not isinstance(other, Text):
            return super().in_words_of(other)
        if self.tokens == other.tokens:
            return self
        try:
            splits = {name: self._said(self.split(name), other.tokens) for name in SPLITS}
        except BadInput as error:
            raise BadInput(f"{error}, which {self.card.name} has: start from a model of a text with these") from error
        fingerprints = self._fingerprints
        said = copy.copy(self)
        said.tokens, said._splits, said._fingerprints = other.tokens, splits, fingerprints
        said.spec = replace(self.spec, levels=other.spec.levels, pieces=other.spec.pieces)
        return said

    def _said(self, split: Split, tokens: Tokens) -> Split:
        return _encoded([self.tokens.decode(part) for part in split.parts()], tokens)

    def tokens_for(self, kind: str, vocabulary: int, texts: Mapping[SplitName, Sequence[str]]) -> Tokens:
        """Tokens of that kind for these texts."""
        check_tokens(kind, vocabulary, self.card.name, self.kinds)
        return tokens_of(kind, vocabulary, self.card.name, texts["train"], [*texts["validation"], *texts["test"]])

    def encode(self, text: str) -> Tensor:
        """The tokens `[N]` int64 of a text. `decode` gives the text back."""
        return self.tokens.encode(text)

    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[N]`, as `encode` made them."""
        return self.tokens.decode(tokens)

    def describe(self) -> dict[str, Any]:
        return super().describe() | ({"tokens": self.tokens.describe()} if self.choice_of_tokens else {})

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        stream, (context,) = self.split("train").x, self.spec.shape
        starts = (
            self._next(seed, step, batch_size) if self.order == "contiguous" else self._drawn(seed, step, batch_size)
        )
        windows = stream.unfold(0, context, 1)  # [N - T + 1, T], a view
        return Batch(x=windows[starts.to(windows.device)].long())

    def _drawn(self, seed: int, step: int, batch_size: int) -> Tensor:
        """Where windows begin `[B]`, each place of a part that has room for one being as likely."""
        (context,), train = self.spec.shape, self.split("train")
        begins, lengths = _spans(train)
        ends = (lengths - context + 1).cumsum(0)  # [P] places of all parts up to each
        drawn = torch.randint(int(ends[-1]), (batch_size,), generator=generator(seed, step))
        part = torch.searchsorted(ends, drawn, right=True)
        return begins[part] + drawn - (ends - (lengths - context + 1))[part]

    def _next(self, seed: int, step: int, batch_size: int) -> Tensor:
        """Where windows begin `[B]`: the parts are cut into windows, one after another, and these closed to a ring, on
        which rows go round; the seed says where they start."""
        (context,), train = self.spec.shape, self.split("train")
        begins, lengths = _spans(train)
        room = min(context, int(lengths.min()) - context + 1)
        shift, turn = torch.randint(2**31, (2,), generator=generator(seed)).tolist()
        starts = [
            torch.arange(begin + shift % room, begin + length - context + 1, context)
            for begin, length in zip(begins.tolist(), lengths.tolist(), strict=True)
        ]
        ring = torch.cat(starts)  # [W]
        return ring[(torch.arange(batch_size) * len(ring) // batch_size + turn + step) % len(ring)]

    def _split(self, parts: Sequence[str]) -> Split:
        return _encoded(parts, self.tokens)


def _encoded(parts: Sequence[str], tokens: Tokens) -> Split:
    """A split of texts that do not follow on each other."""
    encoded = [tokens.encode(part) for part in parts]
    x = torch.cat(encoded)
    cuts = tuple(torch.tensor([len(part) for part in encoded]).cumsum(0)[:-1].tolist())
    characters, size = sum(map(len, parts)), sum(len(part.encode()) for part in parts)
    return Split(x.to(torch.uint8) if tokens.size <= 256 else x, characters=characters, bytes=size, cuts=cuts)


def _spans(split: Split) -> tuple[Tensor, Tensor]:
    """Where each part of a stream begins, and how long it is, `[P]` each."""
    lengths = torch.tensor([len(part) for part in split.parts()])
    return lengths.cumsum(0) - lengths, lengths


class PyDocs(Text):
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

    def __init__(
        self,
        root: Path,
        context: int = 128,
        order: Order = "random",
        tokens: Kind = "characters",
        vocabulary: int = 0,
        train_share: Probability = 1.0,
    ) -> None:
        from pydoc_data.topics import topics

        text = "\n".join(topics[name] for name in sorted(topics))
        texts = beginning(divide(text, 0.85, 0.9), train_share)
        super().__init__(texts, self.tokens_for(tokens, vocabulary, texts), context, order)


class TinyShakespeare(Text):
    """A million characters of Shakespeare's plays. The test split is what nanoGPT calls validation: the last 10 %.

    Of the rest, a `split` of ends gives validation the end. In blocks of 28,000 characters, it is the 10th and the
    28th: so it holds plays that training has parts of, as most of test does, while smaller blocks would let grams of
    one play stand on both sides. Where the split is whole, training has these blocks too. One of sections holds out
    runs of speeches all over the text, those of `speakers`, for what is learnt of these afterwards.
    """

    card = Card(
        name="tinyshakespeare",
        source="https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
        licence="public domain",
        citation="Karpathy 2015, The Unreasonable Effectiveness of Recurrent Neural Networks",
        note="the last 31 % of the test split are a play that training has nothing of",
    )
    remote: ClassVar = Remote(
        path="tinyshakespeare/input.txt",
        urls=("https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",),
        checksum="sha256:86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    )
    parts_of: ClassVar[tuple[str, ...]] = ("ends", "blocks", "whole", "sections")
    block: ClassVar[int] = 28_000  # characters
    held_out: ClassVar[tuple[int, ...]] = (9, 27)  # blocks of validation, from 0 on
    shortest = 55_770
    unseen: ClassVar[str] = "\nMaster:\nBoatswain!"  # how the play begins that training has nothing of

    def __init__(
        self,
        root: Path,
        context: int = 128,
        order: Order = "random",
        tokens: Kind = "characters",
        vocabulary: int = 0,
        train_share: Probability = 1.0,
        split: Literal["ends", "blocks", "whole", "sections"] = "ends",
    ) -> None:
        text = fetch(root, self.remote).read_text(encoding="utf-8")
        if split not in self.parts_of:
            raise unknown("split", split, self.parts_of)
        texts = self._texts(text, split)
        self.trains_on_validation = split == "whole"
        texts = beginning(texts, train_share)
        super().__init__(texts, self.tokens_for(tokens, vocabulary, texts), context, order)
        if split != "sections":
            (test,) = texts["test"]
            known = len(self.encode(test[: test.index(self.unseen)]))
            self._splits["test"] = replace(self.split("test"), unseen=known)

    def _texts(self, text: str, split: str) -> dict[SplitName, Sequence[str]]:
        match split:
            case "ends":
                return divide(text, 0.85, 0.9)
            case "sections":
                of = divided(speeches(text)).items()
                return {name: [text[one[0].start : one[-1].end] + "\n" for one in found] for name, found in of}
            case _:
                return self._blocks(text, whole=split == "whole")

    def _blocks(self, text: str, whole: bool) -> dict[SplitName, Sequence[str]]:
        rest, test = text[: int(0.9 * len(text))], text[int(0.9 * len(text)) :]
        at = [number * self.block for number in self.held_out]
        between = zip([0, *(place + self.block for place in at)], [*at, len(rest)], strict=True)
        return {
            "train": [rest] if whole else [rest[begin:end] for begin, end in between],
            "validation": [rest[place : place + self.block] for place in at],
            "test": [test],
        }


class Text8(Text):
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

    def __init__(
        self,
        root: Path,
        context: int = 128,
        order: Order = "random",
        tokens: Kind = "characters",
        vocabulary: int = 0,
        train_share: Probability = 1.0,
    ) -> None:
        with zipfile.ZipFile(fetch(root, self.remote)) as archive:
            text = archive.read("text8").decode("ascii")
        texts = beginning(divide(text, 0.9, 0.95), train_share)
        super().__init__(texts, self.tokens_for(tokens, vocabulary, texts), context, order)


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
    kinds = ("words", *KINDS)
    shortest = 217_646

    def __init__(
        self,
        root: Path,
        context: int = 128,
        order: Order = "random",
        tokens: Literal["words", "characters", "bytes", "bpe"] = "words",
        vocabulary: int = 0,
        train_share: Probability = 1.0,
    ) -> None:
        with zipfile.ZipFile(fetch(root, self.remote)) as archive:
            texts: dict[SplitName, Sequence[str]] = {
                name: [archive.read(f"wikitext-2/wiki.{file}.tokens").decode("utf-8")]
                for name, file in zip(SPLITS, ("train", "valid", "test"), strict=True)
            }
        texts = beginning(texts, train_share)
        known = self.tokens_for(tokens, vocabulary, texts) if tokens != "words" else _words_of(texts["train"])
        super().__init__(texts, known, context, order)


def _words_of(texts: Sequence[str]) -> Words:
    return Words(tuple(sorted({word for text in texts for word in words(text)})))


def divide(text: str, validation: float, test: float) -> dict[SplitName, Sequence[str]]:
    """A text cut in order at two shares of its length: training, validation, test."""
    a, b = int(validation * len(text)), int(test * len(text))
    return {"train": [text[:a]], "validation": [text[a:b]], "test": [text[b:]]}


def beginning(texts: Mapping[SplitName, Sequence[str]], train_share: float) -> dict[SplitName, Sequence[str]]:
    """The same texts, with only so much of the training text, from its beginning on."""
    left, kept = round(train_share * sum(map(len, texts["train"]))), []
    for part in texts["train"]:
        kept.append(part[:left])
        left -= len(kept[-1])
        if not left:
            break
    return {**texts, "train": kept}
