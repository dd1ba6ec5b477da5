"""Norms whose weights and biases get accurate gradients in bfloat16, for any number of rows."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks import MLP, LayerNorm
from worldvae.networks.norm import ChannelNorm, column_sums


def gradients(norm: nn.LayerNorm, x: Tensor, g: Tensor) -> list[Tensor]:
    x = x.detach().requires_grad_()
    return list(torch.autograd.grad(norm(x), (x, norm.weight, norm.bias), g))


def exact(norm: nn.LayerNorm, x: Tensor, g: Tensor) -> list[Tensor]:
    x, weight, bias = (t.detach().double().requires_grad_() for t in (x, norm.weight, norm.bias))
    y = F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)
    return list(torch.autograd.grad(y, (x, weight, bias), g.double()))


def off(found: list[Tensor], truth: list[Tensor]) -> list[float]:
    return [float((a - b).norm() / b.norm()) for a, b in zip(found, truth, strict=True)]


def some(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Return an input, and a gradient that is correlated with it."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, columns, generator=generator)
    g = torch.randn(rows, columns, generator=generator) + 0.5 + 0.3 * x
    return x.bfloat16(), g.bfloat16()


@pytest.mark.parametrize(("rows", "columns"), [(70, 8), (1000, 32), (2**14, 256), (2**16, 48), (2**18, 16)])
def test_gradients_are_those_of_float64_however_many_rows_there_are(rows: int, columns: int) -> None:
    norm, generator = LayerNorm(columns, eps=1e-3), torch.Generator().manual_seed(1)
    with torch.no_grad():
        norm.weight.uniform_(0.3, 2.0, generator=generator)
        norm.bias.normal_(generator=generator)
    x, g = some(rows, columns)
    assert max(off(gradients(norm, x, g), exact(norm, x, g))) < 0.01


def test_torchs_own_norm_loses_gradients() -> None:
    """The reason for this library's own norm: if this test fails, that norm can be removed."""
    norm = nn.LayerNorm(16, eps=1e-3)
    x, g = some(2**18, 16)
    assert min(off(gradients(norm, x, g), exact(norm, x, g))[1:]) > 0.1


@pytest.mark.parametrize("small", [0.0, 1e-6, -1e-3, 0.02, -0.12])
def test_weights_near_zero_do_not_matter(small: float) -> None:
    """Nor do weights that are small compared with their bias, for which the output hardly depends on the input."""
    norm = LayerNorm(16, eps=1e-3)
    with torch.no_grad():
        norm.weight[:4] = small
        norm.bias[:4] = 1.0
    x, g = some(2**14, 16)
    found, truth = gradients(norm, x, g), exact(norm, x, g)
    assert max(off(found, truth)) < 0.01 and off([found[1][:4]], [truth[1][:4]])[0] < 0.01


def test_float32_few_rows_and_frozen_weights_are_left_to_torch() -> None:
    ours, torchs = LayerNorm(16, eps=1e-3), nn.LayerNorm(16, eps=1e-3)
    x, g = some(2**12, 16)
    for a, b in zip(gradients(ours, x.float(), g.float()), gradients(torchs, x.float(), g.float()), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(ours(x), torchs(x))
    assert torchs_own(ours, x[:64]) and not torchs_own(ours, x[:65])
    ours.requires_grad_(False)
    assert torchs_own(ours, x.requires_grad_())


def torchs_own(norm: nn.LayerNorm, x: Tensor) -> bool:
    return type(norm(x).grad_fn).__name__ == "NativeLayerNormBackward0"


def test_what_has_no_bias_or_more_axes_is_left_to_torch() -> None:
    x = some(2**12, 16)[0].view(-1, 4, 16)
    assert torchs_own(LayerNorm(16, bias=False), x) and torchs_own(LayerNorm((4, 16)), x)


def test_a_bias_learns_beside_a_frozen_weight() -> None:
    norm = LayerNorm(16)
    norm.weight.requires_grad_(False)
    (found,) = torch.autograd.grad(norm(some(2**14, 16)[0]).float().sum(), norm.bias)
    assert torch.equal(found, torch.full((16,), float(2**14)))


def test_maps_are_normalised_over_their_channels() -> None:
    norm = ChannelNorm(16, eps=1e-3)
    x = torch.randn(64, 16, 8, 8).bfloat16().contiguous(memory_format=torch.channels_last)
    g = (torch.randn(64, 16, 8, 8) + 1).bfloat16()
    found = gradients(norm, x, g)
    truth = exact(norm, x.permute(0, 2, 3, 1), g.permute(0, 2, 3, 1))
    assert max(off([found[0].permute(0, 2, 3, 1), *found[1:]], truth)) < 0.01


def test_the_norms_of_a_perceptron_learn_as_in_float32() -> None:
    torch.manual_seed(0)
    model, x = MLP(32, 32, 2, 1), torch.randn(2**15, 32)
    parameters = list(model.parameters())
    plain = torch.autograd.grad(model(x).mean(), parameters)
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).mean()
    found = torch.autograd.grad(loss, parameters)
    for a, b in zip(found, plain, strict=True):
        assert float((a - b).norm()) < 0.05 * float(b.norm())


@pytest.mark.parametrize(("rows", "columns"), [(64, 128), (64 * 8 * 3, 16), (100, 7), (64, 300)])
def test_columns_are_summed(rows: int, columns: int) -> None:
    x = torch.randint(-8, 9, (rows, columns)).bfloat16()
    assert column_sums(x).dtype == torch.float32
    assert float((column_sums(x) - x.double().sum(0)).abs().max()) <= 0.004 * float(x.double().abs().sum(0).max())
