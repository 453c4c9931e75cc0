"""Train the classifier whose features judge samples of a dataset, or the one that says what class they are of:

    python scripts/train_extractor.py data=digits epochs=100
    python scripts/train_extractor.py data=mnist shift=2
    python scripts/train_extractor.py data=binary_mnist shift=2
    python scripts/train_extractor.py data=digits role=judge epochs=100 seed=1
    python scripts/train_extractor.py data=mnist role=judge epochs=3 shift=2 seed=1
    python scripts/train_extractor.py data=binary_mnist role=judge epochs=3 shift=2 seed=1

It learns from the training split alone and writes benchmark/metrics/extractors/<data>-v1.safetensors (a judge:
<data>-judge-v1.safetensors), with its options inside. The line that it prints last belongs into `PINNED` there. A
shipped file is never retrained in place: raise `version`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import torch
import yaml
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from benchmark.build import resolve
from benchmark.data.base import DataModule, SplitName, data_root
from benchmark.metrics.extractors import FOLDER
from benchmark.metrics.extractors.base import sha256
from benchmark.metrics.extractors.classifier import EXTRACTOR_WIDTH, JUDGE_WIDTH, Classifier
from benchmark.spec import BadInput

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "data"


class Role(Enum):
    extractor = EXTRACTOR_WIDTH
    judge = JUDGE_WIDTH


@dataclass
class Options:
    data: str = MISSING
    role: Role = Role.extractor
    version: int = 1
    epochs: int = 6
    shift: int = 1  # pixels of augmentation
    batch_size: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 0


def main(arguments: list[str]) -> None:
    try:
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(arguments)))
    except OmegaConfBaseException as error:
        raise BadInput(f"{str(error).splitlines()[0]} (options: {', '.join(vars(Options()))})") from error
    assert isinstance(options, Options)
    path = CONFIGS / f"{options.data}.yaml"
    if not path.is_file():
        raise BadInput(
            f"no data {options.data!r} (allowed: {', '.join(sorted(p.stem for p in CONFIGS.glob('*.yaml')))})"
        )
    data = resolve(yaml.safe_load(path.read_text(encoding="utf-8"))["target"], DataModule)(data_root())

    started = time.process_time()
    network = train(data, options)
    minutes = (time.process_time() - started) / 60
    names: tuple[SplitName, ...] = ("train", "validation", "test")
    shown = ", ".join(f"{name} {accuracy(network, data, name):.4f}" for name in names)
    numbers = sum(p.numel() for p in network.parameters())
    print(f"{options.data}: accuracy {shown}; {numbers:,} parameters; {minutes:.1f} CPU minutes")

    name = options.data if options.role is Role.extractor else f"{options.data}-{options.role.name}"
    weights = FOLDER / f"{name}-v{options.version}.safetensors"
    trained = asdict(options) | {"role": options.role.name}
    save_file(network.state_dict(), weights, metadata={"trained": json.dumps(trained)})
    print(f'    "{weights.stem}": "{sha256(weights)}",')


def train(data: DataModule, options: Options) -> Classifier:
    """The classifier of `data`, trained on its training batches: binarised anew for binary data."""
    torch.manual_seed(options.seed)
    network = Classifier(data.spec, options.role.value).to(memory_format=torch.channels_last)
    steps = math.ceil(len(data.split("train").x) / options.batch_size) * options.epochs
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=options.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=options.learning_rate, total_steps=steps)
    for step in range(steps):
        batch = data.batch(options.seed, step, options.batch_size)
        _, logits = network(shifted(batch.x, options.shift))
        assert batch.condition is not None, "a classifier needs labels"
        loss = F.cross_entropy(logits, batch.condition)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 200 == 0:
            print(f"step {step} of {steps}: loss {loss.item():.4f}", flush=True)
    return network.eval().to(memory_format=torch.contiguous_format)


def shifted(x: Tensor, by: int) -> Tensor:
    """Each image of `x` `[B, C, H, W]` moved by up to `by` pixels both ways; level 0 comes in from outside."""
    n, _, height, width = x.shape
    padded = F.pad(x, (by, by, by, by)).permute(0, 2, 3, 1)  # [B, H', W', C]
    down, right = torch.randint(0, 2 * by + 1, (2, n, 1))
    rows, columns = down + torch.arange(height), right + torch.arange(width)  # [B, H], [B, W]
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.no_grad()
def accuracy(network: Classifier, data: DataModule, name: SplitName) -> float:
    """Share of images that get their label."""
    split = data.split(name)
    assert split.labels is not None, "a classifier needs labels"
    predicted = torch.cat([network(x)[1].argmax(1) for x in split.x.split(500)])
    return (predicted == split.labels).double().mean().item()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
