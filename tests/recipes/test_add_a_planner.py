"""How to add a planner.

1. Its settings: a frozen dataclass that extends `PlanConfig` (or `SearchConfig`, if the planner samples candidates).
2. The planner: a function of `Problems` and that config. `problems.returns(candidates)` imagines and evaluates
   candidates, `problems.hold(moves)` makes a plan from moves; both handle bounds, noise, risk and the time limit.
3. `planning.register(name, config, search)`. Then use `wv.plan(..., BangBangConfig(horizon=8))`, the agent
   `PlannerAgent(model, BangBangConfig())` or, with the config's defaults, `run.make_agent(name)`. (A section in the
   run's config takes two more lines: a field of `RunConfig`, and the name in `PLANNER_SECTIONS` above it.)
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pytest
import torch

import worldvae as wv
from worldvae import planning
from worldvae.agents import PlannerAgent
from worldvae.planning import Plan, PlanConfig, discounted_return
from worldvae.planning.plan import PLANNERS
from worldvae.planning.problems import Problems
from worldvae.planning.search import best_of


@dataclass(frozen=True)
class BangBangConfig(PlanConfig):
    """Settings of the planner: those that every planner has."""

    @property
    def breadth(self) -> int:
        return 2 * (self.moves + 1)


@torch.no_grad()
def bang_bang(problems: Problems, config: BangBangConfig) -> Plan:
    """Return the best plan that pushes with full force one way, and from some step on the other way."""
    moment = torch.arange(config.moves)
    one_way = torch.stack([torch.where(moment < switch, 1.0, -1.0) for switch in range(config.moves + 1)])
    both = torch.cat([one_way, -one_way])[None, :, :, None].expand(problems.draws.batch, -1, -1, problems.layout.size)
    best, value = best_of(both, problems.returns(both), 1)
    return Plan(problems.hold(best[:, 0]), value[:, 0])


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    planning.register("bang_bang", BangBangConfig, bang_bang)
    yield
    del PLANNERS["bang_bang"]  # other tests do not expect it


class Cart:
    """Position and speed, pushed by the action; rewarded for being at rest in the middle."""

    action_layout = wv.ActionLayout(continuous=1)

    def imagine(self, start, actions, horizon=None, generator=None) -> wv.Dream:
        x = [start.features]
        for a in actions.unbind(1):
            x.append(x[-1] + 0.2 * torch.cat([x[-1][:, 1:], a], -1))
        x = torch.stack(x[1:], 1)
        return wv.Dream(start, wv.VectorState(x), actions, -x.square().sum(-1), torch.ones(x.shape[:2]))


def test_it_plans_with_whatever_imagines() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    found = wv.plan(Cart(), wv.VectorState(x), partial(discounted_return, discount=1.0), BangBangConfig(horizon=12))
    assert found.actions.shape == (3, 12, 1) and found.actions[:, 0, 0].tolist() == [-1.0, 1.0, -1.0]
    assert found.steps.tolist() == [26 * 12] * 3
    assert found.actions[0, -1] == 1.0  # and brakes


def test_an_agent_acts_by_it(make_model, make_batch) -> None:
    model = make_model(None, vector=3)
    agent = PlannerAgent(model, BangBangConfig(horizon=4))
    rows = make_batch(model, 2, 1)
    action, _ = agent.act(rows.observation[:, 0], rows.is_first[:, 0], None)
    assert agent.name == "bang_bang" and bool((action.abs() == 1).all())
    with pytest.raises(ValueError, match="there is a planner 'bang_bang'"):
        planning.register("bang_bang", BangBangConfig, bang_bang)
