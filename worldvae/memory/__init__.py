"""Deterministic memories h' = f(h, z, a)."""

from worldvae.memory.block_gru import BlockGRUMemory
from worldvae.memory.gru import GRUMemory

__all__ = ["BlockGRUMemory", "GRUMemory"]
