"""What is special to StyleGAN2: styles that mix, noise, lazy terms, lengths of paths, truncation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmark.models.gan.stylegan2 import StyleGAN2, path_lengths
from benchmark.nn.levels import centred
from benchmark.nn.remedies import parameters
from benchmark.nn.stylegan import ResidualBlock, StyledLayer
from benchmark.spec import BadInput, Batch, DataSpec
from benchmark.train import blocks_compiled

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")
SMALL: dict[str, Any] = {"latent": 8, "generator_width": 8, "discriminator_width": 24}
REMEDIES: list[dict[str, Any]] = [
    {"minibatch_kernels": 4},
    {"minibatch_deviation": 4},
    {"minibatch_deviation": 0},
    {"feature_matching": True},
    {"packing": 2},
    {"r1": 0.0},
]
EVERY = {name: value for options in REMEDIES[::-1] for name, value in options.items() if name != "r1"}


def built(spec: DataSpec = DIGITS, **options: Any) -> StyleGAN2:
    torch.manual_seed(0)
    return StyleGAN2(spec, **SMALL | options)


def loud(model: StyleGAN2) -> StyleGAN2:
    """With noise that one can see, and a w that averages to something, as after training."""
    with torch.no_grad():
        for layer in model.synthesis.modules():
            if isinstance(layer, StyledLayer) and layer.strength is not None:
                layer.strength.fill_(1.0)
        model.w_average.normal_()
    return model.eval()


def fit(model: StyleGAN2, steps: int, *callbacks: Callback, n: int = 16) -> None:
    """`steps` times one batch of `n` examples through a real trainer."""
    torch.manual_seed(0)
    batches = [Batch(torch.randint(model.spec.levels, (n, *model.spec.shape)))] * steps
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


class Watch(Callback):
    """What each optimiser finds when it steps: whose turn it is, gradients of its parameters, all weights."""

    def __init__(self) -> None:
        self.turns: list[str] = []
        self.gradients: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        named = dict(pl_module.named_parameters())
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        self.turns.append("D" if id(pl_module.discriminator[-2].weight) in own else "G")
        self.gradients.append(
            {name: p.grad.clone() for name, p in named.items() if id(p) in own and p.grad is not None}
        )
        self.weights.append({name: p.detach().clone() for name, p in named.items()})


# Styles --------------------------------------------------------------------------------------------------------------


def test_w_does_not_depend_on_the_length_of_z() -> None:
    z = torch.randn(5, 8)
    model = built()
    torch.testing.assert_close(model.mapping(3 * z), model.mapping(z))
    assert not torch.allclose(model.mapping(z.roll(1, 0)), model.mapping(z), atol=0.1)
    torch.testing.assert_close(built(mapping_layers=0).mapping(z).square().mean(1), torch.ones(5))


def test_w_changes_once_with_the_probability_of_mixing() -> None:
    w = built(DataSpec((3, 32, 32), 256, "grid"), mixing=0.75).mixed(2000)  # [2000, 8, Z]
    assert w.shape == (2000, 8, 8)
    changes = (w[:, 1:] != w[:, :-1]).all(2)  # [2000, 7]
    assert torch.equal(changes, (w[:, 1:] != w[:, :-1]).any(2))
    assert int(changes.sum(1).max()) == 1
    assert float(changes.any(1).float().mean()) == pytest.approx(0.75, abs=0.04)
    torch.testing.assert_close(changes.float().mean(0), torch.full((7,), 0.75 / 7), atol=0.03, rtol=0)


def test_without_mixing_all_layers_have_one_w() -> None:
    w = built(mixing=0.0).mixed(6)
    assert torch.equal(w, w[:, :1].expand(-1, 4, -1))
    assert len(w[:, 0].unique(dim=0)) == 6


def test_the_average_moves_by_its_share_to_the_mean_of_a_step() -> None:
    model, seen = built(mixing=0.0, average_decay=0.75, path_length=0.0), []
    model.mapping.register_forward_hook(lambda module, inputs, w: seen.append(w.detach().mean(0)))
    fit(model, steps=2)
    assert len(seen) == 2
    torch.testing.assert_close(model.w_average, 0.25 * 0.75 * seen[0] + 0.25 * seen[1])


@pytest.mark.parametrize("truncation", [0.0, 0.25, 1.0])
def test_truncation_draws_w_towards_the_average(truncation: float) -> None:
    model, seen = loud(built()), []
    model.synthesis.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(1)
    z = model.noise(7)
    torch.manual_seed(1)
    model.sample_truncated(7, truncation)
    w = model.w_average + truncation * (model.mapping(z) - model.w_average)
    torch.testing.assert_close(seen[0], w[:, None].expand(-1, 4, -1))


def test_truncation_by_one_is_sampling() -> None:
    model = loud(built())
    torch.manual_seed(1)
    expected = model.sample(50)
    torch.manual_seed(1)
    assert torch.equal(model.sample_truncated(50, 1.0), expected)


# Noise ---------------------------------------------------------------------------------------------------------------


def test_noise_is_drawn_in_evaluation_too_unless_there_is_none() -> None:
    z = torch.randn(5, 8)
    model = loud(built())
    assert not torch.equal(model.generate(z), model.generate(z))
    model = loud(built(noise=False))
    assert torch.equal(model.generate(z), model.generate(z))


def test_a_path_holds_its_noise_and_two_paths_have_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between equal latents, whose points f does not tell apart, nothing changes."""
    model = loud(built())
    monkeypatch.setattr(model, "noise", lambda n: torch.ones(n, 8))
    path = model.interpolate(3, 5)
    assert path.shape == (3, 5, 1, 8, 8)
    assert (path == path[:, :1]).float().mean() > 0.98  # but for rounding at the border between levels
    assert (path[0] == path[1]).float().mean() < 0.5
    assert (path == model.interpolate(3, 5)).float().mean() < 0.5


# Lazy terms ----------------------------------------------------------------------------------------------------------


def test_each_step_moves_its_own_network_alone() -> None:
    model, watch = built(), Watch()
    fit(model, 1, watch)
    assert watch.turns == ["D", "D", "G", "G"]  # its loss, R1; its loss, path lengths
    weights = [*watch.weights, {name: p.detach() for name, p in model.named_parameters()}]
    for turn, gradients, before, after in zip(watch.turns, watch.gradients, weights[:-1], weights[1:], strict=True):
        assert gradients
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert all(name.startswith("discriminator") == (turn == "D") for name in moved)
    assert not [name for name in weights[0] if torch.equal(weights[0][name], weights[-1][name])]
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("options", "turns"),
    [
        ({"r1_interval": 2, "path_interval": 3}, "DDGG DG DDG DGG DDG DG"),
        ({"r1": 0.0, "path_interval": 6}, "DGG DG DG DG DG DG"),
        ({"path_length": 0.0, "r1_interval": 4}, "DDG DG DG DG DDG DG"),
        ({"r1": 0.0, "path_length": 0.0}, "DG DG DG DG DG DG"),
    ],
)
def test_lazy_terms_come_once_in_an_interval(options: dict[str, Any], turns: str) -> None:
    watch = Watch()
    fit(built(**options), 6, watch)
    assert "".join(watch.turns) == turns.replace(" ", "")


def sum_of_lazy_gradients(monkeypatch: pytest.MonkeyPatch, player: str, **options: Any) -> dict[str, Tensor]:
    """Over 6 steps that change nothing, of the steps that a player makes after its own."""
    monkeypatch.setattr(torch, "randn_like", torch.ones_like)  # y of path lengths
    rates: dict[str, Any] = {"generator_learning_rate": 0.0, "discriminator_learning_rate": 0.0}
    model, watch = built(noise=False, translation=0, mixing=0.0, **rates, **options), Watch()
    monkeypatch.setattr(model, "to_unit", lambda x: centred(x, 17))
    monkeypatch.setattr(model, "noise", lambda n: torch.linspace(-1, 1, 8 * n).reshape(n, 8).sin())
    fit(model, 6, watch)
    total: dict[str, Tensor] = {}
    for before, turn, gradients in zip(["", *watch.turns], watch.turns, watch.gradients, strict=False):
        if before == turn == player:
            for name, gradient in gradients.items():
                total[name] = total.get(name, torch.zeros(())) + gradient
    return total


@pytest.mark.parametrize(("player", "option"), [("D", "r1_interval"), ("G", "path_interval")])
def test_over_an_interval_a_lazy_term_weighs_as_much_as_one_at_each_step(
    player: str, option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    often, rarely = (sum_of_lazy_gradients(monkeypatch, player, **{option: k}) for k in (1, 3))
    assert often.keys() == rarely.keys()
    assert max(float(gradient.abs().max()) for gradient in often.values()) > 1e-4
    for name, gradient in often.items():
        torch.testing.assert_close(rarely[name], gradient, rtol=1e-3, atol=1e-6)


def test_r1_is_half_the_squared_gradient_of_each_example_summed_over_pixels() -> None:
    model = built(minibatch_deviation=0, translation=0, r1=3.0, r1_interval=5)
    y = torch.randn(4, 1, 8, 8)
    squares = []
    for image in y:
        image = image[None].clone().requires_grad_()
        model.discriminator(image).sum().backward()
        assert image.grad is not None
        squares.append(image.grad.square().sum())
    torch.testing.assert_close(model.r1_term(y), 5 * 3.0 / 2 * torch.stack(squares).mean())


def test_path_lengths_of_a_linear_generator_are_those_of_its_matrix() -> None:
    torch.manual_seed(0)
    n, layers, latent = 4000, 3, 5
    matrix, w = torch.randn(layers * latent, 2 * 4 * 6), torch.randn(n, layers, latent, requires_grad=True)
    y = (w.flatten(1) @ matrix).view(n, 2, 4, 6)
    torch.manual_seed(1)
    lengths = path_lengths(y, w)
    torch.manual_seed(1)
    noise = torch.randn(n, 2 * 4 * 6) / math.sqrt(4 * 6)  # over pixels, not over colours
    torch.testing.assert_close(lengths, (noise @ matrix.T).square().sum(1).div(layers).sqrt())
    expected = float(matrix.square().sum()) / (4 * 6) / layers
    assert float(lengths.detach().square().mean()) == pytest.approx(expected, rel=0.03)


def test_the_path_term_is_the_squared_distance_from_a_running_mean() -> None:
    model = built(path_length=3.0, path_interval=5, noise=False)
    w = model.mixed(8)
    mean = torch.zeros(())
    for seed, share in ((1, 1.0), (2, 0.25)):
        torch.manual_seed(seed)
        lengths = path_lengths(model.synthesis(w), w).detach()
        mean = (1 - share) * mean + share * lengths.mean()
        torch.manual_seed(seed)
        term = model.path_term(w, share)
        torch.testing.assert_close(model.path_mean, mean)
        torch.testing.assert_close(term, 5 * 3.0 * (lengths - mean).square().mean())
    term.backward()
    assert all(p.grad is not None for p in model.mapping.parameters())


def test_the_running_mean_is_plain_at_first_and_keeps_a_hundredth_later(monkeypatch: pytest.MonkeyPatch) -> None:
    model, shares = built(path_interval=2), []
    monkeypatch.setattr(model, "path_term", lambda w, share: shares.append(share) or w.square().sum())
    fit(model, 6)
    assert shares == [1, 1 / 2, 1 / 3]
    monkeypatch.setattr(model, "optimizers", lambda: model.configure_optimizers())
    monkeypatch.setattr(model, "manual_backward", lambda loss: loss.backward())
    model.training_step(Batch(torch.zeros(16, 1, 8, 8, dtype=torch.long)), 1000)
    assert shares[-1] == 0.01


def test_adam_is_corrected_for_steps_of_lazy_terms() -> None:
    rates: dict[str, Any] = {"generator_learning_rate": 0.2, "discriminator_learning_rate": 0.3}
    rates |= {"beta1": 0.5, "beta2": 0.9}
    lazy, plain = built(**rates), built(**rates, r1=0.0, path_length=0.0)
    for model, c_g, c_d in ((lazy, 8 / 9, 16 / 17), (plain, 1.0, 1.0)):
        for optimizer, rate, c in zip(model.configure_optimizers(), (0.2, 0.3), (c_g, c_d), strict=True):
            assert optimizer.defaults["lr"] == pytest.approx(c * rate)
            assert optimizer.defaults["betas"] == pytest.approx((0.5**c, 0.9**c))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # the compiler looks at it
def test_lazy_terms_run_uncompiled_where_blocks_are_compiled() -> None:
    """Compiled code has no second derivatives."""
    model, compiled = built(), []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    y, w = torch.randn(4, 1, 8, 8), torch.randn(4, 4, 8)
    torch.compiler.reset()
    with blocks_compiled(model, backend=backend):
        model.r1_term(y).backward()
        model.path_term(w, 1.0).backward()
        assert not compiled
        model.discriminator[0](y)
        assert len(compiled) == 1


# Networks and remedies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12)])
@pytest.mark.parametrize("options", [{}, EVERY])
def test_networks_follow_the_shape_of_the_data(shape: tuple[int, ...], options: dict[str, Any]) -> None:
    model = built(DataSpec(shape, 256, "grid"), **options)
    sample = model.sample(8)
    assert sample.shape == (8, *shape)
    assert model.discriminator(model.to_unit(sample)).shape == (8 // model.remedies.packing,)


def test_channels_double_as_sides_halve_up_to_a_limit() -> None:
    model = StyleGAN2(DataSpec((3, 32, 32), 256, "grid"), generator_width=8, discriminator_width=16, most_channels=32)
    layers = [part for part in model.synthesis.keeping if isinstance(part, StyledLayer)]
    assert [layer.conv.weight.shape[0] for layer in layers] == [32, 16, 8]
    blocks = [part for part in model.discriminator if isinstance(part, ResidualBlock)]
    assert [block.conv2.weight.shape[0] for block in blocks] == [32, 32, 32]


def test_remedies_that_are_off_change_nothing() -> None:
    trained = []
    off: dict[str, Any] = {"minibatch_kernels": 0, "feature_matching": False, "packing": 1, "cutout": 0}
    for options in ({}, off):
        model = built(**options)
        fit(model, steps=2)
        trained.append((model.state_dict(), torch.rand(1)))
    assert torch.equal(trained[0][1], trained[1][1])
    assert all(torch.equal(trained[0][0][name], value) for name, value in trained[1][0].items())


@pytest.mark.parametrize("options", [*REMEDIES, EVERY, {"noise": False, "mapping_layers": 0, "mixing": 0.0}])
def test_every_remedy_trains_a_discriminator_of_the_same_size(options: dict[str, Any]) -> None:
    goal = parameters(built(minibatch_deviation=0).discriminator)
    model = built(**options)
    assert abs(parameters(model.discriminator) - goal) <= 0.05 * goal
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, steps=3)
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    assert all(p.isfinite().all() for p in model.parameters())
    with torch.no_grad():
        signs = model.eval().diagnostics(torch.zeros(11, 1, 8, 8, dtype=torch.long))
    assert signs.keys() == {"discriminator_gap", "discriminator_accuracy"}


def test_real_and_generated_images_are_judged_in_batches_of_their_own() -> None:
    model, seen = built(r1=0.0), []
    model.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    fit(model, steps=1)
    assert [len(y) for y in seen] == [16, 16, 16]  # real, generated, generated for G


def test_with_feature_matching_g_minimises_the_distance_of_means() -> None:
    model = built(feature_matching=True, translation=0)
    real, fake = torch.randn(8, 1, 8, 8), torch.randn(8, 1, 8, 8)
    f = nn.Sequential(*list(model.discriminator)[:-2])
    torch.testing.assert_close(model.loss_g(real, fake), (f(real).mean(0) - f(fake).mean(0)).square().sum())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"translation": 8}, "leave nothing of 8x8 images"), ({"minibatch_kernels": 1000}, "give less of either")],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=f"stylegan2: .*{words}"):
        StyleGAN2(DIGITS, discriminator_width=4, **options)


def test_batches_that_remedies_do_not_divide_are_refused() -> None:
    with pytest.raises(BadInput, match=r"stylegan2: a batch of 16 with packing=1 and minibatch_deviation=3: .* 3,"):
        fit(built(minibatch_deviation=3), steps=1)
