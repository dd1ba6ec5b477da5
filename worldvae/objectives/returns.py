"""Returns of imagined trajectories."""

import torch
from jaxtyping import Float
from torch import Tensor


def lambda_returns(
    rewards: Float[Tensor, "batch horizon"],
    values: Float[Tensor, "batch horizon"],
    discounts: Float[Tensor, "batch horizon"],
    mix: float,
) -> Float[Tensor, "batch horizon"]:
    """Return the TD(lambda) return of every state of a dream except the last.

    R_k = r_{k+1} + d_{k+1} ((1 - mix) v_{k+1} + mix R_{k+1}), with R_H = v_H. Column k of the arguments belongs to
    state k + 1 (it arrived with it), column k of the result to state k.

    Args:
        rewards: r_1 .. r_H.
        values: v_1 .. v_H.
        discounts: discount times probability of continuing, after states 1 .. H.
        mix: lambda; 0 is one-step, 1 is Monte Carlo with a bootstrap at the end.

    Reference: Sutton & Barto 2018, "Reinforcement Learning", section 12.1.
    """
    following = values[:, -1]
    out = []
    for k in reversed(range(rewards.shape[1])):
        following = rewards[:, k] + discounts[:, k] * ((1 - mix) * values[:, k] + mix * following)
        out.append(following)
    return torch.stack(out[::-1], dim=1)
