"""Likelihoods p(x | h, z): a network, and the distribution whose parameters it predicts."""

from worldvae.likelihoods.bernoulli import BernoulliImageLikelihood, BernoulliLikelihood
from worldvae.likelihoods.categorical import CategoricalLevels, CategoricalLikelihood
from worldvae.likelihoods.diffusion import NOISE_FLOOR, DiffusionLikelihood, Rendering
from worldvae.likelihoods.gaussian import GaussianLikelihood
from worldvae.likelihoods.heteroscedastic import HeteroscedasticLikelihood
from worldvae.likelihoods.logistic import DiscretisedLogistic, DiscretisedLogisticLikelihood
from worldvae.likelihoods.scalar import ScalarGaussianLikelihood
from worldvae.likelihoods.two_hot import TwoHotLikelihood

__all__ = [
    "NOISE_FLOOR",
    "BernoulliImageLikelihood",
    "BernoulliLikelihood",
    "CategoricalLevels",
    "CategoricalLikelihood",
    "DiffusionLikelihood",
    "DiscretisedLogistic",
    "DiscretisedLogisticLikelihood",
    "GaussianLikelihood",
    "HeteroscedasticLikelihood",
    "Rendering",
    "ScalarGaussianLikelihood",
    "TwoHotLikelihood",
]
