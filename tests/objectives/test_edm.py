"""EDM: the denoiser of a Gaussian in closed form, and the preconditioning that gives unit variances."""

import pytest
import torch
from torch import Tensor

from worldvae.objectives.edm import NoiseLaw, denoised, edm_loss, precondition

MEAN, STD = 0.7, 0.4  # of the data; the spread that is told need not be right
SPREAD = torch.tensor(0.9)


def best_field(u: Tensor, level: Tensor) -> Tensor:
    """The F for which D is the posterior mean of N(MEAN, STD^2), given the noisy x."""
    sigma = (4 * level).exp()
    c = precondition(sigma, SPREAD)
    x, v = u / c.into, sigma.unsqueeze(-1) ** 2
    return ((v * MEAN + STD**2 * x) / (v + STD**2) - c.skip * x) / c.out


def test_the_denoiser_of_a_gaussian_is_its_posterior_mean(generator: torch.Generator) -> None:
    sigma = torch.tensor([2e-3, 0.1, 1.0, 5.0, 20.0])
    x = torch.randn(5, 3, generator=generator)
    v = sigma.unsqueeze(-1) ** 2
    expected = (v * MEAN + STD**2 * x) / (v + STD**2)
    torch.testing.assert_close(denoised(best_field, x, sigma, SPREAD), expected, rtol=1e-4, atol=1e-5)


def test_input_and_target_have_unit_variance_at_every_noise(generator: torch.Generator) -> None:
    for sigma in (0.01, 0.9, 5.0):
        levels = torch.full((20000,), sigma)
        c = precondition(levels, SPREAD)
        clean = SPREAD * torch.randn(20000, 1, generator=generator)
        x = clean + sigma * torch.randn(20000, 1, generator=generator)
        assert float((c.into * x).std()) == pytest.approx(1, rel=0.03)
        assert float(((clean - c.skip * x) / c.out).std()) == pytest.approx(1, rel=0.03)


def test_no_field_has_a_smaller_loss_than_the_posterior_mean(generator: torch.Generator) -> None:
    """Its loss is the posterior variance over c_out^2, and any other field's is larger by the squared difference."""
    sigma = torch.full((40000,), 0.5)
    clean = MEAN + STD * torch.randn(40000, 1, generator=generator)
    noise = torch.randn(40000, 1, generator=generator)
    best = edm_loss(best_field, clean, noise, sigma, SPREAD).mean()
    out = precondition(sigma, SPREAD).out[0]
    assert float(best) == pytest.approx(float(1 / (1 / STD**2 + 1 / 0.25) / out**2), rel=0.03)
    other = edm_loss(lambda u, level: best_field(u, level) + 0.3, clean, noise, sigma, SPREAD).mean()
    assert float(other - best) == pytest.approx(0.09, rel=0.1)


def test_the_law_of_the_noise(generator: torch.Generator) -> None:
    drawn = NoiseLaw(-0.4, 1.2, 2e-3, 5.0).draw(100000, torch.device("cpu"), generator)
    assert float(drawn.log().median()) == pytest.approx(-0.4, abs=0.02)
    assert float(drawn.log().std()) == pytest.approx(1.2, rel=0.02)
    assert float(drawn.max()) <= 20.0 and float(drawn.min()) >= 2e-3
