"""LSTM: token after token, with a memory that reaches back past the window.

Paper: Zaremba, Sutskever and Vinyals, "Recurrent Neural Network Regularization", arXiv preprint 2014, arXiv:1409.2329

Differences: AdamW in place of plain gradient descent. Where the data are contiguous, the state after one batch is where
the next one starts, and gradients end at the border (truncated backpropagation through time, Williams and Peng, "An
Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network Trajectories", Neural Computation 1990). A
few rows forget theirs at each step, so that the model also learns how a text begins that it knows nothing before.

Shapes: x [B, T] tokens; V vocabulary; N layers; D width; h, c [N, B, D] outputs and memory cells. Unit: nats.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.optim import adamw
from benchmark.nn.sampling import Drawing
from benchmark.spec import (
    Batch,
    Count,
    DataSpec,
    Diagnosable,
    Likelihood,
    NonNegative,
    Positive,
    Probability,
    Sampler,
    Share,
    Size,
    State,
    Stateful,
)


class LSTM(GenerativeModel, Likelihood, Stateful, Diagnosable):
    """p(x) = Π p(x_t | x_<t): each token under a softmax of what a recurrent network remembers of those before it."""

    def __init__(
        self,
        spec: DataSpec,
        layers: Size = 2,
        width: Size = 256,  # D, of embeddings and of every layer
        dropout: Share = 0.1,  # between layers, never from one time to the next
        forget: Share = 0.02,  # share of rows whose state is dropped at each step, where batches are contiguous
        learning_rate: NonNegative = 3e-3,
        weight_decay: NonNegative = 0.0,
        temperature: Positive = 1.0,  # of the sampler
        top_k: Count = 0,  # draw among the k likeliest alone; 0: all
        top_p: Probability = 1.0,  # and of these among the fewest that have so much probability
    ) -> None:
        super().__init__(spec)
        self.forget, self.learning_rate, self.weight_decay = forget, learning_rate, weight_decay
        self.draw = Drawing(temperature, top_k, top_p)
        self.begin = spec.levels  # the token before the first
        self.token = nn.Embedding(spec.levels + 1, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, spec.levels)
        self.carried: State | None = None  # of training, after the last batch

    # The model -------------------------------------------------------------------------------------------------------

    def initial_state(self, n: int) -> State:
        zeros = self.head.weight.new_zeros(self.lstm.num_layers, n, self.lstm.hidden_size)
        return {"token": torch.full((n,), self.begin, device=self.device), "h": zeros, "c": zeros}

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        state = self.initial_state(len(x)) if state is None else state
        x = x.long()
        logits = self(torch.cat([state["token"][:, None], x[:, :-1]], 1), state).float()  # [B, T, V]
        state["token"] = x[:, -1]
        return -F.cross_entropy(logits.transpose(1, 2), x, reduction="none")

    def forward(self, stream: Tensor, state: State) -> Tensor:
        """Logits `[B, T, V]` of the tokens that follow each of `stream` `[B, T]`; advances `h` and `c` of `state`."""
        y, (state["h"], state["c"]) = self.lstm(self.dropout(self.token(stream)), (state["h"], state["c"]))
        logits: Tensor = self.head(self.dropout(y))
        return logits

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Share of the last layer's outputs that saturate: there, gradients vanish."""
        state = self.initial_state(len(x))
        y, _ = self.lstm(self.token(x), (state["h"], state["c"]))  # [B, T, D]
        return {"saturation": float((y.abs() > 0.95).float().mean())}

    # Sampling --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return Sampler(self.draw.named("ancestral"), self.spec.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        state = self.initial_state(n)
        tokens = [state["token"]]
        for _ in range(self.spec.dims):
            logits = self(tokens[-1][:, None], state)[:, 0].float()  # [n, V]
            tokens.append(self.draw(logits))
        return torch.stack(tokens[1:], 1)

    # Learning --------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        state = self._state_before(len(batch.x))
        loss = -self.token_log_prob(batch.x, state).mean()  # nats a token
        if self.spec.contiguous:
            self.carried = {name: value.detach() for name, value in state.items()}
        return {"loss": loss}

    def _state_before(self, n: int) -> State:
        """Where the last batch ended, for all rows but the few that forget it; else the state before any text."""
        initial = self.initial_state(n)
        if self.carried is None:
            return initial
        carried = {name: value.to(self.device) for name, value in self.carried.items()}
        forgets = torch.rand(n, device=self.device) < self.forget  # [B]
        kept = {name: carried[name].masked_fill(forgets[:, None], 0.0) for name in ("h", "c")}  # [N, B, D]
        return {"token": torch.where(forgets, initial["token"], carried["token"]), **kept}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["carried"] = self.carried

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.carried = checkpoint["carried"]

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)
