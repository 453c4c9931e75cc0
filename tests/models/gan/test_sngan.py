"""What is special to SNGAN: a Lipschitz discriminator, a scale that inverts, and an augmentation with gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader

from benchmark.models.gan.sngan import SNGAN
from benchmark.nn.remedies import parameters
from benchmark.spec import BadInput, Batch, DataSpec

DIGITS = DataSpec((1, 8, 8), levels=17, structure="grid")


def fit(model: SNGAN, steps: int) -> None:
    """`steps` batches of eight images through a real trainer."""
    torch.manual_seed(0)
    batches = [Batch(torch.randint(model.spec.levels, (8, *model.spec.shape))) for _ in range(steps)]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]


def test_every_layer_of_the_discriminator_has_spectral_norm_one():
    torch.manual_seed(0)
    discriminator = SNGAN(DIGITS).discriminator
    for _ in range(50):  # one power iteration each
        discriminator(torch.randn(2, 1, 8, 8))
    layers = [module for module in discriminator.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        torch.testing.assert_close(norm, torch.ones(()), rtol=0.02, atol=0)


def test_generator_steps_once_in_so_many_discriminator_steps():
    torch.manual_seed(0)
    model = SNGAN(DIGITS, generator_width=8, discriminator_width=8, discriminator_steps=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, steps=2)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("generator"), name
    fit(model, steps=3)
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_both_augmentations_paint_what_both_networks_see():
    torch.manual_seed(0)
    y = torch.rand(64, 1, 8, 8)
    cases: list[dict[str, Any]] = [{"translation": 0}, {"translation": 1}, {"translation": 0, "cutout": 2}]
    for options in cases:
        painted = (SNGAN(DIGITS, **options).augment(y) == -1).any().item()
        assert painted == any(value > 0 for value in options.values())


def test_batch_normalisation_is_the_papers_generator():
    norms = {kind: {type(m) for m in SNGAN(DIGITS, generator_norm=kind).modules()} for kind in ("batch", "group")}
    assert nn.BatchNorm2d in norms["batch"] - norms["group"]
    assert nn.GroupNorm in norms["group"] - norms["batch"]


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12)])
def test_networks_follow_the_shape_of_the_data(shape):
    torch.manual_seed(0)
    model = SNGAN(DataSpec(shape, 256, "grid"), generator_width=8, discriminator_width=8)
    sample = model.sample(2)
    assert sample.shape == (2, *shape)
    assert model.discriminator(model.to_unit(sample)).shape == (2,)


REMEDIES: list[dict[str, Any]] = [
    {"minibatch_kernels": 8},
    {"minibatch_deviation": 4},
    {"feature_matching": True},
    {"packing": 2},
    {"r1": 1.0},
]
EVERY = {name: value for options in REMEDIES for name, value in options.items()}


@pytest.mark.parametrize("options", [*REMEDIES, EVERY])
def test_every_remedy_trains_a_discriminator_of_the_same_size(options):
    torch.manual_seed(0)
    goal = parameters(SNGAN(DIGITS).discriminator)
    model = SNGAN(DIGITS, **options)
    assert abs(parameters(model.discriminator) - goal) <= 0.05 * goal
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, steps=2)
    assert not [name for name, p in model.named_parameters() if torch.equal(p, before[name])]
    with torch.no_grad():
        assert model.eval().diagnostics(torch.zeros(11, 1, 8, 8, dtype=torch.long)).keys() == {"discriminator_gap"}


def test_real_and_generated_images_are_never_compared_with_each_other():
    """Whatever stands in the other half, the scores of one are the same."""
    y, other = torch.randn(16, 1, 8, 8), torch.randn(16, 1, 8, 8)
    for options in REMEDIES:
        torch.manual_seed(0)
        model = SNGAN(DIGITS, **options).eval()  # no power iteration
        torch.testing.assert_close(model.judge(torch.cat([y, y]))[0], model.judge(torch.cat([y, other]))[0])
        torch.testing.assert_close(model.judge(torch.cat([y, y]))[1], model.judge(torch.cat([other, y]))[1])


def test_batches_that_remedies_do_not_divide_are_refused():
    with pytest.raises(BadInput, match=r"sngan: a batch of 8 with packing=3.*multiple of 3"):
        fit(SNGAN(DIGITS, packing=3), steps=1)
