"""The network that predicts a prior's parameters from the memory, or free parameters if there is none."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks import MLP


class Readout(nn.Module):
    """A perceptron of the memory; a vector of free parameters if the memory has length 0.

    A perceptron without inputs would be a constant, too, but its hidden layers would have zero gradients.

    Args:
        memory: length of the input.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        out: length of the output.
        zero: initialise the output at zero.
    """

    def __init__(self, memory: int, hidden: int, layers: int, out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.net = MLP(memory, hidden, layers, out, zero=zero) if memory else None
        self.free = None if memory else nn.Parameter(torch.zeros(out))

    @property
    def bias(self) -> nn.Parameter:
        """The part of the output that does not depend on the memory."""
        if self.net is None:
            return cast(nn.Parameter, self.free)
        return cast(nn.Parameter, self.net[-1].bias)

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch out"]:
        """Return the output in float32, whatever the type of the memory."""
        if self.net is None:
            return self.bias.expand(*memory.shape[:-1], -1)
        out: Tensor = self.net(memory).float()
        return out
