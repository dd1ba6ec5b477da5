"""Policy improvement with few visits: which action to visit next, and the value of actions without visits."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def considered_visits(actions: int, simulations: int) -> list[int]:
    """Return how often an action must have been visited before to be visited in simulation 0, 1, 2, ...

    Sequential Halving: all actions are visited equally often, then the better half of them, and so on, such that each
    of the ceil(log2 actions) phases has an equal share of the simulations; the last two share the rest.

    Args:
        actions: how many are considered.
        simulations: how many there will be.

    Reference: Karnin et al. 2013, "Almost Optimal Exploration in Multi-Armed Bandits"; Danihelka et al. 2022, "Policy
    Improvement by Planning with Gumbel", algorithm 2.
    """
    if actions == 1:
        return list(range(simulations))
    phases, visits, sequence = math.ceil(math.log2(actions)), 0, list[int]()
    while len(sequence) < simulations:
        rounds = max(1, simulations // (phases * actions))
        for _ in range(rounds):
            sequence += [visits] * actions
            visits += 1
        actions = max(2, actions // 2)
    return sequence[:simulations]


def gumbel(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Turn numbers in [0, 1) into standard Gumbel noise: the k largest of logits + noise are k draws from the softmax
    of the logits, without replacement.

    Reference: Kool et al. 2019, "Stochastic Beams and Where to Find Them".
    """
    return -torch.log(-torch.log(uniform.clamp(min=torch.finfo(uniform.dtype).tiny)))


def complete_values(
    values: Float[Tensor, "*batch class_"],
    visits: Float[Tensor, "*batch class_"],
    logits: Float[Tensor, "*batch class_"],
    raw: Float[Tensor, "*batch"],
    known: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch class_"]:
    """Return the values of actions; unvisited ones get the value of their state (mixed value).

    v = (k raw + N sum_a p(a) q(a) / sum_a p(a)) / (k + N): N visits, the sums over visited actions.

    Args:
        values: mean return of every visited action.
        visits: how often it was visited.
        logits: of the prior p.
        raw: the return of the state itself, as it was first seen.
        known: k: 1 where there is one, else 0.

    Reference: Danihelka et al. 2022, appendix D (the mixed value).
    """
    tiny = torch.finfo(logits.dtype).tiny
    seen, number = visits > 0, visits.sum(dim=-1)
    probs = torch.softmax(logits, dim=-1).clamp(min=tiny) * seen
    mean = (probs * values).sum(dim=-1) / probs.sum(dim=-1).clamp(min=tiny)
    mixed = (known * raw + number * mean) / (known + number).clamp(min=1)
    return torch.where(seen, values, mixed.unsqueeze(-1))


def rescale_values(
    values: Float[Tensor, "*batch class_"], visits: Float[Tensor, "*batch class_"], scale: float, offset: float
) -> Float[Tensor, "*batch class_"]:
    """Return what is added to logits for values: scale (offset + max visits) (q - min q) / (max q - min q).

    Differences of the size of rounding errors are not enlarged to the whole range.

    Reference: Danihelka et al. 2022, equation 8, where `scale` is c_scale and `offset` c_visit; that values are
    rescaled between their own bounds is the way of DeepMind's mctx, and makes them free of units.
    """
    low, high = values.amin(dim=-1, keepdim=True), values.amax(dim=-1, keepdim=True)
    finfo = torch.finfo(values.dtype)
    spread = torch.maximum(high - low, 8 * finfo.eps * torch.maximum(low.abs(), high.abs())).clamp(min=finfo.tiny)
    return scale * (offset + visits.amax(dim=-1, keepdim=True)) * ((values - low) / spread)


def most_lacking(
    logits: Float[Tensor, "*batch class_"], visits: Float[Tensor, "*batch class_"], ties: Float[Tensor, "*batch class_"]
) -> Int[Tensor, "*batch"]:
    """Return the action whose share of the visits is furthest below its probability in softmax(logits).

    Args:
        logits: of the improved policy: those of the prior plus `rescale_values`.
        visits: so far.
        ties: decide between equals; smaller than any difference that matters.

    Reference: Danihelka et al. 2022, section 5 (planning at non-root nodes).
    """
    frequency = visits / (1 + visits.sum(dim=-1, keepdim=True))
    return (torch.softmax(logits, dim=-1) - frequency + ties).argmax(dim=-1)
