"""Films of plans: the dreams of an agent's plans at some decisions, beside the frames that followed."""

import torch

from worldvae.agents import ModelAgent
from worldvae.envs import EnvConfig
from worldvae.errors import UserError
from worldvae.evaluation.play import Episodes, play
from worldvae.films.open_loop import OpenLoop
from worldvae.models.world_model import WorldModel
from worldvae.types import Batch, State

CONTEXT = 3
"""Rows before a decision that a film shows."""


def film_plans(agent: ModelAgent, env: EnvConfig, decisions: int = 4, seed: int = 0) -> OpenLoop:
    """Play one held-out episode and compare some of the agent's plans with the rows that followed.

    Args:
        agent: one that plans.
        env: the environment.
        decisions: number of decisions shown, evenly spread over the episode except its end, where few rows follow.
        seed: of the episode and of the agent's randomness.

    Raises:
        UserError: If the agent does not plan, the episode is over at once, or the environment fails.
    """
    played = play(agent, env, 1, seed, keep_rows=True)
    if not played.carries or played.carries[0].plan is None:
        raise UserError(f"there is nothing to film of {agent.name}: it acts without a plan.")
    first, last = CONTEXT - 1, int(played.lengths[0]) - 1
    if last < first:
        raise UserError(f"the episode of seed {seed} was over after {last + 1} decisions: choose another --seed.")
    last = max(first, last - played.carries[0].plan.actions.shape[1])
    at = torch.linspace(first, last, min(decisions, last - first + 1)).round().long().tolist()
    return plans_and_outcomes(agent.model, played, at)


@torch.no_grad()
def plans_and_outcomes(model: WorldModel, played: Episodes, at: list[int]) -> OpenLoop:
    """Return, for each decision in `at`, the plan that was made there and the rows that followed.

    The model imagines the plan from the state of the decision, along the mode of the prior. The agent decided anew at
    every step, so the two may differ although the model is right.

    Args:
        model: the world model that was planned on.
        played: one episode, with its rows and carries.
        at: decisions, from row `CONTEXT - 1` on.
    """
    assert played.rows is not None and played.carries is not None
    carries, length = played.carries, int(played.lengths[0])
    plans = [carries[t].plan for t in at]
    actions = torch.cat([plan.actions for plan in plans if plan is not None])
    horizon = actions.shape[1]
    believed = [carry.state for carry in carries if carry.state is not None]
    dreamt = model.imagine(State.cat([believed[t] for t in at], dim=0), actions, mode=True)
    seen = State.stack([State.cat([believed[t - k] for t in at], dim=0) for k in reversed(range(CONTEXT))], dim=1)
    rows = Batch.cat([_window(played.rows, t - CONTEXT + 1, CONTEXT + horizon) for t in at], dim=0).to(model.device)
    states = State.cat([seen, dreamt.states], dim=1)
    truth, dream = (shown.cpu() for shown in model.in_shown_units(states, rows.observation))
    valid = torch.tensor(at).unsqueeze(1) + torch.arange(1, horizon + 1) <= length
    pixels = rows.observation.pixels is not None
    return OpenLoop(CONTEXT, truth, dream, rows.reward[:, CONTEXT:].cpu(), dreamt.rewards.cpu(), valid, pixels)


def _window(rows: Batch, start: int, length: int) -> Batch:
    """Return rows of the only episode; after its end, repeat the last one."""
    found = rows[:, start : start + length]
    return Batch.cat([found, *[found[:, -1:]] * (length - found.reward.shape[1])], dim=1)
