"""Random numbers for a batch of problems, such that a plan does not depend on how many are solved with it."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.seeds import mix


class Draws:
    """The random numbers of a batch of planning problems: each problem's are a function of its own key alone.

    What a problem draws is drawn in a block of that problem's own shape, never in one block for the whole batch. So
    iteration, candidate and step say where in its block a number stands, and neither the plan of a problem nor where
    the caller's generator stands afterwards depends on the number of problems.

    Without keys, one block is drawn (from the caller's generator itself) and all problems share it: common random
    numbers. A plan is then a function of seed and state alone, wherever the state stands in a batch, and nothing is
    cheaper. But equal states get equal plans, and parallel episodes make the same mistakes. With keys, one
    number is taken from the caller's generator, and problem i draws from a generator of its own that is seeded with
    that number and `keys[i]`: problems of different keys are independent.

    Args:
        batch: number of problems.
        like: a tensor with their device and dtype.
        generator: source of all randomness, on that device.
        keys: a number for each problem (default: one stream for all).

    Attributes:
        generator: the caller's, for models that draw their noise themselves.
    """

    def __init__(
        self, batch: int, like: Tensor, generator: torch.Generator | None = None, keys: Sequence[int] | None = None
    ) -> None:
        if keys is not None and len(keys) != batch:
            raise ValueError(f"{len(keys)} keys were given for {batch} problems: give one key for each problem")
        self.batch, self.device, self.dtype, self.generator = batch, like.device, like.dtype, generator
        self._sources = [generator]
        if keys is not None:
            device = self.device if generator is None else generator.device
            base = int(torch.randint(2**62, (), device=device, generator=generator))
            self._sources = [torch.Generator(self.device).manual_seed(mix(base, key)) for key in keys]
        self._common = keys is None

    def __repr__(self) -> str:
        return f"Draws({self.batch} problems, {'one stream for all' if self._common else 'a stream each'})"

    def each(self, draw: Callable[[torch.Generator | None], Tensor], dim: int = 0) -> Tensor:
        """Return `draw(generator)` for every problem, stacked along a new axis `dim`."""
        if self._common:
            block = draw(self.generator).unsqueeze(dim)
            return block.expand(*block.shape[:dim], self.batch, *block.shape[dim + 1 :])
        return torch.stack([draw(source) for source in self._sources], dim)

    def normal(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Return standard normal numbers."""
        return self.each(lambda g: torch.randn(shape, device=self.device, dtype=self.dtype, generator=g))

    def uniform(self, *shape: int) -> Float[Tensor, "batch *shape"]:
        """Return numbers in [0, 1)."""
        return self.each(lambda g: torch.rand(shape, device=self.device, dtype=self.dtype, generator=g))
