"""What is special to SNGAN: a Lipschitz discriminator, a scale that inverts, and an augmentation with gradients."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from benchmark.models.gan.sngan import SNGAN
from benchmark.spec import Batch, DataSpec

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


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_scaling_stays_in_range_and_inverts(levels):
    torch.manual_seed(0)
    model = SNGAN(DataSpec((1, 16, 16), levels, "grid"))
    x = torch.arange(levels).repeat(256).reshape(levels, 1, 16, 16)
    y = model.to_unit(x)
    assert y.min() >= -1
    assert y.max() <= 1
    off = model.to_levels(y) - x  # float32 may round a value over its bin's edge
    assert off.abs().max() <= 1
    assert off.ne(0).float().mean() < 1e-4
    assert model.to_levels(torch.tensor([-1.0, 1.0])).tolist() == [0, levels - 1]


def test_translation_is_a_shift_of_the_padded_image_by_one_pixel_at_most():
    torch.manual_seed(0)
    y = torch.rand(64, 1, 8, 8)
    padded = F.pad(y, (1, 1, 1, 1), value=-1.0)
    seen = set()
    for i, shifted in enumerate(SNGAN(DIGITS).augment(y)):
        matches = [
            (down, right)
            for down in range(3)
            for right in range(3)
            if torch.equal(shifted, padded[i, :, down : down + 8, right : right + 8])
        ]
        assert len(matches) == 1
        seen.update(matches)
    assert len(seen) == 9


def test_cutout_paints_one_rectangle_with_the_lowest_level():
    torch.manual_seed(0)
    y = torch.rand(64, 3, 8, 8)
    cut = SNGAN(DataSpec((3, 8, 8), 256, "grid"), translation=0, cutout=3).augment(y)
    painted = cut == -1
    assert torch.equal(cut[~painted], y[~painted])
    assert torch.equal(painted[:, 0], painted[:, 2])
    rows, columns = painted[:, 0].any(2).sum(1), painted[:, 0].any(1).sum(1)
    assert torch.equal(painted[:, 0].sum((1, 2)), rows * columns)
    assert rows.max() == columns.max() == 3


def test_gradients_pass_through_the_augmentation_to_the_pixels_that_are_seen():
    torch.manual_seed(0)
    y = torch.rand(4, 1, 8, 8, requires_grad=True)
    SNGAN(DIGITS).augment(y).sum().backward()
    assert torch.equal(y.grad[:, :, 1:-1, 1:-1], torch.ones(4, 1, 6, 6))  # a shift by one keeps the inside


def test_generator_steps_once_in_so_many_discriminator_steps():
    torch.manual_seed(0)
    model = SNGAN(DIGITS, generator_width=8, discriminator_width=8, discriminator_steps=3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    fit(model, steps=2)
    for name, p in model.named_parameters():
        assert torch.equal(p, before[name]) == name.startswith("generator"), name
    fit(model, steps=3)
    assert not any(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 28, 28), (3, 32, 32), (3, 9, 12)])
def test_networks_follow_the_shape_of_the_data(shape):
    torch.manual_seed(0)
    model = SNGAN(DataSpec(shape, 256, "grid"), generator_width=8, discriminator_width=8)
    sample = model.sample(2)
    assert sample.shape == (2, *shape)
    assert model.discriminator(model.to_unit(sample)).shape == (2,)
