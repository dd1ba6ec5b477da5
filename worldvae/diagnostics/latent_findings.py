"""Findings about z, of a model with p(z | h) and q(z | h, e): which units are used, and are they those of the prior?"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from worldvae.diagnostics.collapse import Collapse, collapse, kl_per_dimension
from worldvae.diagnostics.hole import log_ratio, mmd
from worldvae.memory import LatentState
from worldvae.models.probabilistic import Inferred, Probabilistic
from worldvae.models.world_model import WorldModel


@dataclass(frozen=True)
class LatentFindings:
    """Findings about z, in nats per row; all are None for a model that is not `Probabilistic`.

    Attributes:
        prior_kind: kind of number that the prior's log-density is.
        collapse: whether z is used at all.
        kl_per_unit: KL of every unit of z, largest first; None if the posterior or the prior does not factorise.
        kl_over_time: KL in every row of an episode, averaged over episodes: the surprise.
        surprise: KL in every row of each episode, `[episode, row]`, NaN after its end.
        hole: MMD^2 and log-ratio (kind: estimate) of inferred and imagined z, regardless of memories.
        conditional_hole: log-ratio of the inferred and the imagined next z, each together with the memory.
    """

    prior_kind: str | None
    collapse: Collapse | None
    kl_per_unit: list[float] | None
    kl_over_time: list[float] | None
    surprise: list[list[float]] | None
    hole: dict[str, float] | None
    conditional_hole: float | None


NO_LATENTS = LatentFindings(None, None, None, None, None, None, None)
"""The findings about z of a model that has none."""


def why_no_latents(model: WorldModel) -> dict[str, str]:
    """Return, for each finding that asks p(z | h) or q(z | h, e), why a model that is not `Probabilistic` lacks it."""
    one = f"a {type(model).__name__}"
    no_kl = f"{one} has no q(z | h, e) and no p(z | h), and so no KL"
    no_prior = f"{one} has no p(z | h) whose draws could be compared with inferred z"
    return {
        "prior_kind": no_prior,
        "collapse": f"{one} has no q(z | h, e) that could collapse onto p(z | h): see the spread of its features",
        "kl_per_unit": no_kl,
        "kl_over_time": no_kl,
        "surprise": no_kl,
        "hole": no_prior,
        "conditional_hole": no_prior,
        "gaps": f"{one} has no lower bound on log p(x) of its rows",
        "inference": f"{one} has no q(z | h, e) that could be refined",
    }


@torch.no_grad()
def latent_findings(
    model: Probabilistic,
    observed: Inferred,
    valid: Bool[Tensor, "episode time"],
    generator: torch.Generator,
    draws: torch.Generator,
) -> LatentFindings:
    """Measure the use of z, and the distance of inferred z from imagined ones.

    Args:
        model: the world model.
        observed: what it infers in every row.
        valid: which rows exist.
        generator: source of choices of rows, on the CPU.
        draws: source of imagined z, on the model's device.
    """
    states = observed.posterior
    q = model.posterior.distribution(observed.parameters)
    kl = model.prior.kl(q, states.latent, states.memory)
    memory, inferred = states.memory[valid], states.latent[valid]
    imagined = model.prior.step(memory, model.prior.noise(tuple(memory.shape[:1]), model.device, draws))
    pick = torch.randperm(len(memory), generator=generator)[:2000]
    memory, some, others = memory[pick], inferred[pick], imagined[pick]
    with torch.enable_grad():
        hole = {"mmd": float(mmd(some[:500], others[:500])), "log_ratio": log_ratio(some, others, generator)}
        joint = [torch.cat([memory, z], dim=-1) for z in (some, others)]
        conditional = log_ratio(joint[0], joint[1], generator)
    surprise = torch.where(valid, kl, torch.nan)
    return LatentFindings(
        model.prior.kind,
        collapse(_means(q, states)[valid], kl[valid]),
        _per_unit(model, states, q, valid),
        surprise.nanmean(0).tolist(),
        surprise.tolist(),
        hole,
        conditional,
    )


def _means(q: Any, states: LatentState) -> Tensor:
    try:
        out: Tensor = q.mean
    except NotImplementedError:  # flows do not compute their mean
        return states.latent
    return out


def _per_unit(model: Probabilistic, states: LatentState, q: Any, valid: Tensor) -> list[float] | None:
    try:
        p = model.prior(states.memory)
    except NotImplementedError:  # a prior without a distribution object, such as an energy
        return None
    found = kl_per_dimension(q, p)
    return None if found is None else found[valid].mean(0).sort(descending=True).values.tolist()
