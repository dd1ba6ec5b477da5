"""Scores of uncertain dreams: aggregates of several, a charge for disagreement, and a limit to trust."""

from dataclasses import dataclass
from math import isfinite

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.planning.simulator import (
    Objective,
    Plural,
    Simulator,
    Uncertain,
    check_returns,
    discounted_return,
    first_steps,
)
from worldvae.types import Dream


@dataclass(frozen=True)
class RiskConfig:
    """How a planner scores uncertain dreams. By default it imagines one dream per candidate and believes it.

    Several dreams in one model show how random the world is according to that model. Whether the model itself is right
    is shown by how far the dreams of an ensemble are apart (`SimulatorEnsemble`), or by a world model's disagreement.

    Attributes:
        samples: dreams of every candidate, each with noise of its own; in an ensemble, by every member.
        deviations: k in mean - k std of the returns of a candidate's dreams (negative: it seeks what is uncertain).
        quantile: this quantile of their returns, instead (0: the worst, 0.5: the median).
        disagreement: the charge for a step, for each unit of the model's disagreement about it, discounted like a
            reward (negative: it seeks what is unknown).
        trust: the disagreement above which no further promise of the model counts (`trusted_returns`). A good value is
            a high quantile of the model's disagreement over its own data.
    """

    samples: int = 1
    deviations: float = 0.0
    quantile: float | None = None
    disagreement: float = 0.0
    trust: float | None = None

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples} must be at least 1")
        for name in ("deviations", "disagreement"):
            if not isfinite(getattr(self, name)):
                raise ValueError(f"{name}={getattr(self, name)} must be a finite number")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"quantile={self.quantile} must lie between 0 and 1, or be null for none")
        if self.quantile is not None and self.deviations:
            raise ValueError(f"quantile={self.quantile} takes the place of deviations={self.deviations}: give one")
        if self.trust is not None and not 0 < self.trust < torch.inf:
            raise ValueError(f"trust={self.trust} must be a disagreement above 0, or null for no limit")

    @property
    def asks_disagreement(self) -> bool:
        """Whether the model must know its disagreement."""
        return self.disagreement != 0 or self.trust is not None

    def dreams(self, members: int = 1) -> int:
        """Return the number of dreams of every candidate.

        Raises:
            ValueError: If there is one, and the setting is about several.
        """
        found = self.samples * members
        if found == 1 and (self.deviations or self.quantile is not None):
            asked = f"deviations={self.deviations}" if self.deviations else f"quantile={self.quantile}"
            raise ValueError(f"{asked} compares several dreams of a candidate, and there is one: give samples=8 or so")
        return found


def dreams_of(model: Simulator, risk: RiskConfig) -> int:
    """Return how many dreams of every candidate a planner asks `model` for.

    Raises:
        ValueError: If `risk` asks for a disagreement that the model does not have.
    """
    if risk.asks_disagreement and not isinstance(model, Uncertain):
        asked = f"trust={risk.trust}" if risk.trust is not None else f"disagreement={risk.disagreement}"
        raise ValueError(
            f"{asked} is about the model's disagreement, which {type(model).__name__} does not know: give it a method "
            "disagreement(states), or take a SequentialVAE with model.ensemble=5 or a SimulatorEnsemble"
        )
    members = model.members if isinstance(model, Plural) else 1
    return risk.dreams(members if isinstance(members, int) else 1)  # (not a list of that name)


def score_dreams(
    dream: Dream, model: Simulator, objective: Objective, risk: RiskConfig, discount: float, problems: int
) -> Float[Tensor, "row"]:
    """Return the score of each dream: its return less the charge for disagreement, as far as the model is trusted.

    Args:
        dream: the same number of rows for each problem, problem after problem.
        model: knows its disagreement, if `risk` asks for it.
        objective: from a dream to its return.
        risk: the charges.
        discount: of disagreement in later steps.
        problems: number of problems.
    """
    if not risk.asks_disagreement:
        return check_returns(objective(dream), len(dream.actions))
    assert isinstance(model, Uncertain)
    doubt = model.disagreement(dream.states)

    def earned(steps: int) -> Float[Tensor, "row"]:
        part = first_steps(dream, steps)
        found = check_returns(objective(part), len(part.actions))
        if risk.disagreement:
            cost = Dream(part.start, part.states, part.actions, doubt[:, :steps], part.continuations)
            found = found - risk.disagreement * discounted_return(cost, discount)
        return found

    horizon = doubt.shape[1]
    if risk.trust is None:
        return earned(horizon)
    promised = torch.stack([earned(steps) for steps in range(1, horizon + 1)], dim=1)
    return trusted_returns(promised, dream.continuations, doubt, risk.trust, problems)


def trusted_returns(
    promised: Float[Tensor, "row horizon"],
    continuations: Float[Tensor, "row horizon"],
    doubt: Float[Tensor, "row horizon"],
    trust: float,
    problems: int,
) -> Float[Tensor, "row"]:
    """Return the returns of the trusted steps of dreams, less a charge for every other step.

    With J_k the return of the first k steps, g_k = J_k - J_{k-1} the gain of step k, d_k the disagreement about it, and
    t the number of steps before the first whose d_k is above `trust`, the score of a dream is

        J_t + s sum_{k>t} (low_k - D max(1, d_k / trust)),

    where low_k is the lowest g_k of the problem's dreams that are still trusted at k, D is the furthest that two of
    them are apart in any one step (1 if they are all alike: any positive number then ranks the dreams in the same way),
    and s the probability that the episode has not ended within the trusted steps. So a step that is not trusted scores
    lower than the same step of any trusted dream, whatever the sign of rewards: a constant added to all rewards adds
    the same to all dreams and does not change their order. (If untrusted steps earned 0 instead, planners would seek
    them where rewards are negative.) The objective sees beginnings of dreams only, so that it takes the value of the
    last trusted state.

    Args:
        promised: J_1 .. J_horizon.
        continuations: of the dreams.
        doubt: disagreement.
        trust: the threshold.
        problems: number of problems, each with the same number of rows.

    Reference: Kidambi et al. 2020, "MOReL: Model-Based Offline Reinforcement Learning", definition 1 (there, what is
    not known is a state without an exit, and its reward a number that the user gives).
    """
    known = torch.cumprod((doubt <= trust).to(promised.dtype), dim=1).bool()  # (a disagreement of NaN is above)
    steps = known.sum(dim=1, keepdim=True)
    zero = torch.zeros_like(promised[:, :1])
    lowest, apart = _known_steps(
        promised.detach() - torch.cat([zero, promised[:, :-1]], dim=1).detach(), known, problems
    )
    charge = lowest - apart * (doubt / trust).clamp(min=1)
    going = torch.cat([torch.ones_like(zero), torch.cumprod(continuations, dim=1)], dim=1).gather(1, steps)
    kept = torch.cat([zero, promised], dim=1).gather(1, steps)[:, 0]
    return kept + (going * charge).masked_fill(known, 0.0).sum(dim=1)


def _known_steps(
    added: Float[Tensor, "row horizon"], known: Bool[Tensor, "row horizon"], problems: int
) -> tuple[Float[Tensor, "row horizon"], Float[Tensor, "row #horizon"]]:
    """Return the lowest gain of each trusted step (0 if none is), and the largest difference of two such gains."""
    rows = len(added) // problems
    by_problem, there = added.unflatten(0, (problems, rows)), (known & added.isfinite()).unflatten(0, (problems, rows))
    lowest = by_problem.masked_fill(~there, torch.inf).amin(dim=1)
    highest = by_problem.masked_fill(~there, -torch.inf).amax(dim=1)
    lowest, highest = (torch.where(there.any(dim=1), x, 0.0) for x in (lowest, highest))
    apart = (highest - lowest).amax(dim=1, keepdim=True)
    apart = torch.where(apart > 0, apart, 1.0)
    return lowest.repeat_interleave(rows, dim=0), apart.repeat_interleave(rows, dim=0)


def aggregate(returns: Float[Tensor, "*batch dream"], risk: RiskConfig) -> Float[Tensor, "*batch"]:
    """Return the score of a candidate from the returns of its dreams: mean - k std, or a quantile (interpolated)."""
    if returns.shape[-1] == 1:
        return returns[..., 0]
    if risk.quantile is None:
        mean = returns.mean(dim=-1)
        return mean - risk.deviations * spread(returns, dim=-1) if risk.deviations else mean
    place = risk.quantile * (returns.shape[-1] - 1)
    below = int(place)
    ordered = returns.sort(dim=-1).values
    if place == below:
        return ordered[..., below]
    return (below + 1 - place) * ordered[..., below] + (place - below) * ordered[..., below + 1]


def spread(x: Float[Tensor, "*shape"], dim: int) -> Float[Tensor, "*rest"]:
    """Return the standard deviation (of the sample: by n - 1) along an axis; where all are equal its gradient is 0."""
    off = x - x.detach().narrow(dim, 0, 1)  # exactly 0 where all are equal, as the distance to a mean need not be
    most = off.detach().abs().amax(dim=dim, keepdim=True)
    same = most == 0
    variance = (off / torch.where(same, 1.0, most)).var(dim=dim)  # (squares of large penalties overflow)
    found: Tensor = torch.where(same.squeeze(dim), 1.0, variance).sqrt() * most.squeeze(dim)
    return found
