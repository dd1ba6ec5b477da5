"""The upsamplings against what torch computes at the high resolution."""

import pytest
import torch
from torch.nn import functional as F

from worldvae.networks.upsample import EnlargedConv, TransposedConv, shuffle


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (5, 0), (6, 0), (3, 1), (2, 0), (6, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
def test_transposed_convolutions_are_those_of_torch(kernel: int, padding: int, size: tuple[int, int]) -> None:
    layer = TransposedConv(3, 2, kernel, padding)
    x = torch.randn(4, 3, *size, requires_grad=True)
    plain = F.conv_transpose2d(x, layer.weight.transpose(0, 1), layer.bias, stride=2, padding=padding)
    assert torch.allclose(layer(x), plain, atol=1e-5)
    weights = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad((layer(x) * weights).sum(), (x, layer.weight, layer.bias)),
        torch.autograd.grad((plain * weights).sum(), (x, layer.weight, layer.bias)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
def test_enlarged_convolutions_are_those_of_torch(kernel: int) -> None:
    layer = EnlargedConv(3, 2, kernel)
    x = torch.randn(4, 3, 5, 4)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=kernel // 2)
    assert torch.allclose(layer(x), plain, atol=1e-5)


@pytest.mark.parametrize("factor", [2, 4])
def test_shuffle_is_the_pixel_shuffle_of_other_channels(factor: int) -> None:
    x = torch.randn(2, 3 * factor**2, 4, 5)
    reordered = x.unflatten(1, (factor**2, 3)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(shuffle(x, factor), F.pixel_shuffle(reordered, factor))
