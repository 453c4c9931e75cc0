"""What is special to BigGAN: a label in both networks, orthogonal filters, truncation, statistics of evaluation."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmark.models.gan.biggan import (
    Attention,
    BigGAN,
    ConditionalNorm,
    Discriminator,
    drawn,
    filters,
    overlap,
    truncated_normal,
)
from benchmark.nn.adversarial import REFERENCE
from benchmark.nn.remedies import Remedies, parameters
from benchmark.spec import BadInput, Batch, DataSpec

DIGITS = DataSpec((1, 8, 8), 17, "grid", DataSpec.label(10))
SMALL: dict[str, Any] = {"chunk": 4, "embedding": 8, "generator_width": 8, "discriminator_width": 8}
REMEDIES: list[dict[str, Any]] = [
    {"minibatch_kernels": 8},
    {"minibatch_deviation": 4},
    {"feature_matching": True},
    {"packing": 2},
    {"r1": 1.0},
]
EVERY = {name: value for options in REMEDIES for name, value in options.items()}


def random_batch(spec: DataSpec, n: int = 16) -> Batch:
    labels = None if spec.classes is None else torch.randint(spec.classes, (n,))
    return Batch(torch.randint(spec.levels, (n, *spec.shape)), labels)


def fit(model: BigGAN, batches: int | list[Batch], *callbacks: Callback) -> None:
    """These batches, or so many of random images, through a real trainer."""
    torch.manual_seed(0)
    if isinstance(batches, int):
        batches = [random_batch(model.spec) for _ in range(batches)]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(model.train(), DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def small(spec: DataSpec = DIGITS, **options: Any) -> BigGAN:
    torch.manual_seed(0)
    return BigGAN(spec, **{**SMALL, **options})


# What a label does in G ----------------------------------------------------------------------------------------------


def test_the_conditional_gain_is_one_more_than_a_linear_function_so_that_it_starts_around_one() -> None:
    torch.manual_seed(0)
    norm: Any = ConditionalNorm(3, partial(drawn, spectral=False), 4)
    x, c = 2 * torch.randn(6, 4, 2, 5) + 1, torch.randn(6, 3)
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x, torch.zeros(6, 3)), plain)
    g, b = norm.gain.weight, norm.bias.weight
    expected = plain * (1 + c @ g.T)[:, :, None, None] + (c @ b.T)[:, :, None, None]
    torch.testing.assert_close(norm(x, c), expected)
    assert not torch.allclose(norm(x, c), plain, atol=0.1)


def test_the_label_and_each_chunk_of_z_matter() -> None:
    model = small()
    fit(model, 3)
    model.eval()
    z, labels = torch.randn(5, model.latent), torch.arange(5)
    before = model.generator(z, labels)
    assert not torch.allclose(before, model.generator(z, labels + 5), atol=1e-4)
    assert model.latent == 3 * 4  # the first layer and two blocks
    for chunk in range(3):
        other = z.clone()
        other[:, 4 * chunk : 4 * chunk + 4] += 1
        assert not torch.allclose(before, model.generator(other, labels), atol=1e-4)


def test_one_embedding_is_shared_by_all_blocks() -> None:
    tables = [m for m in small().generator.modules() if isinstance(m, nn.Embedding)]
    assert [tuple(table.weight.shape) for table in tables] == [(10, 8)]


# What a label does in D ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", [1, 2])
def test_the_score_is_a_linear_function_of_features_and_their_projection_on_the_label(packing: int) -> None:
    torch.manual_seed(0)
    network: Any = Discriminator((1, 8, 8), 3, True, 8, Remedies(spectral=True, packing=packing)).eval()
    y, labels = torch.randn(4, 1, 8, 8), torch.tensor([2, 0, 1, 1])
    h, psi, v = network.features(y), network.get_parameter("psi.parametrizations.weight.original"), network.v.weight
    psi = psi[0] / psi.norm()  # the spectral norm of one row
    expected = []
    for i, pack in enumerate(labels.split(packing)):
        rows = [v[label + 3 * place] for place, label in enumerate(pack)]  # a table for each place
        expected.append(psi @ h[i] + torch.stack(rows).sum(0) @ h[i])
    torch.testing.assert_close(network(y, labels), torch.stack(expected), rtol=1e-4, atol=1e-4)
    every = torch.stack([network(y, torch.tensor(c)) for c in itertools.product(range(3), repeat=4)])
    torch.testing.assert_close(network.at_best(y), every.amax(0))


def test_a_discriminator_that_has_learnt_scores_a_wrong_label_lower() -> None:
    spec = DataSpec((1, 4, 4), 4, "grid", DataSpec.label(2))
    model = small(spec)
    labels = torch.arange(16) % 2
    x = (3 * labels).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)  # black is 0, white is 1
    fit(model, [Batch(x, labels)] * 40)
    model.eval()
    with torch.no_grad():
        y = model.to_unit(x)
        right, wrong = model.discriminator(y, labels), model.discriminator(y, 1 - labels)
    assert (right > wrong + 0.5).all()


def test_every_layer_of_d_has_spectral_norm_one_and_g_as_an_option() -> None:
    for spectral in (True, False):
        model = small(generator_spectral=spectral)
        drawn_to = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.Embedding)]
        in_g, in_d = (
            [m for m in drawn_to if m in set(network.modules()) and hasattr(m, "parametrizations")]
            for network in (model.generator, model.discriminator)
        )
        assert len(in_d) == 1 + 4 + 4 + 2  # first, two blocks, attention, ψ and v
        assert len(in_g) == (1 + 4 + 8 + 4 + 1 if spectral else 0)  # gains and biases too, the embedding not
        for layer in (*in_d, *in_g):
            norm = torch.linalg.matrix_norm(layer.eval().weight.flatten(1), ord=2)
            torch.testing.assert_close(norm, torch.ones(()), rtol=0.02, atol=0.0)


# Attention -----------------------------------------------------------------------------------------------------------


def test_attention_is_the_identity_at_first_and_then_adds_what_each_position_sees() -> None:
    torch.manual_seed(0)
    attend: Any = Attention(16, lambda conv: conv)
    x = torch.randn(2, 16, 3, 4)
    assert torch.equal(attend(x), x)
    nn.init.constant_(attend.gamma, 0.7)
    f, g, h, v = (part.weight.flatten(1) for part in (attend.f, attend.g, attend.h, attend.v))
    assert f.shape == (2, 16)
    expected = x.clone()
    for b, j in itertools.product(range(2), range(12)):
        at = x[b].flatten(1)  # [16, 12]
        seen = ((f @ at).T @ (g @ at[:, j])).softmax(0)  # over i
        expected[b, :, j // 4, j % 4] += 0.7 * v @ (h @ at @ seen)
    torch.testing.assert_close(attend(x), expected)


@pytest.mark.parametrize(("shape", "side"), [((1, 8, 8), 4), ((1, 28, 28), 14), ((1, 9, 9), 9)])
def test_attention_is_at_half_the_full_side_in_both_networks(shape: tuple[int, ...], side: int) -> None:
    model, sides = small(DataSpec(shape, 4, "grid")), []
    attends = [m for m in model.modules() if isinstance(m, Attention)]
    for m in attends:
        m.register_forward_pre_hook(lambda module, inputs: sides.append(inputs[0].shape[-1]))
    y = model.generator(model.noise(2), model.labels(2))
    model.discriminator(y, model.labels(2))
    assert sides == [side, side]
    assert not [m for m in small(attention=False).modules() if isinstance(m, Attention)]


# Orthogonal weights --------------------------------------------------------------------------------------------------


def test_weights_are_orthogonal_at_first() -> None:
    model = small()
    for p in model.parameters():
        if p.ndim > 1:
            W = p.flatten(1)
            W = W if len(W) <= W.shape[1] else W.T
            torch.testing.assert_close(W @ W.T, torch.eye(len(W)), atol=1e-5, rtol=0.0)


def test_overlap_is_none_of_orthogonal_filters_and_else_the_squared_inner_products_of_different_ones() -> None:
    torch.manual_seed(0)
    conv: Any = drawn(nn.Conv2d(3, 5, 3), spectral=False)
    assert overlap([3 * conv.weight]).item() == pytest.approx(0, abs=1e-3)  # of whatever length
    weights = [torch.randn(4, 2, 3, 3), torch.randn(7, 2)]
    expected = 0.0
    for weight in weights:
        rows = weight.flatten(1)
        expected += sum(float(rows[i] @ rows[j]) ** 2 for i, j in itertools.permutations(range(len(rows)), 2))
    assert overlap(weights).item() == pytest.approx(expected, rel=1e-5)


def test_the_regularisation_is_of_g_alone_and_not_of_the_embedding() -> None:
    found = []
    for beta in (0.0, 0.5):
        model, watch = small(orthogonal=beta, generator_spectral=False), Watch()
        fit(model, 1, watch)
        found.append(watch.gradients)
    model = small(generator_spectral=False)
    named = {name: p for name, p in model.generator.named_parameters() if p.ndim > 1 and "embedding" not in name}
    assert len(filters(model.generator)) == len(named)
    slopes = dict(zip(named, torch.autograd.grad(overlap(list(named.values())), list(named.values())), strict=True))
    assert any(slope.abs().max() > 0.01 for slope in slopes.values())
    for name, gradient in found[1][1].items():
        penalty = 0.5 * slopes.get(name.removeprefix("generator."), torch.zeros(()))
        torch.testing.assert_close(gradient, found[0][1][name] + penalty, atol=1e-5, rtol=1e-4)
    for name, gradient in found[1][0].items():
        assert torch.equal(gradient, found[0][0][name]), name


# Sampling ------------------------------------------------------------------------------------------------------------


def test_in_evaluation_a_sample_does_not_depend_on_others_and_in_training_it_does() -> None:
    model = small()
    fit(model, 2)
    z, labels = torch.randn(8, model.latent), torch.arange(8)
    assert not torch.allclose(model.generator(z, labels)[:4], model.generator(z[:4], labels[:4]), atol=1e-4)
    model.eval()
    torch.testing.assert_close(model.generator(z, labels)[:4], model.generator(z[:4], labels[:4]))


@pytest.mark.parametrize("truncation", [0.1, 0.5, 0.9])
def test_truncated_latents_are_bounded_and_distributed_as_the_normal_within_the_bound(truncation: float) -> None:
    torch.manual_seed(0)
    model, most = small(), 2 * truncation
    z = model.noise(2000, truncation).flatten()
    assert z.abs().max() <= most
    density, inside = stats.norm.pdf(most), stats.norm.cdf(most) - stats.norm.cdf(-most)
    variance = 1 - 2 * most * density / inside
    assert float(z.var()) == pytest.approx(variance, rel=0.02)
    assert stats.kstest(z.numpy(), stats.truncnorm(-most, most).cdf).pvalue > 0.01


def test_a_draw_at_the_edge_of_the_uniform_stays_within_the_bound() -> None:
    z = truncated_normal(torch.tensor([0.0, 0.5, 1.0]), 2.0)
    torch.testing.assert_close(z, torch.tensor([-2.0, 0.0, 2.0]))


def test_untruncated_is_the_plain_normal_and_samples_under_the_same_seed() -> None:
    model = small().eval()
    drawn_twice = []
    for draw in (model.sample, lambda n: model.sample_truncated(n, 1.0)):
        torch.manual_seed(3)
        drawn_twice.append(draw(6))
    assert torch.equal(*drawn_twice)
    torch.manual_seed(3)
    assert not torch.equal(model.sample_truncated(6, 0.5), drawn_twice[0])


def test_labels_are_drawn_as_often_as_training_has_met_them() -> None:
    model = small()
    torch.manual_seed(0)
    counts = torch.bincount(model.labels(2000), minlength=10)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    labels = torch.tensor([3] * 12 + [7] * 4)
    fit(model, [Batch(torch.zeros(16, 1, 8, 8, dtype=torch.long), labels)] * 2)
    assert model.met.tolist() == [0, 0, 0, 24, 0, 0, 0, 8, 0, 0]
    counts = torch.bincount(model.labels(2000), minlength=10)
    assert counts[3] + counts[7] == 2000
    assert stats.binomtest(int(counts[3]), 2000, 0.75).pvalue > 0.01
    again = small()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.met, model.met)


def test_along_a_path_the_class_stays() -> None:
    model, seen = small().eval(), []
    model.generator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    model.interpolate(4, 5)
    assert len(seen) == 5
    assert all(torch.equal(labels, seen[0][1]) for _, labels in seen)
    assert len({tuple(z.flatten().tolist()) for z, _ in seen}) == 5


def test_data_without_labels_are_of_one_class() -> None:
    spec = DataSpec((1, 8, 8), 17, "grid")
    model = small(spec)
    fit(model, 2)
    assert model.met.tolist() == [32]
    assert model.eval().sample(3).shape == (3, 1, 8, 8)
    assert not model.labels(5).any()


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12)])
def test_networks_follow_the_shape_of_the_data(shape: tuple[int, ...]) -> None:
    model = small(DataSpec(shape, 256, "grid", DataSpec.label(REFERENCE + 1))).eval()
    labels = torch.tensor([0, REFERENCE])
    sample = model.sample_given(labels)
    assert sample.shape == (2, *shape)
    assert model.discriminator(model.to_unit(sample), labels).shape == (2,)


# The game ------------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """What each optimiser finds when it steps: the gradients and the weights."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = dict(pl_module.named_parameters())
        self.gradients.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
        self.weights.append({name: p.detach().clone() for name, p in named.items()})


@pytest.mark.parametrize("options", [{}, *REMEDIES, EVERY])
def test_each_step_moves_its_own_network_alone(options: dict[str, Any]) -> None:
    model, watch = small(discriminator_width=32, **options), Watch()
    fit(model, 1, watch)
    of_d, of_g = watch.gradients
    assert of_d
    assert all(name.startswith("discriminator") for name in of_d)
    for name, gradient in of_g.items():
        assert name.startswith("generator") or torch.equal(gradient, of_d[name]), f"G's step gives {name} a gradient"
    after = dict(model.named_parameters())
    for name in after:
        if name.startswith("discriminator"):
            assert torch.equal(watch.weights[1][name], after[name]), f"G's step moves {name}"
            assert after[name].requires_grad
        else:
            assert torch.equal(watch.weights[0][name], watch.weights[1][name]), f"D's step moves {name}"


def test_generator_steps_once_in_so_many_discriminator_steps() -> None:
    model = small(discriminator_steps=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, 2)
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"discriminator"}
    fit(model, 3)
    moved = {name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"discriminator", "generator"}


@pytest.mark.parametrize("options", [*REMEDIES, EVERY])
def test_every_remedy_trains_a_discriminator_of_the_same_size(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    goal = parameters(small(discriminator_width=32).discriminator)
    model = small(discriminator_width=32, **options)
    assert abs(parameters(model.discriminator) - goal) <= 0.05 * goal
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, 4)
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        assert model.eval().diagnostics(torch.zeros(11, 1, 8, 8, dtype=torch.long)).keys() == {"discriminator_gap"}


def test_real_and_generated_images_are_never_compared_with_each_other() -> None:
    """Whatever stands in the other half, the scores of one are the same."""
    y, other, labels = torch.randn(16, 1, 8, 8), torch.randn(16, 1, 8, 8), torch.arange(16) % 10
    for options in REMEDIES:
        model = small(discriminator_width=32, **options).eval()  # no power iteration
        both, first, last = (model.judge(torch.cat(halves), labels) for halves in ([y, y], [y, other], [other, y]))
        torch.testing.assert_close(both[0], first[0])
        torch.testing.assert_close(both[1], last[1])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"translation": 8}, "leave nothing of 8x8 images"),
        ({"minibatch_kernels": 1000}, "give less of either"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=f"biggan: .*{words}"):
        small(**options)


def test_batches_that_remedies_do_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match=r"biggan: a batch of 16 with packing=3.*multiple of 3"):
        fit(small(discriminator_width=32, packing=3), 1)
