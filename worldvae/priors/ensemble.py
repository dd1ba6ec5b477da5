"""An ensemble of heads that predict the same latents: their disagreement shows where the model is uncertain."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from worldvae.distributions import LatentFamily, detached, has_kl, kl
from worldvae.priors.parametric import ParametricPrior


class Ensemble(nn.Module):
    """Heads p_i(z | h) on the same memory, with different initial weights; dreams use none of them.

    Where there was data, all heads predict alike; elsewhere their predictions differ. They do not shape the memory: the
    gradient of their loss stops at h.

    Args:
        memory: length of h.
        family: distribution family of every head.
        hidden: width of their hidden layers.
        number: number of heads, at least 2.

    Raises:
        ValueError: If there are fewer than 2 heads.

    Reference: Lakshminarayanan et al. 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
    Ensembles"; Sekar et al. 2020, "Planning to Explore via Self-Supervised World Models", section 3.1.
    """

    def __init__(self, memory: int, family: LatentFamily, hidden: int, number: int) -> None:
        super().__init__()
        if number < 2:
            raise ValueError(f"number={number}: one head cannot disagree; take at least 2")
        self.heads = nn.ModuleList(ParametricPrior(memory, family, hidden) for _ in range(number))

    def forward(self, memory: Float[Tensor, "*batch memory"]) -> list[Distribution]:
        """Return the prediction of every head."""
        return [head(memory.detach()) for head in self.heads]

    def kl(
        self, q: Distribution, latent: Float[Tensor, "*batch latent"], memory: Float[Tensor, "*batch memory"]
    ) -> Float[Tensor, "*batch"]:
        """Return the training loss: the mean of KL(sg(q) || p_i) over heads, or of its estimate at a sample of q."""
        heads = self(memory)
        if has_kl(q, heads[0]):
            constant = detached(q)
            return torch.stack([kl(constant, head) for head in heads]).mean(0)
        with torch.no_grad():
            entropy = q.log_prob(latent)
        return torch.stack([entropy - head.log_prob(latent.detach()) for head in heads]).mean(0)

    def disagreement(self, memory: Float[Tensor, "*batch memory"]) -> Float[Tensor, "*batch"]:
        """Return the standard deviation of the heads' means across heads, root-mean-square over z, in units of z."""
        means = torch.stack([head.mean for head in self(memory)])
        return means.var(dim=0).mean(-1).sqrt()
