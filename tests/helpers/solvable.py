"""Small models of each family whose likelihood can be had exactly: by quadrature, integration, or in closed form."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributions import Normal

from benchmark import testing
from benchmark.models.base import GenerativeModel
from benchmark.models.diffusion.flow_matching import FlowMatching
from benchmark.models.diffusion.vdm import VDM
from benchmark.models.flow.glow import Glow
from benchmark.models.flow.maf import MAF
from benchmark.models.flow.nice import NICE
from benchmark.models.flow.realnvp import RealNVP
from benchmark.models.flow.spline_flow import SplineFlow
from benchmark.models.vae.vae import VAE
from benchmark.models.vae.vq_vae import VQVAE
from benchmark.nn.distributions import log_normal
from benchmark.spec import Batch, DataSpec

Model = TypeVar("Model", bound=GenerativeModel)

PIXEL = DataSpec((1, 1, 1), levels=3, structure="grid")
PAIR = DataSpec((1, 1, 2), levels=3, structure="grid")  # two pixels: nine images
FOUR = DataSpec((1, 2, 2), levels=3, structure="grid")
SIXTEEN = DataSpec((1, 4, 4), 5, "grid")
P = torch.tensor([0.6, 0.1, 0.3])  # of a pixel's levels
SMALL_FLOWS: dict[type[GenerativeModel], dict[str, Any]] = {
    NICE: {"width": 16, "depth": 1},
    Glow: {"steps": 2, "width": 8},
    SplineFlow: {"steps": 2, "width": 16, "depth": 1, "bins": 4},
    MAF: {"layers": 2, "width": 32},
    RealNVP: {"couplings": 2, "width": 8, "depth": 1},
}
SMALL_VQ_VAE: dict[str, Any] = {"width": 16, "codes": 5, "latent": 3, "dropout": 0.0, "prior_dropout": 0.0}
SMALL_VDM: dict[str, Any] = {"width": 8, "depth": 2, "dropout": 0.0}


# VAE ------------------------------------------------------------------------------------------------------------------


def trained_vae(spec: DataSpec, steps: int = 100, **options: Any) -> tuple[VAE, Tensor]:
    """A model after a few steps on eight images."""
    torch.manual_seed(0)
    x = torch.randint(spec.levels, (8, *spec.shape))
    return taught(VAE(spec, dropout=0.0, learning_rate=1e-2, **options), x, steps), x


def taught(model: Model, x: Tensor, steps: int) -> Model:
    """The same model after a few steps on one batch."""
    optimizer = model.configure_optimizers()
    for step in range(steps):
        optimizer.zero_grad()
        model.training_step(Batch(x), step)["loss"].backward()
        optimizer.step()
    return model.eval()


def log_prob_by_quadrature(model: VAE, x: Tensor) -> Tensor:
    """log ∫ p(x | z) p(z) dz `[B]` over a latent of two dimensions, on a grid."""
    axis = torch.linspace(-6, 6, 301)
    z = torch.cartesian_prod(axis, axis)  # [N, 2]
    log_cell = 2 * math.log(12 / 300)
    with torch.no_grad():
        log_prior: Tensor = Normal(0.0, 1.0).log_prob(z).sum(1)
        joint = model.log_likelihood(x, z[:, None].expand(-1, len(x), -1)) + log_prior[:, None]
    return joint.logsumexp(0) + log_cell


# VQ-VAE ---------------------------------------------------------------------------------------------------------------


def small_vq_vae(spec: DataSpec, **options: Any) -> VQVAE:
    torch.manual_seed(0)
    return VQVAE(spec, **(SMALL_VQ_VAE | {"prior_width": 16} | options))


def trained_vq_vae(spec: DataSpec, steps: int = 60, **options: Any) -> VQVAE:
    model = small_vq_vae(spec, learning_rate=1e-2, **options)
    return taught(model, torch.randint(spec.levels, (16, *spec.shape)), steps)


def terms_by_codes(model: VQVAE, x: Tensor) -> Tensor:
    """log p(x | z) + log p(z) `[K, B]` of a model of one place, for each of its K codes."""
    z = torch.arange(len(model.codebook.codes))[:, None]
    with torch.no_grad():
        pixels = [model.decode(model.codebook(one)).log_prob(x.float()).flatten(1).sum(1) for one in z]
        return torch.stack(pixels) + model.prior.log_prob(z)[:, None]


# Flows over pixels ----------------------------------------------------------------------------------------------------


def small_flow(kind: type[GenerativeModel], spec: DataSpec, **options: Any) -> Any:
    torch.manual_seed(0)
    return kind(spec, **({"dropout": 0.0, "noise_width": 8} | SMALL_FLOWS[kind] | options))


def shaken(model: Model, size: float = 0.2) -> Model:
    """The same model with every parameter away from its start, where couplings are the identity."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


def trained_flow(kind: type[GenerativeModel], **options: Any) -> Any:
    """A model of two pixels after a few steps on `testing.Source`, in evaluation mode all the while."""
    model = shaken(small_flow(kind, PAIR, learning_rate=1e-2, **options))
    source = testing.Source(model.spec)
    optimizer = model.configure_optimizers()
    for step in range(150):
        optimizer.zero_grad()
        model.training_step(Batch(source.batch(step).x), step)["loss"].backward()
        optimizer.step()
    return model


def log_prob_by_cells(model: Any, x: Tensor, points: int = 150) -> Tensor:
    """The density integrated over each cell of two pixels on a grid: equally many points per unit of each logit."""
    v = torch.linspace(-14, 14, points)
    grid = torch.cartesian_prod(v, v).view(-1, 1, 1, 2)
    log_cell = 2 * math.log(28 / (points - 1))
    results = []
    with torch.no_grad():
        for one in x:
            y, log_jacobian = model.logit(one.expand(len(grid), -1, -1, -1), grid)
            z, log_det = model.flow(y)
            log_noise = (torch.nn.functional.logsigmoid(grid) + torch.nn.functional.logsigmoid(-grid)).sum((1, 2, 3))
            log_p = model.density.prior.log_prob(z) + log_det + log_jacobian + log_noise
            results.append(log_p.logsumexp(0) + log_cell)
    return torch.stack(results)


# Flow matching --------------------------------------------------------------------------------------------------------


class Linear(FlowMatching):
    """The exact E[f | y_t] of independent Gaussian data, f ~ N(μ, σ²): every density of the path is Gaussian too."""

    mu, sigma = 0.3, 0.6

    def denoise(self, y: Tensor, t: Tensor) -> Tensor:
        t = t.view(-1, 1, 1, 1)
        gain = t * self.sigma**2 / (t**2 * self.sigma**2 + (1 - t) ** 2)
        return self.mu + gain * (y - t * self.mu)


def gaussian_log_prob(net: Linear, x: Tensor) -> Tensor:
    """What `Linear` solves for `x` `[B, C, H, W]`, at the next draw of noise, from the path's own density: `[B]`."""
    epsilon = torch.randn(x.shape)
    y = net.last * net.values[x] + (1 - net.last) * epsilon
    path = Normal(net.last * net.mu, math.hypot(net.last * net.sigma, 1 - net.last))
    log_q = log_normal(epsilon) - x[0].numel() * math.log(1 - net.last)
    log_prob: Tensor = path.log_prob(y) + net.read(y).log_prob(x)
    return log_prob.flatten(1).sum(1) - log_q


# Variational diffusion ------------------------------------------------------------------------------------------------


def perfect(spec: DataSpec = PIXEL, steps: int = 50) -> VDM:
    """Pixels are independent, so logits log p make `denoise` the posterior mean: Bayes' rule has no other part."""
    torch.manual_seed(0)
    model = VDM(spec, steps=steps, **SMALL_VDM).eval()
    network: Any = model.network
    with torch.no_grad():
        network.leave[-1].bias.copy_(P.log())  # its weights are zero at first
    return model
