"""How soon our GPT reaches the loss at which nanoGPT's CPU recipe ends, on tinyshakespeare, in one thread.

python scripts/time_to_loss.py [--steps 2000] [--only Muon]

Both have 4 layers of width 128 and a context of 64, train on the same characters, and are scored by the mean over the
same random whole windows of validation. nanoGPT (https://github.com/karpathy/nanoGPT) is written here from its
description: GPT-2 without biases, and AdamW. Steps alternate, so that what others do on the machine slows both; times
are CPU seconds of training, without scoring. Prints the time of forward and backward alone, too. Exit code 1: the loss
is not reached in 40 % of the time.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from benchmark.data.base import data_root
from benchmark.data.text import TinyShakespeare
from benchmark.models.transformer.gpt import GPT
from benchmark.reference import loop_seconds
from benchmark.spec import DataSpec

LAYERS, HEADS, WIDTH, CONTEXT = 4, 4, 128, 64
WINDOWS = 800  # of validation
ALLOWED = 0.4  # of nanoGPT's time

Loss = Callable[[Tensor], Tensor]  # mean nats a token of windows `[B, T]`


class Layer(nn.Module):
    """GPT-2's, without biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mlp = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.projections, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.projections(self.before_attention(x)).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # [B, N, T, K]
        x = x + self.mix(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        y: Tensor = self.down(F.gelu(self.up(self.before_mlp(x))))
        return x + y


class NanoGPT(nn.Module):
    """Learned positions, LayerNorm before each layer, GELU; head and embedding are tied. A begin token comes first."""

    def __init__(self, spec: DataSpec, layers: int = LAYERS, heads: int = HEADS, width: int = WIDTH) -> None:
        super().__init__()
        self.begin = spec.levels
        self.token, self.place = nn.Embedding(spec.levels + 1, width), nn.Embedding(spec.dims, width)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                residual = name.endswith(("mix.weight", "down.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if residual else 0.02)

    def loss(self, x: Tensor) -> Tensor:
        stream = F.pad(x, (1, 0), value=self.begin)[:, :-1]
        y = self.norm(self.layers(self.token(stream) + self.place.weight[: x.shape[1]]))
        return F.cross_entropy(F.linear(y, self.token.weight[: self.begin]).flatten(0, 1), x.flatten())

    def optimiser(self) -> Optimizer:
        matrices = [p for p in self.parameters() if p.ndim == 2]
        vectors = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
        return AdamW(groups, lr=1e-3, betas=(0.9, 0.99), fused=True)


def cosine(step: int, steps: int) -> float:
    """nanoGPT's share of the learning rate: 100 steps of warm-up, then a cosine down to a tenth."""
    if step < 100:
        return (step + 1) / 101
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - 100) / (steps - 100)))


def linear(step: int, steps: int) -> float:
    """Ours: a twentieth of warm-up, then straight down to nothing."""
    return min(1.0, (step + 1) / (steps / 20), (1 - step / steps) / 0.9)


@dataclass
class Runner:
    """One model on its way."""

    name: str
    loss: Loss
    parameters: list[nn.Parameter]
    optimiser: Optimizer
    schedule: Callable[[int, int], float]
    batch_size: int
    steps: int
    clip: float = 0.0
    step: int = 0
    seconds: float = 0.0

    def advance(self, data: TinyShakespeare) -> None:
        x = data.batch(0, self.step, self.batch_size).x
        before = time.process_time()
        for group in self.optimiser.param_groups:
            group["lr"] = group.setdefault("peak", group["lr"]) * self.schedule(self.step, self.steps)
        self.optimiser.zero_grad()
        self.loss(x).backward()
        if self.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.clip)
        self.optimiser.step()
        self.step += 1
        self.seconds += time.process_time() - before


def nano(spec: DataSpec, steps: int) -> Runner:
    torch.manual_seed(0)
    net = NanoGPT(spec)
    return Runner("nanoGPT", net.loss, list(net.parameters()), net.optimiser(), cosine, 12, steps, clip=1.0)


def ours(spec: DataSpec, optimiser: str, batch_size: int, steps: int, rates: tuple[float, float]) -> Runner:
    """Our GPT under Muon and AdamW, or AdamW alone; `rates` of the blocks' matrices, and of embeddings and head."""
    torch.manual_seed(0)
    net = GPT(spec, LAYERS, HEADS, WIDTH, muon_learning_rate=rates[0], learning_rate=rates[1])
    chosen = net.configure_optimizers()
    if optimiser == "AdamW":
        inside = [p for block in net.blocks for p in block.parameters()]
        rest = [p for name, p in net.named_parameters() if not name.startswith("blocks.")]
        groups = [{"params": inside, "lr": rates[0]}, {"params": rest, "lr": rates[1]}]
        chosen = AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    parameters = list(net.parameters())
    return Runner(f"our GPT, {optimiser}", _loss_of(net), parameters, chosen, linear, batch_size, steps)


def _loss_of(net: GPT) -> Loss:
    return lambda x: -net.token_log_prob(x).mean()


@torch.no_grad()
def score(loss: Loss, data: TinyShakespeare) -> float:
    """Mean nats a token over random whole windows of validation, the same for all."""
    windows = data.split("validation").x.unfold(0, CONTEXT, 1)
    chosen = torch.randint(len(windows), (WINDOWS,), generator=torch.Generator().manual_seed(0))
    return float(torch.stack([loss(windows[part].long()) for part in chosen.split(100)]).mean())


def passes(rounds: int) -> Iterator[str]:
    """Milliseconds of forward and backward alone, at nanoGPT's recipe and for a larger model."""
    for layers, width, context, batch_size in ((4, 128, 64, 12), (4, 192, 128, 32)):
        spec = DataSpec((context,), 65, "sequence")
        theirs, mine = NanoGPT(spec, layers, HEADS, width), GPT(spec, layers, HEADS, width)
        for p in mine.parameters():
            if not p.any():  # projections that start at zero
                nn.init.normal_(p, std=0.02)
        x = torch.randint(65, (batch_size, context))
        spent: dict[str, list[float]] = {"nanoGPT": [], "ours": []}
        for _ in range(rounds):
            for name, net, loss in (("nanoGPT", theirs, theirs.loss), ("ours", mine, _loss_of(mine))):
                net.zero_grad()
                before = time.process_time()
                loss(x).backward()
                spent[name].append(time.process_time() - before)
        a, b = (1000 * sorted(times)[rounds // 4] for times in spent.values())
        yield f"forward and backward, {layers} x {width}, context {context}, batch {batch_size}: " + (
            f"nanoGPT {a:.1f} ms, ours {b:.1f} ms: {a / b:.2f} times as fast"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2000, help="of nanoGPT")
    parser.add_argument("--only", choices=["Muon", "AdamW"], help="train ours under this optimiser alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = TinyShakespeare(data_root(None), context=CONTEXT)
    runners = [nano(data.spec, arguments.steps)]
    settings = {"Muon": (12, 250, (0.03, 1e-2)), "AdamW": (6, 800, (3e-3, 1e-2))}
    for optimiser, (batch_size, steps, rates) in settings.items():
        if arguments.only in (None, optimiser):
            runners.append(ours(data.spec, optimiser, batch_size, steps * arguments.steps // 2000, rates))
    unfinished = list(runners)
    while unfinished:
        min(unfinished, key=lambda runner: runner.step / runner.steps).advance(data)
        unfinished = [runner for runner in unfinished if runner.step < runner.steps]
    print("model              batch   steps   nats/token   CPU seconds   of nanoGPT's")
    target, allowed = score(runners[0].loss, data), ALLOWED * runners[0].seconds
    reached = False
    for runner in runners:
        loss = score(runner.loss, data)
        share = runner.seconds / runners[0].seconds
        reached |= runner is not runners[0] and loss <= target and runner.seconds <= allowed
        figures = f"{loss:12.4f} {runner.seconds:13.1f} {share:14.1%}"
        print(f"{runner.name:<18} {runner.batch_size:5d} {runner.steps:7d} {figures}")
    for line in passes(40):
        print(line)
    print(f"ten million additions in a plain Python loop: {loop_seconds():.2f} s")
    return int(not reached)


if __name__ == "__main__":
    sys.exit(main())
