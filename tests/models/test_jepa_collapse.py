"""A regulariser keeps the latent of a joint-embedding model from collapsing; without one it does."""

import pytest
import torch

from worldvae.models.jepa import JEPA
from worldvae.models.kind_sections import JEPAConfig
from worldvae.models.parts import WorldModelConfig
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

pytestmark = pytest.mark.usefixtures("unchecked")


def circling(batch: int, length: int, generator: torch.Generator) -> Batch:
    """Return rows of a point that turns by its action, seen as x, y and a number without meaning."""
    action = torch.rand(batch, length, 1, generator=generator) * 2 - 1
    turned = torch.cat([torch.rand(batch, 1, generator=generator) * 6.3, action[:, :-1, 0]], dim=1).cumsum(dim=1)
    noise = 0.1 * torch.randn(batch, length, generator=generator)
    vector = torch.stack([turned.cos(), turned.sin(), noise], dim=-1)
    first = torch.zeros(batch, length, dtype=torch.bool)
    first[:, 0] = True
    return Batch(Observation(vector=vector), action, turned.cos(), torch.zeros_like(first), first)


def trained(regulariser: str, generator: torch.Generator) -> dict[str, float]:
    numbers = {"size": "tiny", "precision": "float32", "hidden": 32, "bins": 41, "layers": 2}
    section = JEPAConfig(latent=4, regulariser=regulariser, rollout=2, directions=16, knots=9, decoder=False)
    config = WorldModelConfig(kind="jepa", jepa=section, **numbers)
    model = JEPA(ObservationLayout(vector=3), ActionLayout(1), config)
    model.calibrate(circling(32, 8, generator).observation)
    optimiser = Optimiser(model.parameters(), OptimiserConfig(learning_rate=4e-3, warmup=0))
    for _ in range(120):
        loss = model.loss(circling(24, 6, generator), generator)
        optimiser.step(loss.value)
    return {name: float(value) for name, value in loss.metrics.items()}


def test_without_a_regulariser_the_latent_collapses_and_with_one_it_does_not(generator: torch.Generator) -> None:
    collapsed = trained("none", generator)
    assert collapsed["std_median"] < 0.1
    for regulariser in ("sigreg", "vicreg"):
        kept = trained(regulariser, generator)
        assert kept["std_median"] > 0.6 and kept["std_median"] > 10 * collapsed["std_median"]
        assert kept["error_over_copy_1"] < 0.5 and kept["error_over_copy_2"] < 0.5
