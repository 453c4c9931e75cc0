"""What is special to BERT: what it hides, that nobody sees its own token, and samples by unmasking."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmark.data.tokens import Characters
from benchmark.models.transformer.bert import BERT
from benchmark.spec import BadInput, Batch, DataSpec

TEXT = DataSpec((12,), 7, "sequence")


def model(spec: DataSpec = TEXT, **options: Any) -> BERT:
    """A small BERT whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = BERT(spec, layers=2, heads=2, width=16, **options).double().eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    return net


def tokens(n: int, spec: DataSpec = TEXT) -> Tensor:
    return torch.randint(spec.levels, (n, spec.dims), generator=torch.Generator().manual_seed(3))


def test_a_token_is_scored_by_all_others_and_never_by_itself() -> None:
    net, x = model(), tokens(1)
    with torch.no_grad():
        log_p = net(x.masked_fill(torch.arange(12) == 5, net.mask))[:, 5].log_softmax(-1)
        values = x.repeat(7, 1)
        values[:, 5] = torch.arange(7)
        place = torch.tensor([5])
        torch.testing.assert_close(net.pseudo_log_probs(values, place)[:, 0], log_p.float().expand(7, -1))
        for other in (0, 4, 6, 11):
            changed = x.clone()
            changed[:, other] = (changed[:, other] + 1) % 7
            assert (net.pseudo_log_probs(changed, place) != net.pseudo_log_probs(x, place)).all(), "both sides are seen"


def test_a_share_of_each_window_is_to_be_found_and_most_of_it_hidden() -> None:
    """80 % are masks; 10 % any token, which in one of 100 cases is the same; 10 % stay (Devlin and others 2019)."""
    spec = DataSpec((100,), 100, "sequence")
    net, x = model(spec), tokens(400, spec)
    torch.manual_seed(1)
    chosen = net.chosen(x)
    assert (chosen.sum(1) == 15).all()
    assert chosen.float().mean(0).std() < 0.03, "every place as often"
    z = net.hide(x, chosen)
    assert torch.equal(z[~chosen], x[~chosen])
    hidden, same = (z[chosen] == net.mask).double().mean().item(), (z[chosen] == x[chosen]).double().mean().item()
    assert hidden == pytest.approx(0.8, abs=0.02)
    assert same == pytest.approx(0.101, abs=0.015)


def test_whole_words_are_hidden_whole() -> None:
    text = "Wise men, to be seen at noon; go."
    letters = Characters(tuple(sorted(set(text))), "a text")
    spec = DataSpec((len(text),), letters.size, "sequence", pieces=letters.pieces)
    net, x = model(spec, hides="words", masked_share=0.3), letters.encode(text)[None]
    found = set()
    for seed in range(30):
        torch.manual_seed(seed)
        (chosen,) = net.chosen(x)
        assert 10 <= chosen.sum() < 10 + len("Wise"), "no more than a word beyond the share"
        words = text.replace(",", " ").replace(";", " ").replace(".", " ").split(" ")
        start = 0
        for word in filter(None, words):
            start = text.index(word, start)
            part = chosen[start : start + len(word)]
            assert part.all() or not part.any(), word
            found |= {word} if part.all() else set()
            start += len(word)
    assert found == {"Wise", "men", "to", "be", "seen", "at", "noon", "go"}


def test_the_first_token_alone_is_asked_for_where_that_is_all() -> None:
    net, x = model(hides="first"), tokens(4)
    chosen = net.chosen(x)
    assert chosen.nonzero()[:, 1].tolist() == [0] * 4
    assert (net.hide(x, chosen)[:, 0] == net.mask).all()
    loss = net.training_step(Batch(x), 0)["loss"]
    of_first = net.pseudo_log_probs(x, torch.tensor([0]))[:, 0].gather(1, x[:, :1])
    torch.testing.assert_close(loss, -of_first.mean())


def test_unmasking_finds_every_place_and_draws_from_the_network() -> None:
    net = model(steps=5)
    torch.manual_seed(2)
    x = net.sample(500)
    assert x.shape == (500, 12)
    assert x.max() < 7, "no mask is left"
    one = BERT(DataSpec((1,), 7, "sequence"), layers=1, heads=1, width=4).double().eval()
    nn.init.normal_(one.head.bias)
    with torch.no_grad():
        p = one(torch.tensor([[7]])).softmax(-1)[0, 0]
        shares = torch.bincount(one.sample(20_000)[:, 0], minlength=7) / 20_000
    torch.testing.assert_close(shares.double(), p, atol=0.015, rtol=0)


def test_words_of_tokens_that_say_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="nothing says what tokens these are"):
        BERT(TEXT, hides="words")


def test_more_steps_than_tokens_are_refused() -> None:
    with pytest.raises(BadInput, match="steps=13 is more than 12 tokens"):
        BERT(TEXT, steps=13)
