"""Frozen parameters: constants of a graph, and as before afterwards."""

import pytest
import torch

from worldvae.networks.frozen import frozen


def test_frozen_lets_gradients_through_and_restores_after_an_error() -> None:
    layer = torch.nn.Linear(2, 1)
    layer.bias.requires_grad_(False)
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(RuntimeError, match="stop"), frozen(layer.parameters()):
        assert not layer.weight.requires_grad
        assert torch.equal(torch.autograd.grad(layer(x).sum(), x)[0], layer.weight)
        raise RuntimeError("stop")
    assert layer.weight.requires_grad
    assert not layer.bias.requires_grad
