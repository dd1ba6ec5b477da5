"""The six verbs, and above all the row convention: which action, state and reset belong to which row."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.distributions import symlog
from worldvae.memory import LatentState
from worldvae.models.parts import SIZES, WorldModelConfig
from worldvae.models.senses import unit
from worldvae.models.sequential_vae import SequentialVAE
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout, State

Maker = Callable[..., SequentialVAE]
Rows = Callable[..., Batch]
Feed = Callable[[SequentialVAE, list[Tensor]], None]

PARTS = [(memory, latent) for memory in ("gru", "block_gru") for latent in ("gaussian", "categorical")]
PARTS += [("markov", "gaussian"), ("transformer", "gaussian")]
parts = pytest.mark.parametrize(("memory", "latent"), PARTS)
few = settings(max_examples=12, deadline=None)


def noise_of(model: SequentialVAE, length: int, size: int, seed: int = 0) -> Tensor:
    return type(model.family).noise(model.family, (length, size), model.device, torch.Generator().manual_seed(seed))


def same(ours: State, theirs: State, atol: float = 1e-5) -> bool:
    return torch.allclose(ours.features, theirs.features, atol=atol)


@parts
@given(size=st.integers(1, 3), length=st.integers(2, 6), data=st.data())
@few
def test_an_action_changes_what_comes_after_its_row_and_nothing_before(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, memory: str, latent: str, size: int, length: int, data: Any
) -> None:
    model = make_model(memory=memory, latent=latent)
    rows = make_batch(model, size, length)
    t = data.draw(st.integers(0, length - 1))
    action = rows.action.clone()
    action[:, t] = -action[:, t] + 0.5
    changed = Batch(rows.observation, action, rows.reward, rows.termination, rows.is_first)
    noise = noise_of(model, length, size)
    feed_noise(model, [noise, noise])
    before, after = model.observe(rows).posterior, model.observe(changed).posterior
    assert torch.equal(before.features[:, : t + 1], after.features[:, : t + 1])
    moved = (before.memory - after.memory).abs().amax(dim=-1)
    assert bool((moved[:, t + 1 : t + 2] > 1e-6).all())


@given(first=st.integers(1, 4), second=st.integers(1, 4))
@few
def test_a_smoothing_posterior_sees_its_own_episode_and_no_other(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, first: int, second: int
) -> None:
    model = make_model(context="smooth")
    assert model.smoother is not None
    torch.nn.init.normal_(model.smoother.out.weight)
    rows, noise = make_batch(model, 2, first + second, firsts=(0, first)), noise_of(model, first + second, 2)
    feed_noise(model, [noise, noise[:first], noise[first:]])
    whole = model.observe(rows).posterior
    assert same(model.observe(rows[:, :first]).posterior, whole[:, :first])
    assert same(model.observe(rows[:, first:]).posterior, whole[:, first:])
    other = make_batch(model, 2, first + second, firsts=(0, first), seed=1)
    last = Batch.cat([rows[:, : first + second - 1], other[:, first + second - 1 :]], dim=1)
    feed_noise(model, [noise])
    moved = (model.observe(last).posterior.latent - whole.latent).abs().amax(-1)
    assert bool((moved[:, first:] > 1e-6).all()) and bool((moved[:, :first] == 0).all())


@parts
@given(first=st.integers(1, 4), second=st.integers(1, 4))
@few
def test_packed_episodes_equal_the_episodes_apart(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, memory: str, latent: str, first: int, second: int
) -> None:
    model = make_model(memory=memory, latent=latent)
    packed = make_batch(model, 2, first + second, firsts=(0, first))
    noise = noise_of(model, first + second, 2)
    feed_noise(model, [noise, noise[:first], noise[first:]])
    together = model.observe(packed)
    for part, rows in ((slice(None, first), packed[:, :first]), (slice(first, None), packed[:, first:])):
        apart = model.observe(rows)
        assert same(together.posterior[:, part], apart.posterior)
        assert torch.allclose(together.parameters[:, part], apart.parameters, atol=1e-5)


def test_without_a_reset_the_past_does_matter(make_model: Maker, make_batch: Rows, feed_noise: Feed) -> None:
    """The counterpart of the test above: only `is_first` separates a row from the past."""
    model = make_model()
    noise = noise_of(model, 4, 2)
    feed_noise(model, [noise, noise])
    cut, joined = make_batch(model, 2, 4, firsts=(0, 2)), make_batch(model, 2, 4, firsts=(0,))
    a, b = model.observe(cut).posterior, model.observe(joined).posterior
    assert same(a[:, :2], b[:, :2])
    assert bool(((a.features - b.features)[:, 2:].abs().amax(-1) > 1e-4).all())


def test_a_reset_of_one_row_of_the_batch_leaves_the_others(
    make_model: Maker, make_batch: Rows, feed_noise: Feed
) -> None:
    model = make_model()
    rows = make_batch(model, 2, 4)
    first = rows.is_first.clone()
    first[0, 2] = True
    noise = noise_of(model, 4, 2)
    feed_noise(model, [noise, noise])
    a = model.observe(rows).posterior
    b = model.observe(Batch(rows.observation, rows.action, rows.reward, rows.termination, first)).posterior
    assert torch.equal(a.features[1], b.features[1])
    assert not torch.equal(a.features[0, 2], b.features[0, 2])


@parts
@given(cut=st.integers(1, 5), firsts=st.sets(st.integers(0, 5)))
@few
def test_two_halves_with_state_and_action_handed_over_equal_the_whole(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, memory: str, latent: str, cut: int, firsts: set[int]
) -> None:
    model = make_model(memory=memory, latent=latent)
    rows = make_batch(model, 2, 6, firsts=tuple(firsts))
    noise = noise_of(model, 6, 2)
    feed_noise(model, [noise, noise[:cut], noise[cut:]])
    whole = model.observe(rows)
    left = model.observe(rows[:, :cut])
    right = model.observe(rows[:, cut:], left.posterior[:, -1], rows.action[:, cut - 1])
    assert same(State.cat([left.posterior, right.posterior], dim=1), whole.posterior)
    assert torch.allclose(right.parameters, whole.parameters[:, cut:], atol=1e-5)


def test_the_first_reset_forgets_what_was_handed_over(make_model: Maker, make_batch: Rows, feed_noise: Feed) -> None:
    model = make_model()
    rows = make_batch(model, 2, 3, firsts=(0,))
    noise = noise_of(model, 3, 2)
    feed_noise(model, [noise, noise])
    fresh = model.observe(rows)
    stale = model.initial(2).map(lambda x: x + 5)
    assert same(model.observe(rows, stale, torch.ones(2, 2)).posterior, fresh.posterior)


@parts
def test_observe_is_its_definition_written_out(
    make_model: Maker, make_batch: Rows, feed_noise: Feed, memory: str, latent: str
) -> None:
    model = make_model(memory=memory, latent=latent)
    rows = make_batch(model, 1, 5, firsts=(0, 3))
    noise = noise_of(model, 5, 1)
    feed_noise(model, [noise])
    observed = model.observe(rows)
    embedding = model.encode(rows.observation)
    state = model.initial(1)
    for t in range(5):
        action = torch.zeros(1, 2) if t in (0, 3) else rows.action[:, t - 1]
        if t in (0, 3):
            state = model.initial(1)
        h, past = model.memory.advance(state, model.memory.project(action))
        q = model.posterior(h, embedding[:, t])
        parameters = model.posterior.parameters_at(h, model.posterior.project(embedding[:, t]))
        state = LatentState(h, model.family.sample(parameters, noise[t]), past)
        assert same(observed.posterior[:, t], state)
        assert torch.allclose(model.family(observed.parameters[:, t]).mean, q.mean, atol=1e-5)


@parts
@given(size=st.integers(1, 3), horizon=st.integers(1, 5))
@few
def test_imagining_is_stepping(
    make_model: Maker, feed_noise: Feed, memory: str, latent: str, size: int, horizon: int
) -> None:
    model = make_model(memory=memory, latent=latent)
    start = LatentState(torch.randn(size, 16), torch.randn(size, model.family.latent_size))
    actions, noise = torch.rand(size, horizon, 2) * 2 - 1, noise_of(model, horizon, size)
    feed_noise(model, [noise])
    dream = model.imagine(start, actions)
    state = start
    for t in range(horizon):
        state = model.step(state, actions[:, t], noise[t])
        assert same(dream.states[:, t], state)
        # The mean of a two-hot is a sum over huge bins of both signs, and has rounding errors of their size.
        p = model.reward(state)
        assert bool(((dream.rewards[:, t] - p.mean).abs() < 1e-5 * (p.logits.softmax(-1) @ p.bins.abs())).all())
        assert torch.allclose(dream.continuations[:, t], model.continuation(state).mean, atol=1e-5)
    with torch.no_grad():  # where states are views of one tensor
        fast = model.imagine(start, actions, noise=noise)
    assert same(fast.states, dream.states) and torch.allclose(fast.continuations, dream.continuations, atol=1e-5)
    assert torch.equal(dream.start.features, start.features) and torch.equal(dream.actions, actions)
    assert bool(((dream.continuations >= 0) & (dream.continuations <= 1)).all())


def test_a_policy_sees_the_state_before_each_step(make_model: Maker, feed_noise: Feed) -> None:
    model = make_model()
    seen: list[State] = []

    def policy(state: State) -> Tensor:
        seen.append(state)
        return torch.tanh(state.features[:, :2])

    start, noise = LatentState(torch.randn(3, 16), torch.randn(3, 4)), noise_of(model, 4, 3)
    feed_noise(model, [noise, noise])
    dream = model.imagine(start, policy, horizon=4)
    assert [s.features.shape for s in seen] == [(3, 20)] * 4
    assert torch.equal(seen[0].features, start.features)
    for t in range(3):
        assert torch.equal(seen[t + 1].features, dream.states[:, t].features)
        assert torch.equal(dream.actions[:, t + 1], torch.tanh(dream.states[:, t].features[:, :2]))
    replayed = model.imagine(start, dream.actions)
    assert same(replayed.states, dream.states)


def test_a_step_reads_its_noise_through_the_prior(make_model: Maker) -> None:
    model = make_model()
    start, action = model.initial(1), torch.zeros(1, 2)
    prior = model.prior(model.memory(start, action))
    assert torch.allclose(model.step(start, action, torch.zeros(1, 4)).latent, prior.mean, atol=1e-6)
    one = model.step(start, action, torch.ones(1, 4)).latent
    assert torch.allclose(one, prior.mean + prior.stddev, atol=1e-6)


def test_dream_gradients_reach_the_actions(make_model: Maker, generator: torch.Generator) -> None:
    for latent in ("gaussian", "categorical"):
        model = make_model(latent=latent)
        actions = torch.zeros(2, 3, 2, requires_grad=True)
        dream = model.imagine(model.initial(2), actions, generator=generator)
        gradient = torch.autograd.grad(dream.rewards[:, -1].sum(), actions)[0]
        assert bool((gradient.abs().amax(dim=-1) > 0).all())


@pytest.mark.parametrize("bfloat16", [False, True])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 5, 9), (3, 20, 33)])
def test_bytes_and_floats_are_observed_alike(
    make_model: Maker, make_batch: Rows, shape: tuple[int, int, int], bfloat16: bool
) -> None:
    model = make_model(shape, precision="bfloat16" if bfloat16 else "float32")
    rows = make_batch(model, 2, 3)
    assert rows.observation.pixels is not None
    floats = Observation(rows.observation.pixels.float() / 255)
    ours, theirs = model.encode(rows.observation), model.encode(floats)
    assert ours.dtype == theirs.dtype == torch.float32
    assert torch.allclose(ours, theirs, atol=3e-2 if bfloat16 else 1e-5)
    assert torch.equal(unit(rows.observation.pixels), unit(floats.pixels))
    assert model.decode(model.observe(rows).posterior).mean.shape == (2, 3, *shape)


@given(batch=st.lists(st.integers(1, 3), max_size=3))
@few
def test_any_batch_shape(make_model: Maker, batch: list[int]) -> None:
    model = make_model((3, 6, 9), vector=3)
    states = LatentState(torch.randn(*batch, 16), torch.randn(*batch, 4))
    seen = Observation(torch.rand(*batch, 3, 6, 9), torch.randn(*batch, 3))
    flat = LatentState(states.memory.reshape(-1, 16), states.latent.reshape(-1, 4))
    assert model.encode(seen).shape[:-1] == tuple(batch)
    assert model.reward(states).mean.shape == model.continuation(states).mean.shape == tuple(batch)
    frames = model.decode(states).mean
    assert frames.shape == (*batch, 3, 6, 9)
    assert torch.allclose(frames.reshape(-1, 3, 6, 9), model.decode(flat).mean, atol=1e-5)
    vectors = model.decode(states, "vector")
    assert vectors.mean.shape == (*batch, 3)
    assert vectors.log_prob(torch.zeros(*batch, 3)).shape == tuple(batch)


def test_both_modalities_reach_the_embedding(make_model: Maker, make_batch: Rows) -> None:
    model = make_model((1, 8, 12), vector=3)
    seen = make_batch(model, 2, 3).observation
    assert seen.pixels is not None and seen.vector is not None
    before = model.encode(seen)
    split = before.shape[-1] - 16
    frames = model.encode(Observation(255 - seen.pixels, seen.vector))
    vectors = model.encode(Observation(seen.pixels, seen.vector + 1))
    assert torch.equal(frames[..., split:], before[..., split:]) and not torch.equal(frames, before)
    assert torch.equal(vectors[..., :split], before[..., :split]) and not torch.equal(vectors, before)


def test_a_world_of_vectors_only(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model(None, vector=3)
    observed = model.observe(make_batch(model, 2, 3), generator=generator)
    assert model.decode(observed.posterior).mean.shape == (2, 3, 3)


@parts
@pytest.mark.parametrize("size", list(SIZES))
def test_every_size_constructs(memory: str, latent: str, size: str) -> None:
    config = WorldModelConfig(size=size, memory=memory, latent=latent)
    with torch.device("meta"):
        model = SequentialVAE(ObservationLayout((3, 64, 64), 4), ActionLayout(2, (3,)), config)
    numbers = SIZES[size]
    assert model.memory.size == numbers.memory
    expected = numbers.gaussian if latent == "gaussian" else numbers.groups * numbers.classes
    assert model.feature_size == numbers.memory + expected
    assert model.initial(3).features.shape == (3, model.feature_size)


@parts
def test_a_real_tiny_model_runs_in_bfloat16(make_batch: Rows, memory: str, latent: str) -> None:
    torch.manual_seed(0)
    config = WorldModelConfig(size="tiny", memory=memory, latent=latent)
    model = SequentialVAE(ObservationLayout((3, 32, 48)), ActionLayout(0, (3,)), config)
    rows = make_batch(model, 2, 3)
    generator = torch.Generator().manual_seed(0)
    observed = model.observe(rows, generator=generator)
    dream = model.imagine(observed.posterior[:, -1], torch.eye(3)[torch.tensor([[0, 1], [2, 2]])], generator=generator)
    # An untrained model is neutral: it predicts no reward and the mean frame.
    assert torch.equal(dream.rewards, torch.zeros(2, 2))
    assert torch.equal(model.decode(dream.states).mean, torch.full((2, 2, 3, 32, 48), 0.5))
    assert dream.states.features.dtype == torch.float32


def test_numbers_left_at_zero_follow_the_size_and_others_win() -> None:
    config = WorldModelConfig(size="base", hidden=7)
    assert [config.resolve(name) for name in ("memory_size", "hidden", "depth")] == [SIZES["base"].memory, 7, 32]


def test_calibrate_makes_the_blank_model_predict_the_mean(make_model: Maker, make_batch: Rows) -> None:
    model = make_model((3, 6, 9), vector=3, awake=False)
    seen = make_batch(model, 4, 5).observation
    assert seen.pixels is not None and seen.vector is not None
    model.calibrate(Observation(seen.pixels[:1] // 2, seen.vector[:1] * 3))  # overridden by the next call
    model.calibrate(seen)
    states = LatentState(torch.randn(2, 16), torch.randn(2, 4))
    mean = (seen.pixels.double() / 255).mean((0, 1))
    assert torch.allclose(model.decode(states).mean[1].double(), mean, atol=1e-6)
    rows = symlog(seen.vector).flatten(0, 1)
    vector = model.decode(states, "vector")
    assert torch.allclose(vector.mean[1], rows.mean(0), atol=1e-6)
    assert torch.allclose(vector.stddev[1], rows.std(0, correction=0), rtol=1e-5)
    inputs: list[Tensor] = []
    model.senses.encoders["vector"].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    model.encode(seen)
    assert torch.allclose(inputs[0].flatten(0, 1).mean(0), torch.zeros(3), atol=1e-5)
    assert torch.allclose(inputs[0].flatten(0, 1).std(0, correction=0), torch.ones(3), atol=1e-4)


@pytest.mark.parametrize("batch", [(), (1,), (1, 1)])
def test_calibrating_on_one_constant_row_stays_finite(make_model: Maker, batch: tuple[int, ...]) -> None:
    model = make_model((1, 4, 4), vector=2, vector_sigma_learned=False)
    model.calibrate(Observation(torch.full((*batch, 1, 4, 4), 7, dtype=torch.uint8), torch.ones(*batch, 2)))
    embedding = model.encode(Observation(torch.rand(3, 1, 4, 4), torch.randn(3, 2)))
    assert bool(torch.isfinite(embedding).all())
    assert torch.equal(model.decode(model.initial(1), "vector").stddev[0], torch.full((2,), 0.01))


@parts
def test_the_mode_is_followed_without_noise(make_model: Maker, make_batch: Rows, memory: str, latent: str) -> None:
    model = make_model(memory=memory, latent=latent)
    rows = make_batch(model, 2, 4)
    a, b = (model.observe(rows, generator=torch.Generator().manual_seed(seed), mode=True) for seed in (1, 2))
    assert same(a.posterior, b.posterior)
    before = torch.get_rng_state()
    model.observe(rows, mode=True)
    assert torch.equal(torch.get_rng_state(), before)  # nothing is drawn
    assert torch.equal(a.posterior.latent, model.family.mode(a.parameters))
    actions = torch.rand(2, 3, 2)
    dreamt = model.imagine(a.posterior[:, -1], actions, mode=True).states
    assert torch.allclose(dreamt.latent, model.prior.mode(dreamt.memory), atol=1e-6)
    again = model.imagine(dreamt[:, 1], actions[:, 2:], mode=True).states
    assert torch.allclose(again.features[:, 0], dreamt.features[:, 2], atol=1e-6)


def test_the_same_seed_gives_the_same_bits(make_model: Maker, make_batch: Rows) -> None:
    features = []
    for seed in (1, 1, 2):
        model = make_model()
        generator = torch.Generator().manual_seed(seed)
        state = model.observe(make_batch(model, 2, 3), generator=generator).posterior[:, -1]
        features.append(model.imagine(state, torch.zeros(2, 3, 2), generator=generator).states.features)
    assert torch.equal(features[0], features[1])
    assert not torch.equal(features[0], features[2])


def test_the_global_generator_is_left_alone(make_model: Maker, make_batch: Rows, generator: torch.Generator) -> None:
    model = make_model(latent="categorical")
    before = torch.get_rng_state()
    state = model.observe(make_batch(model, 2, 3), generator=generator).posterior[:, -1]
    model.imagine(state, torch.zeros(2, 3, 2), generator=generator)
    assert torch.equal(torch.get_rng_state(), before)


def test_disagreement_is_asked_of_every_imagined_step_and_needs_an_ensemble(make_model: Maker) -> None:
    model = make_model(ensemble=3)
    dream = model.imagine(model.initial(2), torch.rand(2, 4, 2))
    assert model.disagreement(dream.states).shape == (2, 4)
    with pytest.raises(ValueError, match="no ensemble, and so no disagreement"):
        make_model().disagreement(dream.states)


def test_frames_are_rendered_with_one_noise_for_each_element_and_are_else_the_mean(make_model) -> None:
    plain, model = make_model(), make_model(frames="diffusion")
    states = LatentState(torch.randn(2, 1, 16), torch.randn(2, 1, 4)).map(lambda x: x.expand(2, 3, -1))
    assert torch.equal(plain.render(states, 2), plain.decode(states, "pixels").mean)
    first, again, other = (model.render(states, 2, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == (2, 3, 1, 8, 12)
    assert torch.equal(first, again) and not torch.equal(first, other)
    torch.testing.assert_close(first[:, 0], first[:, 2])  # the same state, and the same noise
    assert float((first[0] - first[1]).abs().max()) > 0.01
    assert model.render(states[:, 0], 2).shape == (2, 1, 8, 12)
