"""Latent overshooting: the prior is also held to the posterior many steps ahead, without seeing frames between."""

from jaxtyping import Float
from torch import Tensor

from worldvae.distributions import kl
from worldvae.types import Batch
from worldvae.world_model import Observed, WorldModel


def overshooting(model: WorldModel, batch: Batch, observed: Observed, start: int) -> Float[Tensor, "batch horizon"]:
    """Return KL(sg q(z_t | x_<=t) || p(z_t | h~_t)) for every row after `start`; h~ is dreamt from there on.

    The one-step KL says nothing about where the prior drifts once it lives on its own predictions. Here it follows its
    mode from the posterior of row `start`, with the actions that were taken, and so learns the best guess at every
    distance. The gradient reaches the prior, the memory and the state the dream starts from, not the targets. Rows
    after the beginning of another episode are 0.

    Args:
        model: the world model.
        batch: the rows that were observed, `[batch, time]`.
        observed: `model.observe(batch)`.
        start: the last row that is seen, 0 <= start < time - 1.

    Reference: Hafner et al. 2019, "Learning Latent Dynamics for Planning from Pixels", section 4 (there for all starts,
    with samples).
    """
    dreamt = model.predict(observed.posterior[:, start], batch.action[:, start:-1])
    q = model.family(observed.posterior_parameters[:, start + 1 :].detach())
    p = model.prior(dreamt.memory)
    same_episode = (~batch.is_first[:, start + 1 :]).cumprod(dim=1)
    return kl(q, p) * same_episode
