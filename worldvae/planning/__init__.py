"""Planning by imagined roll-outs: one core that owns bounds, discrete parts, warm start and noise, and the planners."""

from worldvae.planning.cem import CEMConfig
from worldvae.planning.core import Plan, PlanConfig, SearchConfig
from worldvae.planning.discrete import discrete_actions
from worldvae.planning.draws import Draws
from worldvae.planning.geodesic import Landmarks, geodesic_distance
from worldvae.planning.goal_objectives import state_distance
from worldvae.planning.gradient import GradientConfig
from worldvae.planning.guided import GuidedConfig
from worldvae.planning.icem import ICEMConfig
from worldvae.planning.mppi import MPPIConfig
from worldvae.planning.plan import PLANNERS, plan, planner_name, register
from worldvae.planning.proposal import Proposal, coloured, uniform_actions
from worldvae.planning.risk import RiskConfig
from worldvae.planning.shooting import ShootingConfig
from worldvae.planning.simulator import (
    Guide,
    GuideWithLogits,
    Objective,
    Plural,
    Simulator,
    Stochastic,
    Uncertain,
    Value,
    discounted_return,
    first_steps,
    last_state_only,
)
from worldvae.planning.simulator_ensemble import SimulatorEnsemble
from worldvae.planning.tree import TreeConfig

__all__ = [
    "PLANNERS",
    "CEMConfig",
    "Draws",
    "GradientConfig",
    "Guide",
    "GuideWithLogits",
    "GuidedConfig",
    "ICEMConfig",
    "Landmarks",
    "MPPIConfig",
    "Objective",
    "Plan",
    "PlanConfig",
    "Plural",
    "Proposal",
    "RiskConfig",
    "SearchConfig",
    "ShootingConfig",
    "Simulator",
    "SimulatorEnsemble",
    "Stochastic",
    "TreeConfig",
    "Uncertain",
    "Value",
    "coloured",
    "discounted_return",
    "discrete_actions",
    "first_steps",
    "geodesic_distance",
    "last_state_only",
    "plan",
    "planner_name",
    "register",
    "state_distance",
    "uniform_actions",
]
