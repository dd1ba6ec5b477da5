"""Planning by latent roll-outs: one core that owns bounds, discrete parts and warm start, and the planners."""

from worldvae.planning.cem import CEMConfig, cem
from worldvae.planning.core import (
    Objective,
    Plan,
    Proposal,
    SearchConfig,
    Simulator,
    Value,
    discounted_return,
    search,
    uniform_actions,
)
from worldvae.planning.mppi import MPPIConfig, mppi

__all__ = [
    "CEMConfig",
    "MPPIConfig",
    "Objective",
    "Plan",
    "Proposal",
    "SearchConfig",
    "Simulator",
    "Value",
    "cem",
    "discounted_return",
    "mppi",
    "search",
    "uniform_actions",
]
