"""Planned episodes: the same starts for all agents, and candidates and times counted."""

import pytest
import torch

from worldvae.agents import RandomAgent
from worldvae.envs import EnvConfig, EnvPool
from worldvae.evaluation.play import play
from worldvae.studies.planned_returns import icem_agent, planned_returns

TINY = EnvConfig("worldvae/Tiny-v0", obs="pixels", size=(16, 16))

pytestmark = pytest.mark.usefixtures("unchecked")


def test_candidates_and_times_of_a_planner(make_model) -> None:
    with EnvPool([TINY]) as pool:
        layouts = pool.observation_layout, pool.action_layout
    model = make_model(layouts[0].pixels, layouts[0].vector, layouts[1])
    agent = icem_agent(model, candidates=8, iterations=2, horizon=3)
    found = planned_returns(agent, TINY, 2, seed=1)
    assert len(found.returns) == len(found.lengths) == 2
    # 8 sampled, the kept elite, and in the last iteration the mean of the proposal
    assert 16 <= found.candidates <= 20
    assert found.ms_per_decision > 0
    decided = found.candidates * 3 * sum(found.lengths)
    seconds = found.ms_per_decision * sum(found.lengths) / 1e3
    assert found.model_steps_per_second == pytest.approx(decided / seconds, rel=1e-6)
    again = planned_returns(icem_agent(model, 8, 2, 3), TINY, 2, seed=1)
    assert again.returns == found.returns
    timed = icem_agent(model, candidates=8, iterations=2, horizon=3, max_ms=5.0).config
    assert timed.max_ms == 5.0 and timed.iterations == 1000


def test_any_agent_plays_the_same_starts() -> None:
    with EnvPool([TINY]) as pool:
        agent = RandomAgent(pool.action_layout)
    found = planned_returns(agent, TINY, 3, seed=2)
    assert found.returns == play(agent, TINY, 3, 2).returns.tolist()
    assert found.candidates == 0.0 and found.model_steps_per_second == 0.0
    assert torch.tensor(found.lengths).min() > 0
