"""Priors p(z | h): the conditional distributions that a world model rolls forward."""

from worldvae.priors.energy import EnergyPrior
from worldvae.priors.ensemble import Ensemble
from worldvae.priors.flow import FlowConfig, FlowPrior
from worldvae.priors.flow_matching import FlowMatchingConfig, FlowMatchingPrior
from worldvae.priors.hierarchical import HierarchicalConfig, HierarchicalPrior
from worldvae.priors.mixture import MixtureConfig, MixturePrior
from worldvae.priors.parametric import ParametricPrior
from worldvae.priors.prior import Prior
from worldvae.priors.shortcut import ShortcutConfig, ShortcutPrior
from worldvae.priors.standard import StandardPrior
from worldvae.priors.two_stage import TwoStagePrior
from worldvae.priors.vamp import VampConfig, VampPrior

__all__ = [
    "EnergyPrior",
    "Ensemble",
    "FlowConfig",
    "FlowMatchingConfig",
    "FlowMatchingPrior",
    "FlowPrior",
    "HierarchicalConfig",
    "HierarchicalPrior",
    "MixtureConfig",
    "MixturePrior",
    "ParametricPrior",
    "Prior",
    "ShortcutConfig",
    "ShortcutPrior",
    "StandardPrior",
    "TwoStagePrior",
    "VampConfig",
    "VampPrior",
]
