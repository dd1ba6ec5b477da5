"""Objectives: un-reduced terms in nats."""

from worldvae.objectives.elbo import ELBOConfig, Terms, elbo_loss
from worldvae.objectives.importance import Filtering, dreg, fivo, iwae, stl, systematic
from worldvae.objectives.returns import lambda_returns

__all__ = [
    "ELBOConfig",
    "Filtering",
    "Terms",
    "dreg",
    "elbo_loss",
    "fivo",
    "iwae",
    "lambda_returns",
    "stl",
    "systematic",
]
