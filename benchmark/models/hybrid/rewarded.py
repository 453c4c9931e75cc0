"""A language model that is tuned to please a reward, by policy gradient, without straying too far from what it was.

Paper: Ahmadian, Cremer, Gallé, Fadaee, Kreutzer, Pietquin, Üstün and Hooker, "Back to Basics: Revisiting
REINFORCE-Style Optimization for Learning from Human Feedback in LLMs", ACL 2024, arXiv:2402.14740

Differences: rewards are functions of the text, not a model of preferences, and there is no prompt, so that the samples
of a whole batch are each other's baseline (Kool, van Hoof and Welling, "Buy 4 REINFORCE Samples, Get a Baseline for
Free!", 2019). Low-rank adapters alone are trained (Hu and others 2022, arXiv:2106.09685): without them the first stage
is what it was, and no second copy is kept.

A step draws whole texts from the policy as it is; batches of data say how many, and nothing else. The policy that
draws is the one that is scored: temperature 1, all tokens, a fixed length, no dropout; else the divergence from what it
was comes out negative. Its estimate stands in the reward: in the loss, its gradient would be that of something else.
Under bfloat16, draws and scores round differently: train it in float32.

Shapes: x [B, T] tokens; R, A [B] reward and advantage. Unit: nats a text.
"""

from __future__ import annotations

import math
from typing import Literal, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.optim import Optimizer

from benchmark.models.base import GenerativeModel
from benchmark.nn.low_rank import adapt, without_additions
from benchmark.nn.optim import adamw
from benchmark.nn.rewards import REWARDS
from benchmark.nn.sampling import draw
from benchmark.nn.transformer import Block, draw_normal, rotary_table
from benchmark.spec import (
    BadInput,
    Batch,
    DataSpec,
    Diagnosable,
    NonNegative,
    Rewarded,
    Sampler,
    Size,
    State,
    Stateful,
    TokenLikelihood,
)


@runtime_checkable
class Writes(TokenLikelihood, Protocol):
    """What can be tuned: it draws from the distribution that it scores."""

    @property
    def sampler(self) -> Sampler: ...

    def sample(self, n: int) -> Tensor: ...


class RewardTuned(GenerativeModel, TokenLikelihood, Rewarded, Diagnosable):
    """max over π of E_π[reward(x)] - β KL(π ‖ π₀): π is the first stage with additions to its matrices, π₀ without."""

    eager = ("first_stage",)  # which draws in each step: every length of its cache would be compiled

    def __init__(
        self,
        spec: DataSpec,
        first_stage: TokenLikelihood | None = None,  # None: a small one that nobody has trained
        reward: Literal["iambic", "exclaims"] = "iambic",  # share of lines with ten syllables; of lines that end with !
        kl_penalty: NonNegative = 0.02,  # β, in rewards a nat
        adapter_rank: Size = 8,  # of what is added to the matrices between embeddings and head
        learning_rate: NonNegative = 1e-3,
        weight_decay: NonNegative = 0.0,  # of both factors of what is added
    ) -> None:
        super().__init__(spec)
        if not spec.pieces:
            raise BadInput("rewarded: rewards are of text, and nothing says what tokens these are: take data of text")
        self.reward, self.beta = reward, kl_penalty
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        stage = self.first_stage = _tunable(Babbles(spec) if first_stage is None else first_stage)
        adapt(stage, _between_embeddings_and_head(stage, spec.levels), adapter_rank)
        self.frozen = tuple(name for name, p in self.named_parameters() if not p.requires_grad)
        if len(self.frozen) == len(list(self.parameters())):
            raise BadInput(f"rewarded: a {type(stage).__name__} has no matrix between embeddings and head to add to")

    # Policy and reward -----------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Writes:
        """π."""
        return cast("Writes", self.first_stage)

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        return self.policy.token_log_prob(x)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.token_log_prob(x).sum(1)

    def log_prob_before(self, x: Tensor) -> Tensor:
        with without_additions(self.first_stage):
            return self.log_prob(x)

    @property
    def reward_name(self) -> str:
        return self.reward

    def reward_of(self, x: Tensor) -> Tensor:
        return torch.tensor([REWARDS[self.reward](text) for text in self.texts(x)], device=x.device)

    def texts(self, x: Tensor) -> list[str]:
        """What tokens `x` `[B, T]` say."""
        return [b"".join(self.spec.pieces[token] for token in row).decode(errors="replace") for row in x.tolist()]

    # Promises --------------------------------------------------------------------------------------------------------

    @property
    def sampler(self) -> Sampler:
        return self.policy.sampler

    def sample(self, n: int) -> Tensor:
        return self.policy.sample(n)

    def sample_before(self, n: int) -> Tensor:
        with without_additions(self.first_stage):
            return self.sample(n)

    def diagnostics(self, x: Tensor) -> dict[str, float]:
        """Reward and KL divergence, in nats a token, of as many samples: a reward that is gamed goes far with both."""
        x = self.sample(len(x))
        log_ratio = self.log_prob(x) - self.log_prob_before(x)
        return {"reward": float(self.reward_of(x).mean()), "kl": float(log_ratio.mean()) / self.spec.dims}

    # How it learns ---------------------------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        self.first_stage.eval()  # the policy that draws has no dropout, and so is scored without
        with torch.no_grad():
            x = self.sample(len(batch.x))
            log_before = self.log_prob_before(x)
            reward = self.reward_of(x)
        log_p = self.log_prob(x)  # summed over tokens: a text is one action (section 3.1)
        log_ratio = (log_p - log_before).detach()
        A = advantages(reward - self.beta * log_ratio)
        return {
            "loss": -(A * log_p).mean(),
            "reward": reward.mean(),
            "kl": log_ratio.mean() / self.spec.dims,  # nats a token
            "entropy": -log_p.detach().mean() / self.spec.dims,
        }

    def configure_optimizers(self) -> Optimizer:
        return adamw(self, self.learning_rate, self.weight_decay)


def advantages(R: Tensor) -> Tensor:
    """Each of R `[B]` above the mean of the others (REINFORCE leave-one-out, section 2.3); R if it is alone."""
    others = max(1, len(R) - 1)
    return R - (R.sum() - R) / others


def _tunable(stage: TokenLikelihood) -> nn.Module:
    """The first stage. Raises `BadInput` for one that cannot be tuned."""
    name = type(stage).__name__
    if not isinstance(stage, nn.Module) or not isinstance(stage, Writes):
        raise BadInput(f"rewarded: a {name} does not promise TokenLikelihood: name a GPT, say")
    if isinstance(stage, Stateful):
        raise BadInput(f"rewarded: a {name} carries a state from text to text: name a GPT, say")
    if stage.sampler.name != "ancestral":
        raise BadInput(
            f"rewarded: the first stage draws by {stage.sampler.name!r}, from another distribution than it scores: "
            "give it temperature=1 top_k=0 top_p=1"
        )
    if any(map(is_parametrized, stage.modules())):
        raise BadInput(f"rewarded: this {name} has adapters already: go on from it with adapter_rank=0 first")
    return stage


def _between_embeddings_and_head(net: nn.Module, levels: int) -> list[nn.Module]:
    """The parts of a language model but those that read tokens, or score all `levels` of them."""
    return [
        part
        for part in net.children()
        if not isinstance(part, nn.Embedding) and not (isinstance(part, nn.Linear) and part.out_features == levels)
    ]


class Babbles(nn.Module, TokenLikelihood):
    """What stands in for a first stage: a block of a transformer that nobody has trained."""

    table: Tensor

    def __init__(self, spec: DataSpec, width: int = 16, heads: int = 2) -> None:
        super().__init__()
        self.dims, self.begin = spec.dims, spec.levels
        self.token = nn.Embedding(spec.levels + 1, width)
        self.block = Block(width, heads)
        self.head = nn.Linear(width, spec.levels)
        self.register_buffer("table", rotary_table(spec.dims, width // heads), persistent=False)
        draw_normal(self, std=1 / math.sqrt(width))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, T, V]` of tokens `x` `[B, T]`, each from those before it."""
        stream = F.pad(x.long(), (1, 0), value=self.begin)[:, :-1]
        y: Tensor = self.head(self.block(self.token(stream), self.table[: x.shape[1]]))
        return y

    def token_log_prob(self, x: Tensor, state: State | None = None) -> Tensor:
        log_p: Tensor = self(x).log_softmax(-1).gather(2, x.long()[..., None])[..., 0]
        return log_p

    @property
    def sampler(self) -> Sampler:
        return Sampler("ancestral", self.dims)

    @torch.no_grad()
    def sample(self, n: int) -> Tensor:
        x = torch.zeros(n, self.dims, dtype=torch.long, device=self.table.device)
        for t in range(self.dims):
            x[:, t] = draw(self(x[:, : t + 1])[:, t])
        return x
