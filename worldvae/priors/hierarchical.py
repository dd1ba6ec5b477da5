"""A prior in levels: each group of latents is conditioned on the groups above it."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import GaussianFamily, detached, has_kl, kl
from worldvae.networks.frozen import frozen
from worldvae.priors.prior import Prior, kl_or_estimate
from worldvae.priors.readout import Readout


@dataclass(frozen=True)
class HierarchicalConfig:
    """Settings of the prior `hierarchical`.

    Attributes:
        levels: number of equal parts into which z is split.
    """

    levels: int = 2

    def __post_init__(self) -> None:
        if self.levels < 1:
            raise ValueError(f"levels={self.levels}: a hierarchy needs at least 1 level")


class HierarchicalPrior(Prior):
    """p(z | h) = p(z_1 | h) prod_l p(z_l | z_<l, h), diagonal Gaussians from the top level to the bottom one.

    z is split evenly into its levels. Each conditional is Gaussian; their product is not, and can have correlations and
    several modes.

    Args:
        memory: length of h.
        latent: length of z, all levels together.
        hidden: width of the hidden layer of each level.
        levels: number of levels.

    Raises:
        ValueError: If z cannot be split evenly into this number of levels.

    Reference: Sonderby et al. 2016, "Ladder Variational Autoencoders"; Vahdat & Kautz 2020, "NVAE", section 3.
    """

    estimates_kl = False

    def __init__(self, memory: int, latent: int, hidden: int, levels: int) -> None:
        super().__init__(latent)
        if levels < 1 or latent % levels:
            raise ValueError(
                f"z of length {latent} cannot be split evenly into levels={levels}: take a length that is a multiple "
                "(model.gaussian)"
            )
        self.memory_size, self.levels, part = memory, levels, latent // levels
        self.part, self.whole = GaussianFamily(part), GaussianFamily(latent)
        self.nets = nn.ModuleList(
            Readout(memory + level * part, hidden, 1, self.part.parameter_size) for level in range(levels)
        )

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return f"latent={self.latent_size}, levels={self.levels}"

    def level_parameters(
        self, level: int, memory: Float[Tensor, "*batch memory"], upper: Float[Tensor, "*batch upper"]
    ) -> Float[Tensor, "*batch parameter"]:
        """Return (mean, raw) of p(z_l | z_<l, h) in the family `part`; `upper` is z_<l, of length 0 at the top."""
        out: Tensor = self.nets[level](torch.cat([memory, upper], dim=-1))
        return out

    def parameters_at(
        self, memory: Float[Tensor, "*batch memory"], latent: Float[Tensor, "*batch latent"]
    ) -> Float[Tensor, "*batch parameter"]:
        """Return (mean, raw) of all levels in the family `whole`, each given the levels of `latent` above it."""
        size = self.part.latent_size
        found = [self.level_parameters(level, memory, latent[..., : level * size]) for level in range(self.levels)]
        return rearrange(torch.stack(found), "l ... (two d) -> ... (two l d)", two=2)

    def conditionals(
        self, memory: Float[Tensor, "*batch memory"], latent: Float[Tensor, "*batch latent"]
    ) -> Distribution:
        """Return the product of the Gaussians p(z_l | z_<l, h), whose density at `latent` is p(z | h)."""
        return self.whole(self.parameters_at(memory, latent))

    def step(
        self, memory: Float[Tensor, "*batch memory"], noise: Float[Tensor, "*batch noise"]
    ) -> Float[Tensor, "*batch latent"]:
        """Return a sample, drawn level by level."""
        latent = noise[..., :0]
        for level, part in enumerate(noise.chunk(self.levels, dim=-1)):
            drawn = self.part.sample(self.level_parameters(level, memory, latent), part)
            latent = torch.cat([latent, drawn], dim=-1)
        return latent

    def mode(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch latent"]:
        """Return the mean of each level given the means above it."""
        return self.step(memory, memory.new_zeros(*memory.shape[:-1], self.latent_size, dtype=torch.float32))

    def log_prob(
        self, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return log p(z | h)."""
        out: Tensor = self.conditionals(memory, latent).log_prob(latent)
        return out

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return sum_l KL(q(z_l) || p(z_l | z_<l, h)), each term in closed form given the sample's upper levels.

        It is an unbiased estimate of KL(q || p) at `latent`, with less variance than log q - log p.
        """
        return kl_or_estimate(q, self.conditionals(memory, latent), latent)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return both KLs of `Prior.balanced_kl`; the second also has a gradient through the sampled upper levels."""
        p = self.conditionals(memory, latent.detach())
        if not has_kl(q, p):
            return super().balanced_kl(q, latent, memory)
        with frozen(self.learnt()):
            representation = self.kl(q, latent, memory.detach())
        return kl(detached(q), p), representation
