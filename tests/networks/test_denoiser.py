"""The denoiser: every size of frame, an initial output of zeros, and the exact velocity of pure noise."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.networks import Denoiser


@given(
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 21), st.integers(1, 21)),
    batch=st.integers(1, 3),
    blocks=st.integers(1, 2),
)
@settings(max_examples=15, deadline=None)
def test_any_size_begins_at_zero(shape: tuple[int, int, int], batch: int, blocks: int) -> None:
    net = Denoiser(5, shape, 4, blocks)
    noisy, angle = torch.randn(batch, *shape), torch.rand(batch) * 1.5 + 0.01
    v = net(noisy, angle, torch.rand(batch, *shape), torch.randn(batch, 5))
    assert v.shape == (batch, *shape)
    assert not bool(v.any())


def test_the_gate_carries_the_noise_of_every_pixel() -> None:
    """For g = 1 and n = 0 the velocity is that of a residual of 0: cot(a) sin(a) e = cos(a) e, pixel by pixel."""
    net = Denoiser(5, (3, 10, 14), 4)
    net.last[-1].bias.data[: 3 * 16] = 1.0
    noise, angle = torch.randn(6, 3, 10, 14), torch.linspace(0.05, 1.57, 6)
    sin, cos = (x[:, None, None, None] for x in (angle.sin(), angle.cos()))
    v = net(sin * noise, angle, torch.rand(6, 3, 10, 14), torch.randn(6, 5))
    torch.testing.assert_close(v, cos * noise)


@pytest.mark.parametrize("given", ["noisy", "angle", "frame", "features"])
def test_it_reads_all_its_inputs(given: str) -> None:
    net = Denoiser(5, (1, 8, 8), 4)
    for parameter in net.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    inputs = {
        "noisy": torch.randn(2, 1, 8, 8),
        "angle": torch.full((2,), 0.7),
        "frame": torch.rand(2, 1, 8, 8),
        "features": torch.randn(2, 5),
    }
    before = net(**inputs).detach()
    inputs[given] = inputs[given] + 0.3
    assert float((net(**inputs).detach() - before).abs().max()) > 1e-3
