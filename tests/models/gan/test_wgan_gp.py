"""What is special to WGAN-GP: a critic of single examples or packs, its penalty, steps of G that are rarer than D's."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, Literal

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmark.models.gan.wgan_gp import WGANGP
from benchmark.nn.adversarial import ReferenceNorm
from benchmark.nn.remedies import parameters
from benchmark.spec import BadInput, Batch, DataSpec, Structure
from benchmark.train.compiled import blocks, compilable

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")
POINTS = DataSpec((2,), levels=256, structure="coordinates")
SMALL: dict[str, Any] = {"generator_width": 24, "discriminator_width": 24, "discriminator_steps": 2}
REMEDIES: list[dict[str, Any]] = [{"spectral": True}, {"feature_matching": True}, {"packing": 2}, {"r1": 1.0}]
EVERY = {name: value for options in REMEDIES for name, value in options.items()} | {"discriminator_norm": "layer"}


class Watch(Callback):
    """What each optimiser finds when it steps: the weights, and which parameters have a gradient of now."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.logs: list[dict[str, float]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = dict(pl_module.named_parameters())
        self.weights.append({name: p.detach().clone() for name, p in named.items()})
        self.gradients.append({name: p.grad.clone() for name, p in named.items() if p.grad is not None})

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.logs.append({name: float(value) for name, value in outputs.items()})


def fit(
    model: WGANGP,
    steps: int,
    *callbacks: Callback,
    level: int | None = None,
    precision: Literal["32", "bf16-mixed"] = "32",
) -> None:
    """`steps` batches of 16 examples through a real trainer: of any levels, or of one."""
    torch.manual_seed(0)
    low, high = (0, model.spec.levels) if level is None else (level, level + 1)
    batches = [Batch(torch.randint(low, high, (16, *model.spec.shape))) for _ in range(steps)]
    trainer = Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def moved(model: WGANGP, before: dict[str, Tensor]) -> set[str]:
    """Names of parameters that are no longer as before."""
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


# Networks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12), (2,), (5,)])
@pytest.mark.parametrize("options", [{}, EVERY])
def test_networks_follow_the_shape_of_the_data(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    structure: Structure = "grid" if len(shape) == 3 else "coordinates"
    model = WGANGP(DataSpec(shape, 256, structure), generator_width=8, discriminator_width=16, **options).eval()
    sample = model.sample(8)
    assert sample.shape == (8, *shape)
    assert model.discriminator(model.to_unit(sample)).shape == (8 // options.get("packing", 1),)


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
@pytest.mark.parametrize("options", [{}, {"discriminator_norm": "layer"}, *REMEDIES, EVERY])
def test_the_critic_is_a_function_of_one_example_or_one_pack(spec: DataSpec, options: dict[str, Any]) -> None:
    """In training too: else the gradient of a sum of scores is not that of one score."""
    torch.manual_seed(0)
    model = WGANGP(spec, **SMALL, **options)
    y = torch.randn(8, *spec.shape, requires_grad=True)
    size = options.get("packing", 1)
    with torch.nn.utils.parametrize.cached():  # no power iteration between the passes
        score = model.discriminator(y)
        alone = torch.cat([model.discriminator(pack) for pack in y.split(size)])
    torch.testing.assert_close(score, alone)
    (gradient,) = torch.autograd.grad(score[0], y)
    assert gradient[:size].flatten(1).any(1).all()
    assert not gradient[size:].any()


def test_batch_normalisation_is_in_the_generator_alone_and_layer_normalisation_is_the_critics_other_choice() -> None:
    kinds: dict[str, Any] = {norm: WGANGP(DIGITS, discriminator_norm=norm) for norm in ("layer", "none")}
    for norm, model in kinds.items():
        assert sum(isinstance(m, ReferenceNorm) for m in model.generator.modules()) == 5
        found = [m for m in model.discriminator.modules() if "Norm" in type(m).__name__]
        assert [m.num_groups for m in found] == ([1] * 4 if norm == "layer" else [])


@pytest.mark.parametrize("spec", [DIGITS, DataSpec((1, 28, 28), 256, "grid"), POINTS])
@pytest.mark.parametrize("options", [*REMEDIES, {name: EVERY[name] for name in EVERY if name[-4:] != "norm"}])
def test_discriminators_are_equally_large(spec: DataSpec, options: dict[str, Any]) -> None:
    goal = parameters(WGANGP(spec).discriminator)
    assert abs(parameters(WGANGP(spec, **options).discriminator) - goal) <= 0.05 * goal


# The game ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["32", "bf16-mixed"])  # whose cache must not keep what is cast without gradients
def test_the_generator_steps_once_in_so_many_critic_steps_and_each_moves_its_own_network(precision: Any) -> None:
    torch.manual_seed(0)
    model, watch = WGANGP(DIGITS, **SMALL), Watch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    of_g, of_d = ({name for name in before if name.startswith(net)} for net in ("generator", "discriminator"))
    fit(model, 4, watch, precision=precision)
    states = [*watch.weights, {name: p.detach() for name, p in model.named_parameters()}]
    changes = [
        {name for name in before if not torch.equal(first[name], then[name])} for first, then in pairwise(states)
    ]
    assert changes == [of_d, of_d, of_g, of_d, of_d, of_g]
    assert watch.gradients[0].keys() == of_d  # no gradient of D's steps reaches G
    assert ["generator" in logs for logs in watch.logs] == [False, True, False, True]
    assert all(p.requires_grad for p in model.parameters())


def test_each_critic_step_sees_a_batch_of_its_own_and_a_penalty_between_its_halves() -> None:
    torch.manual_seed(0)
    model, seen = WGANGP(DIGITS, **SMALL, packing=2), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    fit(model, steps=2)
    assert [len(y) for y in seen] == [32, 16, 32, 16, 16]  # both, between; the same; generated for G
    first, second = seen[0].chunk(2), seen[2].chunk(2)
    assert not any(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(seen[4], second[1])
    for (real, fake), y in ((first, seen[1]), (second, seen[3])):
        alpha = ((y - fake) * (real - fake)).flatten(1).sum(1) / (real - fake).square().flatten(1).sum(1)
        torch.testing.assert_close(y, alpha.view(-1, 1, 1, 1) * (real - fake) + fake)
        torch.testing.assert_close(alpha[::2], alpha[1::2])  # one a pack
        assert 0 <= alpha.min() < alpha.max() <= 1


def test_losses_are_the_papers() -> None:
    """Against an affine critic, whose slope is known: L = E D(G(z)) - E D(x) + λ (‖w‖ - 1)²."""
    torch.manual_seed(0)
    model, watch = WGANGP(POINTS, discriminator_steps=1, penalty=3.0, discriminator_learning_rate=0.0), Watch()
    w, seen = torch.tensor([[3.0, 4.0]]), []
    linear = nn.Linear(2, 1, bias=False)
    linear.weight.data.copy_(w)
    model.discriminator = nn.Sequential(linear, nn.Flatten(0))
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    fit(model, 1, watch)
    real, fake = ((half @ w[0]).mean().item() for half in seen[0].chunk(2))
    (logs,) = watch.logs
    assert logs["distance"] == pytest.approx(real - fake, rel=1e-5)
    assert logs["penalty"] == pytest.approx((5 - 1) ** 2, rel=1e-5)
    assert logs["loss"] == pytest.approx(fake - real + 3 * 16, rel=1e-5)
    assert logs["generator"] == pytest.approx(-fake, rel=1e-5)
    seen.clear()
    with torch.no_grad():
        signs = model.eval().diagnostics(torch.full((8, 2), 255))
    real, fake = ((half @ w[0]).mean().item() for half in seen[:2])
    assert real == pytest.approx(7, abs=7 / 128)  # the highest level is within 1/128 of 1
    assert signs == {"distance": pytest.approx(real - fake, rel=1e-5), "slope": pytest.approx(5, rel=1e-5)}


def test_the_estimate_rises_to_the_distance_between_two_points() -> None:
    """For W apart, D of slope s scores s W - λ (s - 1)²: most for s = 1 + W / 2 λ, which makes it W + W² / 2 λ."""
    torch.manual_seed(0)
    model = WGANGP(
        POINTS, discriminator_width=32, discriminator_steps=1000, penalty=1.0, discriminator_learning_rate=1e-3
    )
    model.generator = nn.Sequential(nn.Linear(64, 2), nn.Tanh())
    nn.init.zeros_(model.get_parameter("generator.0.weight"))
    nn.init.constant_(model.get_parameter("generator.0.bias"), math.atanh(-0.5))
    watch = Watch()
    fit(model, 140, watch, level=191)
    W = 2**0.5 * ((191.5 / 128 - 1) + 0.5)
    found = sum(logs["distance"] for logs in watch.logs[-40:]) / 40
    assert found == pytest.approx(W + W**2 / 2, rel=0.03)


# Remedies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
def test_options_that_are_off_change_nothing(spec: DataSpec) -> None:
    off: dict[str, Any] = {
        "spectral": False,
        "feature_matching": False,
        "packing": 1,
        "r1": 0.0,
        "translation": 0,
        "cutout": 0,
    }
    trained = []
    for options in ({}, off):
        torch.manual_seed(0)
        model = WGANGP(spec, **SMALL, **options)
        fit(model, steps=2)
        trained.append((model.state_dict(), torch.rand(1)))
    assert torch.equal(trained[0][1], trained[1][1])
    assert trained[0][0].keys() == trained[1][0].keys()
    assert all(torch.equal(trained[0][0][name], value) for name, value in trained[1][0].items())


@pytest.mark.parametrize("spec", [DIGITS, POINTS])
@pytest.mark.parametrize("options", [{}, {"discriminator_norm": "layer"}, *REMEDIES, EVERY])
def test_every_option_trains_and_reaches_every_parameter(spec: DataSpec, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    model, watch = WGANGP(spec, **SMALL, **options), Watch()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, 2, watch)
    assert moved(model, before) == before.keys()
    assert all(p.isfinite().all() for p in model.parameters())
    assert ("r1" in watch.logs[0]) == ("r1" in options)
    with torch.no_grad():
        signs = model.eval().diagnostics(torch.zeros(11, *spec.shape, dtype=torch.long))
    assert signs.keys() == {"distance", "slope"}


def test_without_a_weight_there_is_no_penalty() -> None:
    torch.manual_seed(0)
    model, watch = WGANGP(DIGITS, **SMALL, penalty=0.0), Watch()
    fit(model, 1, watch)
    assert watch.logs[0].keys() == {"loss", "distance"}
    assert watch.logs[0]["loss"] == -watch.logs[0]["distance"]


def test_augmented_are_real_and_generated_images_alike_and_what_lies_between_them() -> None:
    torch.manual_seed(0)
    model, seen = WGANGP(DIGITS, **SMALL, translation=2), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    fit(model, steps=2)
    for y in (*seen[0].chunk(2), seen[4]):  # -1 is what comes in from outside
        assert ((y == -1).flatten(2).sum(2) >= 8).any()
    real, fake = seen[0].chunk(2)
    both = (real == -1) & (fake == -1)
    assert both.any()
    assert torch.allclose(seen[1][both], torch.tensor(-1.0))


def test_with_feature_matching_g_minimises_the_distance_of_means() -> None:
    torch.manual_seed(0)
    model = WGANGP(DIGITS, feature_matching=True)
    real, fake = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 8, 8)
    f = nn.Sequential(*list(model.discriminator)[:-2])
    expected = (f(real).mean(0) - f(fake).mean(0)).square().sum()
    torch.testing.assert_close(model.loss_g(real, fake), expected)
    assert model.loss_g(real, real) == 0


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        (POINTS, {"translation": 1}, "are for images: give 0 for points"),
        (DIGITS, {"cutout": 8}, "leave nothing of 8x8 images"),
    ],
)
def test_what_does_not_go_together_is_refused(spec: DataSpec, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=f"wgan_gp: .*{words}"):
        WGANGP(spec, **options)


def test_batches_that_packs_do_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match=r"wgan_gp: a batch of 16 with packing=3.*multiple of 3"):
        fit(WGANGP(DIGITS, packing=3), steps=1)


def test_the_critic_which_is_differentiated_twice_is_never_compiled() -> None:
    model = WGANGP(DIGITS)
    assert [name for name, m in model.named_modules() if m in set(blocks(model))][-1].startswith("discriminator")
    names = [name for name, m in model.named_modules() if m in set(compilable(model))]
    assert names
    assert all(name.startswith("generator") for name in names)
