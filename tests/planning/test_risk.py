"""Plans with `risk`: by default it changes nothing; otherwise spread, disagreement and trust count."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.config import dump_config, load_config
from worldvae.envs import EnvConfig
from worldvae.errors import UserError
from worldvae.memory import LatentState
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.planning import (
    CEMConfig,
    Draws,
    GradientConfig,
    GuidedConfig,
    ICEMConfig,
    MPPIConfig,
    PlanConfig,
    Proposal,
    RiskConfig,
    ShootingConfig,
    SimulatorEnsemble,
    Uncertain,
    discounted_return,
    plan,
)
from worldvae.planning.clock import Clock
from worldvae.planning.problems import Problems, worst_if_nan
from worldvae.planning.risk import aggregate, spread, trusted_returns
from worldvae.runs.settings import PLANNER_SECTIONS, RunConfig
from worldvae.types import ActionLayout, Dream, State

few = settings(max_examples=30, deadline=None)
RETURN = partial(discounted_return, discount=0.9)
LAYOUT = ActionLayout(1, (2,))
SEARCH = {"horizon": 4, "candidates": 24, "elites": 4, "iterations": 2}
CONFIGS: dict[str, PlanConfig] = {
    "shooting": ShootingConfig(horizon=4, candidates=24, iterations=2),
    "cem": CEMConfig(**SEARCH),
    "icem": ICEMConfig(**SEARCH),
    "mppi": MPPIConfig(**SEARCH),
    "gradient": GradientConfig(horizon=4, restarts=8, iterations=4),
    "guided": GuidedConfig(**SEARCH, proposals=5),
}
EVERY = pytest.mark.parametrize("config", CONFIGS.values(), ids=list(CONFIGS))
RISKS = {
    "mean": RiskConfig(samples=3),
    "deviations": RiskConfig(samples=3, deviations=1.5),
    "quantile": RiskConfig(samples=4, quantile=0.25),
    "disagreement": RiskConfig(disagreement=0.7),
    "trust": RiskConfig(trust=0.4),
    "all": RiskConfig(samples=2, deviations=1.0, disagreement=0.3, trust=0.5),
}


class Drift:
    """z' = z + push (1 + class) + noise / 5, with reward -(z' - goal)^2, less certain far from 0: element-wise."""

    action_layout = LAYOUT

    def __init__(self, push: float = 1.0) -> None:
        self.push = push

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
        assert noise is not None
        z, states, rewards = start.memory, [], []
        for action, shock in zip(actions.unbind(1), noise, strict=True):
            z = z + self.push * action[:, :1] * (1 + action[:, 2:]) + 0.2 * shock
            off = (z - start.latent)[:, 0]
            rewards.append(-(off * off))
            states.append(LatentState(z, start.latent))
        found = torch.stack(rewards, dim=1)
        return Dream(start, State.stack(states, dim=1), actions, found, torch.full_like(found, 0.95))

    def disagreement(self, states: State) -> Tensor:
        return states.memory[..., 0].abs()


class Sure:
    """A world that never changes and knows no disagreement."""

    action_layout = LAYOUT

    def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
        states = start.map(lambda x: x.unsqueeze(1).expand(-1, actions.shape[1], -1))
        return Dream(start, states, actions, actions[..., 0], torch.ones_like(actions[..., 0]))


def starts(number: int) -> State:
    return LatentState(*(torch.randn(50, 1, generator=torch.Generator().manual_seed(i))[:number] for i in range(2)))


def guide(state: State, draws: Draws) -> Tensor:
    uninformed = Proposal.uninformed(LAYOUT, draws.batch, 1, 1.0, torch.device("cpu"))
    return uninformed.sample(state.size // draws.batch, draws).flatten(0, 2)


def solve(config: PlanConfig, state: State, model: Any = None, keys: list[int] | None = None, **more: Any) -> Any:
    more = {"objective": RETURN, "guide": guide} | more
    return plan(model or Drift(), state, config=config, generator=torch.Generator().manual_seed(0), keys=keys, **more)


@EVERY
def test_by_default_nothing_is_judged_otherwise_nor_asked_of_the_model(
    config: PlanConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit the same as `returns` gave before `risk` existed."""

    def before(self: Problems, candidates: Tensor) -> Tensor:
        dream = self.imagine(self.repeated(candidates.shape[1]), candidates.flatten(0, 1))
        return worst_if_nan(self.objective(dream).view(candidates.shape[:2]))

    class Silent(Drift):
        def disagreement(self, states: State) -> Tensor:
            raise AssertionError

    found = solve(config, starts(3), Silent())
    monkeypatch.setattr(Problems, "returns", before)
    expected = solve(config, starts(3))
    assert torch.equal(found.actions, expected.actions) and torch.equal(found.value, expected.value)


@EVERY
@pytest.mark.parametrize("kind", ["alone", "ensemble"])
def test_a_risky_plan_is_the_same_alone_and_among_others(config: PlanConfig, kind: str) -> None:
    """Bit for bit, for every risk, with one stream for all problems or one each; and `risk` changes the plan."""
    model = Drift() if kind == "alone" else SimulatorEnsemble([Drift(push) for push in (0.8, 1.0, 1.3)])
    every, blind = starts(20), solve(config, starts(20), model)
    for name, risk in RISKS.items():
        careful = replace(config, risk=risk)
        keys = list(range(20)) if name in ("deviations", "trust") else None
        among = solve(careful, every, model, keys)
        assert keys or not torch.equal(among.actions, blind.actions)
        for some in (slice(19, 20), slice(3, 9)):
            mine = solve(careful, every[some], model, None if keys is None else keys[some])
            assert torch.equal(mine.actions, among.actions[some])
            assert torch.equal(mine.value, among.value[some])


def test_mean_less_deviations_and_quantiles_of_returns_by_hand() -> None:
    returns = torch.tensor([[1.0, 5.0, 3.0, 7.0], [2.0, 2.0, 2.0, 2.0]])
    assert aggregate(returns, RiskConfig(samples=4)).tolist() == [4.0, 2.0]
    deviation = (20 / 3) ** 0.5  # of 4 numbers, divided by n - 1
    for k in (1.0, 2.5, -1.0):
        found = aggregate(returns, RiskConfig(samples=4, deviations=k))
        assert found.tolist() == pytest.approx([4 - k * deviation, 2.0])
    for q, expected in ((0.0, 1.0), (0.25, 2.5), (0.5, 4.0), (0.9, 6.4), (1.0, 7.0)):
        assert aggregate(returns, RiskConfig(samples=4, quantile=q)).tolist() == pytest.approx([expected, 2.0])


@given(
    returns=st.lists(st.floats(-1e3, 1e3, width=32), min_size=2, max_size=9),
    q=st.floats(0, 1),
    k=st.floats(-3, 3),
)
@few
def test_the_mean_less_deviations_and_the_quantile_equal_torchs(returns: list[float], q: float, k: float) -> None:
    x = torch.tensor(returns)
    torch.testing.assert_close(aggregate(x, RiskConfig(quantile=q)), x.quantile(q), atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(aggregate(x, RiskConfig(deviations=k)), x.mean() - k * x.std(), atol=1e-2, rtol=1e-4)


def test_gradients_flow_and_are_numbers_where_all_dreams_are_alike() -> None:
    for risk in (RiskConfig(deviations=1.0), RiskConfig(quantile=0.3)):
        x = torch.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 3.0]], requires_grad=True)
        (slope,) = torch.autograd.grad(aggregate(x, risk).sum(), x)
        assert torch.isfinite(slope).all()
        assert slope.sum(dim=1).tolist() == pytest.approx([1.0, 1.0])  # adding to every dream adds as much to all
        assert bool((slope[0] != slope[0, 0]).any())
    x = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    for ours, theirs in ((spread(x, 0), x.std()), (aggregate(x, RiskConfig(quantile=0.3)), x.quantile(0.3))):
        torch.testing.assert_close(torch.autograd.grad(ours, x), torch.autograd.grad(theirs, x))


@pytest.mark.parametrize("bad", [torch.nan, -torch.inf])
def test_a_dream_that_is_not_a_number_is_the_worst_dream(bad: float) -> None:
    """And its candidate is the worst candidate, except for a quantile that ignores its worst dream."""
    model, candidates = Drift(), torch.zeros(2, 3, 2, 3)
    candidates[:, 1, 0, 0] = 0.5

    def objective(dream: Dream) -> Tensor:
        broken = (torch.arange(len(dream.rewards)) % 12) == 5  # the second dream of the second candidate
        return RETURN(dream).masked_fill(broken, bad)

    def returns(risk: RiskConfig) -> Tensor:
        draws, clock = Draws(2, torch.zeros(1), torch.Generator().manual_seed(0)), Clock(0.0, torch.device("cpu"))
        config = ShootingConfig(horizon=2, risk=risk)
        problems = Problems(model, starts(2), objective, config, LAYOUT, draws, clock, None, torch.ones(2), None)
        return problems.returns(candidates)

    for risk in (RiskConfig(samples=4), RiskConfig(samples=4, deviations=1.0), RiskConfig(samples=4, deviations=-1.0)):
        assert (returns(risk) == -torch.inf).tolist() == [[False, True, False]] * 2
    assert (returns(RiskConfig(samples=4, quantile=0.2)) == -torch.inf).tolist() == [[False, True, False]] * 2
    assert torch.isfinite(returns(RiskConfig(samples=4, quantile=0.5))).all()


class Known(Drift):
    """Earns 1, 2 and 5 for any actions, while uncertainty rises."""

    def __init__(self, states: tuple[float, ...], ends: tuple[float, ...]) -> None:
        super().__init__()
        self.states, self.ends = states, ends

    def imagine(self, start: State, actions: Tensor, *_: Any, **__: Any) -> Dream:
        states, rewards, ends = (torch.tensor(x).expand(len(actions), -1) for x in (self.states, EARNED, self.ends))
        return Dream(start, LatentState(states[..., None], actions[..., :1]), actions, rewards, ends)


EARNED = (1.0, 2.0, 5.0)


def test_what_disagreement_costs_by_hand() -> None:
    """Discounted and ended like a reward, for any objective."""
    model = Known((0.5, 1.5, 7.0), (0.5, 0.0, 1.0))
    for weight in (3.0, -2.0):
        config = ShootingConfig(horizon=3, candidates=1, discount=0.9, risk=RiskConfig(disagreement=weight))
        found = solve(config, starts(1), model)
        assert float(found.value) == pytest.approx(1 + 0.45 * 2 - weight * (0.5 + 0.45 * 1.5))
        blind = solve(config, starts(1), model, objective=lambda dream: dream.rewards[:, -1])
        assert float(blind.value) == pytest.approx(5 - weight * (0.5 + 0.45 * 1.5))


def test_the_value_of_the_last_state_that_is_trusted_counts() -> None:
    """And the third step costs 1 per unit by which its disagreement, 7, exceeds 0.5."""
    config = ShootingConfig(horizon=3, candidates=1, discount=0.9, risk=RiskConfig(trust=0.5))
    objective = partial(RETURN, value=lambda state: 10 * state.memory[:, 0])
    found = solve(config, starts(1), Known((0.1, 0.2, 7.0), (1.0, 1.0, 1.0)), objective=objective)
    assert float(found.value) == pytest.approx(1 + 0.9 * 2 + 0.81 * 10 * 0.2 - 7 / 0.5)
    ended = solve(config, starts(1), Known((0.1, 0.2, 7.0), (1.0, 0.0, 1.0)), objective=objective)
    assert float(ended.value) == pytest.approx(1 + 0.9 * 2)  # nothing after the end is uncertain


ADDED = torch.tensor([[1.0, 2.0, 3.0], [1.0, 0.0, 2.0], [4.0, 9.0, 9.0]])
DOUBT = torch.tensor([[0.1, 0.5, 0.5], [0.2, 0.2, 0.1], [0.3, 1.0, 0.2]])


def worth(added: Tensor, doubt: Tensor = DOUBT, ends: Tensor | None = None, problems: int = 1) -> Tensor:
    return trusted_returns(added.cumsum(1), torch.ones_like(added) if ends is None else ends, doubt, 0.5, problems)


def test_untrusted_steps_are_charged_with_the_lowest_trusted_rewards() -> None:
    """The third leaves after a step: in steps 2 and 3 the others earn at least 0 and 2, and differ by at most 3."""
    assert worth(ADDED).tolist() == pytest.approx([6.0, 3.0, 4 + (0 - 3 * 2) + (2 - 3)])
    dead = torch.ones(3, 3)
    dead[2, 0] = 0.25  # it has probably ended by then, and pays for the rest of the probability
    assert worth(ADDED, ends=dead).tolist() == pytest.approx([6.0, 3.0, 4 - 0.25 * 7])
    alike = torch.full((3, 3), -1.0)
    assert worth(alike).tolist() == pytest.approx([-3.0, -3.0, -1 - 3 - 2])  # all alike: a difference of 1 is assumed
    nothing = worth(ADDED, doubt=torch.tensor([[1.0], [2.0], [0.6]]).expand(3, 3))
    assert nothing.argsort().tolist() == [1, 0, 2]  # none is trusted: ordered by their disagreement
    unknown = worth(ADDED, doubt=DOUBT.masked_fill(DOUBT == 1, torch.nan))
    assert unknown[:2].tolist() == [6.0, 3.0] and not bool(unknown[2] >= -1e30)


@given(seed=st.integers(0, 999), shift=st.floats(-100, 100), scale=st.floats(0.01, 100))
@few
def test_trust_does_not_depend_on_the_sign_of_rewards(seed: int, shift: float, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    added = torch.randn(16, 4, generator=generator, dtype=torch.float64)
    doubt = torch.rand(16, 4, generator=generator, dtype=torch.float64) * 0.8
    found, known = worth(added, doubt, problems=2), (doubt <= 0.5).all(dim=1)
    assert torch.equal(found[known], added.cumsum(1)[:, -1][known])
    assert torch.equal(found[:8], worth(added[:8], doubt[:8]))  # each problem by itself
    if int((doubt[:, 0] <= 0.5).view(2, 8).sum(dim=1).min()) >= 2:  # (with fewer, the scale of rewards is unknown)
        moved = worth(scale * (added + shift), doubt, problems=2)
        anywhere = (doubt <= 0.5).cumprod(1).bool().unflatten(0, (2, 8)).any(1).sum(1).double().repeat_interleave(8)
        torch.testing.assert_close(moved, scale * (found + shift * anywhere))
    at_once = doubt[:, 0] > 0.5
    for half in (slice(0, 8), slice(8, 16)):
        stays, leaves = found[half][known[half]], found[half][at_once[half]]
        if len(stays) and len(leaves):
            assert float(leaves.max()) < float(stays.min())  # without earlier rewards, below all that stay


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"samples": 0}, "samples=0 must be at least 1"),
        ({"deviations": torch.nan}, "deviations=nan must be a finite number"),
        ({"disagreement": torch.inf}, "disagreement=inf must be a finite number"),
        ({"quantile": 1.5}, "quantile=1.5 must lie between 0 and 1"),
        ({"quantile": 0.5, "deviations": 1.0}, "takes the place of deviations=1.0: give one"),
        ({"trust": 0.0}, "trust=0.0 must be a disagreement above 0"),
        ({"trust": torch.nan}, "trust=nan must be a disagreement above 0"),
    ],
)
def test_impossible_numbers_are_refused(numbers: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RiskConfig(**numbers)


def test_a_model_without_disagreement_is_not_asked_for_it(make_model: Callable[..., SequentialVAE]) -> None:
    assert isinstance(Drift(), Uncertain) and not isinstance(Sure(), Uncertain)
    config = CEMConfig(**SEARCH)
    for risk in (RiskConfig(trust=1.0), RiskConfig(disagreement=1.0)):
        with pytest.raises(ValueError, match="which Sure does not know: give it a method disagreement"):
            solve(replace(config, risk=risk), starts(1), Sure())
        model = make_model()
        with pytest.raises(ValueError, match=r"train with model\.ensemble=5"):
            solve(replace(config, risk=risk), model.initial(1), model)
        model = make_model(ensemble=3)
        assert solve(replace(config, risk=risk), model.initial(2), model).value.isfinite().all()
    for risk in (RiskConfig(deviations=1.0), RiskConfig(quantile=0.1)):
        with pytest.raises(ValueError, match="there is one: give samples=8"):
            solve(replace(config, risk=risk), starts(1))


def test_it_is_a_section_of_each_planners_config_which_old_runs_do_not_have(tmp_path: Path) -> None:
    old = tmp_path / "config.yaml"
    dump_config(RunConfig(EnvConfig("Pendulum-v1")), old)
    text = old.read_text()
    lines = text.splitlines(keepends=True)
    without = [line for line in lines if line.strip().partition(":")[0] not in {"risk", *RiskConfig.__annotations__}]
    assert len(lines) - len(without) == 6 * len(PLANNER_SECTIONS)
    old.write_text("".join(without))
    assert load_config(RunConfig, [old]) == RunConfig(EnvConfig("Pendulum-v1"))
    given = ["cem.risk.samples=8", "cem.risk.deviations=1", "mppi.risk.trust=0.3", "model.ensemble=5"]
    found = load_config(RunConfig, [old], given)
    assert found.cem.risk == RiskConfig(samples=8, deviations=1.0) and found.mppi.risk.trust == 0.3
    dump_config(found, old)
    assert load_config(RunConfig, [old]) == found
    for override, message in {
        "cem.risk.quantile=2": r"cem\.risk: quantile=2\.0 must lie between",
        "icem.risk.trust=1": r"icem\.risk: .* take model\.ensemble=5",
        "gradient.risk.quantile=0.1": r"gradient\.risk: .* give samples=8",
    }.items():
        with pytest.raises(UserError, match=message):
            load_config(RunConfig, [{"env": {"id": "Pendulum-v1"}}], [override])
