"""A gated recurrent memory."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks import MLP


class GRUMemory(nn.Module):
    """h' = GRU(h, mlp[z, a]).

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h.
        hidden: width of the input layer.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", section 3.
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.mix = MLP(latent + action, hidden, 1)
        self.cell = nn.GRUCell(hidden, size)

    def forward(
        self,
        memory: Float[Tensor, "batch memory"],
        latent: Float[Tensor, "batch latent"],
        action: Float[Tensor, "batch action"],
    ) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        out: Tensor = self.cell(self.mix(torch.cat([latent, action], dim=-1)), memory)
        return out.float()
