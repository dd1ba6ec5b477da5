"""A memory that attends to the last steps."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from worldvae.memory.latent_state import LatentState
from worldvae.memory.memory import Memory
from worldvae.networks import MLP, JointMLP, LayerNorm


class WindowAttention(nn.Module):
    """Attention of one new token to itself and to the window before it, with cached keys and values.

    Each head learns a bias for every age, so that positions are relative and a window may begin anywhere.

    Args:
        size: length of a token; must be divisible by `heads`.
        heads: number of attention heads.
        window: number of steps in the window, including the present one.

    Reference: Vaswani et al. 2017, "Attention Is All You Need"; Press et al. 2022 for biases by age (fixed ones).
    """

    def __init__(self, size: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = LayerNorm(size, eps=1e-3)
        self.queries_keys_values = nn.Linear(size, 3 * size, bias=False)
        self.out = nn.Linear(size, size, bias=False)
        self.age = nn.Parameter(torch.zeros(heads, window))
        self.feed = nn.Sequential(LayerNorm(size, eps=1e-3), MLP(size, 2 * size, 1, size))

    def forward(
        self,
        x: Float[Tensor, "batch size"],
        cache: Float[Tensor, "batch older keysvalues"],
        there: Bool[Tensor, "batch window"],
    ) -> tuple[Float[Tensor, "batch size"], Float[Tensor, "batch older keysvalues"]]:
        """Return the token after this layer, and the cache for the next step.

        Args:
            x: the new token.
            cache: keys and values of the window's older steps, oldest first.
            there: which steps of the window (oldest first, the present one last) have happened.
        """
        query, new = self.queries_keys_values(self.norm(x)).split([x.shape[-1], 2 * x.shape[-1]], dim=-1)
        kept = torch.cat([cache, new.unsqueeze(1).to(cache.dtype)], dim=1)
        keys, values = rearrange(kept.to(new.dtype), "b w (two h d) -> two b h w d", two=2, h=self.heads)
        query = rearrange(query, "b (h d) -> b h 1 d", h=self.heads)
        scores = (query * keys).sum(-1) / math.sqrt(keys.shape[-1]) + self.age
        weights = scores.masked_fill(~there.unsqueeze(1), -torch.inf).softmax(dim=-1).unsqueeze(-1)
        x = x + self.out(rearrange((weights.to(values.dtype) * values).sum(-2), "b h d -> b (h d)"))
        return x + self.feed(x), kept[:, 1:]


class TransformerMemory(Memory):
    """h' = transformer of the last `window` pairs (z, a).

    A state carries the keys and values of the window in every layer, and which steps of the window have happened
    (`LatentState.past`): a step processes one token, in dreams and in filtering. Every state of a dream keeps its
    window, so that a dream can continue from any state; this takes at least ten times the memory of a recurrent dream.
    (A planner that asks for the last state only avoids this.)

    Args:
        latent: length of z.
        action: length of the action vector.
        size: length of h and of a token; must be divisible by `heads`.
        layers: number of attention layers.
        heads: number of attention heads.
        window: number of steps in the window.

    Raises:
        ValueError: If `size` is not divisible by `heads`.

    Reference: Chen et al. 2022, "TransDreamer: Reinforcement Learning with Transformer World Models".
    """

    def __init__(self, latent: int, action: int, size: int, layers: int = 2, heads: int = 4, window: int = 16) -> None:
        if size % heads:
            raise ValueError(f"memory_size={size} is not divisible by {heads} heads: take a multiple of {heads}")
        self.older, self.shape = window - 1, (layers, window - 1, 2 * size)
        super().__init__(size, (window - 1) + math.prod(self.shape))
        self.token = JointMLP(latent, action, size, 1)
        self.layers = nn.ModuleList(WindowAttention(size, heads, window) for _ in range(layers))
        self.norm = LayerNorm(size, eps=1e-3)

    def project(self, action: Float[Tensor, "*batch action"]) -> Float[Tensor, "*batch size"]:
        """Return the part of the token that depends on the action only."""
        out: Tensor = self.token.project(action)
        return out

    def advance(
        self, state: LatentState, projected: Float[Tensor, "batch size"]
    ) -> tuple[Float[Tensor, "batch memory"], Float[Tensor, "batch past"]]:
        """Return the next memory, and the window shifted by one step."""
        past = state.past  # absent or zero at the beginning of an episode
        if past is None:
            past = state.latent.new_zeros(state.latent.shape[0], self.past_size)
        happened, flat = past.split([self.older, self.past_size - self.older], dim=-1)
        caches = flat.reshape(len(flat), *self.shape).unbind(1)
        happened = torch.cat([happened, happened.new_ones(len(happened), 1)], dim=-1)
        x, kept = self.token(state.latent, projected), []
        for layer, cache in zip(self.layers, caches, strict=True):
            x, cache = layer(x, cache, happened > 0)
            kept.append(cache)
        return self.norm(x), torch.cat([happened[:, 1:], torch.stack(kept, dim=1).flatten(1)], dim=-1)
