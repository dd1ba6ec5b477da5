"""The amortised posterior: inference is one forward pass."""

from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import LatentFamily
from worldvae.networks import JointMLP


class AmortisedPosterior(nn.Module):
    """q(z | h, e) = family(mlp[h, e]), in the family of the prior.

    Args:
        memory: length of h.
        embedding: length of the encoder's embedding e.
        family: the latent family.
        hidden: width of the hidden layers.
        layers: number of hidden layers.

    Reference: Kingma & Welling 2014, "Auto-Encoding Variational Bayes"; Cremer et al. 2018 for what amortising costs.
    """

    def __init__(self, memory: int, embedding: int, family: LatentFamily, hidden: int, layers: int = 1) -> None:
        super().__init__()
        self.family = family
        self.net = JointMLP(memory, embedding, hidden, layers, family.parameter_size)

    def extra_repr(self) -> str:
        """Show the family."""
        return repr(self.family)

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return what of the parameters does not wait for the memory."""
        out: Tensor = self.net.project(embedding)
        return out

    def parameters_at(
        self, memory: Float[Tensor, "*batch memory"], projected: Float[Tensor, "*batch hidden"]
    ) -> Float[Tensor, "*batch parameter"]:
        """Return the family's parameters, for `projected = project(embedding)`."""
        out: Tensor = self.net(memory, projected).float()
        return out

    def forward(
        self, memory: Float[Tensor, "*batch memory"], embedding: Float[Tensor, "*batch embedding"]
    ) -> Distribution:
        """Return q(z | h, e)."""
        return self.family(self.parameters_at(memory, self.project(embedding)))
