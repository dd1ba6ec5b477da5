"""The perceptron against its layers written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from worldvae.networks import MLP, JointMLP


@given(shape=st.lists(st.integers(1, 3), max_size=3), layers=st.integers(0, 3), out=st.none() | st.integers(1, 4))
@settings(max_examples=25, deadline=None)
def test_it_maps_the_last_axis_and_tells_its_width(shape: list[int], layers: int, out: int | None) -> None:
    net = MLP(5, 6, layers, out)
    assert net.out_features == (out or (6 if layers else 5))
    assert net(torch.randn(*shape, 5)).shape == (*shape, net.out_features)


def test_against_the_formula() -> None:
    torch.manual_seed(0)
    net = MLP(3, 4, 1, 2)
    linears = [module for module in net if isinstance(module, nn.Linear)]
    x = torch.randn(7, 3)
    hidden = x @ linears[0].weight.T
    hidden = (hidden - hidden.mean(-1, keepdim=True)) / (hidden.var(-1, correction=0, keepdim=True) + 1e-3).sqrt()
    assert torch.allclose(net(x), F.silu(hidden) @ linears[1].weight.T + linears[1].bias, atol=1e-5)


@pytest.mark.parametrize("zero", [True, False])
def test_zero_starts_the_prediction_at_zero(zero: bool) -> None:
    torch.manual_seed(0)
    assert bool((MLP(3, 4, 2, 2, zero=zero)(torch.randn(5, 3)) == 0).all()) is zero


def test_the_same_seed_gives_the_same_bits() -> None:
    outs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outs.append(MLP(3, 4, 2, 2)(torch.ones(1, 3)))
    assert torch.equal(outs[0], outs[1])
    assert not torch.equal(outs[0], outs[2])


def test_the_joint_perceptron_is_one_of_both_inputs() -> None:
    torch.manual_seed(0)
    joint, whole = JointMLP(3, 2, 4, 2, 5), MLP(5, 4, 2, 5)
    x, y = torch.randn(6, 7, 3), torch.randn(6, 7, 2)
    first, rest = whole[0], list(whole)[3:]
    first.weight.data = torch.cat([joint.join.weight, joint.project.weight], dim=1).detach()
    for ours, theirs in zip(
        [m for m in joint.rest[2] if list(m.parameters())], [rest[0], rest[1], rest[3]], strict=True
    ):
        theirs.load_state_dict(ours.state_dict())
    assert torch.allclose(joint(x, joint.project(y)), whole(torch.cat([x, y], dim=-1)), atol=1e-6)
    assert float(joint.join.weight.detach().abs().max()) <= 5**-0.5
