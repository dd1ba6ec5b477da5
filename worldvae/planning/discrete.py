"""All action vectors of a discrete layout, for planners that enumerate them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.types import ActionLayout

MAX_ACTIONS = 1024  # a tree has numbers for each action at every node
MIN_LOGIT = -1e9  # the logit of actions of probability 0


def discrete_actions(layout: ActionLayout) -> Float[Tensor, "class_ action"]:
    """Return every action vector of a layout of one-hot blocks: their product, of which the last block is the fastest.

    Raises:
        ValueError: If there are continuous entries, or too many actions.
    """
    if layout.continuous:
        raise ValueError(
            f"the tree search is for discrete actions and {layout} has continuous ones: "
            "plan with cem, icem, mppi, gradient or guided"
        )
    number = math.prod(layout.categorical)
    if number > MAX_ACTIONS:
        raise ValueError(
            f"the tree search tries actions one by one, at most {MAX_ACTIONS}, and {layout} has {number}: "
            "plan with cem, icem, mppi, gradient or guided"
        )
    choices = torch.cartesian_prod(*(torch.arange(n) for n in layout.categorical)).view(number, -1)
    return torch.cat([F.one_hot(c, n) for c, n in zip(choices.unbind(1), layout.categorical, strict=True)], -1).float()


def joint_logits(
    logits: Float[Tensor, "batch entry"], actions: Float[Tensor, "class_ action"], layout: ActionLayout
) -> Float[Tensor, "batch class_"]:
    """Return the log-probability of every action vector: the sum over its blocks. NaN becomes 0.

    Args:
        logits: of every class of every block, in the order of the action vector.
        actions: what `discrete_actions` returns for the layout.
        layout: shape of the action vector.
    """
    parts = []
    for block in layout.blocks:
        chosen = actions[:, block].argmax(dim=1)
        parts.append(torch.log_softmax(logits[:, block].to(actions.dtype), dim=1)[:, chosen])
    joint = torch.stack(parts).sum(dim=0)
    return joint.nan_to_num(nan=0.0, neginf=MIN_LOGIT).clamp(min=MIN_LOGIT)
