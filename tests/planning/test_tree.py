"""The tree search: against mctx, on problems whose optimum is known, and what the core promises for every planner."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.planning import (
    CEMConfig,
    Draws,
    GuideWithLogits,
    ICEMConfig,
    Plan,
    PlanConfig,
    RiskConfig,
    SimulatorEnsemble,
    Stochastic,
    TreeConfig,
    discounted_return,
    discrete_actions,
    plan,
)
from worldvae.planning.clock import Clock
from worldvae.planning.discrete import joint_logits
from worldvae.planning.gumbel import considered_visits
from worldvae.planning.problems import Problems
from worldvae.planning.tree import _Trees
from worldvae.types import ActionLayout, Dream, State

RETURN = partial(discounted_return, discount=0.9)
SUM = partial(discounted_return, discount=1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(position: Tensor) -> State:
    """Return states that are a number each."""
    return State(position.float().unsqueeze(-1), torch.zeros(*position.shape, 0))


Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Table:
    """A world of numbered states and actions: `step(state, action)` is (next state, reward, continuation)."""

    def __init__(self, actions: int, step: Step) -> None:
        self.action_layout, self.step = ActionLayout(0, (actions,)), step

    def imagine(
        self, start: State, actions: Tensor, horizon: int | None = None, generator: torch.Generator | None = None
    ) -> Dream:
        state, found = start.memory[:, 0].long(), []
        for action in actions.unbind(1):
            assert bool(((action == 0) | (action == 1)).all() and (action.sum(-1) >= 1).all())
            state, reward, goes_on = self.step(state, action.argmax(dim=1))
            found.append((state, reward, goes_on))
        states, rewards, continuations = (torch.stack(part, dim=1) for part in zip(*found, strict=True))
        return Dream(start, at(states), actions, rewards, continuations.float())


def optimum(world: Table, states: int, horizon: int) -> Tensor:
    """Return the largest undiscounted return of `horizon` steps from every state, by dynamic programming."""
    (number,) = world.action_layout.categorical
    s, a = torch.arange(states).repeat_interleave(number), torch.arange(number).repeat(states)
    following, rewards, goes_on = world.step(s, a)
    best = torch.zeros(states)
    for _ in range(horizon):
        best = (rewards + goes_on * best[following]).view(states, number).amax(dim=1)
    return best


# --- Against mctx ---

# What DeepMind's mctx 0.0.71 (gumbel_muzero_policy, jax 0.10.2) says of the world below, with the same Gumbel noise:
# simulations, depth, visits of the root's actions, the action that is chosen, and its value.
MCTX = [
    (
        *(40, 4, [[17, 2, 2, 17, 2], [2, 17, 2, 2, 17], [17, 17, 2, 2, 2], [2, 17, 2, 2, 17]], [0, 1, 1, 1]),
        [1.87488, 3.34462, 0.17243, 1.87488],
    ),
    (
        *(9, 9, [[1, 1, 1, 3, 3], [1, 3, 1, 1, 3], [1, 3, 1, 1, 3], [1, 3, 1, 1, 3]], [3, 1, 1, 1]),
        [2.38655, 2.38655, -0.45297, 1.36765],
    ),
    (
        *(64, 15, [[26, 4, 4, 26, 4], [4, 26, 4, 4, 26], [26, 26, 4, 4, 4], [4, 26, 4, 4, 26]], [3, 1, 0, 1]),
        [5.73065, 5.73065, 5.73065, 2.61890],
    ),
]


class Known:
    """A guide that knows the logits of mctx's world."""

    def __call__(self, state: State, draws: Draws) -> Tensor:
        raise NotImplementedError

    def logits(self, state: State) -> Tensor:
        return torch.sin(2 * state.memory + 3 * torch.arange(5))


def search(world: Any, config: TreeConfig, start: State, objective: Any = SUM, **named: Any) -> tuple[_Trees, Plan]:
    """Grow trees and return them, too."""
    draws = Draws(len(start.memory), start.memory, seeded(), None)
    clock, keep = Clock(0.0, start.memory.device), torch.ones(len(start.memory))
    layout = world.action_layout
    problems = Problems(world, start, objective, config, layout, draws, clock, None, keep, named.get("guide"))
    with torch.no_grad():
        trees = _Trees(problems, config)
        if "noise" in named:
            trees.gumbel = named["noise"]
        width = min(config.considered, len(trees.actions))
        for i, visited in enumerate(considered_visits(width, config.iterations)):
            trees.grow(i + 1, visited)
        return trees, trees.plan()


@pytest.mark.parametrize(("simulations", "depth", "visits", "chosen", "values"), MCTX)
def test_it_visits_what_mctx_visits(
    simulations: int, depth: int, visits: list[list[int]], chosen: list[int], values: list[float]
) -> None:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = (3 * s + 2 * a + s * a + 1) % 7
        return following, torch.sin(1.0 + 7 * following), (following != 5).float()

    objective = partial(discounted_return, discount=0.9, value=lambda state: torch.cos(3 * state.memory[:, 0]))
    noise = 2 * torch.sin(5.0 * torch.arange(4).unsqueeze(1) + 3 * torch.arange(5) + 1)
    config = TreeConfig(horizon=depth, iterations=simulations)
    start = at(torch.arange(4))
    trees, found = search(Table(5, step), config, start, objective, noise=noise, guide=Known())
    assert isinstance(Known(), GuideWithLogits)
    assert trees.visits[:, 0].tolist() == visits
    assert found.actions[:, 0].argmax(dim=1).tolist() == chosen
    assert found.value.tolist() == pytest.approx(values, abs=1e-4)


# --- Known optima ---


def lock(digits: int, length: int) -> Table:
    """Return a lock: the next digit of its code costs .05, the last one pays 1, and any other pays .2 and ends it."""

    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        right = a == (2 * s + 1) % digits
        opened = right & (s == length - 1)
        reward = torch.where(opened, 1.0, torch.where(right, -0.05, 0.2))
        return (s + right.long()).clamp(max=length - 1), reward, right & ~opened

    return Table(digits, step)


LOCKS: dict[str, PlanConfig] = {
    "tree": TreeConfig(horizon=3, iterations=250, scale=0.01, gumbel=0.0, value=False),
    "cem": CEMConfig(horizon=3, candidates=300, elites=15, iterations=5),
    "icem": ICEMConfig(horizon=3, candidates=200, elites=10),
}


@pytest.mark.parametrize("config", LOCKS.values(), ids=list(LOCKS))
def test_the_lock_is_opened_though_the_first_digit_of_its_code_is_the_worst(config: PlanConfig) -> None:
    """The optimum is by dynamic programming. (With the scale that suits a learnt value, a tree whose leaves promise
    nothing would follow what pays at once.)"""
    world = lock(3, 3)
    best = optimum(world, 3, 3)
    assert float(best[0]) == pytest.approx(0.9) and float(optimum(world, 3, 1)[0]) == pytest.approx(0.2)
    start = at(torch.zeros(8))
    found = plan(world, start, SUM, config, seeded(), keys=range(8))
    assert SUM(world.imagine(start, found.actions)).tolist() == pytest.approx([0.9] * 8)
    if isinstance(config, TreeConfig):
        greedy = plan(world, start, SUM, replace(config, horizon=1, iterations=9), seeded(), keys=range(8))
        assert greedy.value.tolist() == pytest.approx([0.2] * 8)


def test_a_value_shows_the_way_through_a_long_lock() -> None:
    """Of 4^10 combinations, 100 simulations with the exact value find the one, two steps at a time."""
    world = lock(4, 10)
    best = optimum(world, 10, 10)
    objective = partial(discounted_return, discount=1.0, value=lambda state: best[state.memory[:, 0].long()])
    state, config = at(torch.zeros(3)), TreeConfig(horizon=2, iterations=16, gumbel=0.0)
    earned, alive = torch.zeros(3), torch.ones(3)
    for _ in range(10):
        found = plan(world, state, objective, config, seeded(), keys=range(3))
        dream = world.imagine(state, found.actions[:, :1])
        earned, alive = earned + alive * dream.rewards[:, 0], alive * dream.continuations[:, 0]
        state = dream.states[:, 0]
    assert earned.tolist() == pytest.approx([float(best[0])] * 3)


def bandit(arms: Tensor, ends: bool = False) -> Table:
    """Return a world in which action a in state s pays `arms[s, a]` and changes nothing."""
    return Table(arms.shape[1], lambda s, a: (s, arms[s, a], torch.full_like(arms[s, a], float(not ends))))


@pytest.mark.parametrize("simulations", [16, 64])
def test_the_improved_policy_of_a_bandit_prefers_the_best_arm(simulations: int, generator: torch.Generator) -> None:
    arms = torch.randn(50, 12, generator=generator)
    config = TreeConfig(horizon=1, iterations=simulations, gumbel=0.0)
    trees, found = search(bandit(arms), config, at(torch.arange(50)))
    assert torch.equal(found.actions[:, 0].argmax(dim=1), arms.argmax(dim=1))
    assert torch.equal(trees.improved[:, 0].argmax(dim=1), arms.argmax(dim=1))
    assert torch.allclose(found.value, arms.amax(dim=1))


def test_two_simulations_improve_on_the_prior(generator: torch.Generator) -> None:
    """On average over the noise, of a policy that already knows something; as the paper proves."""
    number = 2000
    arms = torch.tensor([[0.0, 1.0, 0.5, -1.0, 0.2]])
    policy = torch.tensor([0.1, 0.2, 0.4, 0.1, 0.2])

    class Guide(Known):
        def logits(self, state: State) -> Tensor:
            return policy.log().expand(len(state.memory), -1)

    config = TreeConfig(horizon=1, iterations=2, considered=2)
    found = plan(bandit(arms), at(torch.zeros(number)), SUM, config, generator, guide=Guide(), keys=range(number))
    prior = float((policy * arms[0]).sum())
    assert float(found.value.mean()) > prior + 4 * float(found.value.std()) / math.sqrt(number)
    unguided = replace(config, guided=False)
    plain = plan(bandit(arms), at(torch.zeros(number)), SUM, unguided, seeded(), guide=Guide(), keys=range(number))
    assert float(plain.value.mean()) > float(arms.mean()) + 4 * float(plain.value.std()) / math.sqrt(number)
    assert float(plain.value.mean()) < float(found.value.mean())


def test_the_root_is_searched_by_sequential_halving() -> None:
    arms = torch.arange(20).flip(0).unsqueeze(0) * 1.0  # the first are the best
    config = TreeConfig(horizon=1, iterations=200, gumbel=0.0)
    trees, found = search(bandit(arms), config, at(torch.zeros(1)))
    visits = trees.visits[0, 0]
    assert sorted(visits.tolist(), reverse=True) == [49] * 2 + [21] * 2 + [9] * 4 + [3] * 8 + [0] * 4
    considered = (visits > 0).nonzero()[:, 0]  # drawn, as the prior is uniform: not the first of them all
    assert torch.equal(visits[considered], visits[considered].sort(descending=True).values)
    assert int(found.actions[0, 0].argmax()) == int(considered[0])
    other = search(bandit(arms), replace(config, gumbel=1.0, iterations=16), at(torch.zeros(1)))[0].visits[0, 0]
    assert not torch.equal(other > 0, visits > 0)


# --- What the core promises ---


class Drift:
    """z' = z + move + 2 jump + noise / 10, paid -(z' - goal)^2: computed number by number, without a product."""

    action_layout = ActionLayout(0, (3, 2))

    def __init__(self, end: float = 1.0, broken: str = "") -> None:
        self.end, self.broken, self.seen = end, broken, 0

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, 1, generator=generator)

    def imagine(
        self,
        start: State,
        actions: Tensor,
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Tensor | None = None,
    ) -> Dream:
        assert noise is not None and actions.shape[1] == 1 and valid(actions)
        self.seen += 1
        a = actions[:, 0]
        z = start.memory + (a[:, 2:3] - a[:, :1]) + 2 * a[:, 4:5] + 0.1 * noise[0]
        off = z - start.latent
        rewards = -(off * off)
        if self.broken:
            rewards = rewards * torch.nan
        states = State(z.unsqueeze(1) * (torch.nan if self.broken == "state" else 1.0), start.latent.unsqueeze(1))
        return Dream(start, states, actions, rewards, torch.full_like(rewards, self.end))

    def __call__(self, state: State, draws: Draws) -> Tensor:
        raise NotImplementedError

    def logits(self, state: State) -> Tensor:
        """Prefer what leads to the goal."""
        off = state.latent - state.memory
        return torch.cat([-off, 0 * off, off, -off, off], dim=1) * 0.1


def valid(actions: Tensor) -> bool:
    one_hot = bool(((actions == 0) | (actions == 1)).all())
    return one_hot and bool((actions[..., :3].sum(-1) == 1).all() and (actions[..., 3:].sum(-1) == 1).all())


def problems(number: int) -> State:
    return State(*(2 * torch.randn(100, 1, generator=seeded(i))[:number] for i in range(2)))


CONFIG = TreeConfig(horizon=4, iterations=24, considered=4)


@pytest.mark.parametrize("guided", [False, True], ids=["uniform", "guided"])
@pytest.mark.parametrize("keyed", [False, True], ids=["common", "keyed"])
def test_a_plan_is_the_same_alone_and_among_others(keyed: bool, guided: bool) -> None:
    """To the bit: this world is computed by element. Also for the problems next to which other trees are deeper."""
    assert isinstance(Drift(), Stochastic)
    every, results = problems(100), {}
    for some in (slice(0, 100), slice(0, 1), slice(99, 100), slice(3, 19)):
        generator, keys = seeded(), list(range(100))[some] if keyed else None
        found = plan(Drift(), every[some], RETURN, CONFIG, generator, keys=keys, guide=Drift() if guided else None)
        results[some.start, some.stop] = (found, generator.get_state())
    whole, after = results.pop((0, 100))
    assert whole.actions.shape == (100, 4, 5) and valid(whole.actions)
    for (start, stop), (found, state) in results.items():
        assert torch.equal(found.actions, whole.actions[start:stop])
        assert torch.equal(found.value, whole.value[start:stop])
        assert torch.equal(state, after)


def test_equal_problems_are_planned_alike_without_keys_and_independently_with_them() -> None:
    twice = problems(1)[torch.zeros(2, dtype=torch.int64)]
    common = plan(Drift(), twice, RETURN, CONFIG, seeded())
    keyed = plan(Drift(), twice, RETURN, CONFIG, seeded(), keys=[0, 1])
    assert torch.equal(common.actions[0], common.actions[1]) and torch.equal(common.value[0], common.value[1])
    assert not torch.equal(keyed.value[0], keyed.value[1])


def test_the_same_seed_gives_the_same_bits() -> None:
    a, b, c = (plan(Drift(), problems(5), RETURN, CONFIG, seeded(i)) for i in (0, 0, 1))
    assert torch.equal(a.actions, b.actions) and torch.equal(a.value, b.value)
    assert not torch.equal(a.value, c.value)


def test_a_random_world_is_steered_to_its_goal() -> None:
    """Two steps to the left at once, or a jump to the right: all goals are within .6 of what can be reached."""
    goals = torch.tensor([[-2.2], [-1.0], [0.1], [2.0], [3.0]])
    start = State(torch.zeros(5, 1), goals)
    config = TreeConfig(horizon=2, iterations=100, gumbel=0.0)
    found = plan(Drift(), start, lambda dream: dream.rewards[:, -1], config, seeded(), keys=range(5))
    steps = found.actions[..., 2] - found.actions[..., 0] + 2 * found.actions[..., 4]
    assert bool(((steps.sum(dim=1) - goals[:, 0]).abs() < 0.5).all())


@pytest.mark.parametrize("where", ["state", "reward"])
@pytest.mark.parametrize("guided", [False, True], ids=["uniform", "guided"])
def test_a_model_that_breaks_down_still_gives_valid_actions(where: str, guided: bool) -> None:
    guide = Drift() if guided else None
    found = plan(Drift(broken=where), problems(3), RETURN, CONFIG, seeded(), guide=guide)
    assert valid(found.actions) and found.value.tolist() == [-torch.inf] * 3


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_returns_that_are_all_broken_still_give_a_valid_plan(value: float) -> None:
    found = plan(Drift(), problems(3), lambda dream: value + 0 * dream.rewards[:, 0], CONFIG, seeded())
    assert valid(found.actions) and not found.value.isnan().any()


@pytest.mark.parametrize("poison", [torch.nan, -torch.inf])
def test_a_return_that_is_not_a_number_counts_as_the_worst(poison: float) -> None:
    """Arms beside a broken one are chosen, though they are all as good as each other or far below 0."""
    arms = torch.tensor([[poison, -7.0, poison], [poison, poison, 1e9], [-1e-9, poison, poison], [-2.0, -1.0, poison]])
    found = plan(bandit(arms), at(torch.arange(4)), SUM, TreeConfig(horizon=2, iterations=30, gumbel=0.0), seeded())
    assert found.actions[:, 0].argmax(dim=1).tolist() == [1, 2, 0, 1]


def test_one_broken_problem_does_not_disturb_its_neighbour() -> None:
    def broken(dream: Dream) -> Tensor:
        returns = RETURN(dream).clone()
        returns[: len(returns) // 2] = torch.nan
        return returns

    alone, beside = (plan(Drift(), problems(2), objective, CONFIG, seeded()) for objective in (RETURN, broken))
    assert torch.equal(beside.actions[1], alone.actions[1]) and torch.equal(beside.value[1], alone.value[1])


def test_nothing_counts_after_a_terminal_first_step() -> None:
    arms = torch.tensor([[0.0, 1.0, 0.5]])
    found = plan(bandit(arms, ends=True), at(torch.zeros(2)), SUM, replace(CONFIG, gumbel=0.0), seeded(), keys=[0, 1])
    assert found.actions[:, 0].argmax(dim=1).tolist() == [1, 1] and found.value.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("layout", [ActionLayout(0, (1,)), ActionLayout(0, (1, 1)), ActionLayout(0, (2,))])
@pytest.mark.parametrize(
    "config", [TreeConfig(horizon=1), TreeConfig(iterations=1), TreeConfig(considered=1), TreeConfig(horizon=3)]
)
def test_degenerate_numbers_still_give_a_whole_plan(layout: ActionLayout, config: TreeConfig) -> None:
    world = Table(2, lambda s, a: (s, a.float(), torch.ones_like(a)))
    found = plan(world, at(torch.zeros(2)), SUM, config, seeded(), layout=layout)
    assert found.actions.shape == (2, config.horizon, layout.size)
    assert all(bool((found.actions[..., block].sum(-1) == 1).all()) for block in layout.blocks)
    assert found.value.isfinite().all()


def test_the_best_plan_so_far_is_returned_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that moves on by 10 ms with each look, a simulation takes 10 ms, and so does what lies between two."""
    now = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: 0.01 * next(now))
    for limit, simulations in ((65.0, 3), (1e-3, 1)):
        world = Drift()
        found = plan(world, problems(2), RETURN, replace(CONFIG, max_ms=limit), seeded())
        assert world.seen == simulations and valid(found.actions) and found.value.isfinite().all()


def test_behind_its_tree_the_plan_repeats_what_the_prior_prefers() -> None:
    class Last(Known):
        def logits(self, state: State) -> Tensor:
            return torch.tensor([0.0, 0.0, 0.0, 5.0]).expand(len(state.memory), -1)

    arms = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    config = TreeConfig(horizon=6, iterations=4, gumbel=0.0, scale=10.0)
    found = plan(bandit(arms), at(torch.zeros(1)), SUM, config, seeded(), guide=Last())
    assert found.actions[0].argmax(dim=1).tolist() == [1, 3, 3, 3, 3, 3]


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


def test_a_mistake_is_one_sentence() -> None:
    for layout, words in (
        (ActionLayout(1, (3,)), "has continuous ones: plan with cem, icem"),
        (ActionLayout(0, (40, 40)), "at most 1024, and .* has 1600: plan with cem, icem"),
    ):
        with pytest.raises(ValueError, match=words):
            plan(Drift(), problems(1), RETURN, CONFIG, layout=layout)
    for numbers in ({"considered": 0}, {"gumbel": -1.0}, {"scale": math.nan}, {"offset": math.inf}):
        with pytest.raises(ValueError, match=next(iter(numbers))):
            TreeConfig(**numbers)  # type: ignore[arg-type]
    for rest in ({"repeat": 2}, {"risk": RiskConfig(samples=2)}, {"risk": RiskConfig(trust=0.5)}):
        with pytest.raises(ValueError, match=next(iter(rest))):
            TreeConfig(**rest)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in one model"):
        plan(SimulatorEnsemble([Drift(), Drift()]), problems(1), RETURN, CONFIG, layout=ActionLayout(0, (2, 3)))
    assert TreeConfig().breadth == 1
