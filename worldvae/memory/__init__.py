"""Deterministic memories h' = f(h, z, a)."""

from worldvae.memory.block_gru import BlockGRUMemory
from worldvae.memory.gru import GRUMemory
from worldvae.memory.latent_state import LatentState
from worldvae.memory.markov import MarkovConfig, MarkovMemory
from worldvae.memory.memory import Memory
from worldvae.memory.transformer import TransformerMemory

__all__ = [
    "BlockGRUMemory",
    "GRUMemory",
    "LatentState",
    "MarkovConfig",
    "MarkovMemory",
    "Memory",
    "TransformerMemory",
]
