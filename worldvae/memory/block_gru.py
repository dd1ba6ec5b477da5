"""A gated recurrent memory with block-diagonal recurrence, for large memories."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from worldvae.memory.latent_state import LatentState
from worldvae.memory.memory import Memory
from worldvae.networks import MLP, BlockGRUCell


class BlockGRUMemory(Memory):
    """h' = BlockGRU(h, [mlp(h), mlp(z), mlp(a)]); three input branches of equal width.

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h, divisible by 8.
        hidden: width of each input branch.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", appendix (sequence model).
    """

    def __init__(self, latent: int, action: int, size: int, hidden: int) -> None:
        super().__init__(size)
        self.from_memory = MLP(size, hidden, 1)
        self.from_latent = MLP(latent, hidden, 1)
        self.from_action = MLP(action, hidden, 1)
        self.cell = BlockGRUCell(2 * hidden, size)
        self.move = nn.Linear(hidden, size, bias=False)  # the columns of the cell's input matrix for the action

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch memory"]:
        """Return the part of the cell's input that depends on the action only."""
        out: Tensor = self.move(self.from_action(action))
        return out

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch memory"]
    ) -> tuple[Float[Tensor, "batch memory"], None]:
        """Return the next memory."""
        branches = torch.cat([self.from_memory(state.memory), self.from_latent(state.latent)], dim=-1)
        return self.cell.step(self.cell.project(branches) + projected, state.memory), None
