"""Agents act within bounds with an untrained model, filter like the model, and forget the past at every reset."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from worldvae.agents import ActorAgent, Agent, Carry, ModelAgent, PlannerAgent, RandomAgent
from worldvae.agents.policy import Actor
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import CEMConfig, GradientConfig, GuidedConfig, ICEMConfig, PlanConfig, TreeConfig
from worldvae.types import ActionLayout, Batch, Observation

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]
Feed = Callable[[SequentialVAE, list[Tensor]], None]

LAYOUTS = [ActionLayout(2), ActionLayout(0, (3,)), ActionLayout(0, (3, 2)), ActionLayout(1, (3,))]
CEM = CEMConfig(horizon=3, candidates=12, elites=3, iterations=2)
CONFIGS: dict[str, PlanConfig] = {
    "cem": CEM,
    "icem": ICEMConfig(horizon=3, candidates=12, elites=3, iterations=2),
    "gradient": GradientConfig(horizon=3, restarts=3, iterations=2),
    "guided": GuidedConfig(horizon=3, candidates=12, elites=3, proposals=4, iterations=2, value=False),
}
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
names = pytest.mark.parametrize("name", ["cem", "actor"])


def make_agent(name: str, model: SequentialVAE, noise: float = 0.3) -> ModelAgent:
    torch.manual_seed(0)
    actor = Actor(model.feature_size, model.action_layout, 8, 1)
    for parameter in actor.parameters():
        parameter.data.add_(torch.randn_like(parameter))
    return ActorAgent(model, actor) if name == "actor" else PlannerAgent(model, CONFIGS[name], noise=noise, actor=actor)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def valid(action: Tensor, layout: ActionLayout) -> bool:
    inside = bool((action[:, : layout.continuous].abs() <= 1).all())
    return inside and all(
        bool(((action[:, b] == 0) | (action[:, b] == 1)).all() and (action[:, b].sum(-1) == 1).all())
        for b in layout.blocks
    )


def play(agent: Agent, rows: Batch, seed: int = 0, explore: bool = False) -> tuple[list[Tensor], list[Carry | None]]:
    generator, carry, actions, carries = seeded(seed), None, [], []
    for t in range(rows.reward.shape[1]):
        row = rows[:, t]
        action, carry = agent.act(row.observation, row.is_first, carry, generator, explore)
        actions.append(action)
        carries.append(carry)
    return actions, carries


@layouts
@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("name", ["random", "actor", *CONFIGS])
def test_every_agent_acts_within_bounds_on_a_fresh_model(
    make_model: Maker, make_batch: Rows, layout: ActionLayout, explore: bool, name: str
) -> None:
    model = make_model(action=layout, awake=False)
    agent = RandomAgent(layout) if name == "random" else make_agent(name, model, noise=5.0)
    actions, _ = play(agent, make_batch(model, 3, 4), explore=explore)
    for action in actions:
        assert action.shape == (3, layout.size)
        assert not action.requires_grad
        assert valid(action, layout)
    assert agent.name == name
    again, _ = play(agent, make_batch(model, 3, 4), explore=explore)
    assert all(torch.equal(a, b) for a, b in zip(actions, again, strict=True))


def test_a_persistent_random_agent_is_uniform_and_takes_most_actions_again() -> None:
    agent, size, generator = RandomAgent(ActionLayout(1), 0.8), 20_000, torch.Generator().manual_seed(0)
    nothing, first = Observation(vector=torch.zeros(size, 1)), torch.ones(size, dtype=torch.bool)
    action, carry = agent.act(nothing, first, None, generator)
    for _ in range(3):
        begins = torch.arange(size) < size // 2  # half of the episodes start again and carry nothing over
        following, carry = agent.act(nothing, begins, carry, generator)
        again = (following == action).flatten()
        assert not bool(again[begins].any())
        assert float(again[~begins].float().mean()) == pytest.approx(0.8, abs=4 * math.sqrt(0.16 / (size // 2)))
        assert float(following.square().mean()) == pytest.approx(1 / 3, abs=0.02)
        action = following


def test_the_random_agent_is_uniform_and_remembers_nothing() -> None:
    agent, first = RandomAgent(ActionLayout(1)), torch.zeros(20_000, dtype=torch.bool)
    action, carry = agent.act(Observation(), first, None, seeded(0))
    assert carry is None
    assert abs(float(action.mean())) < 4 * (1 / 3 / 20_000) ** 0.5
    assert float(action.min()) < -0.99 and float(action.max()) > 0.99


@pytest.mark.parametrize("name", ["actor", *CONFIGS])
@layouts
def test_the_carry_is_forgotten_at_a_reset(
    make_model: Maker, make_batch: Rows, name: str, layout: ActionLayout
) -> None:
    model = make_model(action=layout)
    agent = make_agent(name, model)
    rows = make_batch(model, 2, 4)
    _, carries = play(agent, rows)
    newest = make_batch(model, 2, 1, seed=5)[:, 0]
    first = torch.tensor([True, False])
    fresh, fresh_carry = agent.act(newest.observation, torch.ones(2, dtype=torch.bool), None, seeded(3))
    reset, reset_carry = agent.act(newest.observation, first, carries[-1], seeded(3))
    assert fresh_carry is not None and reset_carry is not None
    assert torch.equal(reset[0], fresh[0])
    assert torch.equal(reset_carry.state.features[0], fresh_carry.state.features[0])
    assert not torch.equal(reset_carry.state.features[1], fresh_carry.state.features[1])  # its episode continues
    if name != "actor":
        assert reset_carry.plan is not None and fresh_carry.plan is not None
        assert torch.equal(reset_carry.plan.actions[0], fresh_carry.plan.actions[0])


@names
@pytest.mark.parametrize("explore", [False, True])
def test_acting_filters_as_observe_does(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, name: str, explore: bool
) -> None:
    """Row by row, with its own actions, an agent reaches the states that `observe` returns for these rows."""
    model = make_model(action=ActionLayout(2))
    agent = make_agent(name, model)
    rows = make_batch(model, 2, 5, firsts=(0, 3))
    noise = torch.randn(5, 2, 4, generator=seeded(0))
    imagined = [torch.zeros(CEM.horizon, CEM.candidates, 4)] * (2 * CEM.iterations) if name == "cem" else []
    drawn = [noise] if explore else []  # otherwise the agent follows the mode
    feed_noise(model, [x for t in range(5) for x in (*[n[t : t + 1] for n in drawn], *imagined)] + drawn)
    actions, carries = play(agent, rows, explore=explore)
    taken = Batch(rows.observation, torch.stack(actions, 1), rows.reward, rows.termination, rows.is_first)
    states = model.observe(taken, mode=not explore).posterior
    for t, carry in enumerate(carries):
        assert carry is not None
        assert torch.allclose(carry.state.features, states.features[:, t], atol=1e-5)
        assert torch.equal(carry.action, actions[t])


@pytest.mark.parametrize("name", ["actor", *CONFIGS])
def test_an_agent_that_scores_acts_alone_as_among_others(make_model: Maker, make_batch: Rows, name: str) -> None:
    model = make_model(action=ActionLayout(1, (3,)))
    rows = make_batch(model, 5, 3)
    together, _ = play(make_agent(name, model), rows)
    alone, _ = play(make_agent(name, model), rows[:1])
    for one, among in zip(alone, together, strict=True):
        torch.testing.assert_close(one, among[:1], atol=1e-4, rtol=0.0)


def test_the_planner_starts_from_the_plan_of_the_step_before(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    agent = make_agent("cem", model)
    rows = make_batch(model, 1, 1)[:, 0]
    _, carry = agent.act(rows.observation, torch.tensor([True]), None, seeded(0))
    assert carry is not None and carry.plan is not None
    going = torch.tensor([False])
    with_plan, _ = agent.act(rows.observation, going, carry, seeded(1))
    without, _ = agent.act(rows.observation, going, Carry(carry.action, carry.state), seeded(1))
    assert not torch.equal(with_plan, without)


def test_a_guided_planner_needs_an_actor_and_a_value_where_it_asks_for_one(make_model: Maker) -> None:
    with pytest.raises(ValueError, match="no actor was given"):
        PlannerAgent(make_model(), CONFIGS["guided"])
    with pytest.raises(ValueError, match="no value was given"):
        PlannerAgent(make_model(), GuidedConfig(), actor=make_agent("actor", make_model()).actor)  # type: ignore[attr-defined]


@pytest.mark.parametrize("layout", [ActionLayout(0, (3,)), ActionLayout(0, (3, 2))], ids=repr)
def test_a_tree_search_follows_the_actor_and_draws_only_to_explore(
    make_model: Maker, make_batch: Rows, layout: ActionLayout
) -> None:
    model = make_model(action=layout)
    actor = make_agent("actor", model).actor  # type: ignore[attr-defined]
    config = TreeConfig(horizon=3, iterations=8, value=False)
    row = make_batch(model, 6, 1)[:, 0]

    def act(config: TreeConfig, seed: int = 0, explore: bool = False) -> tuple[Tensor, Tensor]:
        agent = PlannerAgent(model, config, actor=actor)
        action, carry = agent.act(row.observation, row.is_first, None, seeded(seed), explore)
        assert agent.name == "tree" and carry is not None and carry.plan is not None
        assert valid(action, layout) and torch.equal(action, carry.plan.actions[:, 0])
        return action, actor(carry.state.features).mode

    action, preferred = act(replace(config, scale=0.0))  # without the values, only the actor's preference counts
    assert torch.equal(action, preferred)
    explored = [act(replace(config, scale=0.0), seed, explore=True)[0] for seed in range(3)]
    assert any(not torch.equal(other, preferred) for other in explored)
    assert torch.equal(act(config)[0], act(config)[0])
    unguided = [act(replace(config, scale=0.0, guided=False))[0]]
    assert not torch.equal(unguided[0], preferred)


def test_a_tree_search_is_refused_where_actions_are_continuous(make_model: Maker) -> None:
    with pytest.raises(ValueError, match="tree search is for discrete actions"):
        PlannerAgent(make_model(action=ActionLayout(1, (3,))), TreeConfig(value=False))


def test_exploring_adds_noise_to_the_planned_action_and_remembers_what_was_done(
    make_model: Maker, make_batch: Rows
) -> None:
    layout = ActionLayout(1, (3,))
    model = make_model(action=layout)
    rows = make_batch(model, 400, 1)[:, 0]
    quiet, carry = make_agent("cem", model, noise=0.0).act(rows.observation, rows.is_first, None, seeded(0), True)
    noisy, noisy_carry = make_agent("cem", model, noise=0.1).act(rows.observation, rows.is_first, None, seeded(0), True)
    assert carry is not None and carry.plan is not None and noisy_carry is not None
    assert torch.equal(quiet, carry.plan.actions[:, 0])
    assert torch.equal(noisy[:, 1:], quiet[:, 1:])
    inside = quiet[:, 0].abs() < 0.5
    off = (noisy - quiet)[inside, 0]
    assert float(off.std()) == pytest.approx(0.1, rel=4 / (2 * len(off)) ** 0.5)
    assert torch.equal(noisy_carry.action, noisy)


def test_the_actor_scores_by_its_mode_and_explores_by_drawing(make_model: Maker, make_batch: Rows) -> None:
    model = make_model()
    agent = make_agent("actor", model)
    assert isinstance(agent, ActorAgent)
    rows = make_batch(model, 4, 1)[:, 0]
    action, carry = agent.act(rows.observation, rows.is_first, None, seeded(0))
    assert carry is not None and carry.plan is None
    policy = agent.actor(carry.state.features)
    assert torch.equal(action, policy.mode)
    drawn, _ = agent.act(rows.observation, rows.is_first, None, seeded(0), explore=True)
    assert not torch.equal(drawn, action)


@pytest.mark.parametrize("name", ["random", "cem", "actor"])
def test_another_seed_explores_differently(make_model: Maker, make_batch: Rows, name: str) -> None:
    model = make_model()
    agent = RandomAgent(model.action_layout) if name == "random" else make_agent(name, model)
    rows = make_batch(model, 2, 2)
    assert not torch.equal(play(agent, rows, 0, True)[0][0], play(agent, rows, 1, True)[0][0])
