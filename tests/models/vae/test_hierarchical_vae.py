"""What is special to the hierarchical VAE: its layers, its bounds, and what only training sees."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.distributions import kl_divergence

from benchmark.models.vae.hierarchical_vae import HierarchicalVAE
from benchmark.spec import BadInput, Batch, DataSpec
from benchmark.testing.universe import every_example

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")
FOUR = DataSpec((1, 2, 2), levels=3, structure="grid")
SMALL = {"width": 8, "latent": 1, "dropout": 0.0}


def model(spec=DIGITS, **options):
    torch.manual_seed(0)
    return HierarchicalVAE(spec, **(SMALL | options)).eval()


def trained(spec=FOUR, steps=100, **options):
    net = model(spec, learning_rate=1e-2, **options).train()
    x = torch.randint(spec.levels, (8, *spec.shape))
    optimizer = net.configure_optimizers()
    for step in range(steps):
        optimizer.zero_grad()
        net.training_step(Batch(x), step)["loss"].backward()
        optimizer.step()
    return net.eval(), x


def test_layers_stand_at_several_resolutions_from_the_coarsest_down():
    assert model(stages=(2, 2)).shapes == [(1, 2, 2), (1, 2, 2), (1, 4, 4), (1, 4, 4)]
    assert model(DataSpec((3, 28, 28), 256, "grid"), stages=(1, 1, 2), latent=5).shapes == [
        (5, 4, 4),  # sides are rounded up
        (5, 7, 7),
        (5, 14, 14),
        (5, 14, 14),
    ]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 10), (1, 5, 7)])
def test_any_sides_will_do(shape):
    net = model(DataSpec(shape, 4, "grid"), patch=1 if shape[1] % 2 else 2, stages=(1, 1, 1))
    x = torch.randint(4, (3, *shape))
    with torch.no_grad():
        assert net.sample(2).shape == (2, *shape)
        assert net.reconstruct(x).shape == x.shape
        assert net.importance_bound(x, 2).shape == (3,)


def test_bounds_agree_with_quadrature_over_two_layers_of_one_latent():
    """log ∫∫ p(x | z₁, z₂) p(z₂ | z₁) p(z₁) over standard normal noise on a grid."""
    net, x = trained(stages=(1, 1))
    axis = torch.linspace(-5, 5, 121)
    noise = torch.cartesian_prod(axis, axis)  # [N, 2]
    log_weight = -0.5 * noise.square().sum(1) - math.log(2 * math.pi) + 2 * math.log(10 / 120)
    with torch.no_grad():
        pixels = net.pixels(noise)
        exact = torch.stack([(pixels.log_prob(one.float()).flatten(1).sum(1) + log_weight).logsumexp(0) for one in x])
        elbo = torch.stack([net.elbo(x) for _ in range(300)]).mean(0)
        bound = net.importance_bound(x, 1500)
    torch.testing.assert_close(bound, exact, rtol=0, atol=0.05)
    assert (elbo < exact + 0.05).all()


def test_exact_likelihood_by_quadrature_sums_to_one():
    net, _ = trained(stages=(1, 1), steps=30)
    with torch.no_grad():
        pixels = net.pixels(torch.randn(64, 2))
        total = sum(pixels.log_prob(one.float()).flatten(1).sum(1).exp() for one in every_example(FOUR))
    torch.testing.assert_close(total, torch.ones(64), rtol=0, atol=1e-4)


def test_posterior_is_residual_to_the_prior():
    """Vahdat and Kautz, eq. 2: the KL needs Δmu, Δsigma and the prior's sigma alone."""
    net = model()
    layer = net.layers[0]
    h, d = torch.randn(2, 3, 8, 2, 2)
    with torch.no_grad():
        p = layer.prior(h)
        q = layer.posterior(h, d, p)
        delta_mu, delta_sigma = q.mean - p.mean, q.stddev / p.stddev
        kl = 0.5 * (delta_mu.square() / p.stddev.square() + delta_sigma.square() - delta_sigma.square().log() - 1)
        torch.testing.assert_close(kl_divergence(q, p), kl, rtol=1e-4, atol=1e-5)
        for parameter in layer.from_both[-1].parameters():
            parameter.zero_()
        assert kl_divergence(layer.posterior(h, d, p), p).abs().max() < 1e-6


def test_posteriors_see_what_the_layers_above_drew():
    """Both distributions of a layer move with its parents' draws: inference goes from the top down."""
    net = model(stages=(1, 1))
    x = torch.randint(17, (1, 1, 8, 8))
    seen = []

    def means(number, q, p, shift):
        seen.append((q.mean, p.mean))
        return q.mean + shift if number == 0 else q.mean

    with torch.no_grad():
        net.infer(x, partial(means, shift=0.0))
        net.infer(x, partial(means, shift=3.0))
    for first, second in zip(seen[1], seen[3], strict=True):
        assert (first - second).abs().max() > 1e-4


def test_free_bits_and_warm_up_touch_training_only():
    x = torch.randint(17, (4, 1, 8, 8), generator=torch.Generator().manual_seed(0))
    scores, losses, raw = [], [], []
    for options in ({}, {"free_bits": 7.0}, {"warm_up": 0.5}):
        net = model(**options)
        torch.manual_seed(2)
        scores.append(net.elbo(x))
        torch.manual_seed(2)
        step = net.training_step(Batch(x), 0)
        losses.append(step["loss"])
        raw.append(step["kl"])
    torch.testing.assert_close(scores[0], scores[1])
    torch.testing.assert_close(scores[0], scores[2])
    torch.testing.assert_close(raw[0], raw[1])  # a masked KL would look better than it is
    torch.testing.assert_close(losses[0], -scores[0].mean())
    torch.testing.assert_close(losses[1], losses[0] - raw[0] + 4 * 7.0)  # four layers, none of which costs 7 nats
    torch.testing.assert_close(losses[2], losses[0] - raw[0])  # the weight is 0 at first
    net.progress = 0.25
    torch.manual_seed(2)
    torch.testing.assert_close(net.training_step(Batch(x), 0)["loss"], losses[0] - raw[0] / 2)


def test_diagnostics_tell_which_layers_are_active():
    net = model()
    x = torch.randint(17, (8, 1, 8, 8))
    with torch.no_grad():
        for number in (1, 3):  # the posteriors of the second and the fourth layer are their priors
            for parameter in net.layers[number].from_both[-1].parameters():
                parameter.zero_()
        net.layers[0].from_both[-1].bias.fill_(1.0)
        net.layers[2].from_both[-1].bias.fill_(1.0)
        signs = net.diagnostics(x)
    assert list(signs) == ["active_layers", "kl_layer_1", "kl_layer_2", "kl_layer_3", "kl_layer_4"]
    assert signs["active_layers"] == 0.5
    assert signs["kl_layer_1"] > 1 > 1e-4 > abs(signs["kl_layer_2"])


def test_options_that_do_not_fit_the_data_are_refused_in_one_line():
    with pytest.raises(BadInput, match="needs 2 levels, the data has 17"):
        model(likelihood="bernoulli")
    with pytest.raises(BadInput, match="not divisible by patch=3"):
        model(patch=3)
