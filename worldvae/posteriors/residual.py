"""The posterior of a hierarchical prior: at every level, a correction of the prior."""

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
"""At every level, the posterior's standard deviation is at most e^5 times the prior's, and at least e^-5 times."""


class ResidualPosterior(Posterior):
    """q(z_l | z_<l, h, e) = N(mean_p + d_mean, (std_p exp(d_log_std))^2), level by level.

    mean_p and std_p are those of p(z_l | z_<l, h): a posterior that learned nothing is the prior, and q follows when
    the prior changes. The prior is held by reference and not as a submodule. q depends on the prior's parameters, too,
    and the gradient of KL(q || sg(p)) reaches them that way.

    Args:
        prior: the p of the same model.
        memory: length of h.
        embedding: length of the encoder's embedding e.
        hidden: width of the hidden layer of each level.

    Raises:
        ValueError: If the prior has no levels, or reads a memory of another length.

    Reference: Vahdat & Kautz 2020, "NVAE: A Deep Hierarchical Variational Autoencoder", section 3.2.
    """

    def __init__(self, prior: Prior, memory: int, embedding: int, hidden: int) -> None:
        super().__init__(prior.latent_size)
        if not isinstance(prior, HierarchicalPrior):
            raise ValueError(
                f"ResidualPosterior corrects a prior level by level, but {type(prior).__name__} has no levels: take "
                "a HierarchicalPrior, or an AmortisedPosterior for this prior"
            )
        if prior.memory_size != memory:
            raise ValueError(f"the prior was built for a memory of length {prior.memory_size}, not of length {memory}")
        self._prior = (prior,)  # nn.Module does not register modules in tuples
        # Each level reads what it corrects: h, z_<l and the parameters of p(z_l | z_<l, h).
        size = prior.part.parameter_size
        self.nets = nn.ModuleList(
            JointMLP(memory + level * prior.part.latent_size + size, embedding, hidden, 1, size)
            for level in range(prior.levels)
        )

    @property
    def prior(self) -> HierarchicalPrior:
        """The prior that is corrected."""
        return self._prior[0]

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, levels={self.prior.levels}"

    def project(self, embedding: Float[Tensor, "*batch embedding"]) -> Float[Tensor, "*batch hidden"]:
        """Return the parts of all levels that do not depend on the memory, concatenated."""
        return torch.cat([cast(JointMLP, net).project(embedding) for net in self.nets], dim=-1)

    def infer(
        self,
        memory: Float[Tensor, "*batch memory"],
        projected: Float[Tensor, "*batch hidden"],
        noise: Float[Tensor, "*batch noise"] | None,
    ) -> tuple[Float[Tensor, "*batch latent"], Float[Tensor, "*batch parameter"]]:
        """Return a sample of z (without noise: each level's mean given those above), and (mean, std) of all levels."""
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
        """Return the product of the levels' Gaussians, each conditioned on the upper levels of the sample of `infer`.

        It equals q(z | h, e) only at that sample.
        """
        mean, std = parameters.chunk(2, dim=-1)
        return Independent(Normal(mean, std, validate_args=False), 1, validate_args=False)
