"""What an agent carries over between two decisions survives a checkpoint."""

import pytest
import torch

from worldvae.agents import Carry
from worldvae.planning import Plan
from worldvae.training.collector import _pack, _unpack
from worldvae.types import State


@pytest.mark.parametrize("elites", [None, torch.ones(2, 4, 3, 1)], ids=["plain", "with elites"])
@pytest.mark.parametrize("past", [None, torch.ones(2, 6)], ids=["markov", "with past"])
def test_a_carry_is_packed_and_unpacked(elites: torch.Tensor | None, past: torch.Tensor | None) -> None:
    state = State(torch.rand(2, 5), torch.rand(2, 3), past)
    carry = Carry(state, torch.rand(2, 1), Plan(torch.rand(2, 3, 1), torch.rand(2), elites))
    packed = _pack(carry)
    assert packed is not None and None not in packed["plan"].values()  # a checkpoint holds tensors
    found = _unpack(packed)
    assert found is not None and found.plan is not None and carry.plan is not None
    for ours, theirs in ((found.state, state), (found.plan, carry.plan)):
        for name, value in vars(theirs).items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(getattr(ours, name), value)
            else:
                assert getattr(ours, name, None) is None or name == "features"
    assert torch.equal(found.action, carry.action)
    assert _pack(None) is None and _unpack(None) is None
