"""What is special to masked diffusion: its estimator in closed form, all orders of a short text, and few steps."""

from __future__ import annotations

import math
from itertools import permutations, product

import pytest
import torch
from torch import Tensor, nn

from benchmark.models.diffusion.masked_diffusion import MaskedDiffusion
from benchmark.spec import BadInput, DataSpec

TEXT = DataSpec((12,), 7, "sequence")
SHORT = DataSpec((3,), 3, "sequence")


def model(spec: DataSpec, **options: object) -> MaskedDiffusion:
    """A small network whose weights are all drawn, so that no projection starts at zero."""
    torch.manual_seed(0)
    net = MaskedDiffusion(spec, layers=2, heads=2, width=16, **options).double().eval()  # type: ignore[arg-type]
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5)
    return net


def test_a_network_that_knows_nothing_scores_the_uniform_distribution_exactly() -> None:
    """Whatever is drawn: T/k times k times log 1/V."""
    net = model(TEXT)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.head.bias)
    x = torch.randint(7, (9, 12))
    torch.testing.assert_close(net.elbo(x), torch.full((9,), -12 * math.log(7)), check_dtype=False)


def test_every_number_of_masks_is_as_likely_and_every_place_too() -> None:
    net = model(TEXT)
    hidden, k = zip(*(net.hide(torch.zeros(24, 12, dtype=torch.long)) for _ in range(500)), strict=True)
    counts, places = torch.cat(k), torch.cat(hidden)
    assert torch.equal(places.sum(1), counts)
    frequencies = torch.bincount(counts, minlength=13)[1:] / len(counts)
    assert frequencies.tolist() == pytest.approx([1 / 12] * 12, abs=0.001), "spread evenly over each batch"
    assert places.float().mean(0).tolist() == pytest.approx([13 / 24] * 12, abs=0.02)
    first = torch.stack([n[0] for n in k]).float()
    assert first.mean().item() == pytest.approx(6.5, abs=0.6), "the first row is not always of the first stratum"


def by_orders(net: MaskedDiffusion, x: Tensor) -> float:
    """The mean over all orders of log p(x), found one token at a time."""
    total, orders = 0.0, list(permutations(range(len(x))))
    for order in orders:
        z = torch.full_like(x, net.mask)[None]
        for place in order:
            total += float(net(z)[0, place].log_softmax(-1)[x[place]].detach())
            z[0, place] = x[place]
    return total / len(orders)


def test_the_bound_is_the_mean_over_all_orders() -> None:
    net, x = model(SHORT), torch.tensor([2, 0, 1])
    with torch.no_grad():
        draws = net.elbo(x.expand(30_000, -1))
    error = float(draws.std()) / len(draws) ** 0.5
    assert float(draws.mean()) == pytest.approx(by_orders(net, x), abs=4 * error)


def test_samples_of_as_many_steps_as_tokens_are_of_the_mixture_over_orders() -> None:
    net, n = model(SHORT), 20_000
    p = {}
    for x in product(range(3), repeat=3):
        orders = list(permutations(range(3)))
        chains = []
        for order in orders:
            z, log_p = torch.full((1, 3), net.mask), 0.0
            for place in order:
                log_p += float(net(z)[0, place].log_softmax(-1)[x[place]].detach())
                z[0, place] = x[place]
            chains.append(math.exp(log_p))
        p[x] = sum(chains) / len(orders)
    assert sum(p.values()) == pytest.approx(1)
    torch.manual_seed(1)
    found = net.sample(n)
    for x, expected in p.items():
        share = float((found == torch.tensor(x)).all(1).double().mean())
        assert share == pytest.approx(expected, abs=5 * math.sqrt(expected * (1 - expected) / n) + 1e-4)


def test_a_mask_is_never_predicted_and_what_is_found_stays() -> None:
    net, seen = model(TEXT), []
    assert net.head.out_features == 7
    net.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].clone()))
    for evaluations in (1, 5, 12, 40):
        seen.clear()
        x = net.sample_within(6, evaluations)
        assert int(x.max()) < 7
        assert len(seen) == min(evaluations, 12)
        masks = [int((z == net.mask).sum(1)[0]) for z in seen]
        assert masks[0] == 12
        assert max(a - b for a, b in zip(masks, [*masks[1:], 0], strict=True)) == -(-12 // len(seen))
        for before, after in zip(seen, [*seen[1:], x], strict=True):
            known = before != net.mask
            assert torch.equal(before[known], after[known])


def test_a_token_is_predicted_from_both_sides_and_not_from_itself() -> None:
    net = model(TEXT)
    x = torch.randint(7, (1, 12))
    z = x.clone()
    z[0, 5] = net.mask
    logits = net(z)[0, 5]
    for place in (0, 4, 6, 11):
        changed = z.clone()
        changed[0, place] = (changed[0, place] + 1) % 7
        assert not torch.equal(net(changed)[0, 5], logits)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 13}, "steps=13 is more than 12 tokens"),
        ({"width": 10, "heads": 2}, "width=10 is not an even multiple"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=f"masked_diffusion: {words}"):
        MaskedDiffusion(TEXT, **options)


def test_the_sampler_is_named_after_what_it_draws() -> None:
    named = MaskedDiffusion(TEXT, steps=4, temperature=0.8, top_k=5, top_p=0.9).sampler
    assert (named.name, named.evaluations) == ("in random order, temperature 0.8, top-k 5, top-p 0.9", 4)
    assert MaskedDiffusion(TEXT).sampler.name == "in random order"
