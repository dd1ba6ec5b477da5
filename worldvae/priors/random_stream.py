"""Random numbers for estimators whose callers have no generator to give."""

import torch
from torch import Tensor, nn


class RandomStream(nn.Module):
    """A stream of random numbers that belongs to a module, apart from torch's default generator.

    It begins with the seed that torch was given before the module was made (`source.manual_seed` sets another), and
    where it stands is part of the module's state dict, so that a resumed run goes on with the same numbers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.source = torch.Generator().manual_seed(torch.initial_seed())

    def generator(self, device: torch.device) -> torch.Generator:
        """Return a new generator on `device`, seeded by the next number of the stream."""
        seed = int(torch.randint(2**62, (), generator=self.source))
        return torch.Generator(device).manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return where the stream stands, for the state dict."""
        return self.source.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Go on from `get_extra_state`."""
        self.source.set_state(state.cpu())
