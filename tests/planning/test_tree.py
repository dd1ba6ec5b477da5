"""The tree search compared with mctx, and on problems with a known optimum."""

import math
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
    Objective,
    Plan,
    PlanConfig,
    TreeConfig,
    discounted_return,
    plan,
)
from worldvae.planning.tree import _Trees
from worldvae.types import ActionLayout, Dream, State, VectorState

SUM = partial(discounted_return, discount=1.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def at(position: Tensor) -> State:
    """Return states that hold one number each."""
    return VectorState(position.float().unsqueeze(-1))


Step = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]


class Table:
    """A world of numbered states and actions: `step(state, action)` is (next state, reward, continuation)."""

    def __init__(self, actions: int, step: Step) -> None:
        self.action_layout, self.step = ActionLayout(0, (actions,)), step

    def imagine(
        self, start: State, actions: Tensor, horizon: int | None = None, generator: torch.Generator | None = None
    ) -> Dream:
        state, found = start.features[:, 0].long(), []
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

# Results of DeepMind's mctx 0.0.71 (gumbel_muzero_policy, jax 0.10.2) in the world below, with the same Gumbel noise:
# simulations, depth, visits of the root's actions, the chosen action, and its value.
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
    """A guide with the logits of mctx's world."""

    def __call__(self, state: State, draws: Draws) -> Tensor:
        raise NotImplementedError

    def logits(self, state: State) -> Tensor:
        return torch.sin(2 * state.features + 3 * torch.arange(5))


def search(
    world: Table,
    config: TreeConfig,
    start: State,
    objective: Objective = SUM,
    noise: Tensor | None = None,
    **named: Any,
) -> tuple[_Trees, Plan]:
    """Plan, optionally with given Gumbel noise; also return the trees that were grown."""
    seen: list[_Trees] = []

    class Spy(_Trees):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.gumbel = self.gumbel if noise is None else noise
            seen.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("worldvae.planning.tree._Trees", Spy)
        found = plan(world, start, objective, config, seeded(), **named)
    return seen[0], found


@pytest.mark.parametrize(("simulations", "depth", "visits", "chosen", "values"), MCTX)
def test_it_visits_what_mctx_visits(
    simulations: int, depth: int, visits: list[list[int]], chosen: list[int], values: list[float]
) -> None:
    def step(s: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        following = (3 * s + 2 * a + s * a + 1) % 7
        return following, torch.sin(1.0 + 7 * following), (following != 5).float()

    objective = partial(discounted_return, discount=0.9, value=lambda state: torch.cos(3 * state.features[:, 0]))
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
    """Return a lock: the code's next digit costs .05, the last digit earns 1, any other digit earns .2 and ends it."""

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
    """The optimum comes from dynamic programming. (With the scale for learned values, a tree whose leaves have value 0
    would follow immediate rewards.)"""
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
    """Among 4^10 combinations, 100 simulations with the exact value find the right one, two steps at a time."""
    world = lock(4, 10)
    best = optimum(world, 10, 10)
    objective = partial(discounted_return, discount=1.0, value=lambda state: best[state.features[:, 0].long()])
    state, config = at(torch.zeros(3)), TreeConfig(horizon=2, iterations=16, gumbel=0.0)
    earned, alive = torch.zeros(3), torch.ones(3)
    for _ in range(10):
        found = plan(world, state, objective, config, seeded(), keys=range(3))
        dream = world.imagine(state, found.actions[:, :1])
        earned, alive = earned + alive * dream.rewards[:, 0], alive * dream.continuations[:, 0]
        state = dream.states[:, 0]
    assert earned.tolist() == pytest.approx([float(best[0])] * 3)


def bandit(arms: Tensor, ends: bool = False) -> Table:
    """Return a world in which action a in state s earns `arms[s, a]` and changes nothing."""
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
    """On average over the noise, for a policy that is already informative, as the paper proves."""
    number = 2000
    arms = torch.tensor([[0.0, 1.0, 0.5, -1.0, 0.2]])
    policy = torch.tensor([0.1, 0.2, 0.4, 0.1, 0.2])

    class Guide(Known):
        def logits(self, state: State) -> Tensor:
            return policy.log().expand(len(state.features), -1)

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
    considered = (visits > 0).nonzero()[:, 0]  # drawn at random, because the prior is uniform: not the first ones
    assert torch.equal(visits[considered], visits[considered].sort(descending=True).values)
    assert int(found.actions[0, 0].argmax()) == int(considered[0])
    other = search(bandit(arms), replace(config, gumbel=1.0, iterations=16), at(torch.zeros(1)))[0].visits[0, 0]
    assert not torch.equal(other > 0, visits > 0)
