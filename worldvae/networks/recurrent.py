"""Recurrent cells that torch does not have."""

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn


class BlockLinear(nn.Module):
    """`blocks` linear maps side by side: a block-diagonal matrix, `blocks` times cheaper than a full one."""

    def __init__(self, features: int, out: int, blocks: int) -> None:
        super().__init__()
        self.blocks = blocks
        bound = (features // blocks) ** -0.5
        self.weight = nn.Parameter(torch.empty(blocks, features // blocks, out // blocks).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"blocks={self.blocks}, in={self.weight.shape[1]}, out={self.weight.shape[2]}"

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        """Map each of the `blocks` equal parts of the last axis by its own matrix."""
        x = rearrange(x, "... (k i) -> ... k i", k=self.blocks)
        return einsum(x, self.weight, "... k i, k i o -> ... k o").flatten(-2) + self.bias


class BlockGRUCell(nn.Module):
    """Gated recurrent cell whose recurrent matrix is block-diagonal.

    reset = sigmoid(r), candidate = tanh(reset * c), update = sigmoid(u - 1),
    h' = update * candidate + (1 - update) * h.

    Args:
        features: length of the input, which every block sees in full.
        memory: length of h; must be divisible by `blocks`.
        blocks: number of blocks.

    Raises:
        ValueError: if `memory` is not divisible by `blocks`.

    Reference: Hafner et al. 2023, "Mastering Diverse Domains through World Models", appendix (block GRU).
    """

    def __init__(self, features: int, memory: int, blocks: int = 8) -> None:
        super().__init__()
        if memory % blocks:
            raise ValueError(f"memory_size={memory} is not divisible by {blocks} blocks: take a multiple of {blocks}")
        self.blocks = blocks
        self.mix = BlockLinear(memory + blocks * features, memory, blocks)
        self.norm = nn.LayerNorm(memory, eps=1e-3)
        self.gates = BlockLinear(memory, 3 * memory, blocks)

    def forward(
        self, x: Float[Tensor, "*batch features"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch memory"]:
        """Return the next memory."""
        parts = rearrange(memory, "... (k i) -> ... k i", k=self.blocks)
        shared = x.unsqueeze(-2).expand(*x.shape[:-1], self.blocks, x.shape[-1])
        mixed = torch.nn.functional.silu(self.norm(self.mix(torch.cat([parts, shared], dim=-1).flatten(-2))))
        gates = rearrange(self.gates(mixed), "... (k g i) -> g ... (k i)", k=self.blocks, g=3)
        reset, candidate, update = gates
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        update = torch.sigmoid(update - 1)
        return update * candidate + (1 - update) * memory
