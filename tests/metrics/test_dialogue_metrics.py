"""Scores of replies: nothing that fills one up enters a mean, errors are over examples, and a wrong speech is wrong."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from evidence import value
from torch import Tensor
from torch.nn import functional as F

from benchmark.build import build_examination, load_metrics
from benchmark.data.base import Card
from benchmark.data.dialogue import Dialogue
from benchmark.data.tokens import Characters
from benchmark.evaluate import Experts, Protocol, evaluate, references
from benchmark.metrics.dialogue import Replies, ReplyLogProb, WrongReplies
from benchmark.metrics.session import Session
from benchmark.modalities.dialogue import Dialogues
from benchmark.models.base import GenerativeModel
from benchmark.spec import Absence, Batch, Conditional, ConditionalTokenLikelihood, Sampler

METRICS = load_metrics()


class Small(Dialogue):
    card = Card("small", "test", "none", "none")

    def __init__(self) -> None:
        said = {
            "train": [["a", "ab", "abb", "b", "aab"], ["b", "ba", "a"]],
            "validation": [["b", "ab", "b", "aba"]],
            "test": [["aaa", "b", "abab", "", "ba", "abababab"]],
        }
        super().__init__(said, Characters(("a", "b"), "small"), context=5, speech=3)  # type: ignore[arg-type]


class Counts(GenerativeModel, ConditionalTokenLikelihood, Conditional):
    """A token costs as much as there are letters in what was said, and one nat more; it answers with what was said."""

    @property
    def sampler(self) -> Sampler:
        return Sampler("echo", 1)

    def token_log_prob_given(self, x: Tensor, condition: Tensor) -> Tensor:
        cost = 1.0 + (condition != self.spec.end).sum(1)[:, None].expand(x.shape)
        return -cost.masked_fill(~self.spec.counted(x), 0)

    def sample_given(self, condition: Tensor) -> Tensor:
        return F.pad(condition, (0, self.spec.dims - condition.shape[1]), value=2)

    def sample(self, n: int) -> Tensor:
        return torch.zeros(n, *self.spec.shape, dtype=torch.long)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {}

    def configure_optimizers(self) -> None:
        return None


def test_units_are_of_tokens_bits_and_bytes() -> None:
    evidence = Replies(-torch.tensor([8.0, 4.0]) * math.log(2), torch.tensor([2, 4]), torch.tensor([1, 3]))
    assert value("reply_nats", evidence) == pytest.approx(2 * math.log(2))
    assert value("reply_perplexity", evidence) == pytest.approx(4)
    assert value("reply_bits_per_byte", evidence) == pytest.approx(3)
    with pytest.raises(ValueError, match="empty"):
        value("reply_nats", Replies(torch.zeros(2), torch.zeros(2), torch.zeros(2)))


def test_errors_are_what_other_draws_of_the_replies_would_give() -> None:
    generator = torch.Generator().manual_seed(0)

    def replies(n: int) -> Replies:
        tokens = torch.randint(1, 40, (n,), generator=generator)
        each = 2 + torch.randn(n, generator=generator).mul(0.5)
        return Replies(-each * tokens, tokens, 2 * tokens)

    for name in ("reply_nats", "reply_bits_per_byte", "reply_perplexity"):
        found = [METRICS[name](replies(200)) for _ in range(400)]
        spread = torch.tensor([one.value for one in found]).std().item()
        told = sum(one.stderr or 0.0 for one in found) / len(found)
        assert told == pytest.approx(spread, rel=0.12), name
    assert METRICS["reply_nats"](replies(1)).stderr is None


def test_what_fills_a_reply_up_enters_no_mean_and_long_ones_have_no_end() -> None:
    data = Small()
    x = data.split("test").x
    session = Session(Counts(data.spec), data, Protocol("test", 0), Experts())
    found = session[ReplyLogProb]
    assert not isinstance(found, Absence)
    assert found.evidence.tokens.tolist() == [
        2,
        5,
        1,
        3,
        5,
    ]  # "b", "abab", "", "ba", "ababa|bab": each with its end but the last
    assert found.evidence.bytes.tolist() == [1, 4, 0, 2, 5]
    heard = torch.tensor([3, 1, 3, 0, 2])  # letters of what was said, the last three at most
    assert found.evidence.nats.tolist() == (-(1.0 + heard) * found.evidence.tokens).tolist()
    assert (x[-1] != data.spec.end).all()
    assert found.protocol == {"split": "test", "context": 5, "tokens": "characters", "how": {"likelihood": "exact"}}


def test_a_wrong_speech_is_another_examples_for_each_of_them() -> None:
    data = Small()
    session = Session(Counts(data.spec), data, Protocol("test", 0), Experts())
    found = session[WrongReplies]
    assert not isinstance(found, Absence)
    heard = torch.tensor([3, 0, 2, 3, 1])  # those of the examples two further on
    assert found.evidence.nats.tolist() == (-(1.0 + heard) * found.evidence.tokens).tolist()
    assert found.protocol["given"] == "what precedes the reply half a split further on"
    few = Session(Counts(data.spec), data, Protocol("test", 0, examples=3), Experts())[WrongReplies]
    assert not isinstance(few, Absence)
    assert few.per_example is not None
    assert set(few.evidence.nats.tolist()) <= set(found.evidence.nats.tolist()), "speeches of all, for a few replies"


def test_a_model_is_scored_and_shown_beside_what_was_said_and_answered(tmp_path: Path) -> None:
    data = Small()
    result = evaluate(
        Counts(data.spec), data, Protocol("test", 0, sample_draws=2), build_examination("dialogue"), Experts()
    )
    likelihoods = {"reply_nats", "reply_bits_per_byte", "reply_perplexity", "reply_nats_wrong"}
    assert {name for name, score in result.scores.items() if score.value is not None} >= likelihoods
    shown = Dialogues().show(result.pictures["replies"], data.spec, data.decode, tmp_path / "replies").read_text()
    assert shown.startswith("--- said 1\naaa\n\n--- sample 1\naaa\n\n--- real reply 1\nb\n\n--- said 2\nb\n")
    alone = Dialogues().show(data.split("test").x[:2], data.spec, data.decode, tmp_path / "alone").read_text()
    assert alone == "--- sample 1\nb\n\n--- sample 2\nabab\n"


def test_baselines_hear_nothing_and_begin_each_reply_anew() -> None:
    data = Small()
    found = references(data, Protocol("test", 0), build_examination("dialogue"), Experts())
    assert set(found) == {"unigram", "n_gram", "held-out data", "training data"}
    said = "ab|abb|b|aab|ba|a|"  # all that training answers
    log_p = {token: math.log((said.count(token) + 1) / (len(said) + 3)) for token in "ab|"}
    scored = "b|abab||ba|ababa"
    expected = -sum(log_p[token] for token in scored) / len(scored)
    assert found["unigram"]["reply_nats"].value == pytest.approx(expected)
    assert "reply_nats" in found["n_gram"]
    assert "reply_nats_wrong" not in found["n_gram"]
