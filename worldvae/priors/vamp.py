"""A prior made from the posterior: a mixture of q at learned pseudo-inputs."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae.priors.mixture import check_components, likeliest, mixture, mixture_noise, pick
from worldvae.priors.prior import Prior
from worldvae.priors.readout import Readout


@dataclass(frozen=True)
class VampConfig:
    """Settings of the prior `vamp`.

    Attributes:
        pseudo_inputs: number of learned embeddings whose posteriors are mixed.
    """

    pseudo_inputs: int = 8

    def __post_init__(self) -> None:
        if self.pseudo_inputs < 1:
            raise ValueError(f"pseudo_inputs={self.pseudo_inputs}: a VampPrior needs at least 1")


@runtime_checkable
class Encoder(Protocol):
    """What a VampPrior needs of a posterior, which is a `worldvae.posteriors.Posterior`.

    Attributes:
        latent_size: length of z.
    """

    latent_size: int

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return the part of q that does not depend on the memory."""
        ...

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return the mode of z (without noise), and the parameters for `distribution`."""
        ...

    def distribution(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return q."""
        ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]:
        """Return what it learns."""
        ...


class VampPrior(Prior):
    """p(z | h) = sum_k w_k(h) q(z | h, u_k), with learned pseudo-inputs u_k in place of embeddings of frames.

    The best prior for a VAE is its aggregated posterior (1/N) sum_n q(z | x_n); this prior is the same with K learned
    inputs. The weights are uniform, unless there is a memory to predict them from. The posterior is the world model's
    own, held by reference and not as a submodule: its parameters appear once in the model and in checkpoints.

    Args:
        posterior: the q of the same model; its distributions must be diagonal Gaussians.
        memory: length of h.
        embedding: length of the input of `posterior.project`.
        hidden: width of the hidden layer of the network that predicts the weights.
        components: number of pseudo-inputs.

    Raises:
        ValueError: If the posterior is not a diagonal Gaussian, or reads vectors of other lengths.

    Reference: Tomczak & Welling 2018, "VAE with a VampPrior", sections 2 and 4.
    """

    def __init__(self, posterior: Encoder, memory: int, embedding: int, hidden: int, components: int) -> None:
        super().__init__(posterior.latent_size)
        check_components(components)
        self._posterior = (posterior,)  # nn.Module does not register modules in tuples
        self.components = components
        # Spread like the outputs of a normalised trunk. `pseudo.data.copy_(embeddings)` would start from data instead.
        self.pseudo = nn.Parameter(torch.randn(components, embedding))
        self.weigh = Readout(memory, hidden, 1, components, zero=True) if memory else None
        try:
            with torch.no_grad():
                q = self.components_at(torch.zeros(memory, device=self.pseudo.device))[1]
        except RuntimeError as error:
            raise ValueError(
                f"the posterior cannot read a memory of length {memory} and an embedding of length {embedding}: give "
                f"the lengths that it was built with ({error})"
            ) from error
        if not (isinstance(q, Independent) and isinstance(q.base_dist, Normal)):
            raise ValueError(
                f"VampPrior mixes Gaussians, and {type(posterior).__name__} gives a {type(q).__name__}: take a "
                "posterior with a GaussianFamily, or another prior"
            )

    @property
    def posterior(self) -> Encoder:
        """The q that is evaluated at the pseudo-inputs."""
        return self._posterior[0]

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, components={self.components}, posterior={type(self.posterior).__name__}"

    def learnt(self) -> Iterable[nn.Parameter]:
        """Return this prior's own parameters and those of the posterior."""
        return itertools.chain(self.parameters(), self.posterior.parameters())

    def logits(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch component"]:
        """Return log w_k(h), up to a constant."""
        if self.weigh is None:
            return memory.new_zeros(*memory.shape[:-1], self.components, dtype=torch.float32)
        out: Tensor = self.weigh(memory)
        return out

    def components_at(
        self, memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch component"], Distribution]:
        """Return log w_k(h), and q(z | h, u_k) of batch shape [*batch, K]."""
        batch = memory.shape[:-1]
        projected = self.posterior.project(self.pseudo)
        repeated = memory.unsqueeze(-2).expand(*batch, self.components, -1)
        _, parameters = self.posterior.infer(repeated, projected.expand(*batch, *projected.shape), None)
        return self.logits(memory), self.posterior.distribution(parameters)

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return p(z | h)."""
        return mixture(*self.components_at(memory))

    def noise(
        self, shape: tuple[int, ...], device: torch.device, generator: torch.Generator | None
    ) -> Float[Tensor, "*shape noise"]:
        """Draw a uniform number, which selects the pseudo-input, and the normal noise of z."""
        return mixture_noise(shape, self.latent_size, device, generator)

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a sample of q at one pseudo-input; the weights get a straight-through gradient."""
        q = self._at(memory, pick(self.logits(memory), noise[..., 0]))
        return torch.addcmul(q.mean, q.stddev, noise[..., 1:])

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the mean of q at the likeliest pseudo-input."""
        out: Tensor = self._at(memory, likeliest(self.logits(memory))).mean
        return out

    def _at(self, memory: Tensor, one_hot: Tensor) -> Distribution:
        # Evaluate q once, not once per pseudo-input: a dream needs only the component that was drawn.
        projected = one_hot @ self.posterior.project(self.pseudo).float()
        return self.posterior.distribution(self.posterior.infer(memory, projected, None)[1])
