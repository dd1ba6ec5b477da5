"""Trees of tensors behave like one tensor with leading axes, and an action layout covers its vector."""

from dataclasses import FrozenInstanceError, dataclass

import jaxtyping
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldvae.types import ActionLayout, Batch, Dream, Observation, State, VectorState, weakest


def batch(size: int, length: int, *, vector: bool = True) -> Batch:
    rows = torch.arange(size * length).view(size, length)
    shown = rows.view(size, length, 1).float() if vector else None
    return Batch(
        Observation(rows.view(size, length, 1, 1, 1).to(torch.uint8), shown),
        rows.view(size, length, 1).float(),
        rows.float(),
        rows % 3 == 0,
        rows % 4 == 0,
    )


@dataclass(frozen=True)
class Frames(State):
    """A state like that of a pixel model: bytes besides floats, and a tree inside the tree."""

    seen: Observation
    goes_on: torch.Tensor

    @property
    def features(self) -> torch.Tensor:
        return self.goes_on


def frames(size: int = 2) -> Frames:
    pixels = torch.arange(12 * size, dtype=torch.uint8).view(size, 3, 2, 2)
    return Frames(Observation(pixels), torch.rand(size, 3, dtype=torch.float64))


def test_bytes_survive_a_conversion_to_floats() -> None:
    state = frames()
    found = state.float()
    assert found.seen.pixels is not None and found.seen.pixels.dtype == torch.uint8
    assert torch.equal(found.seen.pixels, state.seen.pixels) and found.seen.vector is None
    assert found.goes_on.dtype == torch.float32 and torch.equal(found.goes_on, state.goes_on.float())


def test_from_tensors_is_the_inverse_of_tensors() -> None:
    state = frames()
    tensors = state.tensors()
    assert list(tensors) == ["seen/pixels", "goes_on"] and tensors["goes_on"] is state.goes_on
    found = Frames.from_tensors(tensors)
    assert isinstance(found.seen, Observation) and found.seen.pixels is state.seen.pixels and found.seen.vector is None
    rows = batch(2, 3)
    again = Batch.from_tensors(rows.tensors())
    assert all(torch.equal(tensor, again.tensors()[name]) for name, tensor in rows.tensors().items())
    with pytest.raises(TypeError, match="latent"):
        VectorState.from_tensors({"vector": torch.zeros(1), "latent": torch.zeros(1)})


def test_a_state_knows_its_size_and_what_a_head_reads() -> None:
    assert (frames(3).size, frames(3).device.type, frames(3).to("meta").device.type) == (3, "cpu", "meta")
    x = torch.rand(2, 3)
    assert VectorState(x).features is x


def test_states_of_any_kind_are_joined_by_the_name_they_share() -> None:
    both = State.cat([frames(2), frames(1)], dim=0)
    assert type(both) is Frames and both.size == 3 and both.seen.pixels is not None
    assert State.stack([VectorState(torch.zeros(2, 3))] * 4, dim=1).features.shape == (2, 4, 3)


def test_a_state_that_is_of_no_model_names_those_that_are() -> None:
    with pytest.raises(TypeError, match=r"give VectorState\(x\).*LatentState\(memory, latent\)"):
        State(torch.zeros(1, 2), torch.zeros(1, 0))


def test_map_reaches_nested_trees_and_keeps_what_is_absent() -> None:
    doubled = batch(2, 3, vector=False).map(lambda x: x + x)
    assert torch.equal(doubled.reward, 2 * batch(2, 3).reward)
    assert doubled.observation.pixels is not None
    assert doubled.observation.pixels.flatten().tolist() == [0, 2, 4, 6, 8, 10]
    assert doubled.observation.vector is None


def test_map_leaves_the_original_alone() -> None:
    original = batch(2, 3)
    original.map(torch.zeros_like)
    assert torch.equal(original.reward, batch(2, 3).reward)


@given(st.integers(1, 4), st.integers(1, 5))
def test_indexing_then_stacking_and_cutting_then_joining_are_the_identity(size: int, length: int) -> None:
    tree = batch(size, length)
    again = Batch.stack([tree[:, t] for t in range(length)], dim=1)
    joined = Batch.cat([tree[:, :1], tree[:, 1:]], dim=1)
    for other in (again, joined):
        assert torch.equal(other.reward, tree.reward)
        assert torch.equal(other.action, tree.action)
        assert other.observation.pixels is not None and tree.observation.pixels is not None
        assert torch.equal(other.observation.pixels, tree.observation.pixels)


def test_stack_and_cat_keep_absent_parts_absent() -> None:
    trees = [batch(2, 3, vector=False)] * 2
    assert Batch.cat(trees, dim=0).observation.vector is None
    assert Batch.cat(trees, dim=0).reward.shape == (4, 3)
    assert Batch.stack(trees, dim=0).reward.shape == (2, 2, 3)


def test_flatten_merges_batch_and_time_in_row_order() -> None:
    flat = batch(2, 3).flatten()
    assert flat.reward.tolist() == [0, 1, 2, 3, 4, 5]
    assert flat.observation.pixels is not None
    assert flat.observation.pixels.shape == (6, 1, 1, 1)


def test_detach_and_to() -> None:
    state = VectorState(torch.ones(1, 2, requires_grad=True))
    assert not state.detach().vector.requires_grad
    assert state.vector.requires_grad
    assert state.to("meta").vector.device.type == "meta"


def test_trees_are_frozen() -> None:
    state = VectorState(torch.ones(1, 2))
    with pytest.raises(FrozenInstanceError):
        state.vector = torch.zeros(1, 2)  # type: ignore[misc]


def test_shapes_that_do_not_fit_together_are_refused() -> None:
    start, states = VectorState(torch.ones(2, 3)), VectorState(torch.ones(2, 4, 3))
    with pytest.raises(jaxtyping.TypeCheckError):
        Dream(start, states, torch.ones(2, 4, 1), torch.ones(2, 4), torch.ones(2, 5))


@given(st.integers(0, 5), st.lists(st.integers(1, 6), max_size=4))
def test_blocks_tile_the_action_vector(continuous: int, categorical: list[int]) -> None:
    layout = ActionLayout(continuous, tuple(categorical))
    covered = list(range(continuous)) + [i for block in layout.blocks for i in range(block.start, block.stop)]
    assert covered == list(range(layout.size))
    assert [block.stop - block.start for block in layout.blocks] == categorical


def test_a_known_layout() -> None:
    layout = ActionLayout(continuous=2, categorical=(3, 2))
    assert layout.size == 7
    assert layout.blocks == (slice(2, 5), slice(5, 7))


def test_the_kind_of_a_combination_is_the_weakest_kind() -> None:
    assert weakest("exact") == "exact" and weakest("exact", "lower_bound") == "lower_bound"
    assert weakest("estimate", "lower_bound") == "estimate" and weakest("unnormalised", "estimate") == "unnormalised"
