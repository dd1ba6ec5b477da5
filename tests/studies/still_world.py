"""A world whose state is a point x' = x + a / 10, shown as it is; rows and a model that knows it, or nearly."""

import torch
from torch import Tensor

from tests.fake_model import FakeModel
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

SIZE = 2


def walks(episodes: int = 12, time: int = 30, seed: int = 0) -> tuple[Batch, Tensor, Tensor]:
    """Rows, lengths (the last episode is short) and true states; the reward is the first entry of the state."""
    generator = torch.Generator().manual_seed(seed)
    action = torch.rand(episodes, time, SIZE, generator=generator) * 2 - 1
    start = torch.randn(episodes, 1, SIZE, generator=generator)
    moved = torch.cat([torch.zeros_like(start), action[:, :-1] / 10], dim=1).cumsum(1)
    state = start + moved
    lengths = torch.full((episodes,), time - 1)
    lengths[-1] = time // 2
    ended = torch.zeros(episodes, time, dtype=torch.bool)
    ended[-1, time // 2] = True
    first = torch.zeros_like(ended)
    first[:, 0] = True
    return Batch(Observation(vector=state), action, state[..., 0].clone(), ended, first), lengths, state


def knowing(factor: float = 0.1) -> FakeModel:
    """The model x' = x + factor a, which reads the reward off the state and never sees an end."""
    model = FakeModel(ObservationLayout(vector=SIZE), ActionLayout(continuous=SIZE))
    with torch.no_grad():
        model.move.weight.zero_()
        model.move.bias.zero_()
        model.move.weight[:, SIZE:] = factor * torch.eye(SIZE)
        model.heads.weight.zero_()
        model.heads.bias.zero_()
        model.heads.weight[0, 0] = 1.0
    return model
