"""A prior with several modes: a mixture of Gaussians predicted from the memory."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from worldvae.distributions import GaussianFamily, one_hot_draw
from worldvae.priors.prior import Prior
from worldvae.priors.readout import Readout


@dataclass(frozen=True)
class MixtureConfig:
    """Settings of the prior `mixture`.

    Attributes:
        components: number of Gaussians.
    """

    components: int = 8

    def __post_init__(self) -> None:
        check_components(self.components)


class MixturePrior(Prior):
    """p(z | h) = sum_k w_k(h) N(z; m_k(h), diag s_k(h)^2): a mixture density network.

    If the future branches, a sample follows one of the branches, while that of a single Gaussian lands between them.

    Args:
        memory: length of h.
        latent: length of z.
        hidden: width of the hidden layers.
        components: number of Gaussians.
        layers: number of hidden layers.

    Raises:
        ValueError: If there is no component.

    Reference: Bishop 1994, "Mixture Density Networks"; Ha & Schmidhuber 2018, "World Models", for their use in dreams.
    """

    def __init__(self, memory: int, latent: int, hidden: int, components: int, layers: int = 1) -> None:
        super().__init__(latent)
        check_components(components)
        self.components, self.family = components, GaussianFamily(latent)
        self.net = Readout(memory, hidden, layers, components * (1 + self.family.parameter_size))
        # Components that start at the same place would get equal gradients and stay equal.
        means = self.net.bias.data[components:].view(components, -1)[:, :latent]
        means.copy_(torch.randn_like(means))

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, components={self.components}"

    def components_at(
        self, memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch component"], Distribution]:
        """Return log-weights (up to a constant), and the Gaussians, of batch shape [*batch, K]."""
        logits, parameters = self.net(memory).tensor_split([self.components], dim=-1)
        return logits, self.family(rearrange(parameters, "... (k p) -> ... k p", k=self.components))

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return p(z | h)."""
        return mixture(*self.components_at(memory))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw a uniform number, which selects the component, and the normal noise of z."""
        return mixture_noise(shape, self.latent_size, device, generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a sample of one component; the weights get a straight-through gradient."""
        logits, gaussians = self.components_at(memory)
        drawn = pick(logits, noise[..., 0])
        return torch.addcmul(_chosen(drawn, gaussians.mean), _chosen(drawn, gaussians.stddev), noise[..., 1:])

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the mean of the likeliest component."""
        logits, gaussians = self.components_at(memory)
        return _chosen(likeliest(logits), gaussians.mean)


def check_components(components: int) -> None:
    """Raise ValueError if a mixture cannot have this number of components."""
    if components < 1:
        raise ValueError(f"components={components}: a mixture needs at least 1 component")


def mixture(logits: Float[Tensor, "*batch component"], components: Distribution) -> MixtureSameFamily:
    """Return sum_k softmax(logits)_k component_k, for components of batch shape [*batch, K]."""
    assert isinstance(components, Independent)
    assert isinstance(components.base_dist, Normal)
    return MixtureSameFamily(Categorical(logits=logits, validate_args=False), components, validate_args=False)


def mixture_noise(
    shape: tuple[int, ...], latent: int, device: torch.device, generator: torch.Generator | None
) -> Float[Tensor, "*shape noise"]:
    """Draw a uniform number for the component, then `latent` standard normal ones."""
    uniform = torch.rand(*shape, 1, device=device, generator=generator)
    return torch.cat([uniform, torch.randn(*shape, latent, device=device, generator=generator)], dim=-1)


def pick(
    logits: Float[Tensor, "*batch component"], uniform: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch component"]:
    """Turn uniform numbers into one-hot choices of a component, with the gradient of the weights."""
    weights = torch.softmax(logits, dim=-1)
    return one_hot_draw(weights.detach(), uniform) + (weights - weights.detach())


def likeliest(logits: Float[Tensor, "*batch component"]) -> Float[Tensor, "*batch component"]:
    """Return the one-hot choice of the largest weight (the first, if several are equal)."""
    return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)


def _chosen(
    one_hot: Float[Tensor, "*batch component"], values: Float[Tensor, "*batch component latent"]
) -> Float[Tensor, "*batch latent"]:
    return torch.einsum("...k,...kd->...d", one_hot, values)
