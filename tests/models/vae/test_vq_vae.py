"""What is special to VQ-VAE: a bound that is one term of an exact sum, priors over codes, and who learns from what."""

from __future__ import annotations

import math

import pytest
import torch
from solvable import FOUR, small_vq_vae, terms_by_codes, trained_vq_vae

from benchmark.models.vae.vq_vae import Histogram, Transformer
from benchmark.spec import BadInput, Batch, DataSpec
from benchmark.testing.universe import every_example

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")


def model(spec=DIGITS, **options):
    return small_vq_vae(spec, **options).eval()


@pytest.mark.parametrize("prior", ["autoregressive", "histogram"])
def test_bound_is_a_term_of_the_sum_over_all_codes(prior):
    """p(x) = Σ_z p(x | z) p(z), over every grid of codes, sums to one over all images; the bound leaves terms out."""
    net = trained_vq_vae(FOUR, prior=prior, patch=1)  # one place: 2x2 pixels, halved
    x = every_example(FOUR)
    terms = terms_by_codes(net, x)  # [K, N]
    with torch.no_grad():
        log_prior = net.prior.log_prob(torch.arange(5)[:, None])  # [K]
        exact, bound = terms.logsumexp(0), net.elbo(x)
        _, chosen = net.encode(x)
    assert log_prior.exp().sum().item() == pytest.approx(1, abs=1e-5)
    assert exact.double().exp().sum().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(bound, terms.gather(0, chosen.T)[0])
    assert (bound < exact + 1e-6).all()
    assert (bound < exact - 1e-3).any()


@pytest.mark.parametrize("kind", [Transformer, Histogram])
def test_priors_are_normalised_over_all_grids_and_sampled_as_they_say(kind):
    torch.manual_seed(0)
    prior = kind(3, 4, 2, 2, 8, 0.0) if kind is Transformer else kind(3, 4)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        z = torch.cartesian_prod(*[torch.arange(3)] * 4)  # [81, 4]
        p = prior.eval().log_prob(z).exp()
        drawn = prior.sample(20_000)
    assert p.sum().item() == pytest.approx(1, abs=1e-5)
    place = (drawn * torch.tensor([27, 9, 3, 1])).sum(1)
    frequency = torch.bincount(place, minlength=81) / len(drawn)
    error = (p / len(drawn)).sqrt()
    assert ((frequency - p).abs() < 5 * error + 1e-4).all()


def test_the_prior_is_causal_and_not_blind():
    torch.manual_seed(0)
    prior = Transformer(5, 6, 2, 2, 8, 0.0).eval()
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        before = torch.randint(5, (1, 6))
        logits = prior(before)
        for t in range(6):
            other = before.clone()
            other[0, t] = (other[0, t] + 1) % 5
            moved = (prior(other) - logits)[0].abs().amax(1) > 1e-6
            assert moved.tolist() == [False] * t + [True] * (6 - t)  # what stands before place t is seen from t on


def test_codes_hand_the_prior_no_gradient_and_the_encoder_learns_by_reconstruction():
    net = model().train()
    x = torch.randint(17, (8, 1, 8, 8))
    _, z = net.encode(x)
    net.prior.log_prob(z).sum().backward()
    assert all(parameter.grad is None for parameter in net.encoder.parameters())
    net.training_step(Batch(x), 0)["loss"].backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in net.encoder.parameters())


def test_commitment_is_a_term_of_the_loss_alone_and_codes_are_no_parameters():
    net, free = model(commitment=3.0), model(commitment=0.0)
    assert not any(name.startswith("codebook") for name, _ in net.named_parameters())
    x = torch.randint(17, (8, 1, 8, 8))
    torch.testing.assert_close(net.elbo(x), free.elbo(x))
    given, other = (one.training_step(Batch(x), 0) for one in (net, free))
    torch.testing.assert_close(given["loss"] - other["loss"], 3.0 * given["commitment"])


def test_the_codebook_moves_in_training_and_stays_in_evaluation():
    net = model()
    x = torch.randint(17, (8, 1, 8, 8))
    before = net.codebook.codes.clone()
    with torch.no_grad():
        net.elbo(x), net.reconstruct(x), net.sample(2), net.diagnostics(x)
    assert torch.equal(net.codebook.codes, before)
    net.training_step(Batch(x), 0)
    assert not torch.equal(net.codebook.codes, before)


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (1, 5, 7)])
@pytest.mark.parametrize("halvings", [0, 2])
def test_any_sides_will_do(shape, halvings):
    net = model(DataSpec(shape, 4, "grid"), patch=1 if shape[1] % 2 else 2, halvings=halvings)
    x = torch.randint(4, (3, *shape))
    with torch.no_grad():
        assert net.encode(x)[1].shape == (3, math.prod(net.size))
        assert net.sample(2).shape == (2, *shape)
        assert net.reconstruct(x).shape == x.shape


def test_options_that_do_not_fit_are_refused_in_one_line():
    with pytest.raises(BadInput, match="needs 2 levels, the data has 17"):
        model(likelihood="bernoulli")
    with pytest.raises(BadInput, match="not divisible by patch=3"):
        model(patch=3)
    with pytest.raises(BadInput, match="not a multiple of prior_heads=3"):
        model(prior_heads=3)
