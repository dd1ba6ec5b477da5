"""The perceptron compared with its layers written out."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from worldvae.networks import MLP, PERCEPTRONS, BypassedMLP, JointMLP, PerceptronKind, perceptron


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


def test_a_plain_one_against_the_formula() -> None:
    torch.manual_seed(0)
    net = MLP(3, 4, 2, 2, kind="plain")
    x = torch.randn(7, 3)
    first, second, last = (m for m in net if isinstance(m, nn.Linear))
    assert torch.allclose(net(x), last(F.relu(second(F.relu(first(x))))), atol=1e-6)
    assert torch.equal(perceptron(3, 4, 2, 2, kind="plain")(0 * x).std(dim=0), torch.zeros(2))


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


@pytest.mark.parametrize("shape", [(6,), (6, 7)])
def test_a_plain_joint_perceptron_too(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    joint = JointMLP(3, 2, 4, 2, 5, kind="plain")
    x, y = torch.randn(*shape, 3), torch.randn(*shape, 2)
    weight = torch.cat([joint.join.weight, joint.project.weight], dim=1)
    hidden = F.relu(F.linear(torch.cat([x, y], dim=-1), weight, joint.project.bias))
    assert torch.allclose(joint(x, joint.project(y)), joint.rest[1](hidden), atol=1e-6)


def test_the_first_layer_forgets_the_length_of_its_input_and_a_bypass_keeps_it() -> None:
    torch.manual_seed(0)
    plain, bypassed = MLP(3, 8, 1, 4), perceptron(3, 8, 1, 4, kind="bypassed")
    x = torch.randn(50, 3)
    assert torch.allclose(plain(100 * x), plain(10000 * x), atol=1e-4)
    assert isinstance(bypassed, BypassedMLP)
    assert torch.allclose(bypassed(100 * x), 100 * x @ bypassed.straight.weight.T, atol=1e-4)  # initially nothing else
    bypassed.curved.load_state_dict(plain.state_dict())
    assert torch.allclose(bypassed(x), plain(x) + x @ bypassed.straight.weight.T, atol=1e-6)


@pytest.mark.parametrize("kind", PERCEPTRONS)
def test_a_perceptron_of_every_kind_starts_at_zero(kind: PerceptronKind) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    assert bool((perceptron(3, 4, 2, 2, zero=True, kind=kind)(x) == 0).all())
    assert bool((perceptron(3, 4, 2, 2, kind=kind)(x) != 0).all())


@pytest.mark.parametrize("out", [5, None])
def test_the_joint_perceptron_with_a_bypass_adds_a_linear_map_of_both_inputs(out: int | None) -> None:
    torch.manual_seed(0)
    joint = JointMLP(3, 2, 4, 2, out, kind="bypassed")
    assert joint.bypass is not None
    x, y = torch.randn(6, 7, 3), torch.randn(6, 7, 2)
    mixed = x @ joint.join.weight.T + y @ joint.project.weight.T + joint.project.bias
    expected = joint.rest(mixed) + mixed @ joint.bypass.weight.T
    assert torch.allclose(joint(x, joint.project(y)), expected, atol=1e-6)
    far = joint(100 * x, joint.project(100 * y)) / 100
    assert torch.allclose(far, (mixed - joint.project.bias) @ joint.bypass.weight.T, atol=0.1)
