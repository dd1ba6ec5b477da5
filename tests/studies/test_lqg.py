"""The optimal controller as an agent: its filter is the exact one, and its cost the known optimum."""

import pytest
import torch

from worldvae import exact
from worldvae.agents import RandomAgent
from worldvae.envs import EnvConfig, make_from
from worldvae.errors import UserError
from worldvae.evaluation.play import play
from worldvae.studies.lqg import LQGAgent
from worldvae.types import Observation


def agent_of(task: EnvConfig) -> LQGAgent:
    env = make_from(task)
    return LQGAgent.of(env.env.unwrapped)  # type: ignore[arg-type]


def test_its_filter_is_the_kalman_filter_also_where_episodes_begin_anew() -> None:
    task = EnvConfig("worldvae/LinearGaussian-v0", obs="state", time_limit=12)
    agent, carry, world = agent_of(task), None, exact.STIFF
    noise = torch.Generator().manual_seed(0)
    seen = torch.randn(2, 12, 1, generator=noise)
    first = torch.zeros(2, 12, dtype=torch.bool)
    first[:, 0] = first[1, 5] = True  # the second environment is reset before row 5
    means, actions = [], []
    for t in range(12):
        action, carry = agent.act(Observation(vector=seen[:, t]), first[:, t], carry)
        assert carry is not None and carry.state is not None
        means.append(carry.state.features[:, :2])
        actions.append(action)
    found, u = torch.stack(means, dim=1), agent.reach * torch.stack(actions, dim=1).double()
    for lane, rows in ((0, slice(0, 12)), (1, slice(0, 5)), (1, slice(5, 12))):
        expected = exact.kalman_filter(world, seen[lane : lane + 1, rows].double(), u[lane : lane + 1, rows])
        torch.testing.assert_close(found[lane, rows], expected.mean[0], atol=1e-6, rtol=1e-6)


def test_it_costs_less_than_chance_and_says_what_it_reads() -> None:
    task = EnvConfig("worldvae/LinearGaussian-v0", obs="state")
    agent = agent_of(task)
    floor = play(RandomAgent(make_from(task).action_layout), task, 4).returns.mean()
    assert float(play(agent, task, 4).returns.mean()) > 0.3 * float(floor)
    with pytest.raises(UserError, match=r"give env\.obs=state"):
        play(agent, EnvConfig("worldvae/Wind-v0", obs="pixels", size=(32, 32)), 1)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("full_state", [True, False])
@pytest.mark.parametrize("world", ["mild", "stiff"])
def test_its_mean_cost_is_the_known_optimum(world: str, full_state: bool) -> None:
    kwargs = {"world": world, "full_state": full_state, "reach": 20.0}
    task = EnvConfig("worldvae/LinearGaussian-v0", obs="state", time_limit=140, kwargs=kwargs)
    rows = play(agent_of(task), task, 48, keep_rows=True).rows
    assert rows is not None
    costs = -rows.reward[:, 41:].double().mean(dim=1)  # the random start is forgotten
    least = float((exact.lqr_cost if full_state else exact.lqg_cost)(exact.WORLDS[world]))
    error = float(costs.std()) / len(costs) ** 0.5
    assert error < 0.05 * least
    assert abs(float(costs.mean()) - least) < 4 * error
