"""Likelihoods p(x | h, z): a trunk and what its output means."""

from worldvae.likelihoods.bernoulli import BernoulliLikelihood
from worldvae.likelihoods.gaussian import GaussianLikelihood
from worldvae.likelihoods.two_hot import TwoHotLikelihood

__all__ = ["BernoulliLikelihood", "GaussianLikelihood", "TwoHotLikelihood"]
