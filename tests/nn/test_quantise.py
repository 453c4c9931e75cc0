"""The codebook: nearest codes, averages in closed form, codes that restart, and who gets which gradient."""

from __future__ import annotations

import math

import pytest
import torch

from benchmark.nn.quantise import Codebook, straight_through


def codebook(codes: int = 4, size: int = 2, decay: float = 0.9, dead: float = 0.1) -> Codebook:
    torch.manual_seed(0)
    return Codebook(codes, size, decay, dead)


def test_nearest_is_by_euclidean_distance():
    book = codebook(7, 3)
    z = torch.randn(50, 3)
    assert torch.equal(book.nearest(z), torch.cdist(z, book.codes).argmin(1))
    assert torch.equal(book(book.nearest(z)), book.codes[torch.cdist(z, book.codes).argmin(1)])


def test_codes_are_moving_averages_of_what_is_mapped_to_them():
    book = codebook(2, 1, decay=0.5, dead=0.0)
    book.codes.copy_(torch.tensor([[0.0], [10.0]]))
    book.counts.copy_(torch.tensor([1.0, 4.0]))
    book.sums.copy_(book.codes * book.counts[:, None])
    z = torch.tensor([[1.0], [3.0], [8.0]])
    book.follow(z, book.nearest(z))
    torch.testing.assert_close(book.counts, torch.tensor([1.5, 2.5]))  # (1 + 2) / 2, (4 + 1) / 2
    torch.testing.assert_close(book.codes, torch.tensor([[2.0 / 1.5], [24.0 / 2.5]]))  # (0 + 4) / 2, (40 + 8) / 2


def test_the_first_batch_gives_the_codes():
    book = codebook(4, 2)
    z = 100 + torch.randn(64, 2)
    book.follow(z, book.nearest(z))
    assert (book.codes > 90).all()
    assert book.counts.sum() > 0


def test_a_code_that_is_not_met_starts_anew_at_a_vector_of_the_batch_and_others_stay():
    book = codebook(3, 1, decay=0.5)
    book.codes.copy_(torch.tensor([[0.0], [1.0], [99.0]]))
    book.counts.fill_(8.0)
    book.sums.copy_(book.codes * 8)
    z = torch.tensor([[0.0], [1.0]]).repeat(12, 1)
    for _ in range(3):
        book.follow(z, book.nearest(z))
        assert book.codes[2] == 99  # rarely met, it keeps its place
    for _ in range(3):
        book.follow(z, book.nearest(z))
    assert book.codes[2] in (0.0, 1.0)
    torch.testing.assert_close(book.codes[:2], torch.tensor([[0.0], [1.0]]))


def test_perplexity_is_that_of_the_counts():
    book = codebook(4)
    assert book.perplexity().item() == pytest.approx(4)
    book.counts.copy_(torch.tensor([3.0, 3.0, 0.0, 0.0]))
    assert book.perplexity().item() == pytest.approx(2, abs=1e-4)
    book.counts.copy_(torch.tensor([1.0, 3.0, 0.0, 0.0]))
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    assert book.perplexity().item() == pytest.approx(math.exp(entropy), abs=1e-3)


def test_perplexity_does_not_depend_on_the_size_of_batches():
    z = torch.randn(6400, 2, generator=torch.Generator().manual_seed(1))
    found = []
    for size in (16, 320):
        book = codebook(16, decay=1 - size / 6400, dead=0.0)
        book.codes.copy_(z[:16])
        for batch in z.split(size):
            book.counts.lerp_(torch.bincount(book.nearest(batch), minlength=16).float(), 1 - book.decay)
        found.append(book.perplexity().item())
    assert found[0] == pytest.approx(found[1], rel=0.05)


def test_the_gradient_passes_straight_through_and_stops_at_the_codes():
    z, code = torch.randn(5, 2, requires_grad=True), torch.randn(5, 2, requires_grad=True)
    y = straight_through(z, code)
    torch.testing.assert_close(y, code)
    weights = torch.randn(5, 2)
    (y * weights).sum().backward()
    torch.testing.assert_close(z.grad, weights)
    assert code.grad is None
