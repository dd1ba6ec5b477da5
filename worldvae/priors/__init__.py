"""Priors p(z | h): conditional distributions that a world model rolls forward."""

from worldvae.priors.energy import EnergyPrior
from worldvae.priors.ensemble import Ensemble
from worldvae.priors.flow import FlowPrior
from worldvae.priors.flow_matching import FlowMatchingPrior
from worldvae.priors.hierarchical import HierarchicalPrior
from worldvae.priors.mixture import MixturePrior
from worldvae.priors.parametric import ParametricPrior
from worldvae.priors.prior import Prior, frozen
from worldvae.priors.standard import StandardPrior
from worldvae.priors.two_stage import TwoStagePrior
from worldvae.priors.vamp import VampPrior

__all__ = [
    "EnergyPrior",
    "Ensemble",
    "FlowMatchingPrior",
    "FlowPrior",
    "HierarchicalPrior",
    "MixturePrior",
    "ParametricPrior",
    "Prior",
    "StandardPrior",
    "TwoStagePrior",
    "VampPrior",
    "frozen",
]
