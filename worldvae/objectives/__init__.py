"""Objectives: un-reduced terms in nats."""

from worldvae.objectives.elbo import ELBOConfig, Terms, elbo, elbo_loss
from worldvae.objectives.returns import lambda_returns

__all__ = ["ELBOConfig", "Terms", "elbo", "elbo_loss", "lambda_returns"]
