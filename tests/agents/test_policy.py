"""Action distributions compared with torch's, their bounds, and the paths of their gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Normal

from worldvae.agents.policy import ActionDistribution, Actor
from worldvae.types import ActionLayout

LAYOUTS = [ActionLayout(2), ActionLayout(0, (3,)), ActionLayout(0, (3, 2)), ActionLayout(1, (3,))]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=repr)


def parameters(layout: ActionLayout, *shape: int, seed: int = 0) -> Tensor:
    size = 2 * layout.continuous + sum(layout.categorical)
    return torch.randn(*shape, size, generator=torch.Generator().manual_seed(seed))


def reference(raw: Tensor, layout: ActionLayout) -> tuple[Normal, list[Categorical]]:
    n = layout.continuous
    box = Normal(raw[..., :n].clamp(-1, 1), 0.1 + 0.9 * raw[..., n : 2 * n].sigmoid())
    logits = raw[..., 2 * n :].split(list(layout.categorical), dim=-1) if layout.categorical else []
    return box, [Categorical(0.99 * x.softmax(-1) + 0.01 / x.shape[-1]) for x in logits]


@layouts
@given(shape=st.lists(st.integers(1, 3), max_size=3), seed=st.integers(0, 99), scale=st.floats(0, 20))
@settings(max_examples=15, deadline=None)
def test_draws_and_modes_are_valid_actions(layout: ActionLayout, shape: list[int], seed: int, scale: float) -> None:
    policy = ActionDistribution(scale * parameters(layout, *shape, seed=seed), layout)
    for action in (policy.draw(torch.Generator().manual_seed(seed)), policy.mode):
        assert action.shape == (*shape, layout.size)
        assert bool((action[..., : layout.continuous].abs() <= 1).all())
        for block in layout.blocks:
            assert torch.equal(action[..., block].sort(-1).values[..., -1:], torch.ones(*shape, 1))
            assert torch.equal(action[..., block].sum(-1), torch.ones(shape))
        assert policy.log_prob(action).shape == policy.entropy().shape == tuple(shape)


@layouts
def test_log_prob_and_entropy_are_those_of_torch(layout: ActionLayout) -> None:
    raw = parameters(layout, 50)
    policy = ActionDistribution(raw, layout)
    action = policy.draw(torch.Generator().manual_seed(0))
    box, blocks = reference(raw, layout)
    log_prob = box.log_prob(action[:, : layout.continuous]).sum(-1)
    entropy = box.entropy().sum(-1)
    for block, where in zip(blocks, layout.blocks, strict=True):
        log_prob = log_prob + block.log_prob(action[:, where].argmax(-1))
        entropy = entropy + block.entropy()
    assert torch.allclose(policy.log_prob(action), log_prob, atol=1e-5)
    assert torch.allclose(policy.entropy(), entropy, atol=1e-5)


@layouts
def test_draws_have_the_moments_of_the_distribution(layout: ActionLayout) -> None:
    raw = parameters(layout)
    raw[layout.continuous : 2 * layout.continuous] = -20.0  # the smallest deviation
    raw[: layout.continuous] /= 6  # so that no action is clipped
    box, blocks = reference(raw, layout)
    policy = ActionDistribution(raw.expand(20_000, -1), layout)
    draws = policy.draw(torch.Generator().manual_seed(0))
    expected = torch.cat([box.mean, *(block.probs for block in blocks)])
    assert bool(((draws.mean(0) - expected).abs() < 4 * draws.std(0) / math.sqrt(20_000)).all())
    for i in range(layout.continuous):
        assert torch.allclose(draws[:, i].std(), box.stddev[i], rtol=4 / math.sqrt(40_000))


def test_the_mode_is_the_most_probable_action() -> None:
    for layout in LAYOUTS:
        policy = ActionDistribution(parameters(layout).expand(500, -1), layout)
        draws = policy.draw(torch.Generator().manual_seed(0))
        assert bool((policy.log_prob(policy.mode) >= policy.log_prob(draws)).all())


def test_the_gradient_of_a_draw_passes_the_bounds_and_stops_at_one_hots() -> None:
    layout = ActionLayout(1, (3,))
    raw = torch.tensor([[0.2, 0.0, 0.1, 0.2, 0.3], [3.0, 9.0, 0.1, 0.2, 0.3]], requires_grad=True)
    for seed in range(20):
        action = ActionDistribution(raw, layout).draw(torch.Generator().manual_seed(seed))
        gradient = torch.autograd.grad(action[:, 0].sum(), raw, retain_graph=True)[0]
        assert torch.equal(gradient[:, 0], torch.ones(2))
        noise = torch.randn(2, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
        slope = raw[:, 1].detach().sigmoid() * (1 - raw[:, 1].detach().sigmoid())
        assert torch.allclose(gradient[:, 1], 0.9 * slope * noise, atol=1e-6)
        if bool(action[1, 0] == 1):
            break
    else:
        pytest.fail("no draw was cut off")
    assert torch.equal(gradient[:, 2:], torch.zeros(2, 3))
    assert bool((action[:, 1:].sum(-1) == 1).all())
    assert torch.autograd.grad(action[:, 1:].sum() + 0 * raw.sum(), raw)[0].abs().max() == 0


def test_no_class_is_ever_given_up() -> None:
    policy = ActionDistribution(torch.tensor([100.0, -100.0]), ActionLayout(0, (2,)))
    assert float(policy.log_prob(torch.tensor([0.0, 1.0]))) == pytest.approx(math.log(0.005), abs=1e-4)


@layouts
def test_a_fresh_actor_is_neutral_and_learns_by_likelihood(layout: ActionLayout) -> None:
    actor = Actor(4, layout, 8, 1)
    features = torch.randn(5, 4)
    policy = actor(features)
    assert torch.equal(policy.mode[:, : layout.continuous].detach(), torch.zeros(5, layout.continuous))
    for block in policy.blocks:
        assert torch.allclose(block.mean, torch.full_like(block.mean, 1 / block.mean.shape[-1]))
    action = policy.draw(torch.Generator().manual_seed(0))
    before = float(policy.log_prob(action.detach()).sum().detach())
    adam = torch.optim.Adam(actor.parameters(), lr=0.05)
    for _ in range(10):
        adam.zero_grad()
        (-actor(features).log_prob(action.detach()).sum()).backward()
        adam.step()
    assert float(actor(features).log_prob(action.detach()).sum().detach()) > before + 0.5


@layouts
def test_the_same_seed_gives_the_same_bits(layout: ActionLayout) -> None:
    policy = ActionDistribution(parameters(layout, 30), layout)
    draws = [policy.draw(torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize(
    ("raw", "slope", "expected"),
    [(3.0, 1.0, 1.0), (3.0, -1.0, 0.0), (-3.0, 1.0, 0.0), (-3.0, -1.0, -1.0), (0.5, 1.0, 1.0), (0.5, -1.0, -1.0)],
)
def test_no_mean_is_stuck_at_a_bound(raw: float, slope: float, expected: float) -> None:
    """Descend on slope * mean: beyond a bound, outward gradients are 0, and inward gradients are unchanged."""
    parameters = torch.tensor([raw, 0.0], requires_grad=True)
    (slope * ActionDistribution(parameters, ActionLayout(continuous=1)).box.mean.sum()).backward()
    assert parameters.grad is not None
    assert parameters.grad[0] == expected
