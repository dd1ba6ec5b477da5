"""Models of the next frame: the protocol, dreams, losses, and the moving average that imagines."""

import copy
from typing import Any

import pytest
import torch

import worldvae as wv
from tests.next_frame import KINDS_OF_FRAMES, PIXELS, VECTOR, make, rows
from worldvae.models.kind_sections import ContrastiveConfig, NextFrameConfig
from worldvae.models.pixel_state import PixelState
from worldvae.models.world_model import WorldModel
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.training.learner import Learner
from worldvae.types import Observation, ObservationLayout

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("pixel_diffusion", {}),
    ("pixel_diffusion", {"sampler": "heun"}),
    ("pixel_energy", {}),
    ("pixel_energy", {"sampler": "langevin", "steps": 2, "langevin_steps": 1}),
    ("pixel_energy", {"training": "contrastive", "sampler": "langevin", "contrastive": ContrastiveConfig(2, steps=2)}),
]


@pytest.mark.parametrize(("kind", "numbers"), VARIANTS)
@pytest.mark.parametrize("layout", [PIXELS, VECTOR])
def test_dreams(kind: str, numbers: dict[str, Any], layout: ObservationLayout, generator: torch.Generator) -> None:
    """They depend on noise and actions, each row on its own; they are the same for the same generator, or noise."""
    model = make(kind, layout, **numbers)
    assert isinstance(model, WorldModel)
    batch = rows(model, 3, 4)
    model.calibrate(batch.observation, batch.reward)
    start = model.observe(batch).posterior[:, -1]
    actions = torch.rand(3, 2, 2, generator=generator) * 2 - 1
    noise = model.noise((2, 3), generator)
    with torch.no_grad():
        dream = model.imagine(start, actions, noise=noise)
        again = model.imagine(start, actions, noise=noise)
        alone = model.imagine(start[1:2], actions[1:2], noise=noise[:, 1:2])
        last = model.imagine(start, actions, noise=noise, last_only=True)
        drawn = [
            PixelState.of(model.imagine(start, actions, generator=torch.Generator().manual_seed(seed)).states).last
            for seed in (0, 0, 1)
        ]
        modes = [model.imagine(start, actions, mode=True, generator=generator).rewards for _ in range(2)]
    frames = PixelState.of(dream.states).last
    assert torch.equal(frames, PixelState.of(again.states).last) and torch.equal(dream.rewards, again.rewards)
    close = 1.0 if layout.pixels else 1e-3  # (in bytes: products of other sizes may round otherwise)
    assert float((frames[1:2].float() - PixelState.of(alone.states).last.float()).abs().max()) <= close
    assert last.states.features.shape[:2] == (3, 1) and torch.equal(last.states.features, dream.states.features[:, -1:])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert torch.equal(modes[0], modes[1])
    assert frames.dtype == (torch.uint8 if layout.pixels else torch.float32)
    shown = model.decode(dream.states)
    assert shown.mean.shape == (3, 2, *(layout.pixels or (2,))) and shown.log_prob(shown.mean).shape == (3, 2)


def test_actions_and_policies(generator: torch.Generator) -> None:
    model = make("pixel_diffusion")
    start = model.observe(rows(model, 3, 4)).posterior[:, -1]
    with torch.no_grad():
        dream = model.imagine(start, lambda state: torch.tanh(state.features[:, :2]), 3, generator)
        given = model.imagine(start, dream.actions, noise=model.noise((3, 3), torch.Generator().manual_seed(0)))
        other = model.imagine(start, -dream.actions, noise=model.noise((3, 3), torch.Generator().manual_seed(0)))
    assert torch.equal(dream.states.features, given.states.features)
    assert not torch.equal(PixelState.of(given.states).last, PixelState.of(other.states).last)


def test_what_is_shown_is_the_last_frame() -> None:
    model = make("pixel_diffusion")
    batch = rows(model, 2, 5)
    states = model.observe(batch).posterior
    truth = batch.observation.pixels.float() / 255
    for found in (model.decode(states).mean, model.render(states, 3), *model.in_shown_units(states, batch.observation)):
        torch.testing.assert_close(found, truth)
    floats = model.observe(copy.copy(batch).map(lambda x: x)).posterior
    assert torch.equal(floats.features, states.features) and model.shows == {"pixels"}
    torch.testing.assert_close(model.units.stored(Observation(truth)), batch.observation.pixels.flatten(-3))
    vectors = make("pixel_diffusion", VECTOR)
    batch = rows(vectors, 4, 5)
    vectors.calibrate(batch.observation)
    seen, decoded = vectors.in_shown_units(vectors.observe(batch).posterior, batch.observation)
    torch.testing.assert_close(seen, decoded)
    torch.testing.assert_close(vectors.decode(vectors.observe(batch).posterior).mean, batch.observation.vector)
    assert float(seen.mean()) == pytest.approx(0, abs=1e-5) and float(seen.std()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("kind", KINDS_OF_FRAMES)
def test_the_units_of_frames_are_undone(kind: str) -> None:
    model = make(kind)
    batch = rows(model, 2, 5)
    model.calibrate(batch.observation, batch.reward)
    stored = model.units.stored(batch.observation)
    found = model.units.to_denoised(stored)
    assert torch.equal(model.units.to_stored(found), stored)
    assert float(found.mean()) == pytest.approx(0, abs=1e-5)
    assert float(model.units.spread) == pytest.approx(float(found.std(correction=0)), rel=1e-4)
    assert torch.equal(model.units.to_stored(found + 10), torch.full_like(stored, 255))


@pytest.mark.parametrize("kind", KINDS_OF_FRAMES)
def test_first_rows_are_not_predicted(kind: str, generator: torch.Generator) -> None:
    """Rows that only begin episodes leave nothing to learn for the network; its loss is then 0."""
    model = make(kind)
    loss = model.loss(rows(model, 2, 4, firsts=(0, 1, 2, 3)), generator)
    assert "denoising" not in loss.metrics and loss.value.isfinite()
    found = torch.autograd.grad(loss.value, list(model.network.parameters()), allow_unused=True)
    assert all(gradient is None for gradient in found)


@pytest.mark.parametrize(("kind", "numbers"), VARIANTS)
def test_gradients_reach_every_weight_and_no_weight_twice(
    kind: str, numbers: dict[str, Any], generator: torch.Generator
) -> None:
    """The loss trains network, trunk and heads, whose gradients do not depend on the network's weights."""
    model = make(kind, generated=0.0, **numbers)
    batch = rows(model, 4, 5)
    loss = model.loss(batch, generator)
    parameters = dict(model.named_parameters())
    found = torch.autograd.grad(loss.value, list(parameters.values()), allow_unused=True)
    unused = {name for name, gradient in zip(parameters, found, strict=True) if gradient is None}
    assert unused == set()
    assert not any(value.requires_grad for value in loss.metrics.values())
    assert torch.equal(loss.states.features, model.observe(batch).posterior.features)
    heads = model.loss(batch, generator).metrics
    for parameter in model.network.parameters():
        parameter.data.mul_(1.5)
    assert torch.equal(model.loss(batch, generator).metrics["reward_nats"], heads["reward_nats"])


@pytest.mark.parametrize(("kind", "numbers"), VARIANTS)
def test_training_goes_on_from_the_state_dict(kind: str, numbers: dict[str, Any]) -> None:
    model = make(kind, **numbers)
    batch = rows(model, 4, 5)
    learner = Learner(model, OptimiserConfig(warmup=0))
    for seed in range(2):
        learner.update(batch, torch.Generator().manual_seed(seed))
    other = make(kind, seed=7, **numbers)
    other.load_state_dict(model.state_dict())
    rest = Learner(other, OptimiserConfig(warmup=0))
    rest.optimiser.load_state_dict(copy.deepcopy(learner.optimiser.state_dict()))
    for each in (learner, rest):
        each.update(batch, torch.Generator().manual_seed(9))
    assert all(torch.equal(x, other.state_dict()[name]) for name, x in model.state_dict().items())
    assert learner.is_sound(batch)


def test_the_average_imagines() -> None:
    model = make("pixel_diffusion", average=0.9)
    state, actions, noise = model.observe(rows(model, 2, 4)).posterior[:, -1], torch.zeros(2, 1, 2), model.noise((1, 2))
    before = PixelState.of(model.imagine(state, actions, noise=noise).states).last
    for parameter in model.network.parameters():
        parameter.data.add_(0.3)
    assert torch.equal(PixelState.of(model.imagine(state, actions, noise=noise).states).last, before)
    model.updated()
    assert not torch.equal(PixelState.of(model.imagine(state, actions, noise=noise).states).last, before)


@pytest.mark.parametrize("kind", KINDS_OF_FRAMES)
def test_gradients_pass_through_vectors_and_end_at_bytes(kind: str) -> None:
    for layout in (PIXELS, VECTOR):
        model = make(kind, layout)
        state = model.observe(rows(model, 2, 4)).posterior[:, -1].detach()
        actions = torch.zeros(2, 3, 2).requires_grad_()
        dream = model.imagine(state, actions, noise=model.noise((3, 2), torch.Generator().manual_seed(0)))
        gradient = torch.autograd.grad(dream.rewards[:, -1].sum(), actions)[0]
        reaches = gradient.abs().amax(dim=(0, 2)) > 0
        assert reaches.all()  # in frames only by the actions in the window
        last = PixelState.of(dream.states).last
        assert last.requires_grad == (layout is VECTOR)


@pytest.mark.parametrize("kind", KINDS_OF_FRAMES)
def test_the_loss_falls(kind: str) -> None:
    """A bar of light that moves by one pixel to the side that the action says."""
    model = make(kind, ObservationLayout(pixels=(1, 8, 8)), awake=False, action=1, frames=16, generated=0.1)
    draws = torch.Generator().manual_seed(0)
    action = torch.randint(0, 2, (4, 12, 1), generator=draws) * 2.0 - 1
    place = (action[..., 0].cumsum(1) - action[..., 0]).long() % 8
    frames = torch.nn.functional.one_hot(place, 8)[:, :, None, None].expand(4, 12, 1, 8, 8).to(torch.uint8) * 255
    batch = rows(model, 4, 12)
    batch = type(batch)(Observation(frames), action, place / 8, batch.termination & False, batch.is_first)
    model.calibrate(batch.observation, batch.reward)
    learner = Learner(model, OptimiserConfig(learning_rate=5e-3, warmup=5, clip=1.0))
    found = [learner.update(batch, draws)[1] for _ in range(25)]
    ends = {
        name: [torch.stack([m[name] for m in part]).mean() for part in (found[:5], found[-5:])] for name in found[0]
    }
    for name in ("model/denoising", "model/reward_nats", "model/continuation_nats"):
        assert ends[name][1] < 0.9 * ends[name][0], name


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"context": 0}, "context=0 must be at least 1"),
        ({"sigma_min": 9.0}, "take 0 < sigma_min < sigma_max"),
        ({"log_sigma_std": 0.0}, "a standard deviation above 0"),
        ({"context_noise": -0.1}, "context_noise=-0.1 must be 0 or above"),
        ({"widths": ()}, "widths="),
        ({"average": 1.0}, "average=1.0 is not a decay"),
        ({"generated": 1.5}, "generated=1.5 is not a share"),
    ],
)
def test_numbers_that_make_no_sense(numbers: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        NextFrameConfig(**numbers)


def test_parts_of_the_vae_are_refused() -> None:
    with pytest.raises(ValueError, match="prior=flow is a part of kind=sequential_vae"):
        wv.WorldModelConfig(kind="pixel_diffusion", prior="flow")
