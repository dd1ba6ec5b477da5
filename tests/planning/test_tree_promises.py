"""Properties of all planners, for the tree search: the same plan in every batch, an end in time."""

import math
import time
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from tests.planning.test_tree import SUM, Known, Table, at, bandit, seeded
from worldvae.memory import LatentState
from worldvae.planning import Draws, RiskConfig, SimulatorEnsemble, Stochastic, TreeConfig, discounted_return, plan
from worldvae.types import ActionLayout, Dream, State

RETURN = partial(discounted_return, discount=0.9)


class Drift:
    """z' = z + move + 2 jump + noise / 10, with reward -(z' - goal)^2: element-wise, without matrix products."""

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
        states = LatentState(z.unsqueeze(1) * (torch.nan if self.broken == "state" else 1.0), start.latent.unsqueeze(1))
        return Dream(start, states, actions, rewards, torch.full_like(rewards, self.end))

    def __call__(self, state: State, draws: Draws) -> Tensor:
        raise NotImplementedError

    def logits(self, state: State) -> Tensor:
        """Prefer actions that lead to the goal."""
        off = state.latent - state.memory
        return torch.cat([-off, 0 * off, off, -off, off], dim=1) * 0.1


def valid(actions: Tensor) -> bool:
    one_hot = bool(((actions == 0) | (actions == 1)).all())
    return one_hot and bool((actions[..., :3].sum(-1) == 1).all() and (actions[..., 3:].sum(-1) == 1).all())


def problems(number: int) -> State:
    return LatentState(*(2 * torch.randn(100, 1, generator=seeded(i))[:number] for i in range(2)))


CONFIG = TreeConfig(horizon=4, iterations=24, considered=4)


@pytest.mark.parametrize("guided", [False, True], ids=["uniform", "guided"])
@pytest.mark.parametrize("keyed", [False, True], ids=["common", "keyed"])
def test_a_plan_is_the_same_alone_and_among_others(keyed: bool, guided: bool) -> None:
    """Bit for bit, because this world computes each element separately; also if other trees of the batch are deeper."""
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
    """Two steps to the left, or a jump to the right: all goals are within .6 of a reachable position."""
    goals = torch.tensor([[-2.2], [-1.0], [0.1], [2.0], [3.0]])
    start = LatentState(torch.zeros(5, 1), goals)
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
    """Actions other than a broken one are chosen, whether their returns are all equal or far below 0."""
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
    """A fake clock advances by 10 ms at each reading: a simulation takes 10 ms, and so does the time between two."""
    now = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: 0.01 * next(now))
    for limit, simulations in ((65.0, 3), (1e-3, 1)):
        world = Drift()
        found = plan(world, problems(2), RETURN, replace(CONFIG, max_ms=limit), seeded())
        assert world.seen == simulations and valid(found.actions) and found.value.isfinite().all()


def test_beyond_its_tree_a_plan_repeats_the_preferred_action() -> None:
    class Last(Known):
        def logits(self, state: State) -> Tensor:
            return torch.tensor([0.0, 0.0, 0.0, 5.0]).expand(state.size, -1)

    arms = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    config = TreeConfig(horizon=6, iterations=4, gumbel=0.0, scale=10.0)
    found = plan(bandit(arms), at(torch.zeros(1)), SUM, config, seeded(), guide=Last())
    assert found.actions[0].argmax(dim=1).tolist() == [1, 3, 3, 3, 3, 3]


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
