"""What a token of a text is: a character, a byte, a run of bytes that merges made, or a word."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from benchmark.spec import BadInput, unknown

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Kind = Literal["characters", "bytes", "bpe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEAST = 257  # tokens of byte pairs: all bytes, and one merge


class Tokens(ABC):
    """A vocabulary, and the way from a text to numbers below its size and back."""

    @property
    @abstractmethod
    def size(self) -> int:
        """How many different tokens there are."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What protocols call them: numbers a token compare under one name alone."""

    @abstractmethod
    def encode(self, text: str) -> Tensor:
        """The tokens `[N]` int64 of a text. `decode` gives the text back."""

    @abstractmethod
    def decode(self, tokens: Tensor) -> str:
        """The text of tokens `[N]`."""

    def bytes_of(self, tokens: Tensor) -> int:
        """How many bytes of UTF-8 tokens `[N]` stand for, also where they end within a letter."""
        return len(self.decode(tokens).encode())

    def describe(self) -> dict[str, Any]:
        """For the record."""
        return {"name": self.name, "size": self.size}


@dataclass(frozen=True)
class Characters(Tokens):
    """A token is one of these characters."""

    known: tuple[str, ...]
    of: str  # whose characters they are, for messages

    @property
    def size(self) -> int:
        return len(self.known)

    @property
    def name(self) -> str:
        return "characters"

    def encode(self, text: str) -> Tensor:
        """Raises `BadInput` for a character that the vocabulary does not have."""
        codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)  # [N] code points
        known = np.array([ord(character) for character in self.known])
        table = np.full(known.max() + 2, -1, dtype=np.int32)  # its last entry stands for all that lies beyond
        table[known] = np.arange(len(known))
        tokens = table[codes.clip(max=len(table) - 1)]  # [N]
        strange = tokens < 0
        if strange.any():
            raise BadInput(f"{chr(codes[strange.argmax()])!r} is not one of the characters of {self.of}")
        return torch.from_numpy(tokens).long()

    def decode(self, tokens: Tensor) -> str:
        return "".join(self.known[token] for token in tokens.tolist())


@dataclass(frozen=True)
class Bytes(Tokens):
    """A token is a byte of the text in UTF-8."""

    @property
    def size(self) -> int:
        return 256

    @property
    def name(self) -> str:
        return "bytes"

    def encode(self, text: str) -> Tensor:
        return torch.from_numpy(np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int64))

    def decode(self, tokens: Tensor) -> str:
        """Bytes that are no UTF-8, as a model may draw them, become U+FFFD."""
        return bytes(tokens.tolist()).decode(errors="replace")

    def bytes_of(self, tokens: Tensor) -> int:
        return len(tokens)


@dataclass(frozen=True)
class BytePairs(Tokens):
    """A token is a byte or what a merge made of two tokens, merges being those of the most frequent pairs (Sennrich and
    others, "Neural Machine Translation of Rare Words with Subword Units", ACL 2016, over bytes). Every text has tokens.

    `content` is the file of the package `tokenizers`, in which the merges are.
    """

    content: str
    tokenizer: Tokenizer = field(compare=False, repr=False)

    @classmethod
    def learnt(cls, texts: Sequence[str], size: int) -> BytePairs:
        """As many tokens as that, from these texts. Raises `BadInput` where they do not have so many."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # every byte: none is dropped where it is new
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        if (found := tokenizer.get_vocab_size()) != size:
            raise BadInput(f"vocabulary={size} is more than this text has: give at most {found}")
        return cls(tokenizer.to_str(), tokenizer)

    @property
    def size(self) -> int:
        return self.tokenizer.get_vocab_size()

    @property
    def name(self) -> str:
        return f"{self.size} byte pairs {self.sha256[:8]}"

    @property
    def sha256(self) -> str:
        """Of the merges: two vocabularies with one hash are one."""
        return hashlib.sha256(self.content.encode()).hexdigest()

    def encode(self, text: str) -> Tensor:
        return torch.tensor(self.tokenizer.encode(text).ids, dtype=torch.long)

    def decode(self, tokens: Tensor) -> str:
        """Bytes that are no UTF-8, as a model may draw them, become U+FFFD."""
        return self.tokenizer.decode(tokens.tolist(), skip_special_tokens=False)

    def bytes_of(self, tokens: Tensor) -> int:
        return sum(len(self.tokenizer.id_to_token(token) or "") for token in tokens.tolist())  # of a byte each letter

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"sha256": self.sha256}


@dataclass(frozen=True)
class Words(Tokens):
    """A token is a word between spaces, `<unk>` one that is not known, and `<eos>` the end of a line."""

    known: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.known)

    @property
    def name(self) -> str:
        return "words"

    def encode(self, text: str) -> Tensor:
        """An unknown word becomes `<unk>`; runs of spaces are one separator."""
        index = {word: i for i, word in enumerate(self.known)}
        return torch.tensor([index.get(word, index["<unk>"]) for word in words(text)])

    def decode(self, tokens: Tensor) -> str:
        """A space before every word and before every end of line."""
        return "".join(" " + self.known[token] for token in tokens.tolist()).replace("<eos>", "\n")


def words(text: str) -> list[str]:
    """The words of a text, with `<eos>` for the end of a line."""
    return text.replace("\n", " <eos> ").split()


def check(kind: str, vocabulary: int, of: str, kinds: Sequence[str] = KINDS) -> None:
    """Raises `BadInput` where no tokens of the dataset called `of` can be made so; `kinds` are those that it has."""
    if kind not in kinds:
        raise unknown("tokens", kind, kinds)
    if kind == "bpe" and vocabulary < LEAST:
        raise BadInput(
            f"tokens=bpe of {of} needs a vocabulary: give data.vocabulary=512, or another number from {LEAST}"
        )
    if kind != "bpe" and vocabulary:
        raise BadInput(f"vocabulary={vocabulary} is for tokens=bpe: give 0 with tokens={kind}")


def tokens_of(kind: str, vocabulary: int, of: str, train: Sequence[str], others: Sequence[str]) -> Tokens:
    """Tokens of the dataset `of`: merges are learnt from its training texts alone, characters are all there are."""
    if kind == "bpe":
        return BytePairs.learnt(train, vocabulary)
    if kind == "bytes":
        return Bytes()
    return Characters(tuple(sorted(set("".join((*train, *others))))), of)
