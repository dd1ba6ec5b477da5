"""The upsampling layers compared with torch's results at the high resolution."""

import pytest
import torch
from torch.nn import functional as F

from worldvae.networks.upsample import EnlargedConv, Shuffle, TransposedConv, paint


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (5, 0), (6, 0), (3, 1), (2, 0), (6, 2)])
@pytest.mark.parametrize("size", [(1, 1), (3, 5)])
@pytest.mark.parametrize("out", [2, 5])  # a frame, and a map with more channels than a frame
def test_transposed_convolutions_are_those_of_torch(kernel: int, padding: int, size: tuple[int, int], out: int) -> None:
    layer = TransposedConv(3, out, kernel, padding)
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
@pytest.mark.parametrize("out", [2, 5])
def test_enlarged_convolutions_are_those_of_torch(kernel: int, out: int) -> None:
    layer = EnlargedConv(3, out, kernel)
    x = torch.randn(4, 3, 5, 4, requires_grad=True)
    plain = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=kernel // 2)
    assert torch.allclose(layer(x), plain, atol=1e-5)
    weights = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad((layer(x) * weights).sum(), (x, layer.weight)),
        torch.autograd.grad((plain * weights).sum(), (x, layer.weight)),
        strict=True,
    ):
        assert torch.allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_painting_is_a_pixel_shuffle(dtype: torch.dtype, factor: int) -> None:
    x = torch.randn(2, 3 * factor**2, 3, 5, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(2, 3, 3 * factor, 5 * factor, dtype=dtype)
    plain = F.pixel_shuffle(x, factor)
    assert torch.equal(paint(x, factor), plain)
    ours, theirs = (torch.autograd.grad((f * weights).sum(), x)[0] for f in (paint(x, factor), plain))
    assert torch.equal(ours, theirs)


def test_painting_takes_gradients_from_anywhere() -> None:
    x = torch.randn(1, 16, 2, 2).to(memory_format=torch.channels_last).requires_grad_()
    weights = torch.randn(65)
    (torch.cat([torch.zeros(1), paint(x, 4).flatten()]) * weights).sum().backward()  # one number before its first word
    assert x.grad is not None
    assert torch.equal(F.pixel_shuffle(x.grad, 4).flatten(), weights[1:])


def test_shuffling_is_a_pixel_shuffle_of_channels_in_another_order() -> None:
    x = torch.randn(2, 12, 3, 5, requires_grad=True)
    plain = F.pixel_shuffle(x.unflatten(1, (4, 3)).transpose(1, 2).flatten(1, 2), 2)
    assert torch.equal(Shuffle()(x), plain)
    weights = torch.randn_like(plain)
    ours, theirs = (torch.autograd.grad((f * weights).sum(), x)[0] for f in (Shuffle()(x), plain))
    assert torch.equal(ours, theirs)
