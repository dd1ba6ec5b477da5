"""Every planner on problems with a known answer: positions to reach with any kind of action."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import gymnasium as gym
import pytest
import torch
from torch import Tensor

from worldvae.envs.spaces import ActionCodec
from worldvae.memory import LatentState
from worldvae.planning import (
    CEMConfig,
    Draws,
    GradientConfig,
    GuidedConfig,
    ICEMConfig,
    MPPIConfig,
    Plan,
    PlanConfig,
    Proposal,
    ShootingConfig,
    Simulator,
    discounted_return,
    plan,
)
from worldvae.planning.proposal import fit
from worldvae.types import ActionLayout, Dream, State


class Linear:
    """z' = A z + B a, reward -(z' - goal)' Q (z' - goal) - a' R a; the state carries z and the goal."""

    def __init__(self, a: Tensor, b: Tensor, q: Tensor, r: Tensor | None = None) -> None:
        self.a, self.b, self.q = a, b, q
        self.r = torch.zeros(b.shape[1], b.shape[1]) if r is None else r

    def start(self, position: Tensor, goal: Tensor | None = None) -> State:
        return LatentState(position, torch.zeros_like(position) if goal is None else goal)

    def imagine(
        self, start: State, actions: Tensor, horizon: int | None = None, generator: torch.Generator | None = None
    ) -> Dream:
        state, goal, states, rewards = start.memory, start.latent, [], []
        for action in actions.unbind(1):
            state = state @ self.a.T + action @ self.b.T
            off = state - goal
            rewards.append(-((off @ self.q) * off).sum(-1) - ((action @ self.r) * action).sum(-1))
            states.append(LatentState(state, goal))
        found = torch.stack(rewards, dim=1)
        return Dream(start, State.stack(states, dim=1), actions, found, torch.ones_like(found))


def walker(moves: list[list[float]]) -> Linear:
    """Return a world in which each entry of the action vector moves the state by its row of `moves`."""
    b = torch.tensor(moves).T
    return Linear(torch.eye(len(b)), b, torch.eye(len(b)))


def objective(discount: float = 1.0) -> Callable[[Dream], Tensor]:
    return partial(discounted_return, discount=discount)


TWO = ActionCodec(gym.spaces.MultiDiscrete([3, 2])).layout
MIXED = ActionCodec(gym.spaces.Dict({"gear": gym.spaces.Discrete(3), "push": gym.spaces.Box(-1, 1, (1,))})).layout
STEPS = [[-1.0], [0.0], [1.0]]
CONFIG = CEMConfig(horizon=3, candidates=200, elites=20, iterations=8, min_std=0.005, discount=1.0)
SHARP = MPPIConfig(horizon=3, candidates=400, elites=40, iterations=12, min_std=0.005, discount=1.0, value=False)
CONFIGS: dict[str, PlanConfig] = {
    "cem": CONFIG,
    "mppi": SHARP,
    "icem": ICEMConfig(horizon=3, candidates=160, elites=12, iterations=14, min_std=0.005, discount=1.0),
    "gradient": GradientConfig(horizon=3, restarts=12, iterations=80, discount=1.0),
    "guided": GuidedConfig(**vars(SHARP)),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
BOTH = pytest.mark.parametrize("config", [CONFIG, SHARP], ids=["cem", "mppi"])
# World, layout, goals of two problems, and the best plans for them.
PROBLEMS: dict[str, tuple[list[list[float]], ActionLayout, list[list[float]], list[list[list[float]]]]] = {
    "continuous": (
        [[1.0, 0.0], [0.0, 1.0]],
        ActionLayout(2),
        [[0.4, -0.7], [-1.5, 0.0]],
        [[[0.4, -0.7], [0, 0], [0, 0]], [[-1, 0], [-0.5, 0], [0, 0]]],
    ),
    "discrete": (
        STEPS,
        ActionLayout(0, (3,)),
        [[2.0], [-1.0]],
        [[[0, 0, 1], [0, 0, 1], [0, 1, 0]], [[1, 0, 0], [0, 1, 0], [0, 1, 0]]],
    ),
    "multi-discrete": (
        [[-1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 2.0]],
        TWO,
        [[1.0, 4.0], [-3.0, 0.0]],
        [[[0, 0, 1, 0, 1], [0, 1, 0, 0, 1], [0, 1, 0, 1, 0]], [[1, 0, 0, 1, 0]] * 3],
    ),
    "mixed": (
        [[1.0, 0.0], [0.0, -1.0], [0.0, 0.0], [0.0, 1.0]],
        MIXED,
        [[0.3, 2.0], [1.2, -1.0]],
        [[[0.3, 0, 0, 1], [0, 0, 0, 1], [0, 0, 1, 0]], [[1, 1, 0, 0], [0.2, 0, 1, 0], [0, 0, 1, 0]]],
    ),
}


def solve(name: str, config: PlanConfig = CONFIG, seed: int = 0, **arguments: Any) -> Plan:
    moves, layout, goals, _ = PROBLEMS[name]
    world = walker(moves)
    start = world.start(torch.zeros(2, len(goals[0])), torch.tensor(goals))
    generator = torch.Generator().manual_seed(seed)

    def guide(state: State, draws: Draws) -> Tensor:  # a guide without knowledge
        uninformed = Proposal.uninformed(layout, draws.batch, 1, 1.0, torch.device("cpu"))
        return uninformed.sample(state.size // draws.batch, draws).flatten(0, 2)

    arguments = {"objective": objective(), "config": config, "layout": layout, "guide": guide, **arguments}
    return plan(world, start, generator=generator, **arguments)


@EVERY
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_it_finds_the_optimum_of_every_problem_of_a_batch(name: str, config: PlanConfig) -> None:
    found = solve(name, config)
    best = torch.tensor(PROBLEMS[name][3], dtype=torch.float32)
    assert torch.allclose(found.actions, best, atol=0.06)
    moves, _, goals, _ = PROBLEMS[name]
    world = walker(moves)
    start = world.start(torch.zeros(2, len(goals[0])), torch.tensor(goals))
    reached, optimum = (objective()(world.imagine(start, actions)) for actions in (found.actions, best))
    assert bool((reached <= optimum + 1e-5).all())
    assert bool((reached > optimum - 0.02).all())
    assert isinstance(world, Simulator)


@EVERY
@pytest.mark.parametrize("name", list(PROBLEMS))
def test_the_same_seed_gives_the_same_bits(name: str, config: PlanConfig) -> None:
    few = {"restarts": 6} if isinstance(config, GradientConfig) else {"candidates": 24, "elites": 3}
    short = replace(config, iterations=1, **few)
    plans = [solve(name, short, seed) for seed in (0, 0, 1, 2, 3)]
    assert torch.equal(plans[0].actions, plans[1].actions) and torch.equal(plans[0].value, plans[1].value)
    assert any(not torch.equal(plans[0].actions, other.actions) for other in plans[2:])


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize(
    "config",
    [
        CEMConfig(horizon=1, candidates=8, elites=2, iterations=2),
        CEMConfig(horizon=2, candidates=8, elites=1, iterations=3),
        CEMConfig(horizon=2, candidates=1, elites=1, iterations=2),
        CEMConfig(horizon=2, candidates=8, elites=8, iterations=2),
        CEMConfig(horizon=2, candidates=8, elites=2, iterations=2, std=0.0, min_std=0.0, smoothing=0.0),
        MPPIConfig(horizon=1, candidates=8, elites=1, iterations=2),
        MPPIConfig(horizon=2, candidates=8, elites=8, iterations=2, std=0.0, min_std=0.0, smoothing=0.0),
        MPPIConfig(horizon=2, candidates=8, elites=8, iterations=2, temperature=1e-6),
        GuidedConfig(horizon=1, candidates=4, elites=1, proposals=4, iterations=2),
        ICEMConfig(horizon=1, candidates=1, elites=1, iterations=2),
        ICEMConfig(horizon=2, candidates=8, elites=8, iterations=3, std=0.0, min_std=0.0, smoothing=0.0, kept=0.0),
        GradientConfig(horizon=1, restarts=1, iterations=1, std=0.0),
        ShootingConfig(horizon=1, candidates=1),
    ],
    ids=[
        *(
            "horizon 1",
            "one elite",
            "one candidate",
            "all elites",
            "zero variance",
            "mppi",
            "mppi, no variance",
            "cold",
        ),
        *("guided", "icem", "icem, no variance", "gradient", "shooting"),
    ],
)
def test_degenerate_numbers_still_give_a_valid_plan(name: str, config: PlanConfig) -> None:
    found, layout = solve(name, config), PROBLEMS[name][1]
    assert found.actions.shape == (2, config.horizon, layout.size)
    assert torch.isfinite(found.actions).all() and torch.isfinite(found.value).all()
    assert bool((found.actions.abs() <= 1).all())
    for block in layout.blocks:
        assert bool((found.actions[..., block].sum(-1) == 1).all())


def test_without_variance_nothing_but_the_first_mean_is_tried() -> None:
    found = solve("continuous", CEMConfig(horizon=3, candidates=8, elites=2, iterations=2, std=0.0, min_std=0.0))
    assert torch.equal(found.actions, torch.zeros(2, 3, 2))


@BOTH
@pytest.mark.parametrize("poison", [torch.nan, -torch.inf, -1e30])
def test_a_return_that_is_nan_counts_as_the_worst(config: PlanConfig, poison: float) -> None:
    """All returns with a first coordinate above 0 are poisoned: the best remaining one is at 0."""

    def poisoned(dream: Dream) -> Tensor:
        return objective()(dream).masked_fill((dream.states.memory[..., 0] > 0).any(dim=1), poison)

    found = solve("continuous", config, objective=poisoned)
    assert torch.isfinite(found.actions).all() and torch.isfinite(found.value).all()
    assert -0.15 < float(found.actions[0, 0, 0]) <= 0
    assert float(found.actions[0, 0, 1]) == pytest.approx(-0.7, abs=0.15)  # seven of eight candidates are poisoned


@pytest.mark.parametrize("name", list(PROBLEMS))
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@EVERY
def test_returns_that_are_all_broken_still_give_a_valid_plan(name: str, value: float, config: PlanConfig) -> None:
    found = solve(name, config, objective=lambda dream: value + 0 * dream.rewards[:, 0])
    assert torch.isfinite(found.actions).all()
    assert bool((found.actions.abs() <= 1).all())


@EVERY
def test_one_broken_problem_does_not_disturb_its_neighbour(config: PlanConfig) -> None:
    def broken(dream: Dream) -> Tensor:
        returns = objective()(dream).clone()
        returns[: len(returns) // 2] = torch.nan
        return returns

    alone = solve("continuous", config).actions[1]
    assert torch.equal(solve("continuous", config, objective=broken).actions[1], alone)


def test_a_warm_start_spends_few_samples_where_a_cold_one_fails() -> None:
    narrow = CEMConfig(horizon=3, candidates=8, elites=2, iterations=1, std=0.01, discount=1.0)
    best = torch.tensor(PROBLEMS["continuous"][3])
    before = torch.cat([torch.full((2, 1, 2), 0.9), best[:, :2]], dim=1)  # its first step is in the past
    warm = solve("continuous", narrow, previous=Plan(before, torch.zeros(2)), keep=torch.tensor([1.0, 0.0]))
    assert torch.allclose(warm.actions[0, :2], best[0, :2], atol=0.05)
    assert bool((warm.actions[1].abs() < 0.05).all())  # reset: an episode began here
    kept = solve("continuous", narrow, previous=Plan(before, torch.zeros(2)))
    assert torch.allclose(kept.actions[:, :2], best[:, :2], atol=0.05)


def test_value_is_what_the_elites_earn() -> None:
    found = solve("discrete")
    assert found.value.tolist() == pytest.approx([-(1.0 + 0 + 0), 0.0], abs=0.3)


def test_classes_are_never_ruled_out_by_the_elites() -> None:
    """With smoothing, a class that no elite had can come back; its probability is smoothing / n."""
    layout = ActionLayout(0, (4,))
    elites = torch.eye(4)[torch.zeros(1, 5, 1, dtype=torch.int64)]
    proposal: Proposal = fit(elites, torch.full((1, 5), 0.2), layout, 0.05, 0.2)
    assert torch.allclose(proposal.mean[0, 0], torch.tensor([0.85, 0.05, 0.05, 0.05]))


def test_the_fit_is_the_mean_and_the_biased_deviation() -> None:
    elites = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1)
    proposal = fit(elites, torch.full((1, 2), 0.5), ActionLayout(1), 0.05, 0.05)
    assert float(proposal.mean) == 0.5 and float(proposal.std) == 0.5
    one = fit(elites[:, :1], torch.ones(1, 1), ActionLayout(1), 0.05, 0.05)
    assert float(one.std) == pytest.approx(0.05)


@pytest.mark.parametrize("numbers", [{"elites": 0}, {"elites": 5, "candidates": 4}, {"horizon": 0}, {"iterations": 0}])
def test_impossible_numbers_are_refused(numbers: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(numbers))}={next(iter(numbers.values()))}"):
        CEMConfig(**numbers)  # type: ignore[arg-type]


def test_mppi_weighs_its_elites_by_how_far_they_are_below_the_best() -> None:
    """One iteration in which all candidates are elites: the plan is the softmax-weighted mean of all samples."""
    sampled: list[Tensor] = []

    class Recorder(Linear):
        def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
            sampled.append(actions)
            return super().imagine(start, actions)

    world = Recorder(torch.eye(1), torch.eye(1), torch.eye(1))
    config = MPPIConfig(horizon=2, candidates=16, elites=16, iterations=1, temperature=0.7, discount=1.0)
    start = world.start(torch.zeros(1, 1), torch.tensor([[0.5]]))
    found = plan(world, start, objective(), config, torch.Generator().manual_seed(0), layout=ActionLayout(1))
    returns = objective()(Linear.imagine(world, start.map(lambda x: x.expand(16, 1)), sampled[0]))
    weights = torch.softmax(returns / returns.std(correction=0) / 0.7, dim=0)
    assert torch.allclose(found.actions[0], (weights[:, None, None] * sampled[0]).sum(0), atol=1e-5)
    assert float(found.value) == pytest.approx(float((weights * returns).sum()), abs=1e-5)


def test_a_value_counts_what_comes_after_the_plan() -> None:
    states = LatentState(torch.tensor([[[1.0], [2.0]]]), torch.zeros(1, 2, 1))
    dream = Dream(states[:, 0], states, torch.zeros(1, 2, 1), torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.25]]))
    plain = discounted_return(dream, 0.9)
    assert float(plain) == pytest.approx(1 + 0.9 * 0.5 * 3)
    after = discounted_return(dream, 0.9, lambda state: 10 * state.memory[:, 0])
    assert float(after) == pytest.approx(float(plain) + 0.9**2 * 0.5 * 0.25 * 20)
