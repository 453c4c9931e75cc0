"""Draws of an evaluation are those of the CPU, wherever the model is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from known_data import data_of
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, Normal
from torch.overrides import TorchFunctionMode

from benchmark.metrics import keyed
from benchmark.metrics.keyed import DrawnOnCpu, drawn_on_cpu, keyed_randomness
from benchmark.metrics.session import Experts, Protocol, Session
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.models.diffusion.vdm import VDM
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.gan.sngan import SNGAN
from benchmark.models.transformer.gpt import GPT
from benchmark.models.vae.vae import VAE
from benchmark.spec import DataSpec

CPU, META = torch.device("cpu"), torch.device("meta")
IMAGES = DataSpec((1, 8, 8), 17, "grid")


def given(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(7))


P = given(300, 65)
LAID_OUT = given(8, 4, 6, 6).contiguous(memory_format=torch.channels_last)

DRAWS: dict[str, tuple[Any, ...]] = {
    "randn": (torch.randn, (3, 50), {}),
    "rand, of a size": (torch.rand, ((1000,),), {"dtype": torch.float64}),
    "randint": (torch.randint, (7, (100,)), {}),
    "randperm": (torch.randperm, (100,), {}),
    "randn_like, in its layout": (torch.randn_like, (LAID_OUT,), {}),
    "rand_like": (torch.rand_like, (LAID_OUT,), {"dtype": torch.float64}),
    "randint_like": (torch.randint_like, (LAID_OUT, 9), {}),
    "multinomial": (torch.multinomial, (P, 1), {}),
    "multinomial, one with replacement": (torch.multinomial, (P, 1, True), {}),
    "multinomial, several": (torch.multinomial, (P, 3), {}),
    "multinomial, several with replacement": (torch.multinomial, (P, 3), {"replacement": True}),
    "multinomial, a method": (Tensor.multinomial, (P.double(),), {"num_samples": 1}),
    "multinomial, strided": (torch.multinomial, (P.T, 1), {}),
    "bernoulli": (torch.bernoulli, (P,), {}),
    "bernoulli, in its layout": (torch.bernoulli, (LAID_OUT,), {}),
    "bernoulli, half": (torch.bernoulli, (P.bfloat16(),), {}),
    "bernoulli, a number": (torch.bernoulli, (P, 0.3), {}),
    "normal": (torch.normal, (P, given(65)), {}),
    "normal, spread a number": (torch.normal, (P, 2.0), {}),
    "normal, mean a number": (torch.normal, (0.5, P), {}),
    "normal, by name": (torch.normal, (), {"mean": P, "std": P}),
    "normal, of a size": (torch.normal, (0.0, 2.0, (4, 20)), {}),
    "poisson": (torch.poisson, (5 * P,), {}),
    "in place": (Tensor.normal_, (LAID_OUT.clone(), 1.0, 2.0), {}),
    "in place, exponential": (Tensor.exponential_, (LAID_OUT.clone(),), {}),
    "in place, bernoulli": (Tensor.bernoulli_, (P.clone(), given(65)), {}),
}


def seeded(draw: Callable[[], Any]) -> tuple[Tensor, Tensor]:
    """What a function draws from a fixed start, and the state that it leaves."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return draw().clone(), torch.get_rng_state()


@pytest.mark.parametrize("name", DRAWS)
def test_each_way_to_draw_gives_the_same_by_way_of_the_cpu(name):
    func, args, kwargs = DRAWS[name]
    straight, after = seeded(lambda: func(*args, **kwargs))
    sent, after_too = seeded(lambda: drawn_on_cpu(CPU, func, *args, **kwargs))
    assert torch.equal(straight, sent)
    assert straight.dtype == sent.dtype
    assert straight.stride() == sent.stride()
    assert torch.equal(after, after_too)  # what comes next is the same too


#: What needs the values of its tensors, which `meta` does not have.
OF_VALUES = ("multinomial", "poisson", "bernoulli, a number", "in place, bernoulli")


@pytest.mark.parametrize("name", [name for name in DRAWS if not name.startswith(OF_VALUES)])
def test_what_is_elsewhere_comes_from_the_generator_of_the_cpu(name):
    func, args, kwargs = DRAWS[name]
    if "like" not in name and not any(isinstance(x, Tensor) for x in (*args, *kwargs.values())):
        kwargs = kwargs | {"device": META}
    away = [x.to("meta") if isinstance(x, Tensor) else x for x in args]
    kwargs_away = {key: x.to("meta") if isinstance(x, Tensor) else x for key, x in kwargs.items()}
    _, after = seeded(lambda: func(*args, **{key: x for key, x in kwargs.items() if key != "device"}))
    with DrawnOnCpu():
        drawn, after_too = seeded(lambda: func(*away, **kwargs_away))
    assert drawn.device == META
    assert torch.equal(after, after_too)


def test_probabilities_that_are_none_are_refused_as_torch_refuses_them():
    broken = torch.tensor([[0.5, torch.nan]])
    with pytest.raises(RuntimeError, match="probability tensor"):
        torch.multinomial(broken, 1)
    with pytest.raises(RuntimeError, match="probability tensor"):
        drawn_on_cpu(CPU, torch.multinomial, broken, 1)


class Everywhere(TorchFunctionMode):
    """Draws as on another device, on this one."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in keyed._DRAWS:
            self.sent += 1
            return drawn_on_cpu(CPU, func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("cls", [VAE, SNGAN, RealNVP, VDM, FlowMatching, GPT])
def test_models_sample_the_same_by_way_of_the_cpu(cls):
    spec = DataSpec((16,), 5, "sequence") if cls is GPT else IMAGES
    model = cls(spec).eval()
    with torch.no_grad():
        straight, _ = seeded(lambda: model.sample(3))
        with Everywhere() as mode:
            sent, _ = seeded(lambda: model.sample(3))
    assert mode.sent > 0
    assert torch.equal(straight, sent)


@pytest.mark.parametrize(
    "draw",
    [
        lambda p: Normal(p, p + 1).sample((2,)),
        lambda p: Normal(p, p + 1).rsample(),
        lambda p: Bernoulli(p).sample(),
        lambda p: Categorical(p).sample(),
        lambda p: Categorical(p).sample((3,)),
    ],
)
def test_distributions_draw_the_same_by_way_of_the_cpu(draw):
    straight, _ = seeded(lambda: draw(P))
    with Everywhere() as mode:
        sent, _ = seeded(lambda: draw(P))
    assert mode.sent > 0
    assert torch.equal(straight, sent)


@pytest.mark.parametrize("cls", [VAE, RealNVP, VDM, FlowMatching])
def test_a_bound_draws_the_same_by_way_of_the_cpu(cls):
    model, x = cls(IMAGES).eval(), torch.randint(17, (2, 1, 8, 8))
    with torch.no_grad():
        straight, _ = seeded(lambda: model.elbo(x))
        with Everywhere():
            sent, _ = seeded(lambda: model.elbo(x))
    assert torch.equal(straight, sent)


@pytest.mark.parametrize("cls", [SNGAN, RealNVP])
def test_a_model_elsewhere_takes_as_many_numbers_from_the_generator_of_the_cpu(cls):
    model = cls(IMAGES).eval()
    states = []
    for device in (CPU, META):
        model.to(device)
        with torch.no_grad(), keyed_randomness(device, 0, "samples"):
            assert model.sample(3).device == device
            states.append(torch.get_rng_state())
    assert torch.equal(*states)


def test_a_draw_with_a_generator_of_its_own_is_left_alone():
    generator = torch.Generator().manual_seed(3)
    with keyed_randomness(META, 0), DrawnOnCpu():
        before = torch.get_rng_state()
        torch.randn(3, generator=generator)
        assert torch.equal(before, torch.get_rng_state())


def test_the_same_key_draws_the_same_and_leaves_the_generator_as_it_was():
    before = torch.get_rng_state()
    drawn = []
    for key in ("a", "a", "b"):
        with keyed_randomness(CPU, 0, key):
            drawn.append(torch.randn(4))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert torch.equal(before, torch.get_rng_state())


def test_a_draw_that_a_gpu_makes_itself_is_refused(monkeypatch):
    states = itertools.count()
    monkeypatch.setattr(keyed, "generator_state", lambda device: torch.tensor(next(states)))  # it moves on
    with pytest.raises(RuntimeError, match="generator of meta"), keyed_randomness(META, 0):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
class TestOnGpu:
    def test_dropout_in_training_is_refused(self):
        device = torch.device("cuda", 0)
        with pytest.raises(RuntimeError, match="generator of cuda"), keyed_randomness(device, 0):
            torch.nn.functional.dropout(torch.ones(100, device=device), 0.5, training=True)

    @pytest.mark.parametrize("cls", [VAE, SNGAN, RealNVP, VDM, FlowMatching, GPT])
    def test_models_sample_the_same_but_for_rounding(self, cls):
        spec = DataSpec((16,), 5, "sequence") if cls is GPT else IMAGES
        model = cls(spec).eval()
        samples = []
        for device in (CPU, torch.device("cuda", 0)):
            model.to(device)
            with torch.no_grad(), keyed_randomness(device, 0, "samples"):
                samples.append(model.sample(32).cpu())
        assert (samples[0] != samples[1]).double().mean() < 0.02

    def test_a_bound_is_the_same_but_for_rounding(self):
        x = torch.randint(17, (64, 1, 8, 8))
        model = VAE(IMAGES).eval()
        found = []
        for device in ("cpu", "cuda"):
            with torch.no_grad():
                session = Session(model.to(device), data_of("digits"), Protocol("test", 0), Experts())
                found.append(session.batched(model.elbo, x, "elbo"))
        torch.testing.assert_close(*found, rtol=1e-4, atol=0.0)
