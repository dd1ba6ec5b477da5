"""Energies of the next frame: their gradient is the denoiser's, and chains run where gradients are switched off."""

from typing import Any

import pytest
import torch

from tests.next_frame import PIXELS, VECTOR, make, rows
from worldvae.models.contrastive_energy import RecoveryChains
from worldvae.models.kind_sections import ContrastiveConfig, PixelEnergyConfig
from worldvae.models.pixel_energy import PixelEnergy
from worldvae.models.pixel_state import PixelState
from worldvae.models.seeded_kicks import seeded_kicks
from worldvae.types import ObservationLayout


def energy_model(layout: ObservationLayout, **numbers: Any) -> PixelEnergy:
    model = make("pixel_energy", layout, **numbers)
    assert isinstance(model, PixelEnergy) and model.density_kind == "unnormalised"
    model.units.spread.fill_(0.6)
    return model


@pytest.mark.parametrize("layout", [PIXELS, VECTOR])
def test_the_gradient_of_the_energy_is_the_denoisers(layout: ObservationLayout, generator: torch.Generator) -> None:
    """D = x - sigma^2 grad E, and grad E is that of finite differences."""
    model = energy_model(layout)
    state = model.observe(rows(model, 3, 4)).posterior[:, -1]
    state = state.map(lambda x: x.double() if x.is_floating_point() else x)
    model.double()
    size = model.units.entries
    x = torch.randn(3, size, dtype=torch.float64, generator=generator)
    action = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    sigma = torch.tensor([0.05, 0.5, 4.0], dtype=torch.float64)
    point = x.clone().requires_grad_()
    gradient = torch.autograd.grad(model.energy(state, action, point, sigma).sum(), point)[0]
    window = PixelState.of(state).window
    frames = model.units.to_denoised(window.frames).double()
    known = model.look(model.average.network, frames, window.then(action), torch.zeros_like(sigma))
    with torch.no_grad():
        denoised = model._denoised(model.average.network, x, sigma, known)
    torch.testing.assert_close(x - sigma.square().unsqueeze(-1) * gradient, denoised, rtol=1e-5, atol=1e-5)
    direction, step = torch.randn(x.shape, dtype=torch.float64, generator=generator), 1e-5
    ahead, behind = (model.energy(state, action, x + side * step * direction, sigma) for side in (1, -1))
    torch.testing.assert_close((ahead - behind) / (2 * step), (gradient * direction).sum(-1), rtol=1e-4, atol=1e-5)


def test_an_untrained_energy_is_that_of_a_gaussian(generator: torch.Generator) -> None:
    model = make("pixel_energy", VECTOR, awake=False)
    model.units.spread.fill_(0.6)
    assert isinstance(model, PixelEnergy)
    state = model.observe(rows(model, 4, 2)).posterior[:, -1]
    x, sigma = torch.randn(4, 2, generator=generator), torch.tensor([0.1, 0.5, 1.0, 5.0])
    expected = x.square().sum(-1) / (2 * (sigma.square() + 0.36))
    torch.testing.assert_close(model.energy(state, torch.zeros(4, 2), x, sigma), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "numbers",
    [
        {"sampler": "euler"},
        {"sampler": "heun"},
        {"sampler": "langevin"},
        {"training": "contrastive", "sampler": "langevin", "contrastive": ContrastiveConfig(levels=2, steps=3)},
    ],
)
def test_it_imagines_where_gradients_are_switched_off(numbers: dict[str, Any], generator: torch.Generator) -> None:
    """The same as where they are switched on, and no graph is left."""
    model = energy_model(VECTOR, **numbers)
    start = model.observe(rows(model, 3, 4)).posterior[:, -1].detach()
    actions, noise = torch.zeros(3, 2, 2), model.noise((2, 3), generator)
    with torch.no_grad():
        off = PixelState.of(model.imagine(start, actions, noise=noise).states).last
    on = PixelState.of(model.imagine(start, actions, noise=noise).states).last
    assert not off.requires_grad and on.requires_grad
    torch.testing.assert_close(off, on.detach())
    with torch.inference_mode(False), torch.no_grad():
        mode = model.step(start, actions[:, 0], None)
    assert not mode.features.requires_grad


def test_the_chains_between_levels_draw_from_the_conditional(generator: torch.Generator) -> None:
    """For a Gaussian of variance v at sigma_i: p(x_i | x_{i+1}) is known, but for the bias of the step size."""
    chains = RecoveryChains(ContrastiveConfig(levels=2, sigma_min=0.5, step=0.3, steps=100), 2.0)
    assert chains.sigmas == pytest.approx([0.5, 1.0, 2.0])
    assert [a**2 + b**2 for a, b in zip(chains.sigmas, chains.taus, strict=False)] == pytest.approx([1.0, 4.0])
    variance, tau = 0.8, torch.full((20000, 1), chains.taus[0])
    noisier = torch.full((20000, 1), 1.5)
    kicks = (torch.randn(20000, 1, generator=generator) for _ in range(100))
    end = chains.chain(lambda x: x / variance, noisier, noisier, tau, kicks)
    posterior = 1 / (1 / variance + 1 / chains.taus[0] ** 2)
    bias = 1 / (1 - 0.09 * chains.taus[0] ** 2 / (4 * posterior))
    assert float(end.mean()) == pytest.approx(1.5 * posterior / chains.taus[0] ** 2, abs=0.02)
    assert float(end.var()) == pytest.approx(posterior * bias, rel=0.05)


def test_descending_all_levels_ends_at_the_data(generator: torch.Generator) -> None:
    spread = 0.6
    chains = RecoveryChains(ContrastiveConfig(levels=6, sigma_min=0.05, step=0.3, steps=60), 5.0)

    def kicks(_: int) -> list[torch.Tensor]:
        return list(torch.randn(60, 10000, 1, generator=generator))

    found = chains.descend(
        lambda x, sigma: x / (spread**2 + sigma**2), torch.randn(10000, 1, generator=generator), kicks
    )
    assert float(found.mean()) == pytest.approx(0, abs=0.03) and float(found.std()) == pytest.approx(spread, rel=0.06)


@pytest.mark.parametrize("start", ["noisier", "last"])
def test_contrastive_losses(start: str, generator: torch.Generator) -> None:
    """The contrast is what the energy of frames exceeds that of the chains' ends by; chains do not diverge at first."""
    contrastive = ContrastiveConfig(start=start)
    model = energy_model(VECTOR, training="contrastive", sampler="langevin", contrastive=contrastive)
    metrics = model.loss(rows(model, 6, 5), generator).metrics
    assert metrics["energy_contrast"].isfinite() and 0 < float(metrics["chain_error"]) < 20


def test_kicks_depend_on_seed_and_chain_alone(generator: torch.Generator) -> None:
    seeds = torch.randn(3, generator=generator)
    first = torch.stack(list(seeded_kicks(seeds, 0, 50, 20)))
    assert torch.equal(first[:, 1:2], torch.stack(list(seeded_kicks(seeds[1:2], 0, 50, 20))))
    assert not torch.equal(first, torch.stack(list(seeded_kicks(seeds, 1, 50, 20))))
    assert float(first.mean()) == pytest.approx(0, abs=0.06) and float(first.std()) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"training": "contrastive"}, "give sampler=langevin"),
        ({"contrastive": ContrastiveConfig(levels=3)}, "give training=contrastive"),
        ({"langevin_steps": 0}, "langevin_steps=0 must be at least 1"),
        ({"langevin_step": 2.0}, "langevin_step=2.0 must be above 0 and below 2"),
        ({"training": "contrastive", "sampler": "langevin", "sigma_max": 0.04}, "must be below sigma_max=0.04"),
    ],
)
def test_numbers_that_make_no_sense(numbers: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        PixelEnergyConfig(**numbers)
    for wrong in ({"levels": 0}, {"steps": 0}, {"step": 2.5}, {"sigma_min": 0.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ContrastiveConfig(**wrong)
