"""The network of one size against what it promises."""

from __future__ import annotations

import torch

from benchmark.nn.isotropic import Isotropic


def network(patch: int = 1, places: bool = True) -> Isotropic:
    torch.manual_seed(0)
    net = Isotropic((2, 4, 4), 3, 8, 2, patch, places, torch.tensor([1.0, 2.0]), torch.logspace(0, 1, 4), 0.0)
    for parameter in net.leave.parameters():  # which are zero at first
        torch.nn.init.normal_(parameter)
    return net


def test_it_is_zero_at_first() -> None:
    net = Isotropic((1, 4, 4), 2, 8, 1, 2, True, torch.ones(1), torch.ones(2), 0.0)
    assert not net(torch.randn(3, 1, 4, 4), torch.rand(3)).any()


def test_every_output_of_a_pixel_stands_at_the_pixel() -> None:
    """With patches and without: what a patch holds is unfolded to where it came from."""
    for patch in (1, 2):
        net = network(patch)
        net.enter.weight.data.zero_()  # the same everywhere, but for what `leave` makes of the place in a patch
        net.attention.out.weight.data.zero_()
        y = net(torch.randn(1, 2, 4, 4), torch.rand(1))
        assert y.shape == (1, 2, 4, 4, 3)
        last = net.leave[-1]
        assert isinstance(last, torch.nn.Conv2d)
        assert last.bias is not None
        last.weight.data.zero_()
        last.bias.data.copy_(torch.arange(len(last.bias)))
        y = net(torch.randn(1, 2, 4, 4), torch.rand(1))
        for i in range(4):
            for j in range(4):
                for c in range(2):
                    place = ((i % patch) * patch + j % patch) * 2 + c
                    assert y[0, c, i, j].tolist() == [3 * place, 3 * place + 1, 3 * place + 2]


def test_all_pixels_the_time_and_the_place_reach_the_output() -> None:
    net, x, t = network(), torch.randn(2, 2, 4, 4).requires_grad_(), torch.rand(2).requires_grad_()
    gx, gt = torch.autograd.grad(net(x, t)[0, 0, 0, 0, 0], (x, t))
    assert gx[0].all()
    assert not gx[1].any()
    assert gt[0] != 0
    flat = torch.full((1, 2, 4, 4), 0.3)
    torch.nn.init.normal_(next(net.positions.parameters()))
    assert net(flat, t[:1])[0, 0, 1, 1, 0] != net(flat, t[:1])[0, 0, 2, 2, 0]
