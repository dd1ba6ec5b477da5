"""A slow copy of a network: the exponential moving average of its weights."""

import copy

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """A copy of a network whose weights are buffers: in the state dict, but not among the parameters to optimise.

    The decay rises to its value, (1 + n) / (10 + n) after n updates, so that the first weights are soon forgotten.

    Args:
        network: what is copied.
        decay: share of the average that an update keeps.

    Attributes:
        network: the copy, which is called like the original.

    Reference: Polyak & Juditsky 1992, "Acceleration of Stochastic Approximation by Averaging".
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay, self.network = decay, copy.deepcopy(network)
        for part in self.network.modules():
            for name, parameter in list(part._parameters.items()):
                if parameter is not None:
                    del part._parameters[name]
                    part.register_buffer(name, parameter.detach())
        self.register_buffer("updates", torch.zeros(()))

    @torch.no_grad()
    def follow(self, network: nn.Module) -> None:
        """Move the average towards the present weights of the network."""
        count = float(self.updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        own = dict(self.network.named_buffers())
        names = [name for name, _ in network.named_parameters()]
        present = [parameter.detach() for parameter in network.parameters()]
        torch._foreach_lerp_([own[name] for name in names], present, 1 - decay)
        self.updates += 1
