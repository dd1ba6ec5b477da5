"""Actions: encoding and decoding for random nested spaces, bounds, and uniform sampling."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from worldvae.envs import ActionCodec
from worldvae.errors import UserError
from worldvae.planning import uniform_actions
from worldvae.types import ActionLayout

shapes = st.sampled_from([(), (1,), (3,), (2, 2), (1, 3)])
full_shapes = st.sampled_from([(1,), (3,), (2, 2), (1, 3)])


@st.composite
def boxes(draw: Any) -> spaces.Box:
    shape, whole = draw(shapes), draw(st.booleans())
    low, width = draw(st.integers(-1000, 1000)), draw(st.integers(1, 1000))
    return spaces.Box(low, low + width, shape, np.int64 if whole else np.float32)


discretes = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3))
binaries = full_shapes.map(spaces.MultiBinary)


@st.composite
def multi_discretes(draw: Any) -> spaces.MultiDiscrete:
    shape = draw(full_shapes)
    nvec = np.array(draw(st.tuples(*[st.integers(1, 4)] * int(np.prod(shape)))))
    return spaces.MultiDiscrete(nvec.reshape(shape), start=draw(st.integers(-2, 2)) + np.zeros(shape, np.int64))


def nested(parts: st.SearchStrategy) -> st.SearchStrategy:
    several = st.lists(parts, min_size=1, max_size=3)
    return several.map(spaces.Tuple) | several.map(lambda s: spaces.Dict({f"key{i}": x for i, x in enumerate(s)}))


leaves = boxes() | discretes | binaries | multi_discretes()
any_space = leaves | nested(leaves | nested(leaves))


def assert_same(one: Any, other: Any, space: gym.Space) -> None:
    if isinstance(space, spaces.Dict):
        assert one.keys() == other.keys()
        for key, part in space.spaces.items():
            assert_same(one[key], other[key], part)
    elif isinstance(space, spaces.Tuple):
        for a, b, part in zip(one, other, space.spaces, strict=True):
            assert_same(a, b, part)
    elif isinstance(space, spaces.Box) and space.dtype.kind == "f":
        largest = float(np.abs([space.low, space.high]).max())  # float32 keeps 7 digits of it
        np.testing.assert_allclose(one, other, atol=1e-6 * largest, rtol=0)
    else:
        np.testing.assert_array_equal(one, other)


@settings(deadline=None, max_examples=60)
@given(space=any_space, seed=st.integers(0, 1000))
def test_decoding_an_encoded_action_gives_it_back(space: gym.Space, seed: int) -> None:
    space.seed(seed)
    codec, action = ActionCodec(space), space.sample()
    vector = codec.encode(action)
    assert vector.dtype == np.float32 and vector.shape == (codec.layout.size,)
    assert all(vector[block].sum() == 1 for block in codec.layout.blocks)
    assert_same(codec.decode(vector), action, space)


@settings(deadline=None, max_examples=60)
@given(space=any_space, seed=st.integers(0, 1000))
def test_any_vector_decodes_into_the_space_and_back(space: gym.Space, seed: int) -> None:
    codec = ActionCodec(space)
    vector = (5 * np.random.default_rng(seed).normal(size=codec.layout.size)).astype(np.float32)
    action = codec.decode(vector)
    assert space.contains(action)
    assert_same(codec.decode(codec.encode(action)), action, space)


def test_continuous_entries_come_first_then_the_blocks_in_order() -> None:
    space = spaces.Tuple([spaces.Discrete(2), spaces.Box(0, 10, (2,)), spaces.MultiBinary(1), spaces.Box(-1, 1)])
    codec = ActionCodec(space)
    assert codec.layout == ActionLayout(continuous=3, categorical=(2, 2))
    vector = codec.encode((np.int64(1), np.array([0.0, 5.0]), np.array([0]), np.array([1.0])))
    assert vector.tolist() == [-1, 0, 1, 0, 1, 1, 0]


def test_box_bounds_are_enforced_and_integers_rounded() -> None:
    codec = ActionCodec(spaces.Box(np.array([0, -5]), np.array([10, 5]), dtype=np.int64))
    assert codec.decode(np.array([7.0, -7.0], np.float32)).tolist() == [10, -5]
    assert codec.decode(np.array([0.11, 0.0], np.float32)).tolist() == [6, 0]


def test_open_sides_have_unit_scale() -> None:
    low, high = np.array([-np.inf, 3, -np.inf], np.float32), np.array([np.inf, np.inf, 4], np.float32)
    codec = ActionCodec(spaces.Box(low, high))
    assert codec.decode(np.array([-1, -1, -1], np.float32)).tolist() == [-1, 3, 2]
    assert codec.decode(np.array([1, 1, 1], np.float32)).tolist() == [1, 5, 4]
    widest = float(np.finfo(np.float32).max)
    assert ActionCodec(spaces.Box(-widest, widest, (1,))).decode(np.array([0.5], np.float32)).tolist() == [0.5]


def test_discrete_with_a_start() -> None:
    codec = ActionCodec(spaces.Discrete(3, start=-1))
    assert codec.encode(np.int64(-1)).tolist() == [1, 0, 0]
    assert codec.decode(np.array([0.1, 0.2, 0.3], np.float32)) == 1
    with pytest.raises(UserError, match="not in"):
        codec.encode(np.int64(2))


def test_unsupported_actions_are_the_users_mistake() -> None:
    with pytest.raises(UserError, match="not supported"):
        ActionCodec(spaces.Dict({"say": spaces.Text(5)}))


def test_a_vector_that_is_not_finite_is_ours() -> None:
    with pytest.raises(AssertionError, match="not finite"):
        ActionCodec(spaces.Box(-1, 1)).decode(np.array([np.nan], np.float32))


def test_sampled_actions_are_uniform(generator: torch.Generator) -> None:
    layout = ActionLayout(continuous=2, categorical=(3, 2))
    actions = uniform_actions(layout, (400, 50), torch.device("cpu"), generator)
    assert actions.shape == (400, 50, 7) and actions.dtype == torch.float32
    continuous = actions[..., :2]
    assert continuous.abs().max() <= 1
    torch.testing.assert_close(continuous.mean(), torch.tensor(0.0), atol=0.02, rtol=0)
    torch.testing.assert_close(continuous.var(), torch.tensor(1 / 3), atol=0.02, rtol=0)
    for block, n in zip(layout.blocks, layout.categorical, strict=True):
        assert (actions[..., block].sum(-1) == 1).all()
        torch.testing.assert_close(actions[..., block].mean((0, 1)), torch.full((n,), 1 / n), atol=0.02, rtol=0)
    assert torch.equal(
        uniform_actions(layout, (3,), torch.device("cpu"), torch.Generator().manual_seed(1)),
        uniform_actions(layout, (3,), torch.device("cpu"), torch.Generator().manual_seed(1)),
    )
    assert uniform_actions(layout, (), torch.device("cpu"), generator).shape == (7,)
