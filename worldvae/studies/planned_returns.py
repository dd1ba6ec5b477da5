"""Returns of whole held-out episodes that an agent plans through, and what its decisions cost."""

from dataclasses import dataclass

from worldvae.agents import Agent, PlannerAgent
from worldvae.envs import EnvConfig
from worldvae.evaluation.play import in_parts
from worldvae.models.world_model import WorldModel
from worldvae.planning import ICEMConfig


@dataclass(frozen=True)
class PlannedReturns:
    """Episodes from held-out starts, the same for every agent with the same seed.

    Attributes:
        returns: of every episode.
        lengths: decisions of every episode.
        ms_per_decision: milliseconds that the agent took for a decision. Of episodes side by side it is the share of
            one of them; a planner with a time limit plays its episodes one by one.
        candidates: action sequences imagined for a decision; 0 for an agent that does not plan.
        model_steps_per_second: imagined steps in the agent's own time.
    """

    returns: list[float]
    lengths: list[int]
    ms_per_decision: float
    candidates: float
    model_steps_per_second: float


def icem_agent(
    model: WorldModel, candidates: int, iterations: int, horizon: int, discount: float = 0.99, max_ms: float = 0.0
) -> PlannerAgent:
    """Return the agent that plans with iCEM in a model, without a critic: an eighth of the candidates are elites.

    All iterations have the same number of candidates. With a time limit (`max_ms`, milliseconds per decision) further
    iterations follow until it is over, instead of `iterations`.
    """
    elites, rounds = max(1, candidates // 8), 1000 if max_ms else iterations
    config = ICEMConfig(
        horizon=horizon,
        candidates=candidates,
        elites=elites,
        iterations=rounds,
        decay=1.0,
        discount=discount,
        max_ms=float(max_ms),
    )
    return PlannerAgent(model, config)


def planned_returns(agent: Agent, env: EnvConfig, episodes: int, seed: int = 0) -> PlannedReturns:
    """Play episodes with an agent.

    Args:
        agent: any; of a `PlannerAgent` candidates are counted.
        env: the environment.
        episodes: how many.
        seed: of the episodes, whose starts no training has seen, and of the agent's draws.

    Raises:
        UserError: If the environment fails, or the seed is negative.
    """
    parts = in_parts(agent, env, episodes, seed)
    lengths = [int(length) for part in parts for length in part.lengths]
    decisions, steps = max(1, sum(lengths)), sum(part.model_steps for part in parts)
    # (The row after the last decision is looked at, too, but decides nothing.)
    seconds = sum(sum(part.seconds[: int(part.lengths.max())]) for part in parts)
    horizon = agent.config.horizon if isinstance(agent, PlannerAgent) else 1
    return PlannedReturns(
        [value for part in parts for value in part.returns.tolist()],
        lengths,
        1e3 * seconds / decisions,
        steps / decisions / horizon,
        steps / seconds if seconds else 0.0,
    )
