"""The prior whose parameters a perceptron reads off the memory."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import LatentFamily
from worldvae.networks import MLP


class Prior(nn.Module):
    """p(z | h) = family(mlp(h)); `gaussian` or `categorical` by its family.

    Args:
        memory: length of h.
        family: the latent family, which fixes the length of z.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
    """

    def __init__(self, memory: int, family: LatentFamily, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.family = family
        self.net = MLP(memory, hidden, layers, family.parameter_size)

    def extra_repr(self) -> str:
        """Show the family."""
        return repr(self.family)

    def parameters_at(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch parameter"]:
        """Return the family's parameters."""
        out: Tensor = self.net(memory).float()
        return out

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return p(z | h)."""
        return self.family(self.parameters_at(memory))

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a reparameterised sample of z."""
        return self.family.sample(self.parameters_at(memory), noise)

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the most probable z."""
        return self.family.mode(self.parameters_at(memory))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the randomness of `step`."""
        return self.family.noise(shape, device, generator)
