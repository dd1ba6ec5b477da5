"""Agents: all that choose actions, on the same trained world model."""

if __name__ != "worldvae.agents":
    raise ImportError(f"this folder was imported as {__name__!r}: import it as 'worldvae.agents'")

from worldvae.agents.actor_critic import ActorAgent, ActorCritic, ActorCriticConfig
from worldvae.agents.agent import Agent, Carry, ModelAgent
from worldvae.agents.goal import (
    GOALS,
    GoalAgent,
    OracleAgent,
    goal_probability,
    goal_state,
    landmark_distance,
    latent_distance,
    latent_landmarks,
)
from worldvae.agents.planner import PlannerAgent
from worldvae.agents.policy import ActionDistribution, Actor
from worldvae.agents.random import RandomAgent

__all__ = [
    "GOALS",
    "ActionDistribution",
    "Actor",
    "ActorAgent",
    "ActorCritic",
    "ActorCriticConfig",
    "Agent",
    "Carry",
    "GoalAgent",
    "ModelAgent",
    "OracleAgent",
    "PlannerAgent",
    "RandomAgent",
    "goal_probability",
    "goal_state",
    "landmark_distance",
    "latent_distance",
    "latent_landmarks",
]
