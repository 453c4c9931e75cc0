"""Random draws of an evaluation: keyed, and the same on every device.

They come from the CPU's generator and are sent to where the model is, since every kind of device draws differently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


@contextmanager
def keyed_randomness(device: torch.device, *key: Any) -> Iterator[None]:
    """Inside, torch draws from a generator of the CPU keyed by `key`, also what it draws for `device`; outside, the
    generator's state is untouched.

    Raises `RuntimeError` where a GPU's own generator was asked after all.
    """
    digest = hashlib.sha256(repr(key).encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int.from_bytes(digest[:7], "big"))
        if device.type == "cpu":
            yield
            return
        before = generator_state(device)
        with DrawnOnCpu():
            yield
        if not torch.equal(before, generator_state(device)):
            raise RuntimeError(
                f"a draw came from the generator of {device}, whose numbers are others than the CPU's: draw with "
                "torch.rand, torch.randn, torch.multinomial and the like"
            )


def generator_state(device: torch.device) -> Tensor:
    """That of a GPU's own generator, which the CPU keeps; nothing for a device that has none."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.empty(0)


_FACTORIES = {torch.rand, torch.randn, torch.randint, torch.randperm}
_LIKE = {torch.rand_like, torch.randn_like, torch.randint_like}
_IN_PLACE = {
    *(Tensor.normal_, Tensor.uniform_, Tensor.exponential_, Tensor.bernoulli_),
    *(Tensor.random_, Tensor.cauchy_, Tensor.geometric_, Tensor.log_normal_),
}
_OF_TENSORS = {
    *(torch.multinomial, Tensor.multinomial, torch.bernoulli, Tensor.bernoulli, torch.normal),
    *(torch.poisson, torch.binomial, torch._standard_gamma, torch._sample_dirichlet),
}
_DRAWS = _FACTORIES | _LIKE | _IN_PLACE | _OF_TENSORS


class DrawnOnCpu(TorchFunctionMode):
    """Inside, torch's random functions draw with the CPU's generator, whatever device their results are on.

    A draw that is given a generator is left alone. So is what a function draws deep inside (dropout in training).
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DRAWS and kwargs.get("generator") is None:
            device = _device(args, kwargs)
            if device.type != "cpu":
                kwargs.pop("generator", None)
                return drawn_on_cpu(device, func, *args, **kwargs)
        return func(*args, **kwargs)


def drawn_on_cpu(device: torch.device, func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """What the random function `func` makes of its arguments on the CPU, bit for bit, on `device`.

    Where that is possible, only noise is drawn on the CPU: what depends on probabilities is computed where they are.
    """
    if func in (torch.multinomial, Tensor.multinomial) and not _with_replacement(*args, **kwargs):
        return _multinomial(device, *args, **kwargs)
    if func in (torch.bernoulli, Tensor.bernoulli) and len(args) == 1:
        (p,) = args
        u = torch.rand(p.shape, dtype=torch.promote_types(p.dtype, torch.float32))
        return (u.to(device) < p).to(p.dtype)
    if func is torch.normal and any(isinstance(x, Tensor) for x in (*args, *kwargs.values())):
        return _normal(device, *args, **kwargs)
    if func in _IN_PLACE:
        changed, *rest = args
        return changed.copy_(func(_outline(changed), *_on_cpu(rest), **_on_cpu(kwargs)))
    if func in _LIKE:
        args = (_outline(args[0]), *args[1:])
    if "device" in kwargs or func in _FACTORIES:
        kwargs["device"] = "cpu"
    return func(*_on_cpu(args), **_on_cpu(kwargs)).to(device)


def _device(args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    """Where a function would put its result."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    tensors = (x for x in (*args, *kwargs.values()) if isinstance(x, Tensor))
    return next((x.device for x in tensors), torch.get_default_device())


def _outline(x: Tensor) -> Tensor:
    """A tensor of the same type, shape and layout on the CPU: its values do not travel."""
    return torch.empty_like(x, device="cpu")


def _on_cpu(values: Any) -> Any:
    return tree_map_only(Tensor, lambda x: x.cpu(), values)


def _with_replacement(input: Tensor, num_samples: int, replacement: bool = False) -> bool:
    return replacement and num_samples > 1


def _multinomial(device: torch.device, input: Tensor, num_samples: int, replacement: bool = False) -> Tensor:
    """The likeliest under probabilities over exponential noise, which is how torch draws without replacement."""
    if not ((input >= 0) & (input < torch.inf)).all():
        raise RuntimeError("probability tensor contains either `inf`, `nan` or element < 0")
    raced = input / _outline(input).exponential_(1).to(device)
    return raced.argmax(-1, keepdim=True) if num_samples == 1 else raced.topk(num_samples).indices


def _normal(device: torch.device, mean: Tensor | float, std: Tensor | float = 1.0) -> Tensor:
    given = [x for x in (mean, std) if isinstance(x, Tensor)]
    noise = torch.empty(torch.broadcast_shapes(*(x.shape for x in given)), dtype=given[0].dtype)
    if not isinstance(std, Tensor):
        return noise.normal_(0, std).to(device).add_(mean)
    return noise.normal_().to(device).mul_(std).add_(mean)
