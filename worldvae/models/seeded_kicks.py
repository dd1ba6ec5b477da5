"""Random numbers of long chains, drawn on demand from one number per row, so that they need not be kept."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.seeds import mix


def seeded_kicks(
    seeds: Float[Tensor, " batch"], chain: int, steps: int, entries: int
) -> Iterator[Float[Tensor, "batch entry"]]:
    """Yield standard normal rows, one for each of `steps`; those of a row depend only on its seed and the chain.

    Args:
        seeds: any float32 per row: its bits are the seed.
        chain: number of the chain.
        steps: length of the chain.
        entries: length of a row.
    """
    device = seeds.device
    sources = [
        torch.Generator(device).manual_seed(mix(int(bits), chain))
        for bits in seeds.float().contiguous().view(torch.int32).tolist()
    ]
    for _ in range(steps):
        yield torch.stack([torch.randn(entries, device=device, generator=source) for source in sources])
