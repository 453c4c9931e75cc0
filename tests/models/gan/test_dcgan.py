"""What is special to DCGAN: its initial weights, two kinds of batch statistics, a game of two steps, its remedies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmark.models.gan.dcgan import DCGAN
from benchmark.nn.adversarial import REFERENCE, ReferenceNorm
from benchmark.nn.remedies import parameters
from benchmark.spec import BadInput, Batch, DataSpec, Structure

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")
POINTS = DataSpec((2,), levels=256, structure="coordinates")
REMEDIES: list[dict[str, Any]] = [
    {"spectral": True},
    {"minibatch_kernels": 8},
    {"minibatch_deviation": 4},
    {"feature_matching": True},
    {"packing": 2},
    {"r1": 1.0},
    {"discriminator_norm": "none"},
]
EVERY = {name: value for options in REMEDIES for name, value in options.items()}


def fit(model: DCGAN, steps: int, *callbacks: Callback, n: int = 16) -> None:
    """`steps` batches of `n` examples through a real trainer."""
    torch.manual_seed(0)
    batches = [Batch(torch.randint(model.spec.levels, (n, *model.spec.shape))) for _ in range(steps)]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


# Networks ------------------------------------------------------------------------------------------------------------


def test_weights_are_drawn_as_published() -> None:
    torch.manual_seed(0)
    model = DCGAN(DIGITS, generator_width=64, discriminator_width=64)
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)]
    assert len(layers) == 6
    drawn = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert abs(float(drawn.mean())) < 0.02 * 5 / len(drawn) ** 0.5
    assert float(drawn.std()) == pytest.approx(0.02, rel=0.03)
    assert all(not layer.bias.any() for layer in layers if layer.bias is not None)


def test_batch_normalisation_is_neither_in_the_last_layer_of_g_nor_in_the_first_of_d() -> None:
    model = DCGAN(DataSpec((3, 32, 32), 256, "grid"), generator_width=4, discriminator_width=4)
    names = [type(m).__name__ for m in model.generator.network.children()]
    assert names == [
        *("Linear", "Unflatten", "ReferenceNorm", "ReLU"),
        *("ConvTranspose2d", "ReferenceNorm", "ReLU") * 3,
        *("ConvTranspose2d", "Tanh"),
    ]
    names = [type(m).__name__ for m in model.discriminator]
    assert names == [
        *("Conv2d", "LeakyReLU"),
        *("Conv2d", "BatchNorm2d", "LeakyReLU") * 3,
        *("Flatten", "Linear", "Flatten"),
    ]
    assert {m.negative_slope for m in model.discriminator if isinstance(m, nn.LeakyReLU)} == {0.2}


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12), (2,), (5,)])
@pytest.mark.parametrize("options", [{}, EVERY | {"minibatch_kernels": 2}])
def test_networks_follow_the_shape_of_the_data(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    structure: Structure = "grid" if len(shape) == 3 else "coordinates"
    model = DCGAN(DataSpec(shape, 256, structure), generator_width=8, discriminator_width=32, **options).eval()
    sample = model.sample(8)
    assert sample.shape == (8, *shape)
    assert model.discriminator(model.to_unit(sample)).shape == (8 // options.get("packing", 1),)


# Batch statistics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(REFERENCE + 3, 4), (REFERENCE + 3, 4, 2, 5)])
def test_reference_normalisation_is_torchs_over_the_batch_and_by_the_first_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, norm = 3 * torch.randn(shape) + 1, ReferenceNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(norm(x), expected)
    first = norm.eval()(x[:REFERENCE])
    expected = F.batch_norm(x[:REFERENCE], None, None, norm.weight, norm.bias, training=True)
    torch.testing.assert_close(first, expected)
    torch.testing.assert_close(norm(x[:2]), first[:2])


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
def test_in_evaluation_a_sample_does_not_depend_on_others_and_in_training_it_does(spec: DataSpec) -> None:
    torch.manual_seed(0)
    model = DCGAN(spec)
    z = torch.randn(8, model.latent)
    assert not torch.allclose(model.generator(z)[:4], model.generator(z[:4]), atol=1e-4)
    model.eval()
    torch.testing.assert_close(model.generator(z)[:4], model.generator(z[:4]))


def test_statistics_of_evaluation_follow_the_weights() -> None:
    """As a moving average that the harness puts in their place needs: rescaled weights before a norm change nothing."""
    torch.manual_seed(0)
    model = DCGAN(DIGITS).eval()
    z = torch.randn(4, model.latent)
    before = model.generator(z)
    with torch.no_grad():
        model.get_parameter("generator.network.0.weight").mul_(3)
    torch.testing.assert_close(model.generator(z), before, atol=1e-3, rtol=1e-3)


def test_statistics_are_taken_once_of_the_same_weights() -> None:
    torch.manual_seed(0)
    model, calls = DCGAN(DIGITS).eval(), []
    model.generator.network.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    z = torch.randn(4, model.latent)
    first = model.generator(z)
    assert torch.equal(model.generator(z), first)
    assert calls == [REFERENCE, 4, 4]
    with torch.no_grad():
        model.get_parameter("generator.network.0.weight").add_(0.1 * torch.randn(1))
    model.generator(z)
    assert calls == [REFERENCE, 4, 4, REFERENCE, 4]
    model.train().generator(z)
    assert calls[-1] == 4


def test_real_and_generated_examples_are_judged_in_batches_of_their_own() -> None:
    torch.manual_seed(0)
    model, seen = DCGAN(DIGITS), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    fit(model, steps=1)
    assert [len(y) for y in seen] == [16, 16, 16]  # real, generated, generated for G
    assert torch.equal(seen[1], seen[2])
    on_real, on_fake = model.discriminator(seen[0]), model.discriminator(seen[1])
    together = model.discriminator(torch.cat(seen[:2]))
    assert not torch.allclose(together, torch.cat([on_real, on_fake]), atol=1e-4)


# The game ------------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """What each optimiser finds when it steps: which parameters have a gradient, and whether D's are still the same."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = dict(pl_module.named_parameters())
        self.gradients.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})
        self.weights.append({name: p.detach().clone() for name, p in named.items()})


@pytest.mark.parametrize("options", [{}, *REMEDIES, EVERY])
def test_each_step_moves_its_own_network_alone(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, watch = DCGAN(DIGITS, **options), Watch()
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
            assert not torch.equal(watch.weights[1][name], after[name]), f"{name} does not move"


def test_signs_of_a_discriminator_that_cannot_tell_and_of_one_that_can() -> None:
    torch.manual_seed(0)
    model = DCGAN(DIGITS, discriminator_norm="none").eval()
    x = torch.full((8, 1, 8, 8), 16)
    with torch.no_grad():
        for p in model.discriminator.parameters():
            p.zero_()
        assert model.diagnostics(x) == {"discriminator_gap": 0.0, "discriminator_accuracy": 0.0}
        for p in model.discriminator.parameters():
            p.fill_(0.01) if p.ndim > 1 else p.zero_()
        model.discriminator[-2].bias.fill_(-0.01)  # type: ignore[operator]
        signs = model.diagnostics(x)
    assert signs["discriminator_gap"] > 0
    assert signs["discriminator_accuracy"] > 0.5


# Remedies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
def test_remedies_that_are_off_change_nothing(spec: DataSpec) -> None:
    off = {"spectral": False, "minibatch_kernels": 0, "minibatch_deviation": 0, "feature_matching": False}
    trained = []
    for options in ({}, off | {"packing": 1, "r1": 0.0}):
        torch.manual_seed(0)
        model = DCGAN(spec, **options)  # type: ignore[arg-type]
        fit(model, steps=2)
        trained.append((model.state_dict(), torch.rand(1)))
    assert torch.equal(trained[0][1], trained[1][1])
    assert trained[0][0].keys() == trained[1][0].keys()
    assert all(torch.equal(trained[0][0][name], value) for name, value in trained[1][0].items())


@pytest.mark.parametrize("spec", [DIGITS, POINTS, DataSpec((1, 28, 28), 256, "grid")])
@pytest.mark.parametrize("options", [*REMEDIES[:-1], {name: EVERY[name] for name in EVERY if name[-4:] != "norm"}])
def test_discriminators_are_equally_large(spec: DataSpec, options: dict[str, Any]) -> None:
    goal = parameters(DCGAN(spec).discriminator)
    assert abs(parameters(DCGAN(spec, **options).discriminator) - goal) <= 0.05 * goal


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
@pytest.mark.parametrize("options", [*REMEDIES, EVERY])
def test_every_remedy_trains_and_reaches_every_parameter(spec: DataSpec, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model = DCGAN(spec, **options)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, steps=3)
    unmoved = [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert not unmoved
    assert all(p.isfinite().all() for p in model.parameters())
    model.eval()
    with torch.no_grad():
        signs = model.diagnostics(torch.zeros(11, *spec.shape, dtype=torch.long))
    assert signs.keys() == {"discriminator_gap", "discriminator_accuracy"}


def test_with_feature_matching_g_minimises_the_distance_of_means() -> None:
    torch.manual_seed(0)
    model = DCGAN(DIGITS, feature_matching=True)
    real, fake = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 8, 8)
    f = nn.Sequential(*list(model.discriminator)[:-2])
    expected = (f(real).mean(0) - f(fake).mean(0)).square().sum()
    torch.testing.assert_close(model.loss_g(real, fake), expected)
    assert model.loss_g(real, real) == 0


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (POINTS, {"translation": 1}, "are for images: give 0 for points"),
        (POINTS, {"cutout": 1}, "are for images: give 0 for points"),
        (DIGITS, {"translation": 8}, "leave nothing of 8x8 images"),
        (DIGITS, {"discriminator_width": 4, "minibatch_kernels": 1000}, "give less of either"),
    ],
)
def test_what_does_not_go_together_is_refused(spec: DataSpec, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=f"dcgan: .*{words}"):
        DCGAN(spec, **options)


@pytest.mark.parametrize("options", [{"packing": 3}, {"minibatch_deviation": 6}])
def test_batches_that_remedies_do_not_divide_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"dcgan: a batch of 16 with packing=.*multiple of"):
        fit(DCGAN(DIGITS, **options), steps=1)
