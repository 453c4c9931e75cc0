"""Train the classifier whose features judge samples of a dataset, or the one that says what class they are of:

    python scripts/train_extractor.py data=digits epochs=100
    python scripts/train_extractor.py data=mnist shift=2
    python scripts/train_extractor.py data=binary_mnist shift=2
    python scripts/train_extractor.py data=digits role=judge epochs=100 seed=1
    python scripts/train_extractor.py data=mnist role=judge epochs=3 shift=2 seed=1
    python scripts/train_extractor.py data=binary_mnist role=judge epochs=3 shift=2 seed=1

and the same for images of your own, whose class the configuration in `BENCHMARK_CONFIGS` names:

    python scripts/train_extractor.py data=mine --trust my_data

It learns only from the training split, which needs labels, and writes <data>-v1.safetensors (a judge:
<data>-judge-v1.safetensors), with its options inside: for data of your own into the folder `extractors` beside the
configuration, where runs find it, else to benchmark/metrics/extractors, and then the line that it prints last belongs
into `PINNED` there. A file that is there is never replaced: raise `version`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from benchmark.build import build_data
from benchmark.config import choices, config_folders, load_data
from benchmark.data.base import SPLITS, DataModule, SplitName
from benchmark.metrics.extractors import FOLDER
from benchmark.metrics.extractors.classifier import EXTRACTOR_WIDTH, JUDGE_WIDTH, Classifier
from benchmark.record import write_once
from benchmark.spec import BadInput, sha256


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
    to: str = ""  # folder of the weights; empty: where runs look for them


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Train the classifier whose features judge samples of a dataset.")
    parser.add_argument("options", nargs="*", metavar="OPTION=VALUE", help=", ".join(vars(Options())))
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE", help="whose classes may be imported")
    given = parser.parse_args(arguments)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Options), OmegaConf.from_cli(given.options))
        options = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise BadInput(f"{str(error).splitlines()[0]} (options: {', '.join(vars(Options()))})") from error
    assert isinstance(options, Options)
    for name, least in {"version": 1, "epochs": 1, "batch_size": 2, "shift": 0}.items():
        if getattr(options, name) < least:
            raise BadInput(f"{name}={getattr(options, name)}: give {least} or more")
    config = load_data(options.data).consented(given.trust)
    name = options.data if options.role is Role.extractor else f"{options.data}-{options.role.name}"
    weights = folder_of(options) / f"{name}-v{options.version}.safetensors"
    if weights.exists():
        raise BadInput(f"{weights} exists, and numbers may stand on it: give version={options.version + 1}")
    data = build_data(config, None)
    check_labels(options.data, data)

    started = time.process_time()
    network = train(data, options)
    minutes = (time.process_time() - started) / 60
    shown = ", ".join(f"{name} {accuracy(network, data, name):.4f}" for name in SPLITS)
    numbers = sum(p.numel() for p in network.parameters())
    print(f"{options.data}: accuracy {shown}; {numbers:,} parameters; {minutes:.1f} CPU minutes")

    trained = {name: value for name, value in asdict(options).items() if name != "to"} | {"role": options.role.name}
    write_once(weights, save(network.state_dict(), metadata={"trained": json.dumps(trained)}))
    print(f"written to {weights}")
    if weights.parent == FOLDER:
        print(f'    "{weights.stem}": "{sha256(weights)}",')


def folder_of(options: Options) -> Path:
    """Where the weights go: beside a user's own configuration, or among the shipped ones."""
    if options.to:
        return Path(options.to)
    folder = choices("data")[options.data].parent.parent
    return FOLDER if folder == config_folders()[-1] else folder / "extractors"


def check_labels(name: str, data: DataModule) -> None:
    """Raises `BadInput` where there is nothing that a classifier could learn."""
    classes = data.spec.classes
    if data.spec.structure != "grid" or not classes:
        raise BadInput(f"{name} has no classes of images, and an extractor learns from labels: give its spec classes")
    for split in SPLITS:
        labels = data.split(split).labels
        if labels is None or labels.min() < 0 or labels.max() >= classes:
            raise BadInput(f"the {split} split of {name} needs a label from 0 to {classes - 1} for each image")


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
        assert batch.condition is not None
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
    assert split.labels is not None
    predicted = torch.cat([network(x)[1].argmax(1) for x in split.x.split(500)])
    return (predicted == split.labels).double().mean().item()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)
