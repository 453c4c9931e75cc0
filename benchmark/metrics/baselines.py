"""What knowing next to nothing scores: log-probabilities under counts of the training split.

Every count is smoothed with one pseudo-count a level (Laplace), so that no test example has probability zero.
Each takes a training and a test split and the number of levels. Images `[N, C, H, W]` give `[N]` nats an example;
token streams `[N]` give `[N]` nats a token.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def _log_frequencies(counts: Tensor) -> Tensor:
    """Smoothed log-frequencies of `counts` `[..., L]`, normalised over the last dimension."""
    smoothed = counts.double() + 1
    return smoothed.log() - smoothed.sum(-1, keepdim=True).log()


def uniform(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every level of every pixel is equally likely. `train` is not looked at."""
    return torch.full((len(test),), -math.log(levels) * test[0].numel(), dtype=torch.float64)


def histogram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every pixel is an independent draw from one histogram of all pixels."""
    log_p = _log_frequencies(torch.bincount(train.flatten().long(), minlength=levels))  # [L]
    return log_p[test.long()].flatten(1).sum(1)  # [N]


def pixel_histogram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every pixel is an independent draw from a histogram of its own."""
    log_p = _pixel_log_frequencies(train, levels)
    return log_p[torch.arange(len(log_p)), test.flatten(1).long()].sum(1)  # [N]


def draw_pixel_histogram(train: Tensor, n: int, levels: int) -> Tensor:
    """`n` images `[n, C, H, W]` from the distribution that `pixel_histogram` scores, by torch's global generator."""
    p = _pixel_log_frequencies(train, levels).exp()
    return torch.multinomial(p, n, replacement=True).T.reshape(n, *train.shape[1:])


def _pixel_log_frequencies(train: Tensor, levels: int) -> Tensor:
    """Of each level of each pixel, `[D, L]`."""
    dims = train[0].numel()
    cell = torch.arange(dims) * levels  # [D]: where each pixel's histogram begins
    counts = torch.bincount((train.flatten(1).long() + cell).flatten(), minlength=dims * levels)
    return _log_frequencies(counts.view(dims, levels))


def unigram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every token is an independent draw from one histogram."""
    return _log_frequencies(torch.bincount(train.long(), minlength=levels))[test.long()]  # [N]


def bigram(train: Tensor, test: Tensor, levels: int) -> Tensor:
    """Every token depends on the one before it; the first is drawn from the unigram."""
    before, after = train[:-1].long(), train[1:].long()
    counts = torch.bincount(before * levels + after, minlength=levels * levels).view(levels, levels)
    pairs = _log_frequencies(counts)[test[:-1].long(), test[1:].long()]  # [N-1]
    return torch.cat([unigram(train, test[:1], levels), pairs])


def images(train: Tensor, test: Tensor, levels: int) -> dict[str, Tensor]:
    """Every baseline of images, by name: `[N]` nats an example."""
    return {fn.__name__: fn(train, test, levels) for fn in (uniform, histogram, pixel_histogram)}


def text(train: Tensor, test: Tensor, levels: int) -> dict[str, Tensor]:
    """Every baseline of token streams, by name: `[N]` nats a token."""
    return {fn.__name__: fn(train, test, levels) for fn in (uniform, unigram, bigram)}
