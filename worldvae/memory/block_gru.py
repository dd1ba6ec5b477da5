"""A gated recurrent memory with block-diagonal recurrence, for large memories."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.networks import MLP, BlockGRUCell


class BlockGRUMemory(nn.Module):
    """h' = BlockGRU(h, [mlp(h), mlp(z), mlp(a)]); three input branches of equal width.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h, divisible by 8.
        hidden: width of each input branch.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", appendix (sequence model).
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int) -> None:
        super().__init__()
        self.size = size
        self.from_memory = MLP(size, hidden, 1)
        self.from_latent = MLP(latent, hidden, 1)
        self.from_action = MLP(action, hidden, 1)
        self.cell = BlockGRUCell(3 * hidden, size)

    def forward(
        self,
        memory: Float[Tensor, "batch memory"],
        latent: Float[Tensor, "batch latent"],
        action: Float[Tensor, "batch action"],
    ) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        branches = [self.from_memory(memory), self.from_latent(latent), self.from_action(action)]
        out: Tensor = self.cell(torch.cat(branches, dim=-1), memory)
        return out
