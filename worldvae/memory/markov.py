"""No memory but the last latent and action."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory.memory import Memory
from worldvae.networks import JointMLP
from worldvae.types import State


class MarkovMemory(Memory):
    """h' = mlp[z, a], with a learnt h at the beginning: a state-space model, where all that lasts must pass through z.

    What a state carries (`State.past`) is whether there was a step before it. Without that the first state would have
    to be as sure as any that follows another: z = 0 and a = 0 say nothing that a later z and a could not say.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the hidden layer.
        bypass: whether a linear map goes around it.

    Reference: Karl et al. 2017, "Deep Variational Bayes Filters"; Hafner et al. 2019 (the SSM of figure 2b).
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int, *, bypass: bool = False) -> None:
        super().__init__(size, past=1)
        self.mix = JointMLP(latent, action, hidden, 1, size, bypass=bypass)
        self.start = nn.Parameter(torch.zeros(size))

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch hidden"]:
        """Return the action's share of the first layer."""
        out: Tensor = self.mix.project(action)
        return out

    def advance(
        self, state: State, projected: Float[Tensor, "batch hidden"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch 1"]]:
        """Return the next memory, and that there was a step; the last memory is not read."""
        memory = self.mix(state.latent, projected)
        if state.past is None:
            return self.start.to(memory.dtype).expand_as(memory), memory.new_ones(len(memory), 1)
        return torch.where(state.past > 0, memory, self.start.to(memory.dtype)), torch.ones_like(state.past)
