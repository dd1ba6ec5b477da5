"""The update of the world model."""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.models.sequential_vae import WorldModel
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.objectives import ELBOConfig, Terms, elbo, elbo_loss
from worldvae.types import Batch, State


class Learner:
    """Fits a world model to batches of experience.

    Args:
        model: the world model.
        objective: weights of the bound's terms.
        optimiser: numbers of the optimiser.
    """

    def __init__(self, model: WorldModel, objective: ELBOConfig, optimiser: OptimiserConfig) -> None:
        self.model, self.objective = model, objective
        self.optimiser = Optimiser(model.parameters(), optimiser)

    def update(
        self, batch: Batch, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> tuple[State, dict[str, Tensor]]:
        """Take one step on a batch, with the step size for this share (0..1) of the run.

        Returns:
            The posterior states of the batch (detached), from which a policy may learn in imagination, and metrics:
            each term of the bound per row in nats, the loss, the gradient's norm, and whether no step was taken
            because it was not finite.
        """
        states, terms, loss = self._loss(self.model, batch, generator)
        norm = self.optimiser.step(loss, progress)
        return states, self._metrics(terms, loss, norm)

    def is_sound(self, batch: Batch) -> bool:
        """Return whether an update from here would have a finite gradient; nothing is changed, and nothing drawn.

        A step of enormous size leaves weights that are finite and of no use: what is next computed with them is not.
        """
        model = copy.deepcopy(self.model)  # which may hold randomness of its own
        _, _, loss = self._loss(model, batch, torch.Generator(model.device).manual_seed(0))
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return all(bool(grad.isfinite().all()) for grad in (loss, *grads) if grad is not None)

    def _loss(
        self, model: WorldModel, batch: Batch, generator: torch.Generator | None
    ) -> tuple[State, Terms, Float[Tensor, ""]]:
        """Return the posterior states of a batch (detached), the terms of the bound and the loss made of them."""
        observed = model.observe(batch, generator=generator)
        terms = elbo(model, batch, observed, self.objective.decode_steps, generator)
        return observed.posterior.detach(), terms, elbo_loss(terms, self.objective, model.kl_is_estimated)

    @staticmethod
    @torch.no_grad()
    def _metrics(terms: Terms, loss: Tensor, norm: Tensor) -> dict[str, Tensor]:
        metrics = {
            "model/loss": loss.detach(),
            "model/bound": terms.bound.mean(),
            "model/reward_nats": -terms.reward.mean(),
            "model/continuation_nats": -terms.continuation.mean(),
            "model/kl": terms.kl_dynamics.mean(),
            "model/grad_norm": norm,
            "model/skipped": (~norm.isfinite()).float(),
        }
        if terms.pixels is not None:
            metrics["model/pixel_nats"] = -terms.pixels.mean()
        if terms.vector is not None:
            metrics["model/vector_nats"] = -terms.vector.mean()
        return metrics
