"""Laws on what a model says of probabilities: likelihoods, bounds, and tokens."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from benchmark.spec import DataSpec, Rewarded, Structure
from benchmark.testing.judging import (
    SIGMAS,
    assert_frequencies_agree,
    elbo_draws,
    excess,
    importance_draws,
    until_precise,
    weighted_mean,
)
from benchmark.testing.subject import Subject, draw, log_likelihood, seeded
from benchmark.testing.universe import answers, every_example, every_reply, noise, prototypes, replying, ten_conditions

TOLERANCE = 1e-5  # nats: what one call computes for several rows agrees to this


def assert_overfits(subject: Subject) -> None:
    """One batch is learnt: its negative log-likelihood falls clearly below the start and below the uniform's."""
    spec = subject.universe.ordinary
    x = prototypes(spec).x
    with seeded(3):
        start = -float(log_likelihood(subject.fresh(spec), x).mean())
    goal = 0.6 * min(start, spec.dims * math.log(spec.levels))
    reached: list[float] = []

    def done(model: Any) -> bool:
        reached.append(-float(log_likelihood(model, x).mean()))
        return reached[-1] < goal

    assert subject.drill(spec, done), (
        f"one batch: {start:.1f} nats at first, {reached[-1]:.1f} at last, goal {goal:.1f}"
    )


def assert_normalised(subject: Subject) -> None:
    """Σₓ p(x) = 1 over every example, before and after a training that improved p, or at least its rewards."""
    source = subject.source
    cross_entropies = []
    for model in (subject.fresh(subject.universe.enumerable), subject.learned):
        log_p = log_likelihood(model, source.x)  # [N]
        total = float(log_p.exp().sum())
        assert abs(total - 1) < 1e-4, f"probabilities sum to {total:.6g}, expected 1"
        cross_entropies.append(-float((source.p * log_p).sum()))
    if not isinstance(subject.learned, Rewarded):  # which no data teach: `assert_pleases`
        assert cross_entropies[1] < cross_entropies[0] - 0.05, f"training did not move p: {cross_entropies} nats"


def assert_samples_follow_likelihood(subject: Subject) -> None:
    """The frequencies of samples are the probabilities, before and after training."""
    for model, n in ((subject.fresh(subject.universe.enumerable), 500), (subject.learned, 3000)):
        p = log_likelihood(model, subject.source.x).exp()
        assert_frequencies_agree(draw(model, n), p, subject.universe.enumerable)


def assert_is_a_bound(subject: Subject) -> None:
    """Σₓ exp E[elbo(x)] ≤ 1, and the source costs at least its entropy; the noise of the draws is allowed for."""
    elbo, source = subject.elbo, subject.source
    allowance = sum(excess(elbo)) + 1e-4
    total = float(elbo.mean(0).exp().sum())
    assert total <= 1 + allowance, f"exp of the bound sums to {total:.4g}, expected at most 1 + {allowance:.2g}"
    assert allowance < 0.5, f"the draws of the bound are too noisy to judge it (allowance {allowance:.2g})"
    nll, stderr = weighted_mean(-elbo, source.p)
    assert nll >= source.entropy - SIGMAS * stderr, f"the bound {nll:.4f} beats the entropy {source.entropy:.4f} nats"


def assert_importance_bound_tightens(subject: Subject) -> None:
    """One importance sample is the ELBO (in expectation), and more samples never loosen it."""
    model, source = subject.learned, subject.source
    with seeded(5), torch.no_grad():
        elbo, elbo_error = weighted_mean(elbo_draws(model, source.x, 256), source.p)
        bounds = [
            weighted_mean(importance_draws(model, source.x, k, draws), source.p)
            for k, draws in ((1, 256), (8, 32), (64, 16))
        ]
    (one, one_error), *_ = bounds
    allowed = SIGMAS * math.hypot(elbo_error, one_error) + 1e-4
    assert abs(elbo - one) < allowed, f"one importance sample gives {one:.4f} nats, the ELBO is {elbo:.4f}"
    for (loose, loose_error), (tight, tight_error) in pairwise(bounds):
        allowed = SIGMAS * math.hypot(loose_error, tight_error) + 1e-4
        assert tight > loose - allowed, f"more importance samples loosen the bound: {loose:.4f} to {tight:.4f} nats"


def assert_samples_follow_importance_bound(subject: Subject) -> None:
    """With many importance samples the bound is the likelihood: it sums to one, and samples follow it."""
    model, source = subject.learned, subject.source

    def error(log_p: Tensor) -> float:
        totals = log_p.exp().sum(1)  # [K]
        return float(totals.std()) / math.sqrt(len(totals))

    with seeded(6), torch.no_grad():
        draws = until_precise(lambda: importance_draws(model, source.x, 256, 4), error, 0.005, 16)  # [K, N]
    p = draws.exp().mean(0)  # [N]
    assert abs(p.sum() - 1) < 0.05, f"importance-weighted probabilities sum to {float(p.sum()):.4g}, expected 1"
    assert_frequencies_agree(draw(model, 2000), p, subject.universe.enumerable)


def assert_solver_is_fine_enough(subject: Subject) -> None:
    """Twice the evaluations of the network change the bound by less than its standard error over examples."""
    model, _ = subject.exercised
    x, evaluations = noise(model.spec, 0).x, model.solver().evaluations
    with torch.no_grad():
        usual, same, finer = (
            solved_under_a_seed(model, x, n) for n in (None, evaluations, 2 * evaluations)
        )  # [B] each
    assert torch.equal(usual, same), f"elbo is not what {evaluations} evaluations of the network solve"
    change, error = float((finer - usual).mean().abs()), float(usual.std()) / math.sqrt(len(x))
    assert change < error, f"{2 * evaluations} evaluations change the bound by {change:.3g} nats, more than {error:.3g}"


def solved_under_a_seed(model: Any, x: Tensor, evaluations: int | None) -> Tensor:
    """The bound `[B]` by so many evaluations (`None`: the model's own number), always of the same draw."""
    with seeded(7):
        bound: Tensor = model.elbo(x) if evaluations is None else model.solve(x, evaluations)
    return bound.double()


def assert_steps_sum(subject: Subject) -> None:
    """All steps together are -`elbo`, on average."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x[:1].expand(64, *[-1] * len(model.spec.shape))
    with seeded(5), torch.no_grad():
        costs = model.step_costs(x[:16])
        if 16 * len(costs) < 2**14:  # few steps say little of each example
            costs = model.step_costs(x[:1].expand(2**14 // len(costs), *x.shape[1:]))
        elbo = elbo_draws(model, x, 64).flatten()
    assert costs.ndim == 1, f"costs of steps have shape {tuple(costs.shape)}"
    total, mean, error = float(costs.double().sum()), float(elbo.mean()), float(elbo.std()) / math.sqrt(len(elbo))
    assert abs(total + mean) < SIGMAS * error + 0.02 * abs(total), (
        f"all steps together cost {total:.4g} nats, the bound is {mean:.4g} ± {error:.2g}"
    )


def assert_causal(subject: Subject) -> None:
    """Changing token t changes no log-probability before t, and some after it."""
    model, _ = subject.exercised
    _assert_causal(model.token_log_prob, noise(model.spec, 0).x[:1], model.spec, model.spec.levels)


def _assert_causal(log_prob: Callable[[Tensor], Tensor], x: Tensor, spec: DataSpec, levels: int) -> None:
    """The law for one example `x` `[1, *shape]`, whose tokens change within the first `levels`."""
    changed = x.flatten(1).repeat(spec.dims, 1)  # [T, T]: row t differs from x in token t
    changed.diagonal().add_(1).remainder_(levels)
    with torch.no_grad():
        log_p = log_prob(torch.cat([x, changed.reshape(-1, *spec.shape)]))  # [1 + T, T]
    assert log_p.shape == (1 + spec.dims, spec.dims), f"shape {tuple(log_p.shape)}, expected [B, {spec.dims}]"
    moved = (log_p[1:] - log_p[0]).abs() > TOLERANCE  # [changed token, whose log-probability]
    leaks = moved.tril(-1).nonzero().tolist()
    assert not leaks, f"(changed token, token whose prediction moved, though it comes before): {leaks[:5]}"
    ignored = (~moved.triu(1).any(1)[:-1]).nonzero().flatten().tolist()
    assert not ignored, f"nothing that comes after depends on tokens {ignored}"


def _assert_each_token_is_normalised(log_prob: Callable[[Tensor], Tensor], x: Tensor, spec: DataSpec) -> None:
    """For one example `x` `[1, *shape]`, whose other tokens stay."""
    x = x.flatten(1)  # [1, T]
    positions = torch.linspace(0, spec.dims - 1, min(spec.dims, 9)).long()  # [P], both ends among them
    variants = x.repeat(len(positions), spec.levels, 1)  # [P, L, T]: in [i, v] token positions[i] is v
    for row, t in zip(variants, positions, strict=True):
        row[:, t] = torch.arange(spec.levels)
    with torch.no_grad():
        log_p = log_prob(variants.reshape(-1, *spec.shape)).reshape(variants.shape)  # [P, L, T]
    totals = log_p.double().exp().sum(1).gather(1, positions[:, None])[:, 0]  # [P]
    worst = int((totals - 1).abs().argmax())
    assert abs(totals[worst] - 1) < 1e-4, f"all values of token {positions[worst]} sum to {totals[worst]:.6g}, not to 1"


def assert_tokens_normalised(subject: Subject) -> None:
    """Given the tokens before it, the probabilities of all values of a token sum to one."""
    model, _ = subject.exercised
    _assert_each_token_is_normalised(model.token_log_prob, noise(model.spec, 0).x[:1], model.spec)


# Replies: sequences that end, given a text ---------------------------------------------------------------------------


def _given(model: Any, condition: Tensor) -> Callable[[Tensor], Tensor]:
    """log p(token | tokens before it, condition) `[B, T]` of many replies under one condition `[S]`."""

    def log_prob(x: Tensor) -> Tensor:
        log_p: Tensor = model.token_log_prob_given(x, condition.expand(len(x), -1))
        return log_p

    return log_prob


def assert_replies_normalised(subject: Subject) -> None:
    """Under each condition the probabilities of all replies sum to one: those that end anywhere, and those that do not
    within their length."""
    spec = replying(subject.universe.enumerable)
    x, conditions = every_reply(spec), ten_conditions(spec)
    assert conditions is not None
    for model in (subject.fresh(spec), subject.replying[1]):
        for condition in conditions[:3]:
            with torch.no_grad():
                total = float(_given(model, condition)(x).double().sum(1).exp().sum())
            assert abs(total - 1) < 1e-4, f"probabilities of all replies sum to {total:.6g}, expected 1"


def assert_reply_causal(subject: Subject) -> None:
    """Changing token t of a reply changes no log-probability before t, and some after it."""
    model, _ = subject.replying
    batch = answers(model.spec, 0)
    assert batch.condition is not None
    x = torch.randint(model.spec.levels - 1, (1, model.spec.dims), generator=torch.Generator().manual_seed(0))
    _assert_causal(_given(model, batch.condition[0]), x, model.spec, model.spec.levels - 1)


def assert_reply_tokens_normalised(subject: Subject) -> None:
    """Given what was said and the tokens before it, the probabilities of all values of a token sum to one."""
    model, _ = subject.replying
    batch = answers(model.spec, 0)
    assert batch.condition is not None
    x = torch.randint(model.spec.levels - 1, (1, model.spec.dims), generator=torch.Generator().manual_seed(0))
    _assert_each_token_is_normalised(_given(model, batch.condition[0]), x, model.spec)


def assert_nothing_counts_after_an_end(subject: Subject) -> None:
    """What stands after an end has log-probability 0 exactly, and changes nothing before; the end itself is scored."""
    model, _ = subject.replying
    x, condition = answers(model.spec, 0)
    assert condition is not None
    after = (x == model.spec.end).long().cumsum(1) > 1  # [B, T]
    assert after.any()
    assert not after.all()
    other = torch.where(after, noise(model.spec, 1).x, x)
    with torch.no_grad():
        log_p, same = model.token_log_prob_given(x, condition), model.token_log_prob_given(other, condition)
    assert not log_p[after].any(), "what stands after an end has a log-probability that is not 0"
    assert not same[after].any(), "other tokens after an end have a log-probability that is not 0"
    assert (log_p[~after] < 0).all(), "an end, or what stands before it, costs nothing"
    torch.testing.assert_close(same, log_p, rtol=0, atol=TOLERANCE, msg="what stands after an end changes the score")


def assert_listens(subject: Subject, kind: Structure) -> None:
    """One batch is learnt: each reply becomes clearly likelier after what it replied to than after what others did."""
    spec = replying(subject.universe.ordinary)
    batch = answers(spec, 0)
    gains: list[float] = []

    def done(model: Any) -> bool:
        assert batch.condition is not None
        own, other = (
            float(model.token_log_prob_given(batch.x, condition).sum(1).mean())
            for condition in (batch.condition, batch.condition.roll(1, 0))
        )
        gains.append(own - other)
        return gains[-1] > 1

    assert subject.drill(spec, done, batch), f"what was said makes replies likelier by {gains[-1]:.2f} nats, expected 1"


def assert_replies_follow_likelihood(subject: Subject) -> None:
    """The frequencies of replies to one condition are their probabilities, and nothing is said after an end."""
    spec = replying(subject.universe.enumerable)
    x, conditions = every_example(spec), ten_conditions(spec)
    assert conditions is not None
    is_reply = (x[:, None] == every_reply(spec)).all(2).any(1)
    for model, n in ((subject.fresh(spec), 500), (subject.replying[1], 2000)):
        with seeded(0), torch.no_grad():
            p = _given(model, conditions[0])(x).double().sum(1).exp() * is_reply
            samples = model.sample_given(conditions[:1].expand(n, -1))
        assert_frequencies_agree(samples, p, spec)


def assert_pseudo_normalised(subject: Subject) -> None:
    """Given all other tokens, the probabilities of all values of a token sum to one. They depend on the others, and not
    on itself, nor on what else is asked for."""
    model, _ = subject.exercised
    x, ends = noise(model.spec, 0).x.flatten(1)[:1], torch.tensor([model.spec.dims - 1, 0])

    def asked(x: Tensor, places: Tensor) -> Tensor:
        with torch.no_grad():
            log_p: Tensor = model.pseudo_log_probs(x.reshape(-1, *model.spec.shape), places)
        return log_p[0]  # [P, V]

    log_p = asked(x, ends)
    totals = log_p.double().exp().sum(1)
    assert ((totals - 1).abs() < 1e-4).all(), f"all values of tokens sum to {totals.tolist()}, not to 1"
    for row, place in zip(log_p, ends, strict=True):
        changed = x.clone()
        changed[:, place] = (changed[:, place] + 1) % model.spec.levels
        again = asked(changed, place[None])
        assert torch.allclose(again[0], row, rtol=1e-4, atol=1e-4), f"token {place} is among what it is foretold from"
        others = (x + 1) % model.spec.levels
        assert not torch.allclose(asked(others, place[None])[0], row, atol=1e-6), f"token {place} hears no other"


def assert_tokens_sum(subject: Subject) -> None:
    """Where a model promises both, the tokens' log-probabilities sum to the example's."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x
    with torch.no_grad():
        torch.testing.assert_close(model.token_log_prob(x).sum(1), model.log_prob(x), rtol=1e-5, atol=1e-3)


def assert_prefix_agrees(subject: Subject) -> None:
    """A shorter text has the same log-probabilities as far as it goes."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x  # [B, T]
    with torch.no_grad():
        whole = model.token_log_prob(x)
        for length in (1, x.shape[1] // 2):
            part = model.token_log_prob(x[:, :length])
            torch.testing.assert_close(part, whole[:, :length], rtol=1e-4, atol=1e-4)


def assert_carries_state(subject: Subject) -> None:
    """Two halves with the state carried over are one pass."""
    model, _ = subject.exercised
    x = noise(model.spec, 0).x.flatten(1)  # [B, T]
    half = x.shape[1] // 2
    with torch.no_grad():
        whole = model.token_log_prob(x, model.initial_state(len(x)))
        state = model.initial_state(len(x))
        halves = [model.token_log_prob(x[:, :half], state), model.token_log_prob(x[:, half:], state)]
        alone = model.token_log_prob(x[:, half:], model.initial_state(len(x)))
    torch.testing.assert_close(torch.cat(halves, 1), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.token_log_prob(x).detach(), whole, rtol=1e-4, atol=1e-4)
    assert (alone - halves[1]).abs().max() > TOLERANCE, "the state makes no difference"
