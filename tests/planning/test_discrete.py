"""Discrete actions: several blocks, one block at a time, and every kind of action space planned to its optimum."""

from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from worldvae.envs.spaces import ActionCodec
from worldvae.planning import CEMConfig, ICEMConfig, PlanConfig, TreeConfig, discounted_return, discrete_actions, plan
from worldvae.planning.discrete import joint_logits
from worldvae.types import ActionLayout, Dream, State, VectorState

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
PAIRS = [(space, name) for space in SPACES for name in SEARCHES if (space, name) != ("Tuple with a Box", "tree")]


def test_actions_of_several_blocks_are_their_product() -> None:
    layout = ActionLayout(0, (2, 3))
    actions = discrete_actions(layout)
    assert actions.shape == (6, 5) and len({tuple(row) for row in actions.tolist()}) == 6
    assert bool((actions[:, :2].sum(1) == 1).all() and (actions[:, 2:].sum(1) == 1).all())
    probs = torch.tensor([[0.25, 0.75, 0.2, 0.3, 0.5]])
    joint = joint_logits(probs.log(), actions, layout).exp()
    assert torch.allclose(joint, (probs[:, :2, None] * probs[:, None, 2:]).flatten(1))
    wild = torch.tensor([[torch.nan, 0.0, 0.0, 0.0, 0.0], [-torch.inf, 0.0, 0.0, -torch.inf, 0.0]])
    assert joint_logits(wild, actions, layout).isfinite().all()


@pytest.mark.parametrize(("space", "name"), PAIRS)
def test_spaces_of_several_parts_are_planned_to_the_optimum(space: str, name: str) -> None:
    """Every entry has its own goal: the right action of each of the two steps is known and unique."""
    codec = ActionCodec(SPACES[space])
    layout = codec.layout
    generator = torch.Generator().manual_seed(3)
    best = torch.stack([torch.from_numpy(codec.encode(sample(codec.space, generator))) for _ in range(4)]).view(
        2, 2, -1
    )

    class World:
        action_layout = layout

        def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
            box, blocks = actions[..., : layout.continuous], actions[..., layout.continuous :]
            assert bool((box.abs() <= 1).all() and ((blocks == 0) | (blocks == 1)).all())
            time_ = start.features[:, :1].long() + torch.arange(actions.shape[1])
            goal = best[start.features[:, 1:].long(), time_]
            rewards = -(actions - goal).square().sum(dim=-1)
            states = torch.stack([time_ + 1.0, start.features[:, 1:].expand_as(time_)], dim=-1)
            return Dream(start, VectorState(states), actions, rewards, torch.ones_like(rewards))

    memory = torch.tensor([[0.0, 0.0], [0.0, 1.0]])
    objective = partial(discounted_return, discount=1.0)
    found = plan(World(), VectorState(memory), objective, SEARCHES[name], torch.Generator().manual_seed(0), keys=[0, 1])
    assert torch.allclose(found.actions, best, atol=0.05)
    for row in found.actions.flatten(0, 1):
        assert codec.space.contains(codec.decode(row.numpy()))


def sample(space: gym.Space[Any], generator: torch.Generator) -> Any:
    """Draw an action from a torch generator."""
    space.seed(int(torch.randint(2**31, (), generator=generator)))
    return space.sample()
