"""The amortised posterior: inference is one forward pass."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from worldvae.distributions import LatentFamily, full_precision
from worldvae.networks import JointMLP, PerceptronKind
from worldvae.posteriors.posterior import Posterior


class AmortisedPosterior(Posterior):
    """q(z | h, e) = family(mlp[h, e]).

    Args:
        memory: length of h.
        embedding: length of the encoder's embedding e.
        family: distribution family of z.
        hidden: width of the hidden layers.
        layers: number of hidden layers; with 0 it is a linear map.
        kind: kind of the perceptron.

    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; Cremer et al. 2018 for the amortisation gap.
    """

    def __init__(
        self,
        memory: int,
        embedding: int,
        family: LatentFamily,
        hidden: int,
        layers: int = 1,
        kind: PerceptronKind = "normed",
    ) -> None:
        super().__init__(family.latent_size)
        self.family = family
        out = family.parameter_size
        self.net = JointMLP(memory, embedding, hidden, layers, out, kind=kind)

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return repr(self.family)

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of the first layer that does not depend on the memory."""
        out: Tensor = self.net.project(embedding)
        return out

    def parameters_at(
        self, memory: Float[Tensor, "*batch memory"], projected: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch parameter"]:
        """Return the family's parameters, for `projected = project(embedding)`."""
        return full_precision(self.net(memory, projected))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw the random numbers that `infer` needs."""
        return self.family.noise(shape, device, generator)

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return a sample of z (without noise: the mode) and the family's parameters."""
        q = self.parameters_at(memory, projected)
        return self.family.mode(q) if noise is None else self.family.sample(q, noise), q

    def sample(
        self, parameters: Float[Tensor, "*batch parameter"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a sample of the family with these parameters."""
        return self.family.sample(parameters, noise)

    def distribution(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return the family's distribution with these parameters."""
        return self.family(parameters)

    def forward(
        self, memory: Float[Tensor, "*batch memory"], embedding: Float[Tensor, "*batch embedding"]
    ) -> Distribution:
        """Return q(z | h, e)."""
        return self.distribution(self.parameters_at(memory, self.project(embedding)))
