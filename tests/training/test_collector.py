"""What an agent carries between two decisions survives a checkpoint."""

import pytest
import torch

from worldvae.agents import Carry
from worldvae.memory import LatentState
from worldvae.planning import Plan
from worldvae.training.collector import _pack, _unpack
from worldvae.types import State, VectorState

STATES = [
    VectorState(torch.rand(2, 5)),
    LatentState(torch.rand(2, 5), torch.rand(2, 3)),
    LatentState(torch.rand(2, 5), torch.rand(2, 3), torch.ones(2, 6)),
]


@pytest.mark.parametrize("elites", [None, torch.ones(2, 4, 3, 1)], ids=["plain", "with elites"])
@pytest.mark.parametrize("state", STATES, ids=["vector", "markov", "with past"])
def test_a_carry_is_packed_and_unpacked(elites: torch.Tensor | None, state: State) -> None:
    carry = Carry(torch.rand(2, 1), state, Plan(torch.rand(2, 3, 1), torch.rand(2), elites))
    packed = _pack(carry)
    assert packed is not None and None not in packed["plan"].values()  # checkpoints hold tensors only
    found = _unpack(packed, type(state))
    assert found is not None and type(found.state) is type(state) and isinstance(found.plan, Plan)
    assert found.tensors().keys() == carry.tensors().keys()
    assert all(torch.equal(tensor, carry.tensors()[name]) for name, tensor in found.tensors().items())


def test_absent_parts_stay_absent() -> None:
    assert _pack(None) is None and _unpack(None, VectorState) is None
    found = _unpack(_pack(Carry(torch.rand(2, 1))), VectorState)
    assert found is not None and found.state is None and found.plan is None
