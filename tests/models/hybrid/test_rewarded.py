"""What is special to tuning on a reward: its gradient, the pull back to what the model was, and whom it can tune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import carry_out
from safetensors.torch import load_file
from torch import Tensor, nn

from benchmark.build import restore
from benchmark.models.autoregressive.lstm import LSTM
from benchmark.models.hybrid.rewarded import Babbles, RewardTuned, advantages
from benchmark.models.transformer.bert import BERT
from benchmark.models.transformer.gpt import GPT
from benchmark.record import read_record
from benchmark.spec import BadInput, Batch, DataSpec
from benchmark.testing import every_example
from benchmark.train.compiled import compilable

#: 81 texts, of which some have a line of ten syllables and some one that ends with "!".
TEXT = DataSpec((4,), 3, "sequence", pieces=(b"\n", b" Now is the winter of our discontent", b"!"))
X = every_example(TEXT)


def tuned(first_stage: Any = None, away: float = 0.0, **options: Any) -> RewardTuned:
    """A model whose additions are drawn, with this standard deviation."""
    torch.manual_seed(0)
    model = RewardTuned(TEXT, first_stage, adapter_rank=2, **options)
    for name, p in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(p, std=away)
    return model


def trained(model: RewardTuned, steps: int, n: int = 64) -> RewardTuned:
    optimizer = model.configure_optimizers()
    for step in range(steps):
        optimizer.zero_grad()
        model.training_step(batch(n), step)["loss"].backward()
        optimizer.step()
    return model


def batch(n: int) -> Batch:
    return Batch(torch.zeros(n, TEXT.dims, dtype=torch.long))


def objective(model: RewardTuned, beta: float) -> Tensor:
    """E[reward] - β KL, over every text."""
    log_p, log_before = model.log_prob(X), model.log_prob_before(X).detach()
    value: Tensor = (log_p.exp() * (model.reward_of(X) - beta * (log_p - log_before))).sum()
    return value


def gradient(model: RewardTuned, of: Tensor) -> Tensor:
    return torch.cat(
        [one.flatten() for one in torch.autograd.grad(of, [p for p in model.parameters() if p.requires_grad])]
    )


def expected_reward(model: RewardTuned) -> float:
    with torch.no_grad():
        return float((model.log_prob(X).exp() * model.reward_of(X)).sum())


def divergence(model: RewardTuned) -> float:
    """KL from what it was, over every text, in nats a text."""
    with torch.no_grad():
        log_p = model.log_prob(X)
        return float((log_p.exp() * (log_p - model.log_prob_before(X))).sum())


# The gradient --------------------------------------------------------------------------------------------------------


def test_the_gradient_of_samples_is_that_of_reward_and_divergence() -> None:
    """Along its own direction and others drawn at random; that of the reward alone is another one, which is noticed."""
    beta = 0.3
    model = tuned(away=0.3, kl_penalty=beta)
    exact, of_reward = gradient(model, objective(model, beta)), gradient(model, objective(model, 0.0))
    torch.manual_seed(1)
    drawn = torch.stack([-gradient(model, model.training_step(batch(64), 0)["loss"]) for _ in range(80)])
    directions = torch.stack([exact, exact - of_reward, *torch.randn(6, len(exact))])
    along = drawn @ directions.T  # [80, 8]
    error = along.std(0) / len(along) ** 0.5
    assert ((along.mean(0) - directions @ exact).abs() < 4.5 * error).all()
    assert (along.mean(0) - directions @ of_reward).abs()[1] > 10 * error[1]


def test_the_baseline_adds_no_bias() -> None:
    """Over all pairs of texts, each with its probability: two samples are the fewest that have a baseline."""
    model = tuned(away=0.3)
    p, R = model.log_prob(X).exp().detach(), model.reward_of(X)
    A = torch.stack([advantages(torch.stack([one.expand(len(R)), R], 1)[k])[0] for one in R for k in range(len(R))])
    weights = p * (A.view(len(R), len(R)) @ p)  # of each text's log-probability
    estimated = gradient(model, (weights * model.log_prob(X)).sum())
    torch.testing.assert_close(estimated, gradient(model, objective(model, 0.0)), rtol=1e-4, atol=1e-6)


def test_an_advantage_is_what_a_sample_earns_above_the_others() -> None:
    assert advantages(torch.tensor([1.0, 0.0, 0.5])).tolist() == [0.75, -0.75, 0.0]
    assert advantages(torch.tensor([2.0])).tolist() == [2.0], "alone"


# What training does --------------------------------------------------------------------------------------------------


def test_the_policy_that_draws_is_the_one_that_is_scored() -> None:
    """At first nothing has changed, whatever the dropout of the first stage; later the mean of samples is the KL."""
    gpt = GPT(TEXT, layers=1, heads=2, width=8, dropout=0.5, initial_weights="normal")
    found = tuned(gpt).train().training_step(batch(32), 0)
    assert float(found["kl"]) == 0.0
    model = tuned(away=0.3)
    torch.manual_seed(2)
    x = model.sample(4000)
    with torch.no_grad():
        log_ratio = model.log_prob(x) - model.log_prob_before(x)
    error = float(log_ratio.std()) / len(x) ** 0.5
    assert float(log_ratio.mean()) == pytest.approx(divergence(model), abs=4.5 * error)
    assert divergence(model) > 20 * error, "it is far away"


def test_a_free_policy_earns_all_and_one_held_fast_stays_where_it_was() -> None:
    start = tuned()
    free = trained(tuned(kl_penalty=0.0, learning_rate=0.01), 40)
    fast = trained(tuned(kl_penalty=100.0, learning_rate=0.001), 40)
    assert expected_reward(start) < 0.5
    assert expected_reward(free) > 0.9
    assert divergence(free) > 0.5
    assert divergence(fast) < 0.01
    assert expected_reward(fast) == pytest.approx(expected_reward(start), abs=0.05)


def test_additions_alone_are_trained_and_what_it_was_stays() -> None:
    model = tuned()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with torch.no_grad():
        was = model.log_prob_before(X)
    trained(model, 5)
    moved = {name for name, p in model.state_dict().items() if not torch.equal(p, before[name])}
    assert moved == {name for name in before if name.endswith(("0.A", "0.B"))}
    assert len(moved) == 8, "four matrices of the block"
    with torch.no_grad():
        assert torch.equal(model.log_prob_before(X), was)


def test_nothing_that_draws_is_compiled() -> None:
    assert not compilable(tuned(GPT(TEXT, layers=2, heads=2, width=8)))


def test_batches_of_data_say_how_many_and_nothing_else() -> None:
    losses = []
    for value in (0, 2):
        torch.manual_seed(3)
        losses.append(tuned(away=0.3).training_step(Batch(torch.full((8, 4), value)), 0)["loss"])
    assert torch.equal(*losses)


def test_texts_are_what_tokens_say_together() -> None:
    """A letter of two bytes may be two tokens; half of one is no letter."""
    spec = DataSpec((4,), 4, "sequence", pieces=(b"\n", b"\xc3", b"\xa9", b"O!"))
    model = RewardTuned(spec, reward="exclaims")
    x = torch.tensor([[0, 1, 2, 0], [0, 1, 3, 0], [0, 3, 2, 0]])
    assert model.texts(x) == ["\né\n", "\n\ufffdO!\n", "\nO!\ufffd\n"]
    assert model.reward_of(x).tolist() == [0, 1, 0]


# Whom it can tune ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (lambda: BERT(TEXT, layers=1, heads=2, width=8, steps=4), "a BERT does not promise TokenLikelihood"),
        (lambda: LSTM(TEXT, layers=1, width=8), "a LSTM carries a state from text to text: name a GPT, say"),
        (lambda: GPT(TEXT, layers=1, heads=2, width=8, temperature=0.7), "draws by 'ancestral, temperature 0.7'"),
        (lambda: GPT(TEXT, layers=1, heads=2, width=8, top_k=2), "draws by 'ancestral, top-k 2'"),
        (lambda: GPT(TEXT, layers=1, heads=2, width=8, adapter_rank=1), "this GPT has adapters already"),
        (lambda: _without_matrices(), "a Babbles has no matrix between embeddings and head"),
    ],
)
def test_a_first_stage_that_cannot_be_tuned_is_refused(stage: Any, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        tuned(stage())


def _without_matrices() -> Babbles:
    model = Babbles(TEXT)
    model.block = nn.Identity()  # type: ignore[assignment]
    return model


def test_tokens_that_say_nothing_are_refused() -> None:
    with pytest.raises(BadInput, match="nothing says what tokens these are"):
        RewardTuned(DataSpec((4,), 3, "sequence"))


@pytest.mark.usefixtures("unscored")
def test_a_run_takes_over_its_first_stage_and_comes_back_whole(tmp_path: Path) -> None:
    folder = carry_out(tmp_path, "rewarded", "budget.examples=32", "training.validations=1")
    (first,) = (tmp_path / "pydocs" / "gpt").iterdir()
    whole, base = load_file(folder / "model.safetensors"), load_file(first / "model.safetensors")
    parts = {name.replace(".parametrizations", "").removesuffix(".original"): value for name, value in whole.items()}
    assert all(torch.equal(parts[f"first_stage.{name}"], value) for name, value in base.items())
    added = [value for name, value in whole.items() if name.endswith(("0.A", "0.B"))]
    assert len(added) == 8
    assert read_record(folder).scores["parameters"].value == sum(value.numel() for value in added)
    (_, data, model), (_, _, gpt) = restore(folder), restore(first)
    assert isinstance(model, RewardTuned)
    assert isinstance(gpt, GPT)
    x = data.split("test").examples(data.spec.shape)[:2].long()
    with torch.no_grad():
        assert torch.equal(model.log_prob_before(x), gpt.log_prob(x))
