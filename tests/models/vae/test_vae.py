"""What is special to the VAE: its bounds agree with quadrature, and every decoder is a distribution over levels."""

from __future__ import annotations

import math
from functools import cache, partial

import pytest
import torch
from solvable import FOUR, log_prob_by_quadrature, trained_vae
from torch import nn
from torch.distributions import Normal

from benchmark.build import build_model
from benchmark.config import compose
from benchmark.models.vae.vae import VAE
from benchmark.spec import BadInput, Batch, DataSpec
from benchmark.testing import LAWS, Subject

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")


@pytest.mark.parametrize("likelihood", ["categorical", "logistics"])
def test_bounds_agree_with_quadrature_over_a_two_dimensional_latent(likelihood):
    model, x = trained_vae(FOUR, latent=2, width=16, depth=1, likelihood=likelihood)
    exact = log_prob_by_quadrature(model, x)
    with torch.no_grad():
        elbo = torch.stack([model.elbo(x) for _ in range(2000)]).mean(0)
        bound = model.importance_bound(x, 20_000)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.05)
    assert (elbo < exact + 0.02).all()


def test_importance_bound_does_not_depend_on_its_chunks():
    model, x = trained_vae(FOUR, steps=5, latent=2, width=16)
    with torch.no_grad():
        torch.manual_seed(1)
        whole = model.importance_bound(x, 4000)
        model.chunk = 8 * 64
        pieces = model.importance_bound(x, 4000)
    torch.testing.assert_close(whole, pieces, rtol=0, atol=0.1)


def test_beta_and_importance_samples_touch_training_only():
    torch.manual_seed(0)
    x = torch.randint(17, (4, 1, 8, 8))
    scores = []
    for options in ({}, {"beta": 5.0}, {"importance_samples": 5}):
        torch.manual_seed(1)
        model = VAE(DIGITS, **options).eval()
        torch.manual_seed(2)
        scores.append(model.elbo(x))
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])


def test_importance_weighted_training_minimises_the_importance_bound():
    torch.manual_seed(0)
    model = VAE(DIGITS, importance_samples=50, dropout=0.0)
    x = torch.randint(17, (4, 1, 8, 8))
    torch.manual_seed(1)
    loss = model.training_step(Batch(x), 0)["loss"]
    torch.manual_seed(1)
    torch.testing.assert_close(loss, -model.importance_bound(x, 50).mean())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12)])
@pytest.mark.parametrize("likelihood", ["bernoulli", "categorical", "logistics"])
def test_convolutional_network_serves_every_likelihood(shape, likelihood):
    torch.manual_seed(0)
    model = VAE(DataSpec(shape, 2, "grid"), network="conv", width=16, depth=1, likelihood=likelihood).eval()
    x = torch.randint(2, (3, *shape))
    with torch.no_grad():
        assert model.sample(2).shape == (2, *shape)
        assert model.reconstruct(x).dtype == torch.int64
        at_start = -model.elbo(x).mean() / math.prod(shape)
    assert math.log(2) * 0.9 < at_start < math.log(2) * 1.3  # near uniform before training


def test_the_vae_of_burda_and_others_is_what_their_section_5_says():
    experiment = compose(["model=burda_vae", "data=binary_mnist", "budget=full"])
    model = build_model(experiment, DataSpec((1, 28, 28), 2, "grid"))
    layers = [layer for layer in model.modules() if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [200, 200, 2 * 50, 200, 200, 784]
    assert sum(isinstance(layer, nn.Tanh) for layer in model.modules()) == 4
    (first, second) = model.configure_optimizers().param_groups
    assert {(group["lr"], group["betas"], group["eps"], group["weight_decay"]) for group in (first, second)} == {
        (0.001, (0.9, 0.999), 1e-4, 0.0)
    }
    assert experiment.budget.examples == 3280 * 60_000
    training = experiment.training
    assert (training.batch_size, training.schedule, training.weights, training.ema_decay) == (20, "ladder", "last", 0.0)
    weighted = compose(["model=burda_iwae", "data=binary_mnist", "budget=full"])
    assert weighted.model.options == {**experiment.model.options, "importance_samples": 5}


def test_options_that_do_not_fit_the_data_are_refused_in_one_line():
    with pytest.raises(BadInput, match="activation=tanh"):
        VAE(DataSpec((1, 8, 8), 17, "grid"), network="conv", activation="tanh")
    with pytest.raises(BadInput, match="needs 2 levels, the data has 17"):
        VAE(DIGITS, likelihood="bernoulli")
    with pytest.raises(BadInput, match="divisible by 4"):
        VAE(DataSpec((1, 6, 6), 2, "grid"), network="conv")


# VampPrior ------------------------------------------------------------------------------------------------------------


def test_vampprior_is_the_mean_of_the_pseudo_inputs_posteriors():
    torch.manual_seed(0)
    model = VAE(DIGITS, latent=3, prior="vampprior", pseudo_inputs=7).eval()
    u = model.pseudo_inputs.clamp(-1, 1).view(7, 1, 8, 8)
    z = torch.randn(5, 3)
    with torch.no_grad():
        q = model.posterior(u)  # over [7, 3]
        expected = q.log_prob(z[:, None]).sum(2).logsumexp(1) - math.log(7)
        torch.testing.assert_close(model.prior().log_prob(z), expected)


def test_bounds_with_a_vampprior_agree_with_quadrature():
    model, x = trained_vae(FOUR, latent=2, width=16, depth=1, prior="vampprior", pseudo_inputs=5)
    axis = torch.linspace(-8, 8, 201)
    z = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        log_prior = model.prior().log_prob(z) + 2 * math.log(16 / 200)  # of a cell
        exact = (model.log_likelihood(x, z[:, None].expand(-1, len(x), -1)) + log_prior[:, None]).logsumexp(0)
        elbo = torch.stack([model.elbo(x) for _ in range(500)]).mean(0)
        bound = model.importance_bound(x, 5000)
    assert log_prior.exp().sum().item() == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.05)
    assert (elbo < exact + 0.02).all()


def test_latents_of_a_vampprior_come_from_every_pseudo_input_alike():
    """In the sampler and along a path; the first components alone would be another prior."""
    torch.manual_seed(0)
    model = VAE(DIGITS, latent=2, prior="vampprior", pseudo_inputs=4).eval()
    centres = torch.tensor([[-60.0, 0.0], [-20.0, 0.0], [20.0, 0.0], [60.0, 0.0]])
    posteriors = Normal(centres, torch.ones(4, 2))
    model.posterior = lambda y: posteriors
    with torch.no_grad():
        for z in (model.prior().sample((4000,)), model.latents(torch.randn(4000, 6))):
            nearest = torch.cdist(z, centres).argmin(1)
            share = torch.bincount(nearest, minlength=4) / 4000
            torch.testing.assert_close(share, torch.full((4,), 0.25), rtol=0, atol=0.03)
            torch.testing.assert_close((z - centres[nearest]).std(0), torch.ones(2), rtol=0, atol=0.05)


#: Those that look at the prior.
CONCERNED = (
    "trains_every_parameter",
    "is_a_bound",
    "importance_bound_tightens",
    "samples_follow_importance_bound",
    "autoencodes",
    "interpolates",
)


@pytest.mark.parametrize("law", [law for law in LAWS if law.name in CONCERNED], ids=lambda law: law.name)
def test_a_vae_with_a_vampprior_keeps_its_promises(law):
    law.check(vampprior())


@cache
def vampprior() -> Subject:
    return Subject(partial(VAE, prior="vampprior", pseudo_inputs=10), "grid")


def test_weight_decay_leaves_pseudo_inputs_alone():
    model = VAE(DIGITS, prior="vampprior", weight_decay=0.5)
    (group,) = (
        group
        for group in model.configure_optimizers().param_groups
        if any(p is model.pseudo_inputs for p in group["params"])
    )
    assert group["weight_decay"] == 0
