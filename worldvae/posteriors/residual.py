"""The posterior of a hierarchy: at every level a correction of what the prior said."""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae.networks import JointMLP
from worldvae.posteriors.posterior import Posterior
from worldvae.priors.hierarchical import HierarchicalPrior
from worldvae.priors.prior import Prior

MAX_LOG_SCALE = 5.0
"""No frame makes a level more than e^5 times as sure as the prior, or less."""


class ResidualPosterior(Posterior):
    """q(z_l | z_<l, h, e) = N(mean_p + d_mean, (std_p exp(d_log_std))^2), level after level.

    mean_p and std_p are those of p(z_l | z_<l, h), so that a posterior that has nothing to say is the prior: where the
    prior moves, q moves along. The prior is referred to and not held; through its parameters q depends on them too, and
    the gradient of KL(q || sg(p)) reaches them along that way.

    Args:
        prior: the p of the same model.
        memory: length of h.
        embedding: length of the encoder's embedding e.
        hidden: width of the hidden layer of each level.

    Raises:
        ValueError: if the prior has no levels, or another memory.

    Reference: Vahdat & Kautz 2020, "NVAE: A Deep Hierarchical Variational Autoencoder", section 3.2.
    """

    def __init__(self, prior: Prior, memory: int, embedding: int, hidden: int) -> None:
        super().__init__(prior.latent_size)
        if not isinstance(prior, HierarchicalPrior):
            raise ValueError(
                f"ResidualPosterior corrects a prior level after level, and {type(prior).__name__} has no levels: take "
                "a HierarchicalPrior, or an AmortisedPosterior for this prior"
            )
        if prior.memory_size != memory:
            raise ValueError(f"the prior was made for a memory of length {prior.memory_size}, not of length {memory}")
        self._prior = (prior,)  # in a tuple, where nn.Module does not look for modules
        # Each level sees what it corrects: h, z_<l and the parameters of p(z_l | z_<l, h).
        size = prior.part.parameter_size
        self.nets = nn.ModuleList(
            JointMLP(memory + level * prior.part.latent_size + size, embedding, hidden, 1, size)
            for level in range(prior.levels)
        )

    @property
    def prior(self) -> HierarchicalPrior:
        """The p that is corrected."""
        return self._prior[0]

    def extra_repr(self) -> str:
        """Show the levels."""
        return f"latent={self.latent_size}, levels={self.prior.levels}"

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return what of each level does not wait for the memory, side by side."""
        return torch.cat([cast(JointMLP, net).project(embedding) for net in self.nets], dim=-1)

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return a sample of z (without noise each level's mean given those above), and (mean, std) of all levels."""
        prior = self.prior
        draws = [None] * prior.levels if noise is None else noise.chunk(prior.levels, dim=-1)
        latent, means, stds = memory[..., :0].float(), [], []
        for level, (given, draw) in enumerate(zip(projected.chunk(prior.levels, dim=-1), draws, strict=True)):
            parameters = prior.level_parameters(level, memory, latent)
            p = prior.part(parameters)
            correction = self.nets[level](torch.cat([memory, latent, parameters], dim=-1), given).float()
            shift, scale = correction.chunk(2, dim=-1)
            mean = p.mean + shift
            std = p.stddev * torch.exp(MAX_LOG_SCALE * torch.tanh(scale / MAX_LOG_SCALE))
            latent = torch.cat([latent, mean if draw is None else torch.addcmul(mean, std, draw)], dim=-1)
            means.append(mean)
            stds.append(std)
        return latent, torch.cat([*means, *stds], dim=-1)

    def distribution(self, parameters: Float[Tensor, "*batch parameter"]) -> Distribution:
        """Return the product of the levels' Gaussians, each given the upper levels of the sample of `infer`.

        As a function of all of z it is q(z | h, e) at that sample only.
        """
        mean, std = parameters.chunk(2, dim=-1)
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
