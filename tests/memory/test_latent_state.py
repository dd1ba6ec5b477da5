"""The state of a sequential VAE: its features, which are made without copies."""

import jaxtyping
import pytest
import torch

import worldvae as wv
from worldvae.memory import LatentState
from worldvae.types import VectorState


def test_features_are_memory_then_latent() -> None:
    state = LatentState(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]))
    assert state.features.tolist() == [[1.0, 2.0, 3.0]]


def test_splitting_features_undoes_joining_them_and_copies_nothing() -> None:
    features = torch.arange(12.0).view(2, 2, 3)
    state = LatentState.split(features, 2)
    assert state.features is features and state.memory.data_ptr() == features.data_ptr()
    assert torch.equal(LatentState(state.memory, state.latent).features, features)
    assert torch.equal(state[:, -1].features, features[:, -1])  # an indexed state concatenates its parts again


def test_parts_of_different_batches_are_refused() -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        LatentState(torch.ones(1, 2), torch.ones(2, 3))


def test_the_state_of_another_model_is_refused() -> None:
    state = wv.LatentState(torch.ones(1, 2), torch.ones(1, 3))
    assert LatentState.of(state) is state
    with pytest.raises(ValueError, match=r"state is a VectorState, .* give a LatentState"):
        LatentState.of(VectorState(torch.ones(1, 2)))


def test_goals_are_compared_with_the_latent_and_in_other_states_with_all_features() -> None:
    state = LatentState(torch.randn(2, 3), torch.randn(2, 4))
    assert state.without_memory is state.latent
    other = VectorState(torch.randn(2, 3))
    assert other.without_memory is other.vector
