"""What a model earns that was tuned to please a reward, and how far it went for it from what it was before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmark.metrics.fidelity import over_draws
from benchmark.metrics.probe import Found, Probe, metric
from benchmark.metrics.session import Session, draw_samples, how_drawn
from benchmark.metrics.writing import windows
from benchmark.spec import Estimate, Rewarded


@dataclass(frozen=True)
class Earnings:
    """Rewards `[n]` draw by draw, of the model and of what it was, and of held-out text; and nats a token `[n]`, draw
    by draw, by which the model finds its own samples likelier than it did before."""

    now: Sequence[Tensor]
    before: Sequence[Tensor]
    held_out: Tensor
    gained: Sequence[Tensor]


class Earned(Probe[Earnings]):
    """A few independent draws of samples, and as many from the same noise of the model before it was tuned."""

    key = "earned"
    says = ("split", "generated", "length", "reward", "how")
    promises = (Rewarded,)

    def collect(self, session: Session) -> Found[Earnings]:
        model, protocol = session.model, session.protocol
        held_out = windows(session, session.split)
        n, draws = len(held_out), range(protocol.sample_draws)
        drawn = [draw_samples(model, n, protocol.seed, draw) for draw in draws]
        before = [draw_samples(model, n, protocol.seed, draw, model.sample_before) for draw in draws]

        def score(fn: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
            with torch.no_grad():
                return session.batched(fn, x, "earned", draws=False)

        evidence = Earnings(
            [score(model.reward_of, x) for x in drawn],
            [score(model.reward_of, x) for x in before],
            score(model.reward_of, held_out),
            [score(lambda x: (model.log_prob(x) - model.log_prob_before(x)) / x.shape[1], x) for x in drawn],
        )
        said = {"split": protocol.split, "generated": n, "length": held_out.shape[1], "reward": model.reward_name}
        return Found(evidence, said | session.data.said_of_tokens | {"how": how_drawn(model, len(drawn))})


@metric(Earned)
def mean_reward(earnings: Earnings) -> Estimate:
    """Mean reward of samples. The error is over draws."""
    return _over_draws(earnings.now)


@metric(Earned)
def reward_before(earnings: Earnings) -> Estimate:
    """Mean reward of samples of the model before it was tuned. The error is over draws."""
    return _over_draws(earnings.before)


@metric(Earned)
def reward_of_text(earnings: Earnings) -> Estimate:
    """Mean reward of windows of held-out text, which are taken as they are: no error."""
    return _over_draws([earnings.held_out])


@metric(Earned)
def kl_before(earnings: Earnings) -> Estimate:
    """KL divergence from the model before it was tuned, in nats a token, by samples. The error is over draws."""
    return _over_draws(earnings.gained)


def _over_draws(draws: Sequence[Tensor]) -> Estimate:
    return over_draws([float(one.mean()) for one in draws], len(draws[0]))
