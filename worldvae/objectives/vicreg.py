"""VICReg: terms that keep the entries of latents spread and uncorrelated; and what an action says of two latents."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def std_hinge(latents: Float[Tensor, "sample latent"], wanted: float = 1.0, eps: float = 1e-4) -> Float[Tensor, ""]:
    """Return mean_j max(0, wanted - sqrt(var_j + eps)): the cost of entries whose standard deviation is too small.

    Args:
        latents: all samples, pooled.
        wanted: standard deviation from which on nothing is paid.
        eps: keeps the gradient finite at variance 0.

    Reference: Bardes, Ponce & LeCun 2022, "VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised
        Learning", equations 1 and 2.
    """
    std = torch.sqrt(latents.var(dim=0) + eps)
    return torch.relu(wanted - std).mean()


def squared_covariance(latents: Float[Tensor, "sample latent"]) -> Float[Tensor, ""]:
    """Return the mean of the squared covariances of all pairs of different entries; 0 if there is one entry.

    Bardes et al. (equations 3 and 4) divide the same sum by d, the number of entries, and not by the number d (d - 1)
    of pairs: their term is d - 1 times this one.

    Args:
        latents: all samples, pooled.
    """
    size = latents.shape[1]
    centred = latents - latents.mean(dim=0)
    covariance = centred.mT @ centred / max(1, len(latents) - 1)
    pairs = covariance - torch.diag_embed(covariance.diagonal())
    return pairs.square().sum() / max(1, size * (size - 1))


def inverse_error(
    guessed: Float[Tensor, "*batch action"], action: Float[Tensor, "*batch action"], valid: Bool[Tensor, "*batch"]
) -> Float[Tensor, ""]:
    """Return the mean squared error of actions that were guessed from the latents before and after them.

    Without this term latents may keep only what changes slowly and does not depend on the action.

    Args:
        guessed: a network's outputs.
        action: what was done; one-hot for discrete actions.
        valid: pairs of rows that belong to one episode; others do not count.

    Reference: Sobal et al. 2025, "Learning from Reward-Free Offline Data: A Case for Planning with Latent Dynamics
        Models" (PLDM), section 3 (inverse dynamics).
    """
    missed = torch.where(valid, (guessed - action).square().mean(dim=-1), 0.0)
    return missed.sum() / valid.sum().clamp(min=1)
