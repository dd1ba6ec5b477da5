"""The actor-critic does not change the world model, resumes exactly from its state, and solves an imagined bandit."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.agents import ActorCritic, ActorCriticConfig
from worldvae.memory import LatentState
from worldvae.models.parts import WorldModelConfig
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import lambda_returns
from worldvae.types import ActionLayout, Dream, ObservationLayout, State

Maker = Callable[..., SequentialVAE]
LAYOUTS = [ActionLayout(2), ActionLayout(0, (3,)), ActionLayout(0, (3, 2)), ActionLayout(1, (3,))]
SHORT = ActorCriticConfig(horizon=3, starts=0, hidden=8, layers=1, bins=41)


class Bandit(SequentialVAE):
    """A world in which nothing moves, and whose reward depends on the last action."""

    def __init__(self, action: ActionLayout, reward: Callable[[Tensor], Tensor]) -> None:
        config = WorldModelConfig(size="tiny", memory_size=4, hidden=8, gaussian=2, bins=41, precision="bfloat16")
        super().__init__(ObservationLayout(vector=1), action, config)
        self.rule = reward
        self.dreams: list[Dream] = []
        self.trained_in_dreams = True

    def imagine(self, start: State, actions: Any, horizon: int | None = None, generator: Any = None) -> Dream:
        assert horizon is not None
        self.trained_in_dreams = any(p.requires_grad for p in self.parameters())
        taken = torch.stack([actions(start) for _ in range(horizon)], dim=1)
        states = State.stack([start] * horizon, dim=1)
        rewards = self.rule(taken)
        self.dreams.append(Dream(start, states, taken, rewards, torch.full_like(rewards, 0.5)))
        return self.dreams[-1]


def starts(model: SequentialVAE, number: int = 6, seed: int = 0) -> State:
    features = torch.randn(number, model.feature_size, generator=torch.Generator().manual_seed(seed))
    return LatentState(features[:, : model.memory.size], features[:, model.memory.size :])


def near(target: float) -> Callable[[Tensor], Tensor]:
    return lambda action: -4 * (action - target).square().sum(-1)


CASES: dict[str, tuple[ActionLayout, str, Callable[[Tensor], Tensor], list[float], float]] = {
    "continuous, dynamics": (ActionLayout(1), "dynamics", near(0.5), [0.5], 0.15),
    "continuous, reinforce": (ActionLayout(1), "reinforce", near(0.5), [0.5], 0.25),
    "discrete": (ActionLayout(0, (3,)), "auto", lambda a: 3 * a[..., 2], [0, 0, 1], 0),
    "mixed": (ActionLayout(1, (2,)), "auto", lambda a: near(-0.5)(a[..., :1]) + 3 * a[..., 1], [-0.5, 1, 0], 0.25),
}


def test_starts_that_are_not_finite_change_nothing_that_is_learnt(make_model: Maker) -> None:
    model = make_model()
    learner, broken = ActorCritic(model, SHORT), starts(model)
    learner.update(starts(model))
    before = copy.deepcopy(learner.state_dict())
    metrics = learner.update(broken.map(lambda x: torch.full_like(x, torch.nan)))
    assert float(metrics["actor/skipped"]) == 1
    after = learner.state_dict()
    learnt = [name for name in before if not name.startswith("slow_critic")]
    assert all(torch.equal(before[name], after[name]) for name in learnt)
    assert all(bool(after[name].isfinite().all()) for name in after)


@pytest.mark.parametrize("name", list(CASES))
def test_it_solves_an_imagined_bandit(name: str) -> None:
    layout, gradient, rule, best, tolerance = CASES[name]
    world = Bandit(layout, rule)
    optimiser = OptimiserConfig(learning_rate=1e-2, warmup=0)
    learner = ActorCritic(world, replace(SHORT, gradient=gradient, optimiser=optimiser))
    generator, states = torch.Generator().manual_seed(0), starts(world, 128)
    log = [learner.update(states, generator) for _ in range(150)]
    found = learner.actor(states.features).mode
    assert torch.allclose(found, torch.tensor(best, dtype=torch.float32).expand_as(found), atol=tolerance + 1e-6)
    assert float(log[-1]["critic/imagined_reward"]) > float(log[0]["critic/imagined_reward"]) + 0.5
    # A reward r for ever at a discount of 0.985 / 2 has the value r / (1 - 0.985 / 2).
    late = torch.stack([metrics["critic/imagined_reward"] for metrics in log[-20:]]).mean()
    value = learner.critic(states.features).mean.mean()
    assert float(value.detach()) == pytest.approx(float(late) / (1 - 0.985 / 2), rel=0.25, abs=0.5)  # it lags behind


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
@pytest.mark.parametrize("latent", ["gaussian", "categorical"])
def test_an_update_leaves_the_world_model_alone(make_model: Maker, layout: ActionLayout, latent: str) -> None:
    model = make_model(action=layout, latent=latent)
    model.prior.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = {name: p.requires_grad for name, p in model.named_parameters()}
    learner = ActorCritic(model, SHORT)
    actor, critic = copy.deepcopy(learner.actor.state_dict()), copy.deepcopy(learner.critic.state_dict())
    metrics = learner.update(starts(model), torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: p.requires_grad for name, p in model.named_parameters()} == flags
    assert all(p.grad is None for p in model.parameters())
    assert all(p.requires_grad for p in (*learner.actor.parameters(), *learner.critic.parameters()))
    assert not any(p.requires_grad or p.grad is not None for p in learner.slow_critic.parameters())
    assert all(torch.isfinite(value).all() and not value.requires_grad for value in metrics.values())
    for part, old in ((learner.actor, actor), (learner.critic, critic)):
        assert any(not torch.equal(value, old[name]) for name, value in part.state_dict().items())
    assert not any(name.startswith("_model") for name in learner.state_dict())


@pytest.mark.parametrize("layout", LAYOUTS, ids=repr)
def test_auto_goes_through_the_dynamics_where_all_actions_are_continuous(
    make_model: Maker, layout: ActionLayout
) -> None:
    model = make_model(action=layout)
    assert ActorCritic(model, SHORT).through_dynamics is (not layout.categorical)
    assert ActorCritic(model, replace(SHORT, gradient="reinforce")).through_dynamics is False
    if layout.categorical:
        with pytest.raises(ValueError, match="gradient=dynamics needs continuous actions only"):
            ActorCritic(model, replace(SHORT, gradient="dynamics"))


def test_dreams_cost_no_gradient_of_the_world_model() -> None:
    world = Bandit(ActionLayout(1), near(0.5))
    ActorCritic(world, SHORT).update(starts(world), torch.Generator().manual_seed(0))
    assert not world.trained_in_dreams
    assert all(p.requires_grad for p in world.parameters())


def test_the_policy_gets_no_gradient_through_its_inputs() -> None:
    world = Bandit(ActionLayout(1), near(0.5))
    states = starts(world).map(lambda x: x.clone().requires_grad_())
    learner = ActorCritic(world, SHORT)
    for parameter in learner.actor.parameters():
        parameter.data.add_(torch.randn_like(parameter))  # a new actor ignores its inputs
    policy = learner._policy(states)
    gradients = torch.autograd.grad(policy.mode.sum() + 0 * states.features.sum(), [states.memory, states.latent])
    assert all(bool((g == 0).all()) for g in gradients)


def test_returns_are_bootstrapped_by_the_values_of_the_states_they_led_into(
    make_model: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    learner, seen, dreams = ActorCritic(model, SHORT), [], []
    for parameter in learner.critic.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    critic, imagine = copy.deepcopy(learner.critic), model.imagine

    def record_dream(*args: Any, **kwargs: Any) -> Dream:
        dreams.append(imagine(*args, **kwargs))
        return dreams[-1]

    def record(*args: Any) -> Tensor:
        seen.append(args)
        return lambda_returns(*args)

    monkeypatch.setattr(model, "imagine", record_dream)
    monkeypatch.setattr("worldvae.agents.actor_critic.lambda_returns", record)
    learner.update(starts(model), torch.Generator().manual_seed(0))
    rewards, values, discounts, mix = seen[0]
    assert torch.allclose(values, critic(dreams[0].states.features).mean, rtol=1e-3)
    assert torch.equal(rewards, dreams[0].rewards)
    assert torch.allclose(discounts, 0.985 * dreams[0].continuations)
    assert mix == 0.95


def test_a_subset_of_the_starts_is_drawn_without_repetition() -> None:
    world = Bandit(ActionLayout(1), near(0.5))
    states = starts(world, 9)
    ActorCritic(world, replace(SHORT, starts=4)).update(states, torch.Generator().manual_seed(0))
    ActorCritic(world, replace(SHORT, starts=20)).update(states, torch.Generator().manual_seed(0))
    some, everything = (dream.start.features for dream in world.dreams)
    found = [(row == states.features).all(-1).nonzero().item() for row in some]
    assert len(set(found)) == 4
    assert torch.equal(everything, states.features)


def test_weights_are_the_probability_of_getting_there() -> None:
    weights = ActorCritic._weights(torch.tensor([[0.5, 0.0, 0.9]]))
    assert weights.tolist() == [[1.0, 0.5, 0.0]]


def test_the_return_scale_is_the_range_of_returns_and_never_enlarges() -> None:
    world = Bandit(ActionLayout(1), near(0.5))
    learner = ActorCritic(world, SHORT)
    assert float(learner._update_scale(torch.linspace(0, 100, 101).unsqueeze(0))) == pytest.approx(90, rel=1e-4)
    learner = ActorCritic(world, SHORT)
    assert float(learner._update_scale(torch.linspace(0, 0.1, 101).unsqueeze(0))) == 1.0


def test_the_slow_critic_follows_at_its_rate() -> None:
    world = Bandit(ActionLayout(1), near(0.5))
    learner = ActorCritic(world, replace(SHORT, slow=0.25))
    before = [p.clone() for p in learner.slow_critic.parameters()]
    learner.update(starts(world), torch.Generator().manual_seed(0))
    for old, slow, new in zip(before, learner.slow_critic.parameters(), learner.critic.parameters(), strict=True):
        assert torch.allclose(slow, old + 0.25 * (new - old), atol=1e-6)


def test_it_goes_on_bit_for_bit_from_its_state(make_model: Maker) -> None:
    model = make_model()
    learner, generator, states = ActorCritic(model, SHORT), torch.Generator().manual_seed(0), starts(model)
    for _ in range(3):
        learner.update(states, generator)
    saved = copy.deepcopy((learner.state_dict(), learner.optimiser_state(), generator.get_state()))
    resumed = ActorCritic(model, SHORT)
    resumed.load_state_dict(saved[0])
    resumed.load_optimiser_state(saved[1])
    ours = [learner.update(states, generator) for _ in range(3)]
    generator.set_state(saved[2])
    theirs = [resumed.update(states, generator) for _ in range(3)]
    assert all(torch.equal(a[name], b[name]) for a, b in zip(ours, theirs, strict=True) for name in a)
    for name, value in learner.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_fresh_critic_says_zero_and_the_metrics_agree_with_the_dream() -> None:
    world = Bandit(ActionLayout(0, (3,)), lambda a: 2 * a[..., 0])
    learner = ActorCritic(world, SHORT)
    metrics = learner.update(starts(world), torch.Generator().manual_seed(0))
    assert float(metrics["critic/value"]) == 0
    assert torch.equal(metrics["critic/imagined_reward"], world.dreams[0].rewards.mean())
    assert float(metrics["actor/entropy"]) == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-5)
