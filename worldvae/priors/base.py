"""The Gaussian that an energy-based or a diffusion prior starts from and corrects."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from worldvae.distributions import GaussianFamily, detached, has_kl, kl
from worldvae.priors.prior import kl_or_estimate
from worldvae.priors.readout import Readout

BaseKind = Literal["standard", "gaussian"]


class Base(nn.Module):
    """N(0, I) ("standard"), or N(m(h), diag s(h)^2) predicted from the memory ("gaussian").

    Args:
        kind: "standard" or "gaussian".
        memory: length of h.
        latent: length of z.
        hidden: width of the hidden layer of the network that predicts m and s.

    Raises:
        ValueError: If the kind is neither.
    """

    def __init__(self, kind: BaseKind, memory: int, latent: int, hidden: int) -> None:
        super().__init__()
        if kind not in ("standard", "gaussian"):
            raise ValueError(f"base={kind!r} is not a base: take 'standard' or 'gaussian'")
        self.kind, self.latent_size, self.family = kind, latent, GaussianFamily(latent)
        self.net = Readout(memory, hidden, 1, self.family.parameter_size) if kind == "gaussian" else None

    def extra_repr(self) -> str:
        """Return the settings that `print` shows."""
        return self.kind

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> Distribution:
        """Return the Gaussian for every element of the batch."""
        if self.net is not None:
            return self.family(self.net(memory))
        zeros = memory.new_zeros(*memory.shape[:-1], self.latent_size, dtype=torch.float32)
        return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1, validate_args=False)

    def balanced_kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Return KL(sg(q) || base) and KL(q || sg(base)), equal in value; in closed form if there is one."""
        p = self(memory)
        constant = detached(p)
        if has_kl(q, p):
            return kl(detached(q), p), kl(q, constant)
        with torch.no_grad():
            entropy = q.log_prob(latent)
        return entropy - p.log_prob(latent.detach()), q.log_prob(latent) - constant.log_prob(latent)

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return KL(q || base): in closed form if there is one, else estimated at the sample `latent` of q."""
        return kl_or_estimate(q, self(memory), latent)
