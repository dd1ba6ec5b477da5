"""What every kind of world model must do, whatever it models: the verbs of the protocol, and their rules."""

from typing import Any

import pytest
import torch
from torch import Tensor

from worldvae.agents import PlannerAgent
from worldvae.agents.actor_critic import ActorCritic, ActorCriticConfig
from worldvae.models.kinds import KINDS, new_model
from worldvae.models.parts import WorldModelConfig
from worldvae.models.world_model import WorldModel
from worldvae.planning import GradientConfig
from worldvae.runs.settings import RunConfig, configure
from worldvae.training.learner import Learner
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout, State, TensorTree

WORDS: dict[str, tuple[str, ...]] = {
    "sequential_vae": (),
    "latent_diffusion": ("family=latent_diffusion",),
    "jepa": ("model.kind=jepa", "model.jepa.latent=8", "model.jepa.rollout=3"),
    "jepa_gru": ("model.kind=jepa", "model.jepa.predictor=gru", "model.jepa.regulariser=vicreg"),
    "pixel_diffusion": ("model.kind=pixel_diffusion", "model.pixel_diffusion.widths=[8,16]"),
    "pixel_energy": ("model.kind=pixel_energy", "model.pixel_energy.widths=[8,16]"),
    "contrastive": (
        "model.kind=pixel_energy",
        "model.pixel_energy.widths=[8,16]",
        "model.pixel_energy.training=contrastive",
        "model.pixel_energy.sampler=langevin",
        "model.pixel_energy.contrastive.levels=2",
        "model.pixel_energy.contrastive.steps=2",
    ),
}
SMALL = ("model.size=tiny", "model.hidden=16", "model.memory_size=16", "model.depth=4", "model.precision=float32")
ACTION = ActionLayout(continuous=2)


def settings(name: str) -> RunConfig:
    return configure({"env": {"id": "worldvae/Tiny-v0"}}, [*WORDS[name], *SMALL])


def rows(layout: ObservationLayout, size: int = 3, length: int = 6, seed: int = 0, second: int = 4) -> Batch:
    """Return random rows in which an episode begins at row 0 and one at row `second`."""
    draws = torch.Generator().manual_seed(seed)
    pixels = vector = None
    if layout.pixels is not None:
        pixels = torch.randint(0, 256, (size, length, *layout.pixels), generator=draws, dtype=torch.uint8)
    if layout.vector is not None:
        vector = torch.randn(size, length, layout.vector, generator=draws)
    first = torch.zeros(size, length, dtype=torch.bool)
    first[:, [0, second]] = True
    return Batch(
        Observation(pixels, vector),
        torch.rand(size, length, ACTION.size, generator=draws) * 2 - 1,
        torch.randn(size, length, generator=draws),
        torch.rand(size, length, generator=draws) < 0.2,
        first,
    )


@pytest.fixture(params=["pixels", "vector"])
def layout(request: pytest.FixtureRequest) -> ObservationLayout:
    return ObservationLayout((1, 16, 16)) if request.param == "pixels" else ObservationLayout(vector=3)


@pytest.fixture(params=list(WORDS))
def model(request: pytest.FixtureRequest, layout: ObservationLayout) -> Any:
    found = new_model(layout, ACTION, settings(request.param).model)
    assert isinstance(found, torch.nn.Module)
    for parameter in found.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    found.calibrate(rows(layout).observation, rows(layout).reward)
    for _ in range(3):  # kinds whose averages of weights imagine
        found.updated()
    return found


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def same(one: TensorTree, other: TensorTree, tolerance: float = 0.0) -> None:
    """Assert that two trees are equal; bytes may differ by one where there is a tolerance."""
    ours, theirs = one.tensors(), other.tensors()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        atol = 1.0 if tolerance and value.dtype == torch.uint8 else tolerance
        torch.testing.assert_close(value.float(), theirs[name].float(), rtol=tolerance, atol=atol, msg=name)


def test_every_kind_is_here() -> None:
    assert {settings(name).model.kind for name in WORDS} == set(KINDS)


def test_it_has_all_verbs_with_their_shapes(model: Any, layout: ObservationLayout) -> None:
    assert isinstance(model, WorldModel)
    batch = rows(layout)
    states = model.observe(batch, generator=draws()).posterior
    assert states.features.shape == (3, 6, model.feature_size)
    assert model.initial(5).features.shape == (5, model.feature_size)
    assert model.encode(batch.observation).shape[:2] == (3, 6)
    dream = model.imagine(states[:, -1], batch.action[:, :4], generator=draws())
    assert dream.states.features.shape == (3, 4, model.feature_size)
    assert dream.rewards.shape == dream.continuations.shape == (3, 4)
    assert model.reward(states).mean.shape == model.continuation(states).mean.shape == (3, 6)
    shown = layout.pixels or (layout.vector,)
    assert model.shows == {"pixels" if layout.pixels else "vector"}
    assert model.decode(dream.states).mean.shape == (3, 4, *shown)
    assert model.decode(dream.states).log_prob(model.decode(dream.states).mean).shape == (3, 4)
    truth, decoded = model.in_shown_units(states, batch.observation)
    assert truth.shape == decoded.shape == (3, 6, *shown)
    for tensor in (dream.states.features, dream.rewards, dream.continuations, truth, decoded):
        assert tensor.isfinite().all()
    assert ((dream.continuations >= 0) & (dream.continuations <= 1)).all()


def test_observing_in_two_parts_is_observing_at_once(model: Any, layout: ObservationLayout) -> None:
    batch = rows(layout)
    whole = model.observe(batch, mode=True).posterior
    before = model.observe(batch[:, :2], mode=True).posterior
    after = model.observe(batch[:, 2:], before[:, -1], batch.action[:, 1], mode=True).posterior
    same(after[:, -1], whole[:, -1], 1e-5)


def test_an_episode_does_not_know_the_one_before(model: Any, layout: ObservationLayout) -> None:
    batch, other = rows(layout), rows(layout, seed=1)
    mixed = TensorTree.cat([other[:, :4], batch[:, 4:]], dim=1)
    assert isinstance(mixed, Batch)
    found, expected = (model.observe(each, mode=True).posterior[:, 4:] for each in (mixed, batch))
    torch.testing.assert_close(found.features, expected.features)


def test_a_dream_may_keep_its_last_state_only(model: Any, layout: ObservationLayout) -> None:
    batch = rows(layout)
    start = model.observe(batch, mode=True).posterior[:, 1]
    noise = model.noise((4, 3), draws())
    whole, last = (model.imagine(start, batch.action[:, :4], noise=noise, last_only=only) for only in (False, True))
    same(last.states[:, -1], whole.states[:, -1], 1e-6)
    torch.testing.assert_close(last.rewards, whole.rewards)
    assert last.states.features.shape[1] == 1


def test_a_dream_does_not_depend_on_the_others_of_its_batch(model: Any, layout: ObservationLayout) -> None:
    batch = rows(layout)
    start = model.observe(batch, mode=True).posterior[:, 1]
    noise = model.noise((3, 3), draws())
    together = model.imagine(start, batch.action[:, :3], noise=noise)
    alone = model.imagine(start[1:2], batch.action[1:2, :3], noise=noise[:, 1:2])
    torch.testing.assert_close(alone.rewards, together.rewards[1:2], rtol=1e-3, atol=1e-3)


def test_a_policy_acts_on_the_states_of_a_dream(model: Any, layout: ObservationLayout) -> None:
    start, seen = model.observe(rows(layout), mode=True).posterior[:, 1], list[Tensor]()

    def policy(state: State) -> Tensor:
        seen.append(state.features)
        return state.features[:, :2].tanh()

    dream = model.imagine(start, policy, 3, mode=True)
    expected = torch.stack([start.features, *dream.states.features[:, :-1].unbind(1)], dim=1)
    torch.testing.assert_close(torch.stack(seen, dim=1), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dream.actions, expected[..., :2].tanh(), rtol=1e-5, atol=1e-5)


def test_it_says_whether_a_dream_has_a_gradient_and_actor_and_planner_listen(
    model: Any, layout: ObservationLayout
) -> None:
    batch = rows(layout)
    start = model.observe(batch, mode=True).posterior[:, 1]
    actions = batch.action[:, :2].clone().requires_grad_()
    dream = model.imagine(start, actions, mode=True)
    assert ActorCritic(model).through_dynamics == model.differentiable
    if model.differentiable:
        (found,) = torch.autograd.grad(dream.states.features.square().sum(), actions)
        assert found.abs().max() > 0
        return
    with pytest.raises(ValueError, match="gradient=auto or reinforce"):
        ActorCritic(model, ActorCriticConfig(gradient="dynamics"))
    with pytest.raises(ValueError, match="take another, such as icem"):
        PlannerAgent(model, GradientConfig())


def test_states_are_packed_and_come_back(model: Any, layout: ObservationLayout) -> None:
    states = model.observe(rows(layout), mode=True).posterior
    same(type(states).from_tensors(states.tensors()), states)


@pytest.mark.parametrize("name", list(WORDS))
def test_it_learns_and_its_weights_are_all_there_is_to_keep(name: str, layout: ObservationLayout) -> None:
    config, batch = settings(name), rows(layout, size=4, length=8)
    model: Any = new_model(layout, ACTION, config.model)
    model.calibrate(batch.observation, batch.reward)
    learner, before = Learner(model, config.optimiser), {k: v.clone() for k, v in model.state_dict().items()}
    generator = draws()
    for _ in range(3):
        states, metrics = learner.update(batch, generator)
        assert all(torch.as_tensor(value).isfinite().all() for value in metrics.values())
    assert states.features.isfinite().all() and not states.features.requires_grad
    assert any(not torch.equal(before[key], value) for key, value in model.state_dict().items())
    other: Any = new_model(layout, ACTION, config.model)
    other.load_state_dict(model.state_dict())
    noise = model.noise((3, 4), draws())
    dreams = [
        each.imagine(each.observe(batch, mode=True).posterior[:, -1], batch.action[:, :3], noise=noise)
        for each in (model, other)
    ]
    same(dreams[0].states, dreams[1].states)


def test_words_of_parts_that_a_kind_does_not_read_are_refused() -> None:
    for kind in set(KINDS) - {"sequential_vae"}:
        with pytest.raises(ValueError, match=kind):
            WorldModelConfig(kind=kind, prior="flow")
