"""Properties of all planners: the same plan in every batch, valid actions, an end in time."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from worldvae.memory import LatentState
from worldvae.models.sequential_vae import SequentialVAE
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
    Stochastic,
    coloured,
    discounted_return,
    plan,
)
from worldvae.planning.clock import Clock
from worldvae.planning.problems import Problems
from worldvae.types import ActionLayout, Dream, State, VectorState

CPU = torch.device("cpu")
LAYOUT = ActionLayout(2, (3,))
RETURN = partial(discounted_return, discount=0.9)
SEARCH = {"horizon": 4, "candidates": 40, "elites": 6, "iterations": 3}
CONFIGS: dict[str, PlanConfig] = {
    "shooting": ShootingConfig(horizon=4, candidates=40, iterations=2),
    "cem": CEMConfig(**SEARCH),
    "icem": ICEMConfig(**SEARCH),
    "mppi": MPPIConfig(**SEARCH, momentum=0.1),
    "gradient": GradientConfig(horizon=4, restarts=4, iterations=5),
    "guided": GuidedConfig(**SEARCH, proposals=8),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))


class Drift:
    """z' = z + push + class - 1 + noise / 10, with reward -(z' - goal)^2: element-wise, without matrix products."""

    action_layout = LAYOUT

    def __init__(self, end: float | None = None) -> None:
        self.end, self.seen = end, 0

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None = None) -> Tensor:
        return torch.randn(*shape, 2, generator=generator)

    def imagine(
        self,
        start: State,
        actions: Tensor,
        horizon: int | None = None,
        generator: torch.Generator | None = None,
        *,
        noise: Tensor | None = None,
    ) -> Dream:
        assert noise is not None and valid(actions)
        self.seen += 1
        z, states, rewards = start.memory, [], []
        for action, shock in zip(actions.unbind(1), noise, strict=True):
            z = z + action[:, :2] + (action[:, 4:5] - action[:, 2:3]) + 0.1 * shock
            off = z - start.latent
            rewards.append(-(off[:, 0] * off[:, 0]) - off[:, 1] * off[:, 1])
            states.append(LatentState(z, start.latent))
        found = torch.stack(rewards, dim=1)
        ends = torch.ones_like(found) if self.end is None else torch.full_like(found, self.end)
        return Dream(start, State.stack(states, dim=1), actions, found, ends)


def valid(actions: Tensor) -> bool:
    classes = actions[..., 2:]
    inside = bool((actions[..., :2].abs() <= 1).all())
    return inside and bool(((classes == 0) | (classes == 1)).all() and (classes.sum(-1) == 1).all())


def guide(state: State, draws: Draws) -> Tensor:
    uninformed = Proposal.uninformed(LAYOUT, draws.batch, 1, 1.0, torch.device("cpu"))
    return uninformed.sample(state.size // draws.batch, draws).flatten(0, 2)


def problems(number: int) -> State:
    return LatentState(*(torch.randn(100, 2, generator=torch.Generator().manual_seed(i))[:number] for i in range(2)))


def two_steps(config: PlanConfig, state: State, keys: list[int] | None) -> tuple[Plan, Plan, Tensor]:
    """Return a plan, the next plan with a warm start from it, and the position of the generator."""
    generator = torch.Generator().manual_seed(0)
    solve = partial(plan, Drift(), objective=RETURN, config=config, generator=generator, keys=keys, guide=guide)
    first = solve(state)
    return first, solve(state, previous=first), generator.get_state()


@EVERY
@pytest.mark.parametrize("keyed", [False, True], ids=["common", "keyed"])
def test_a_plan_is_the_same_alone_and_among_others(config: PlanConfig, keyed: bool) -> None:
    """Bit for bit, because this world computes each element separately."""
    assert isinstance(Drift(), Stochastic)
    every = problems(100)
    all_first, all_second, all_after = two_steps(config, every, list(range(100)) if keyed else None)
    for some in (slice(0, 1), slice(99, 100), slice(3, 19)):
        keys = list(range(100))[some] if keyed else None
        first, second, after = two_steps(config, every[some], keys)
        for found, expected in ((first, all_first[some]), (second, all_second[some])):
            assert torch.equal(found.actions, expected.actions)
            assert torch.equal(found.value, expected.value)
        assert torch.equal(after, all_after)


@EVERY
def test_equal_problems_are_planned_alike_without_keys_and_independently_with_them(config: PlanConfig) -> None:
    twice = problems(1)[torch.zeros(2, dtype=torch.int64)]
    common, keyed = two_steps(config, twice, None)[1], two_steps(config, twice, [0, 1])[1]
    assert torch.equal(common.actions[0], common.actions[1])
    assert not torch.equal(keyed.actions[0], keyed.actions[1])


@pytest.mark.parametrize("config", [CONFIGS["cem"], CONFIGS["guided"]], ids=["cem", "guided"])
def test_a_world_model_plans_alike_in_every_batch_to_rounding_error(
    make_model: Callable[..., SequentialVAE], config: PlanConfig
) -> None:
    model = make_model(action=LAYOUT)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(16, model.feature_size, generator=generator)
    state = LatentState(features[:, : model.memory.size], features[:, model.memory.size :])
    solve = partial(plan, model, objective=RETURN, config=config, guide=guide)
    for keys in (None, list(range(16))):
        every = solve(state, generator=torch.Generator().manual_seed(1), keys=keys)
        for i in (0, 7):
            mine = None if keys is None else keys[i : i + 1]
            alone = solve(state[i : i + 1], generator=torch.Generator().manual_seed(1), keys=mine)
            assert torch.allclose(alone.actions[0], every.actions[i], atol=1e-4)
            assert torch.allclose(alone.value[0], every.value[i], atol=1e-4)


@EVERY
def test_nothing_counts_after_a_terminal_first_step(config: PlanConfig) -> None:
    """Whatever comes later, the first action goes to the goal at once; the goals are 0.4 and -0.4 away."""
    state = LatentState(torch.zeros(1, 2), torch.tensor([[0.4, -0.4]]))
    budget = (
        {"iterations": 60, "restarts": 16}
        if isinstance(config, GradientConfig)
        else {"candidates": 600, "iterations": 6}
    )
    found = plan(
        Drift(end=0.0), state, RETURN, replace(config, **budget), torch.Generator().manual_seed(0), guide=guide
    )
    assert torch.isfinite(found.actions).all() and torch.isfinite(found.value).all()
    landed = found.actions[0, 0, :2] + found.actions[0, 0, 4] - found.actions[0, 0, 2]
    off = (landed - state.latent[0]).abs()
    assert float(off.max()) < 0.35  # a single dream has noise .1; the best of uniform plans is no better
    assert float(found.value) > -(0.35**2) * 2


@EVERY
@pytest.mark.parametrize("where", ["state", "reward"])
def test_a_model_that_breaks_down_still_gives_valid_actions(config: PlanConfig, where: str) -> None:
    class Broken(Drift):
        def imagine(self, *arguments: object, **named: object) -> Dream:
            dream = super().imagine(*arguments, **named)  # type: ignore[arg-type]
            if where == "reward":
                return replace(dream, rewards=dream.rewards * torch.nan)
            return replace(dream, states=dream.states.map(lambda x: x * torch.nan), rewards=dream.rewards / 0)

    found = plan(Broken(), problems(3), RETURN, config, torch.Generator().manual_seed(0), guide=guide)
    assert valid(found.actions)


@EVERY
def test_the_best_plan_so_far_is_returned_when_time_is_over(
    config: PlanConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fake clock advances by 10 ms at each reading, so that a round takes 10 ms, and so does the time between two."""
    now = iter(range(10_000))
    monkeypatch.setattr(time, "perf_counter", lambda: 0.01 * next(now))
    world, limited = Drift(), replace(config, iterations=50, max_ms=65.0)
    found = plan(world, problems(2), RETURN, limited, torch.Generator().manual_seed(0), guide=guide)
    extra = {GuidedConfig: 3, GradientConfig: 1}.get(type(config), 0)  # roll-outs of the guide, the last evaluation
    kept_free = 1 if isinstance(config, GradientConfig) else 0  # for the last evaluation
    assert world.seen == 3 - kept_free + extra  # begun at 10, 30 and 50 ms
    assert valid(found.actions)
    hurried, world = replace(limited, max_ms=1e-3), Drift()
    plan(world, problems(2), RETURN, hurried, torch.Generator().manual_seed(0), guide=guide)
    assert world.seen == 1 + extra
    with pytest.raises(ValueError, match=r"max_ms=-1\.0"):
        replace(config, max_ms=-1.0)


def test_a_million_sampled_actions_are_within_the_bounds() -> None:
    draws = Draws(4, torch.zeros(1), torch.Generator().manual_seed(0), range(4))
    colour = coloured(10, 1.5, torch.zeros(1))
    for number, paint in ((12_500, None), (12_500, colour)):
        actions = Proposal.uninformed(LAYOUT, 4, 10, 3.0, torch.device("cpu")).sample(number, draws, paint)
        assert actions[..., 0].numel() == 500_000
        assert valid(actions)


def test_a_mistake_is_one_sentence() -> None:
    class NoLayout:
        def imagine(self, start: State, actions: Tensor, horizon: int | None = None, generator: None = None) -> Dream:
            raise NotImplementedError

    state = problems(1)
    with pytest.raises(ValueError, match="NoLayout has no action_layout"):
        plan(NoLayout(), state, RETURN, CEMConfig())
    with pytest.raises(ValueError, match="is the config of no planner: give one of ShootingConfig, CEMConfig"):
        plan(Drift(), state, RETURN, PlanConfig())
    with pytest.raises(ValueError, match="guide="):
        plan(Drift(), state, RETURN, CONFIGS["guided"])
    with pytest.raises(ValueError, match="use a planner that samples"):
        plan(Drift(), state, lambda dream: RETURN(dream).detach(), CONFIGS["gradient"])


def stand_still(state: State, draws: Draws) -> Tensor:
    return torch.zeros_like(state.memory)


class Cliff:
    """The reward rises with speed: 1 + a for a step x' = x + a; beyond 1 the episode ends."""

    action_layout = ActionLayout(1)

    def imagine(
        self, start: State, actions: Tensor, horizon: int | None = None, generator: torch.Generator | None = None
    ) -> Dream:
        x = start.memory.unsqueeze(1) + actions.cumsum(dim=1)
        return Dream(start, LatentState(x, x), actions, 1 + actions[..., 0], (x[..., 0] <= 1).float())


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "gradient"])  # a cliff has no gradient
def test_a_planner_that_ignores_termination_runs_over_the_cliff(name: str) -> None:
    config = CONFIGS[name]
    model, start = Cliff(), LatentState(torch.zeros(1, 1), torch.zeros(1, 1))
    earned = {}
    for heeds in (True, False):
        objective = partial(discounted_return, discount=1.0, termination=heeds)
        generator = torch.Generator().manual_seed(0)
        planned = plan(model, start, objective, replace(config, iterations=6), generator, guide=stand_still)
        dream = model.imagine(start, planned.actions)
        earned[heeds] = float(discounted_return(dream, 1.0)[0])
    # The best four steps earn 6: three steps to the edge, then a leap. At full speed the second step is the last one.
    assert earned[True] > 5.0
    assert earned[False] < 4.5


@EVERY
def test_an_action_is_held_for_several_steps(config: PlanConfig) -> None:
    """Five steps in three moves, the last of which lasts one step."""
    held = replace(config, horizon=5, repeat=2)
    model, start = Drift(), problems(3)
    solve = partial(plan, model, start, RETURN, held, guide=guide, keys=range(3))
    first = solve(torch.Generator().manual_seed(0))
    for found in (first, solve(torch.Generator().manual_seed(1), previous=first)):
        assert found.actions.shape == (3, 5, LAYOUT.size) and valid(found.actions)
        assert torch.equal(found.actions[:, 0:4:2], found.actions[:, 1:4:2])
        assert found.elites is None or torch.equal(found.elites[:, :, 0:4:2], found.elites[:, :, 1:4:2])
        assert found.steps is not None
        in_moves = 8 * 4 if isinstance(config, GuidedConfig) else 0  # the guide's, up to its last move
        assert ((found.steps - in_moves) % 5).tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="repeat=0"):
        replace(config, repeat=0)


def test_a_warm_start_with_held_actions() -> None:
    """After a step, 1 2 2 3 3 is left of the plan 1 1 2 2 3 3: new moves begin at its entries 1, 3 and 5: 1 2 3."""
    config = CEMConfig(horizon=6, repeat=2)
    draws, like = Draws(1, torch.zeros(1)), torch.zeros(1, 1)
    before = Plan(torch.tensor([1.0, 1.0, 2.0, 2.0, 3.0, 3.0]).view(1, 6, 1) / 4, torch.zeros(1))
    world = Problems(
        Cliff(), VectorState(like), RETURN, config, ActionLayout(1), draws, Clock(0.0, CPU), before, torch.ones(1), None
    )
    assert (4 * world.warm_start(0.5).mean).flatten().tolist() == [1.0, 2.0, 3.0]
    assert (4 * world.hold(world.warm_start(0.5).mean)).flatten().tolist() == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        (CEMConfig, {"std": float("nan")}),
        (CEMConfig, {"min_std": -1.0}),
        (CEMConfig, {"smoothing": 5.0}),
        (ICEMConfig, {"colour": float("nan")}),
        (MPPIConfig, {"temperature": float("inf")}),
        (GradientConfig, {"std": -1.0}),
        (GradientConfig, {"learning_rate": float("inf")}),
    ],
)
def test_numbers_that_no_search_can_use_are_refused(kind: type[PlanConfig], numbers: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(numbers))):
        kind(**numbers)  # type: ignore[arg-type]


def test_no_problem_is_refused_and_a_longer_plan_before_is_cut() -> None:
    with pytest.raises(ValueError, match="no problem"):
        plan(Drift(), problems(1)[:0], RETURN, CONFIGS["cem"])
    for name in CONFIGS:
        config = replace(CONFIGS[name], horizon=6)
        before = plan(Drift(), problems(2), RETURN, config, torch.Generator().manual_seed(0), guide=guide)
        found = plan(Drift(), problems(2), RETURN, CONFIGS[name], previous=before, guide=guide)
        assert found.actions.shape[1] == CONFIGS[name].horizon


def test_a_model_may_have_a_number_called_noise_and_a_list_called_members() -> None:
    class Mine(Cliff):
        noise, members = 0.1, ("a", "b")

    start = LatentState(torch.zeros(1, 1), torch.zeros(1, 1))
    assert plan(Mine(), start, RETURN, CEMConfig(horizon=3)).actions.shape == (1, 3, 1)
