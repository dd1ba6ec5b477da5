"""How latents are spread: the numbers that show a collapse."""

import torch
from jaxtyping import Float
from torch import Tensor


@torch.no_grad()
def latent_spread(latents: Float[Tensor, "sample latent"]) -> dict[str, Float[Tensor, ""]]:
    """Return standard deviations and the effective rank of latents.

    A collapse shows in the standard deviations alone: very small latents can be as isotropic as large ones.

    Args:
        latents: all samples, pooled.

    Returns:
        `std_min` and `std_median`, over entries; and `effective_rank`, exp(entropy) of the eigenvalues of the
        covariance divided by their sum, from 1 to the number of entries (NaN if the latents are not finite).

    Reference: Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    std = latents.std(dim=0, correction=0)
    covariance = torch.cov(latents.mT.double(), correction=0).view(latents.shape[1], -1)
    finite = covariance.isfinite().all()
    shares = torch.linalg.eigvalsh(torch.where(finite, covariance, torch.eye(len(std)).to(covariance))).clamp(min=1e-30)
    shares = shares / shares.sum()
    rank = torch.exp(-(shares * shares.log()).sum()).float()
    return {
        "std_min": std.min(),
        "std_median": std.median(),
        "effective_rank": torch.where(finite, rank, torch.full_like(rank, torch.nan)),
    }
