"""MultiBinary and Tuple action spaces, as they are encoded for real environments, are planned to a known optimum."""

from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from worldvae.envs.spaces import ActionCodec
from worldvae.planning import CEMConfig, ICEMConfig, PlanConfig, TreeConfig, discounted_return, plan
from worldvae.types import Dream, State

SUM = partial(discounted_return, discount=1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


SPACES: dict[str, gym.Space[Any]] = {
    "MultiBinary": gym.spaces.MultiBinary(3),
    "Tuple": gym.spaces.Tuple([gym.spaces.Discrete(3, start=-1), gym.spaces.MultiBinary(2)]),
    "Tuple with a Box": gym.spaces.Tuple(
        [gym.spaces.MultiBinary(1), gym.spaces.Box(-2, 2, (1,)), gym.spaces.Discrete(3)]
    ),
}
SEARCHES: dict[str, PlanConfig] = {
    "cem": CEMConfig(horizon=2, candidates=300, elites=20, iterations=10, min_std=0.005),
    "icem": ICEMConfig(horizon=2, candidates=200, elites=12, iterations=12, min_std=0.005),
    "tree": TreeConfig(horizon=2, iterations=200, gumbel=0.0, scale=0.02),
}


CASES = [
    (s, name) for s in SPACES for name in SEARCHES if name != "tree" or "Box" not in s
]  # trees are for the discrete


@pytest.mark.parametrize(("space_name", "name"), CASES)
def test_spaces_of_several_parts_are_planned_to_the_optimum(space_name: str, name: str) -> None:
    """Every entry has a place of its own to be brought to: the right action of either step is known, and no other."""
    space = SPACES[space_name]
    codec = ActionCodec(space)
    layout = codec.layout
    generator = seeded(3)
    best = torch.stack([torch.from_numpy(codec.encode(sample(space, generator))) for _ in range(4)]).view(2, 2, -1)

    class World:
        action_layout = layout

        def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
            box, blocks = actions[..., : layout.continuous], actions[..., layout.continuous :]
            assert bool((box.abs() <= 1).all() and ((blocks == 0) | (blocks == 1)).all())
            time_ = start.memory[:, :1].long() + torch.arange(actions.shape[1])
            goal = best[start.memory[:, 1:].long(), time_]
            rewards = -(actions - goal).square().sum(dim=-1)
            states = torch.stack([time_ + 1.0, start.memory[:, 1:].expand_as(time_)], dim=-1)
            return Dream(start, State(states, states[..., :0]), actions, rewards, torch.ones_like(rewards))

    memory = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    found = plan(World(), State(memory, memory[:, :0]), SUM, SEARCHES[name], seeded(), keys=[0, 1])
    assert torch.allclose(found.actions, best, atol=0.05)
    for row in found.actions.flatten(0, 1):
        assert space.contains(codec.decode(row.numpy()))


def sample(space: gym.Space[Any], generator: torch.Generator) -> Any:
    """Draw an action by a generator of ours."""
    space.seed(int(torch.randint(2**31, (), generator=generator)))
    return space.sample()
