"""Goals that a world model is shown: what they are worth to it, and that every problem has its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.planning.test_goals import dream
from worldvae.agents import GOALS, goal_probability, goal_state
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import CEMConfig, GradientConfig, plan
from worldvae.types import Observation


def frames(model: SequentialVAE, number: int, seed: int = 0) -> Observation:
    assert model.observation_layout.pixels is not None
    shape = (number, *model.observation_layout.pixels)
    return Observation(torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)))


def test_the_state_of_a_goal_is_that_of_a_first_row(make_model: Callable[..., SequentialVAE]) -> None:
    model = make_model(memory="markov")
    goal = frames(model, 3)
    found = goal_state(model, goal)
    memory = model.memory(model.initial(3), torch.zeros(3, 2))
    q = model.posterior(memory, model.encode(goal))
    assert torch.allclose(found.latent, q.mean, atol=1e-6) and torch.allclose(found.memory, memory)
    assert torch.equal(goal_state(model, goal[1:2]).latent, goal_state(model, goal[1:2]).latent)


def test_the_probability_is_that_of_the_posterior_given_the_goal(make_model: Callable[..., SequentialVAE]) -> None:
    model = make_model()
    goal, generator = frames(model, 2), torch.Generator().manual_seed(0)
    memory, latent = (torch.randn(6, 4, size, generator=generator) for size in (model.memory.size, 4))
    found = goal_probability(model, goal)(dream(latent, memory))
    for row in range(6):
        embedding = model.encode(goal)[row // 3].expand(4, -1)
        expected = model.posterior(memory[row], embedding).log_prob(latent[row]).sum()
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-4)
    # Nothing is likelier than the mode of q at every step.
    q = model.posterior(memory[:3].flatten(0, 1), model.encode(goal)[0].expand(12, -1))
    best = goal_probability(model, goal[:1])(dream(q.mean.view(3, 4, 4), memory[:3]))
    assert bool((best > found[:3]).all())


PARTS: list[dict[str, Any]] = [
    {"memory": "markov"},
    {"latent": "categorical", "memory": "block_gru"},
    {"prior": "hierarchical"},
    {"posterior": "flow"},
    {"context": "smooth"},
    {"stages": "two"},
    {"memory": "transformer"},
]


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: "-".join(parts.values()))
@pytest.mark.parametrize("objective", list(GOALS))
def test_goals_are_planned_for_with_all_parts(
    make_model: Callable[..., SequentialVAE], parts: dict[str, Any], objective: str
) -> None:
    """Each of a batch is planned for its own goal: as it is alone, to rounding error."""
    model = make_model(**parts)
    goal, config = frames(model, 3), CEMConfig(horizon=3, candidates=12, elites=3, iterations=2)
    state = goal_state(model, frames(model, 3, seed=1))
    judge = GOALS[objective]
    every = plan(model, state, judge(model, goal), config, torch.Generator().manual_seed(0), keys=range(3))
    alone = plan(model, state[1:2], judge(model, goal[1:2]), config, torch.Generator().manual_seed(0), keys=[1])
    assert torch.isfinite(every.value).all()
    assert torch.allclose(every.actions[1], alone.actions[0], atol=1e-4)
    assert torch.allclose(every.value[1], alone.value[0], rtol=1e-3)


@pytest.mark.parametrize("objective", list(GOALS))
def test_goals_can_be_climbed_to(make_model: Callable[..., SequentialVAE], objective: str) -> None:
    model = make_model(memory="markov")
    state, judge = goal_state(model, frames(model, 2, seed=1)), GOALS[objective](model, frames(model, 2))
    values = [
        plan(model, state, judge, config, torch.Generator().manual_seed(0)).value
        for config in (GradientConfig(horizon=4, iterations=n, restarts=2) for n in (1, 30))
    ]
    assert bool((values[1] > values[0]).all())
