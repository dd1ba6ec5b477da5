"""Recurrent cells: torch's GRU cell in fewer operations, and a block-diagonal one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from worldvae.networks.norm import LayerNorm


class GRUCell(nn.GRUCell):
    """`nn.GRUCell` with both gates computed as one, and the memory mixed in one operation.

    r, u = sigmoid(W x + V h),  n = tanh(W' x + r * V' h),  h' = u * h + (1 - u) * n.
    """

    def forward(  # type: ignore[override]  # torch also accepts an input without a batch axis, and no memory
        self, x: Float[Tensor, "batch features"], memory: Float[Tensor, "batch memory"]
    ) -> Float[Tensor, "batch memory"]:
        """Return the next memory."""
        size, dtype = self.hidden_size, memory.dtype
        of_x, of_memory = F.linear(x, self.weight_ih, self.bias_ih), F.linear(memory, self.weight_hh, self.bias_hh)
        # After the matrix products, compute in the type of the memory: tanh of bfloat16 is five times slower on a CPU.
        gates = torch.sigmoid((of_x[:, : 2 * size] + of_memory[:, : 2 * size]).to(dtype))
        of_x, of_memory = of_x[:, 2 * size :].to(dtype), of_memory[:, 2 * size :].to(dtype)
        candidate = torch.tanh(torch.addcmul(of_x, gates[:, :size], of_memory))
        return torch.lerp(candidate, memory, gates[:, size:])


class BlockLinear(nn.Module):
    """`blocks` linear maps side by side: a block-diagonal matrix, `blocks` times cheaper than a full one."""

    def __init__(self, features: int, out: int, blocks: int, bound: float | None = None) -> None:
        super().__init__()
        self.blocks = blocks
        bound = bound or (features // blocks) ** -0.5
        self.weight = nn.Parameter(torch.empty(blocks, features // blocks, out // blocks).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(out))

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"blocks={self.blocks}, in={self.weight.shape[1]}, out={self.weight.shape[2]}"

    def forward(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out"]:
        """Map each of the `blocks` equal parts of the last axis by its own matrix."""
        parts = x.reshape(-1, self.blocks, self.weight.shape[1]).transpose(0, 1)
        bias = self.bias.view(self.blocks, 1, -1)
        return torch.baddbmm(bias, parts, self.weight).transpose(0, 1).reshape(*x.shape[:-1], self.bias.shape[0])


class BlockGRUCell(nn.Module):
    """Gated recurrent cell whose recurrent matrix is block-diagonal; every block sees the whole input.

    m = silu(norm(W x + blocks(h))),  r, c, u = blocks(m),
    reset = sigmoid(r), candidate = tanh(reset * c), update = sigmoid(u - 1),
    h' = update * candidate + (1 - update) * h.

    Args:
        features: length of the input x.
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
        bound = (memory // blocks + features) ** -0.5
        self.weight = nn.Parameter(torch.empty(memory, features).uniform_(-bound, bound))
        self.mix = BlockLinear(memory, memory, blocks, bound)
        self.norm = LayerNorm(memory, eps=1e-3)
        self.gates = BlockLinear(memory, 3 * memory, blocks, (memory // blocks) ** -0.5)

    def project(self, x: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch memory"]:
        """Return W x."""
        return F.linear(x, self.weight)

    def forward(
        self, x: Float[Tensor, "*batch features"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch memory"]:
        """Return the next memory."""
        return self.step(self.project(x), memory)

    def step(
        self, projected: Float[Tensor, "*batch memory"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch memory"]:
        """Return the next memory, for `projected` = W x."""
        mixed = F.silu(self.norm(projected + self.mix(memory)))
        reset, candidate, update = self.gates(mixed).unflatten(-1, (self.blocks, -1)).chunk(3, dim=-1)
        candidate = torch.tanh((torch.sigmoid(reset) * candidate).flatten(-2).to(memory.dtype))
        update = torch.sigmoid(update - 1).flatten(-2)
        return torch.lerp(memory, candidate, update.to(memory.dtype))
