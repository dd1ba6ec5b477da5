"""Goals given as observations: their objectives, and that every problem of a batch has its own goal."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.fake_model import FakeModel
from worldvae.agents import GOALS, goal_probability, goal_state, landmark_distance, latent_distance, latent_landmarks
from worldvae.agents.goal import _first_row
from worldvae.errors import UserError
from worldvae.memory import LatentState
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import CEMConfig, GradientConfig, plan
from worldvae.types import ActionLayout, Dream, Observation, ObservationLayout, State, VectorState


def dream(states: State) -> Dream:
    """Return a dream with these states `[row, horizon]`."""
    ones = torch.ones(states.features.shape[:2])
    return Dream(states[:, 0], states, torch.zeros(*ones.shape, 1), 0 * ones, ones)


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
    found = goal_probability(model, goal)(dream(LatentState(memory, latent)))
    for row in range(6):
        embedding = model.encode(goal)[row // 3].expand(4, -1)
        expected = model.posterior(memory[row], embedding).log_prob(latent[row]).sum()
        assert found[row].item() == pytest.approx(expected.item(), rel=1e-4)
    # Bit by bit as if q were computed apart for every dream.
    embedding = model.embed(_first_row(model, goal))[:, 0]
    projected = model.posterior.project(embedding).repeat_interleave(3, 0).unsqueeze(1).expand(-1, 4, -1)
    q = model.posterior.distribution(model.posterior.infer(memory, projected, None)[1])
    assert torch.equal(found, q.log_prob(latent).sum(dim=1))
    # Nothing has a higher probability than the mode of q at every step.
    q = model.posterior(memory[:3].flatten(0, 1), model.encode(goal)[0].expand(12, -1))
    best = goal_probability(model, goal[:1])(dream(LatentState(memory[:3], q.mean.view(3, 4, 4))))
    assert bool((best > found[:3]).all())


def test_distances_are_of_latents_and_not_of_memories(make_model: Callable[..., SequentialVAE]) -> None:
    model, generator = make_model(), torch.Generator().manual_seed(0)
    goal, memory = frames(model, 1), torch.randn(5, 2, model.memory.size, generator=generator)
    target = goal_state(model, goal).latent
    there, far = (LatentState(memory, latent.expand(5, 2, -1)) for latent in (target, target + 1))
    landmarks = latent_landmarks(model, frames(model, 20, seed=1))
    for objective in (latent_distance(model, goal), landmark_distance(model, goal, landmarks)):
        assert objective(dream(there)).tolist() == [0.0] * 5
        assert bool((objective(dream(far)) < -1).all())
    assert torch.allclose(latent_distance(model, goal)(dream(far)), torch.tensor(-2 * 4**0.5))


def test_states_of_other_models_are_compared_by_all_their_features() -> None:
    model = FakeModel(ObservationLayout(vector=3), ActionLayout(1))
    goal = Observation(vector=torch.tensor([[1.0, 2.0, 3.0]]))
    there = VectorState(goal.vector.expand(5, 2, 3))
    assert GOALS["distance"](model, goal)(dream(there)).tolist() == [0.0] * 5
    assert torch.allclose(
        GOALS["distance"](model, goal)(dream(VectorState(there.vector + 1))), torch.tensor(-2 * 3**0.5)
    )
    with pytest.raises(UserError, match=r"'probability' asks q\(z \| h, e\), which a FakeModel does not have"):
        GOALS["probability"](model, goal)


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
    """A plan for one of several goals equals the plan for this goal alone, up to rounding errors."""
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
