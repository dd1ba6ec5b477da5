"""Planning by latent roll-outs: one core that owns bounds, discrete parts and warm start, and the planners."""

from worldvae.planning.cem import CEMConfig, cem
from worldvae.planning.core import Objective, Plan, Proposal, Simulator, discounted_return, uniform_actions

__all__ = [
    "CEMConfig",
    "Objective",
    "Plan",
    "Proposal",
    "Simulator",
    "cem",
    "discounted_return",
    "uniform_actions",
]
