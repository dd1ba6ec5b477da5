"""Small models whose state is the last frames, and rows for them."""

from typing import Any

import torch

from worldvae.models.kinds import KINDS
from worldvae.models.next_frame import NextFrameModel
from worldvae.models.parts import WorldModelConfig
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

KINDS_OF_FRAMES = ("pixel_diffusion", "pixel_energy")
PIXELS, VECTOR = ObservationLayout(pixels=(1, 8, 12)), ObservationLayout(vector=2)


def make(
    kind: str, layout: ObservationLayout = PIXELS, *, awake: bool = True, action: int = 2, seed: int = 0, **numbers: Any
) -> NextFrameModel:
    """Return a small model of the kind; unless it is not `awake`, its weights are no longer at zero."""
    sections = type(getattr(WorldModelConfig(), kind))
    section = sections(**{"context": 3, "widths": (8, 12), "frames": 8, **numbers})
    config = WorldModelConfig(
        kind=kind, size="tiny", hidden=16, depth=4, bins=41, precision="float32", vector_symlog=False, **{kind: section}
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = KINDS[kind](layout, ActionLayout(continuous=action), config, None)
        assert isinstance(model, NextFrameModel)
        if awake:
            for parameter in model.parameters():
                parameter.data.add_(0.1 * torch.randn_like(parameter))
            model.average.follow(model.network)
    return model


def rows(model: NextFrameModel, size: int, length: int, *, firsts: tuple[int, ...] = (0,), seed: int = 0) -> Batch:
    """Return random rows; episodes begin at the time steps `firsts`."""
    draws = torch.Generator().manual_seed(seed)
    pixels, entries = model.observation_layout.pixels, model.observation_layout.vector
    first = torch.zeros(size, length, dtype=torch.bool)
    first[:, list(firsts)] = True
    seen = Observation(
        None if pixels is None else torch.randint(0, 256, (size, length, *pixels), generator=draws, dtype=torch.uint8),
        None if entries is None else torch.randn(size, length, entries, generator=draws),
    )
    return Batch(
        seen,
        torch.rand(size, length, model.action_layout.size, generator=draws) * 2 - 1,
        torch.randn(size, length, generator=draws),
        torch.rand(size, length, generator=draws) < 0.2,
        first,
    )
