"""The true dynamics are the environment's, step by step; agents that know the true state earn what is known."""

import numpy as np
import pytest
import torch

from worldvae.agents import RandomAgent
from worldvae.envs import EnvConfig, make_from, wind
from worldvae.errors import UserError
from worldvae.evaluation.play import play
from worldvae.planning import ICEMConfig, RiskConfig, Simulator
from worldvae.planning.simulator import Stochastic
from worldvae.studies.oracle import Expert, Oracle, TruePlanner, oracle
from worldvae.types import Observation, VectorState

TASKS = [
    EnvConfig("Pendulum-v1", obs="state", action_repeat=2),
    EnvConfig("worldvae/Pendulum-v0", obs="state", action_repeat=5, kwargs={"g": 9.0}),
    EnvConfig("CartPole-v1", obs="state", action_repeat=2),
    EnvConfig("CartPole-v1", obs="state", kwargs={"sutton_barto_reward": True}),
    EnvConfig("worldvae/LinearGaussian-v0", obs="state", kwargs={"full_state": True, "world": "mild"}),
    EnvConfig("worldvae/Wind-v0", obs="state"),
    EnvConfig("worldvae/Detail-v0", obs="state", action_repeat=2),
]


def noise_of(simulator: Oracle, before: torch.Tensor, action: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Return the noise with which the environment went from one state to the next, where it has noise."""
    world = simulator.world
    if world.noises == 2:
        mean, _, _ = world.step(before, action, torch.zeros(1, 2, dtype=torch.float64))
        return torch.linalg.solve_triangular(world.root, (after - mean).mT, upper=False).mT
    return after[:, 2:].sign() if world.noises else torch.zeros(1, 0)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.id}x{task.action_repeat}")
def test_it_is_the_environment_step_by_step(task: EnvConfig) -> None:
    simulator, env = oracle(task), make_from(task)
    agent, draws = RandomAgent(env.action_layout), torch.Generator().manual_seed(0)
    assert isinstance(simulator, Simulator)
    assert isinstance(simulator, Stochastic)
    ends = 0
    for episode in range(3 if task.id == "CartPole-v1" else 1):
        observation, _ = env.reset(seed=episode)
        done = False
        while not done:
            before = simulator.world.state(env).unsqueeze(0)
            seen = torch.from_numpy(observation["vector"])
            torch.testing.assert_close(simulator.world.truth(before)[0].float(), seen, atol=1e-6, rtol=1e-5)
            action, _ = agent.act(Observation(), torch.zeros(1, dtype=torch.bool), None, draws)
            observation, reward, terminated, truncated, _ = env.step(action[0].numpy())
            after = simulator.world.state(env).unsqueeze(0)
            noise = noise_of(simulator, before, action.double(), after).unsqueeze(0)
            dream = simulator.imagine(VectorState(before), action.unsqueeze(1), noise=noise)
            torch.testing.assert_close(dream.states.features[:, 0], after, atol=1e-5, rtol=1e-5)
            assert float(dream.rewards) == pytest.approx(reward, abs=1e-5)
            assert bool(dream.continuations == 0) == terminated
            done, ends = terminated or truncated, ends + terminated
    assert (ends == 3) == (task.id == "CartPole-v1")


@pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.id}x{task.action_repeat}")
def test_the_state_is_read_from_what_the_environment_shows(task: EnvConfig) -> None:
    simulator, env = oracle(task), make_from(task)
    env.reset(seed=0)
    state = simulator.world.state(env)
    back = simulator.world.state_of(simulator.world.truth(state))
    difference = back - state
    if "Pendulum" in task.id:
        difference[0] = torch.remainder(difference[0] + torch.pi, 2 * torch.pi) - torch.pi
    assert float(difference.abs().max()) < 1e-9
    assert len(simulator.world.names) == len(simulator.world.truth(state)) == env.observation_layout.vector


def test_nothing_is_earned_after_a_termination() -> None:
    simulator = oracle(EnvConfig("CartPole-v1", obs="state", action_repeat=2))
    right = torch.tensor([0.0, 1.0]).expand(3, 12, 2)
    dream = simulator.imagine(VectorState(torch.zeros(3, 4)), right)
    alive = dream.continuations[0]
    fell = int((alive == 0).nonzero()[0])
    assert (alive[:fell] == 1).all() and (alive[fell:] == 0).all()
    assert (dream.rewards[:, :fell] == 2).all() and (dream.rewards[:, fell + 1 :] == 0).all()
    assert (dream.states.features[:, fell] == dream.states.features[:, -1]).all()


def test_dreams_of_the_wind_have_two_ends_and_their_mean_none(generator: torch.Generator) -> None:
    task, start = EnvConfig("worldvae/Wind-v0", obs="state"), torch.tensor([[0.0, 1.0, 0.0]]).expand(200, 3)
    still = torch.zeros(200, wind.PERIOD - 1, 1)
    drawn = oracle(task).imagine(VectorState(start), still, generator=generator).states.features[:, -1, 2]
    assert set(drawn.tolist()) == {-np.float32(wind.SIDE), np.float32(wind.SIDE)}
    assert abs(float(drawn.sign().mean())) < 0.3
    mean = oracle(task, random=False).imagine(VectorState(start), still).states.features[:, -1, 2]
    assert (mean == 0).all()


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="true dynamics of worldvae/Tiny-v0 are not known"):
        oracle(EnvConfig("worldvae/Tiny-v0"))
    blind = EnvConfig("worldvae/LinearGaussian-v0", obs="state")
    with pytest.raises(UserError, match=r"a vector of 1 numbers, and needs z0, z1: .*full_state=true"):
        play(Expert(oracle(blind).world), blind, 1)
    with pytest.raises(UserError, match="no vector"):
        play(Expert(oracle(blind).world), EnvConfig("worldvae/Wind-v0", size=(32, 32)), 1)


@pytest.mark.usefixtures("unchecked")  # (and thus at the end of this file)
def test_an_expert_earns_more_than_chance_and_as_much_as_is_known() -> None:
    known = {"Pendulum-v1": -200.0, "CartPole-v1": 499.0, "worldvae/Wind-v0": 1.2, "worldvae/Detail-v0": 40.0}
    for id, least in known.items():
        task = EnvConfig(id, obs="state", action_repeat=2 if id.endswith("v1") else 1)
        earned = play(Expert(oracle(task).world), task, 8).returns
        assert float(earned.mean()) >= least, id


def test_planning_from_the_true_state_swings_the_pendulum_up() -> None:
    task = EnvConfig("worldvae/Pendulum-v0", obs="state", action_repeat=5)
    agent = TruePlanner(oracle(task), ICEMConfig(horizon=10, candidates=48, elites=8, iterations=2))
    played = play(agent, task, 3)
    assert float(played.returns.mean()) > -400
    assert played.model_steps > 0
    one, other = (play(agent, task, 3, limit=3, keep_rows=True).rows for _ in range(2))
    assert one is not None and other is not None
    assert torch.equal(one.action, other.action)


def test_planning_with_several_dreams_commits_to_a_side_and_with_the_mean_it_waits() -> None:
    task = EnvConfig("worldvae/Wind-v0", obs="state")
    numbers = {"horizon": wind.PERIOD - 1, "candidates": 64, "elites": 8, "iterations": 3, "colour": 2.0}
    drawn = TruePlanner(oracle(task), ICEMConfig(**numbers, risk=RiskConfig(samples=8)))
    mean = TruePlanner(oracle(task, random=False), ICEMConfig(**numbers))
    places = {}
    for agent in (drawn, mean):
        rows = play(agent, task, 4, limit=wind.GUST + 1, keep_rows=True).rows
        assert rows is not None and rows.observation.vector is not None
        places[agent] = rows.observation.vector[:, wind.GUST + 1, 0].abs()
    assert float(places[mean].max()) < wind.WIDTH
    assert float(places[drawn].mean()) > float(places[mean].mean())
