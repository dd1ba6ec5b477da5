"""The slow copy of a network."""

import copy

import torch
from torch import nn

from worldvae.networks.moving_average import MovingAverage


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.Linear(12, 2))


def test_it_is_in_the_state_dict_and_no_parameter() -> None:
    average = MovingAverage(network(), 0.9)
    assert list(average.parameters()) == []
    assert {"network.0.weight", "network.3.bias", "updates"} <= average.state_dict().keys()
    other = MovingAverage(network(), 0.9)
    other.load_state_dict(average.state_dict())
    x = torch.randn(4, 2, 4, 4)
    assert torch.equal(other.network(x), average.network(x))


def test_it_begins_as_a_copy_and_moves_by_the_decay() -> None:
    net = network()
    average = MovingAverage(net, 0.5)
    weight = net[0].weight.detach().clone()
    with torch.no_grad():
        net[0].weight.add_(1)
    assert torch.equal(average.network[0].weight, weight)
    expected, present = weight.clone(), net[0].weight.detach()
    for n in range(20):
        average.follow(net)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * present
        torch.testing.assert_close(average.network[0].weight, expected)


def test_a_copy_of_it_is_its_own(generator: torch.Generator) -> None:
    average = MovingAverage(net := network(), 0.0)
    other = copy.deepcopy(average)
    with torch.no_grad():
        net[3].weight.add_(1)
    other.follow(net)
    assert not torch.equal(other.network[3].weight, average.network[3].weight)
    torch.testing.assert_close(MovingAverage(net, 0.0).network[3].weight, net[3].weight.detach())
