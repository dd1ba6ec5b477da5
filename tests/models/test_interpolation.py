"""Curves in latent space: their ends, their lengths, and surfaces whose shortest curves are known."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.models.interpolation import curve_energy, geodesic, lerp, slerp
from worldvae.networks import MLP


def flat(z: Tensor) -> Tensor:
    return z @ torch.tensor([[1.0, 0.5], [0.0, 2.0]])


def hill(z: Tensor) -> Tensor:
    """A plane with a high bump in its middle."""
    return torch.cat([z, 3 * torch.exp(-z.square().sum(-1, keepdim=True))], dim=-1)


def polar(z: Tensor) -> Tensor:
    """Map (radius, angle) to the plane: straight lines in the plane are curved in these coordinates."""
    return torch.stack([z[..., 0] * z[..., 1].cos(), z[..., 0] * z[..., 1].sin()], dim=-1)


@pytest.mark.parametrize("steps", [2, 3, 9])
def test_every_curve_ends_at_its_ends(steps: int, generator: torch.Generator) -> None:
    a, b = torch.randn(2, 5, 2, generator=generator)
    for curve in (lerp(a, b, steps), slerp(a, b, steps), geodesic(hill, a, b, steps)):
        assert curve.shape == (steps, 5, 2)
        assert torch.equal(curve[0], a) and torch.equal(curve[-1], b)


def test_lerp_is_evenly_spaced_and_slerp_keeps_to_the_sphere(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 20, 6, generator=generator)
    assert torch.allclose(lerp(a, b, 5).diff(dim=0), ((b - a) / 4).expand(4, 20, 6), atol=1e-6)
    a, b = (x / x.norm(dim=-1, keepdim=True) for x in (a, b))
    curve = slerp(a, b, 7)
    assert torch.allclose(curve.norm(dim=-1), torch.ones(7, 20), atol=1e-5)
    angles = (curve[1:] * curve[:-1]).sum(-1).clamp(-1, 1).acos()
    assert torch.allclose(angles, angles[:1].expand(6, 20), atol=1e-3)


@pytest.mark.parametrize("degrees", [30.0, 150.0, 170.0, 179.0])
def test_slerp_stays_between_the_lengths_of_its_ends(degrees: float) -> None:
    turn = torch.tensor(degrees).deg2rad()
    a, b = torch.tensor([[1.0, 0.0]]), 3 * torch.stack([turn.cos(), turn.sin()]).unsqueeze(0)
    lengths = slerp(a, b, 9).norm(dim=-1)
    assert bool((lengths >= 1 - 1e-5).all()) and bool((lengths <= 3 + 1e-5).all())


@pytest.mark.parametrize("factor", [1.0, 2.0, -1.0])
def test_slerp_of_parallel_vectors_is_the_straight_line(factor: float) -> None:
    a = torch.tensor([[1.0, 2.0]])
    assert torch.allclose(slerp(a, factor * a, 4), lerp(a, factor * a, 4), atol=1e-6)


def test_on_a_flat_surface_the_straight_line_is_the_geodesic(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 4, 2, generator=generator)
    straight = lerp(a, b, 6)
    assert torch.allclose(geodesic(flat, a, b, 6), straight, atol=1e-3)
    assert torch.allclose(curve_energy(flat, straight), flat(b - a).square().sum(-1), rtol=1e-4)


def test_in_polar_coordinates_the_geodesic_is_straight_in_the_plane() -> None:
    a, b = torch.tensor([[1.0, 0.2]]), torch.tensor([[2.0, 1.4]])
    chord = polar(b) - polar(a)
    found = geodesic(polar, a, b, 12)
    assert float(curve_energy(polar, found)) == pytest.approx(float(chord.square().sum()), rel=1e-4)
    assert float(curve_energy(polar, lerp(a, b, 12))) > 1.05 * float(chord.square().sum())
    assert torch.allclose(polar(found), lerp(polar(a), polar(b), 12), atol=1e-2)


def test_it_goes_around_a_hill() -> None:
    a, b = torch.tensor([[-2.0, 0.1]]), torch.tensor([[2.0, 0.1]])
    found, straight = geodesic(hill, a, b, 16), lerp(a, b, 16)
    assert float(curve_energy(hill, found)) < 0.8 * float(curve_energy(hill, straight))
    assert float(found[:, 0, 1].max()) > 0.5


@given(seed=st.integers(0, 999), iterations=st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_the_energy_is_never_above_that_of_the_straight_line(seed: int, iterations: int) -> None:
    torch.manual_seed(seed)
    net = MLP(3, 16, 2, 10)
    a, b = torch.randn(2, 4, 3) * math.sqrt(seed % 7 + 1)
    with torch.no_grad():
        found = curve_energy(net, geodesic(net, a, b, 7, iterations))
        assert bool((found <= curve_energy(net, lerp(a, b, 7))).all())


def test_one_point_is_no_curve() -> None:
    with pytest.raises(ValueError, match="steps=1"):
        lerp(torch.zeros(1, 2), torch.ones(1, 2), 1)
