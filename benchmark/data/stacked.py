"""Three MNIST digits in three colours: 1,000 modes that a classifier of digits can count.

Metz, Poole, Pfau and Sohl-Dickstein, "Unrolled Generative Adversarial Networks", ICLR 2017, arXiv:1611.02163;
Srivastava, Valkov, Russell, Gutmann and Sutton, "VEEGAN: Reducing Mode Collapse in GANs using Implicit Variational
Learning", NeurIPS 2017, arXiv:1705.07761; Lin, Khetan, Fanti and Oh, "PacGAN: The power of two samples in generative
adversarial networks", NeurIPS 2018, arXiv:1712.04086.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from benchmark.data.base import SPLITS, Card, InMemory, Modes, Split, SplitName
from benchmark.data.images import Mnist, check_split, visits
from benchmark.spec import Batch, DataSpec

CHANNELS, DIGITS = 3, 10


class StackedMnist(InMemory):
    """Stacks of three digits, each drawn from the same split of MNIST with replacement under a fixed seed.

    The mode of digits a, b, c in the channels 0, 1, 2 is 100a + 10b + c: the label of a stack, which is no condition,
    since a model that is told the mode cannot drop it. Sizes are those of the literature.
    """

    card = Card(
        name="stacked_mnist",
        source="three digits of MNIST a stack, drawn when needed (benchmark.data.stacked)",
        licence=Mnist.card.licence,
        citation="Metz and others 2017, Unrolled GANs, arXiv:1611.02163; Srivastava and others 2017, VEEGAN, "
        "arXiv:1705.07761; Lin and others 2018, PacGAN, arXiv:1712.04086",
        note="each split holds stacks of digits of the same split of MNIST; 26,000 samples are counted",
    )
    sizes: ClassVar[dict[SplitName, int]] = {"train": 128_000, "validation": 26_000, "test": 26_000}
    #: Of the indices into the splits of MNIST, whose own content is pinned there.
    split_sha256: ClassVar[str] = "cee452e9fb57fd285135ace9b3b93250602505dc3e050851b032e8b03d6bef82"
    digits: ClassVar[type[Mnist]] = Mnist

    def __init__(self, root: Path) -> None:
        digits = self.digits(root)
        chosen = {
            name: draw(len(digits.split(name).x), self.sizes[name], seed) for seed, name in enumerate(SPLITS, start=1)
        }
        check_split(self.card.name, self.split_sha256, *(chosen[name] for name in SPLITS))
        self._shares = digits.modes.weights  # [10]
        spec = DataSpec((CHANNELS, *digits.spec.shape[1:]), digits.spec.levels, "grid")
        super().__init__(spec, {name: stacked(digits.split(name), chosen[name]) for name in SPLITS})

    @property
    def modes(self) -> Modes:
        """Digits are independent: a mode's share is the product of those of its digits in MNIST's training split."""
        weights = self._shares
        for _ in range(CHANNELS - 1):
            weights = torch.kron(weights, self._shares)
        return Modes(weights)

    def batch(self, seed: int, step: int, batch_size: int) -> Batch:
        x = self.split("train").x
        return Batch(x=x[visits(len(x), seed, step * batch_size, batch_size).to(x.device)].long())


def draw(digits: int, stacks: int, seed: int) -> Tensor:
    """Which of so many digits stand in the channels of each stack, `[stacks, 3]`, from numpy's frozen legacy generator
    (NEP 19)."""
    return torch.from_numpy(np.random.RandomState(seed).randint(digits, size=(stacks, CHANNELS), dtype=np.int64))


def stacked(digits: Split, chosen: Tensor) -> Split:
    """The stacks `[N, 3, H, W]` of the `chosen` digits `[N, 3]`, and their modes `[N]`."""
    assert digits.labels is not None
    places = DIGITS ** torch.arange(CHANNELS - 1, -1, -1)  # 100, 10, 1
    return Split(digits.x[:, 0][chosen], (digits.labels[chosen] * places).sum(1))
