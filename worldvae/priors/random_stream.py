"""Random numbers for estimators whose callers pass no generator."""

import torch
from torch import Tensor, nn


class RandomStream(nn.Module):
    """A module's own stream of random numbers, separate from torch's default generator.

    The stream is seeded with torch's seed at the time of construction (`source.manual_seed` sets another). Its position
    is part of the module's state dict, so that a resumed run continues with the same numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(torch.initial_seed())

    def generator(self, device: torch.device) -> torch.Generator:
        """Return a new generator on `device`, seeded with the next number of the stream."""
        seed = int(torch.randint(2**62, (), generator=self.source))
        return torch.Generator(device).manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return the position of the stream, for the state dict."""
        return self.source.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Continue from a position that `get_extra_state` returned."""
        self.source.set_state(state.cpu())
