"""The U-Net over patches: any size, zero at first, every input counts, and second derivatives."""

import pytest
import torch
from torch import nn

from worldvae.networks.unet import PatchUNet
from worldvae.networks.vector_field import VectorField

SHAPES = [(3, 16, 16), (1, 9, 14), (2, 8, 4)]


def awake(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network


def inputs(entries: int, generator: torch.Generator) -> list[torch.Tensor]:
    sizes = [(5, entries), (5,), (5, 3, entries), (5, 3, 2), (5,)]
    return [torch.randn(size, generator=generator) for size in sizes]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("widths", [(8,), (8, 12), (8, 12, 16)])
def test_every_input_counts(shape: tuple[int, int, int], widths: tuple[int, ...], generator: torch.Generator) -> None:
    network = PatchUNet(shape, 3, 2, widths)
    u, level, frames, actions, corruption = inputs(torch.Size(shape).numel(), generator)
    assert torch.count_nonzero(network(u, level, network.look(frames, actions, corruption))) == 0
    awake(network)
    usual = network(u, level, network.look(frames, actions, corruption))
    assert usual.shape == u.shape
    for changed in range(5):
        given = [x.clone() for x in (u, level, frames, actions, corruption)]
        given[changed][0] += 1
        found = network(given[0], given[1], network.look(*given[2:]))
        assert not torch.allclose(found[0], usual[0], atol=1e-4)
        torch.testing.assert_close(found[1:], usual[1:], rtol=1e-4, atol=1e-4)  # other rows are independent


@pytest.mark.parametrize("network", [PatchUNet((1, 4, 8), 3, 2, (4, 8)), VectorField(32, 3, 2, 16)])
def test_it_can_be_the_gradient_of_something(network: PatchUNet | VectorField, generator: torch.Generator) -> None:
    """The second derivative in a direction is that of finite differences."""
    awake(network).double()
    network.to(torch.float64)
    u, level, *context = (x.double() for x in inputs(32, generator))
    known = network.look(*context)
    direction = torch.randn(u.shape, dtype=torch.float64, generator=generator)

    def gradient(at: torch.Tensor) -> torch.Tensor:
        at = at.detach().requires_grad_()
        return torch.autograd.grad((at * network(at, level, known)).sum(), at, create_graph=True)[0]

    u = u.detach().requires_grad_()
    first = torch.autograd.grad((u * network(u, level, known)).sum(), u, create_graph=True)[0]
    second = torch.autograd.grad((first * direction).sum(), u)[0]
    step = 1e-5
    differences = (gradient(u + step * direction) - gradient(u - step * direction)) / (2 * step)
    torch.testing.assert_close(second, differences.detach(), rtol=1e-4, atol=1e-6)
