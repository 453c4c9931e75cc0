"""Dialogue: a reply, given what was said before it."""

from __future__ import annotations

import io
import zipfile
from ast import literal_eval
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, DataModule, InMemory, Split, SplitName
from benchmark.data.download import Remote, fetch
from benchmark.data.images import visits
from benchmark.data.plays import divided, speeches, split_of
from benchmark.data.text import TinyShakespeare
from benchmark.data.tokens import Kind, Tokens, tokens_of
from benchmark.data.tokens import check as check_tokens
from benchmark.spec import BadInput, Batch, DataSpec, Size

Conversation = Sequence[str]  # what is said, one after another: "NAME:\n" and the words


class Dialogue(InMemory):
    """Pairs of what is said and the reply to it, never across conversations. V tokens, and V itself ends a text.

    x `[T]`: the reply with its speaker's name, so that who answers is scored too, then the end token up to T =
    `context`. One of T tokens or more is cut there, and has no end. Condition `[S]`: the last S = `speech` tokens of
    what was said, with its speaker's name where that fits, after as many end tokens as it leaves room for: so it stands
    right before the reply.
    """

    def __init__(
        self, conversations: Mapping[SplitName, Sequence[Conversation]], tokens: Tokens, context: int, speech: int
    ) -> None:
        self.tokens, self.end = tokens, tokens.size
        self._cut: dict[str, int] = {}
        self._digests = {name: _digest(found) for name, found in conversations.items()}
        condition = DataSpec((speech,), self.end + 1, "sequence", end=self.end)
        spec = DataSpec((context,), self.end + 1, "sequence", condition, pieces=(*tokens.pieces, b""), end=self.end)
        super().__init__(spec, {name: self._split(name, found, spec) for name, found in conversations.items()})

    @classmethod
    def check(cls, *, tokens: str = "bpe", vocabulary: int = 512, **others: Any) -> None:
        check_tokens(tokens, vocabulary, cls.card.name)

    @classmethod
    def tokens_for(
        cls, kind: str, vocabulary: int, conversations: Mapping[SplitName, Sequence[Conversation]]
    ) -> Tokens:
        """Tokens of that kind, byte pairs from the training split alone."""
        check_tokens(kind, vocabulary, cls.card.name)
        said = {name: [text for one in found for text in one] for name, found in conversations.items()}
        return tokens_of(kind, vocabulary, cls.card.name, said["train"], [*said["validation"], *said["test"]])

    def _split(self, name: str, conversations: Sequence[Conversation], spec: DataSpec) -> Split:
        assert spec.condition is not None
        encoded = [[self.tokens.encode(text) for text in one] for one in conversations]
        pairs = [pair for one in encoded for pair in pairwise(one)]
        kind = torch.uint8 if spec.levels <= 256 else torch.int16 if spec.levels <= 2**15 else torch.int64
        x = torch.full((len(pairs), *spec.shape), self.end, dtype=kind)
        condition = torch.full((len(pairs), *spec.condition.shape), self.end, dtype=kind)
        (T,), (S,) = spec.shape, spec.condition.shape
        for i, (said, reply) in enumerate(pairs):
            x[i, : len(reply)] = reply[:T]
            condition[i, max(0, S - len(said)) :] = said[-S:]
        self._cut[name] = sum(len(reply) >= T for _, reply in pairs)
        length = torch.tensor([len(piece) for piece in spec.pieces])  # [V + 1] in bytes
        sizes = length[x.long()].sum(1)
        return Split(x, condition=condition, sizes=sizes)

    @property
    def choice_of_tokens(self) -> str:
        return self.tokens.name

    def in_words_of(self, other: DataModule) -> DataModule:
        if isinstance(other, Dialogue) and (other.tokens, other.spec) == (self.tokens, self.spec):
            return self
        raise BadInput(
            f"{self.card.name} is not in the words of {other.describe()['name']}: start from a model of dialogue with "
            "the same tokens, context and speech"
        )

    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[N]`, those that only end it or fill it up left out."""
        return self.tokens.decode(tokens[tokens != self.end])

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        train = self.split("train")
        assert train.condition is not None
        chosen = visits(len(train.x), seed, step * batch_size, batch_size).to(train.x.device)
        return Batch(train.x[chosen].long(), train.condition[chosen].long())

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"tokens": self.tokens.describe(), "cut": self._cut}

    @cached_property
    def _fingerprints(self) -> dict[str, dict[str, Any]]:
        """Of the text itself: whatever its tokens are, these are the same data."""
        return {name: {"n": len(self.split(name).x), "sha256": self._digests[name]} for name in SPLITS}


def _digest(conversations: Sequence[Conversation]) -> str:
    """SHA-256 of all that is said, with what ends a text and a conversation."""
    digest = sha256()
    for one in conversations:
        digest.update("".join(f"{text}\0" for text in one).encode() + b"\0")
    return digest.hexdigest()


class ShakespeareDialogue(Dialogue):
    """Speeches of tinyshakespeare and who answers them how.

    The text does not mark its scenes, where nobody answers anybody. So it is cut into sections of 20 speeches: no pair
    lies in two, and splits are of whole ones.
    """

    card = Card(
        name="dialogue",
        source=f"{TinyShakespeare.card.source}, by speech",
        licence=TinyShakespeare.card.licence,
        citation=TinyShakespeare.card.citation,
        note="scenes are not marked: some replies open one and answer nothing. A reply of more tokens than context - 1 "
        "is cut and has no end; records count them",
    )

    def __init__(
        self,
        root: Path,
        context: Size = 128,  # T, tokens of a reply
        speech: Size = 128,  # S, tokens of the one before it
        tokens: Kind = "bpe",
        vocabulary: int = 512,
    ) -> None:
        text = fetch(root, TinyShakespeare.remote).read_text(encoding="utf-8")
        found: dict[SplitName, list[Conversation]] = {
            name: [[text[one.start : one.end] for one in section] for section in of]
            for name, of in divided(speeches(text)).items()
        }
        super().__init__(found, self.tokens_for(tokens, vocabulary, found), context, speech)


class CornellDialogues(Dialogue):
    """Conversations of films. A film is in one split as a section of plays is, by its number, and no pair leaves a
    conversation.

    The SHA-256 is that of the authors' archive as huggingface/datasets (`dataset_infos.json`) and CorpusLoaders.jl have
    it.
    """

    card = Card(
        name="cornell_dialogues",
        source="https://www.cs.cornell.edu/~cristian/Cornell_Movie-Dialogs_Corpus.html",
        licence="none stated; the scripts are of their owners",
        citation="Danescu-Niculescu-Mizil and Lee 2011, Chameleons in imagined conversations, https://aclanthology.org/W11-0609",
        note="a reply of more tokens than context - 1 is cut and has no end; records count them",
    )
    remote: ClassVar = Remote(
        path="cornell_dialogues/cornell_movie_dialogs_corpus.zip",
        urls=("https://www.cs.cornell.edu/~cristian/data/cornell_movie_dialogs_corpus.zip",),
        checksum="sha256:3bde8a571f615201bc2d2453e22878090719638592f774720eddec739de8c900",
    )

    def __init__(
        self,
        root: Path,
        context: Size = 128,  # T, tokens of a reply
        speech: Size = 128,  # S, tokens of what is said before it
        tokens: Kind = "bpe",
        vocabulary: int = 512,
    ) -> None:
        found = _conversations(fetch(root, self.remote))
        super().__init__(found, self.tokens_for(tokens, vocabulary, found), context, speech)


def _conversations(file: Path) -> dict[SplitName, list[Conversation]]:
    """Those of each split. Lines without words are left out, as pauses are."""
    lines = {number: f"{name}:\n{text}" for number, _, _, name, text in _table(file, "movie_lines", 5) if text}
    found: dict[SplitName, list[Conversation]] = {name: [] for name in SPLITS}
    for _, _, film, numbers in _table(file, "movie_conversations", 4):
        said = [lines[number] for number in literal_eval(numbers) if number in lines]
        found[split_of(int(film.removeprefix("m")))].append(said)
    return found


def _table(file: Path, name: str, columns: int) -> list[list[str]]:
    """The rows of a table of the archive. Raises `BadInput` where one has not so many columns."""
    with zipfile.ZipFile(file) as archive, archive.open(f"cornell movie-dialogs corpus/{name}.txt") as content:
        text = io.TextIOWrapper(content, encoding="iso-8859-1", newline="\n")
        rows = [[cell.strip() for cell in line.split("+++$+++")] for line in text]
    for number, row in enumerate(rows, start=1):
        if len(row) != columns:
            raise BadInput(f"{file}: line {number} of {name}.txt has {len(row)} columns, expected {columns}")
    return rows
