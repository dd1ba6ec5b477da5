"""The update of the world model."""

import copy

import torch
from torch import Tensor

from worldvae.models.world_model import WorldModel
from worldvae.networks.optimiser import Optimiser, OptimiserConfig
from worldvae.types import Batch, State


class Learner:
    """Fits a world model to batches of experience.

    Args:
        model: the world model, which says what it pays for a batch.
        optimiser: numbers of the optimiser.
    """

    def __init__(self, model: WorldModel, optimiser: OptimiserConfig) -> None:
        self.model = model
        self.optimiser = Optimiser(model.parameters(), optimiser)

    def update(
        self, batch: Batch, generator: torch.Generator | None = None, progress: float = 0.0
    ) -> tuple[State, dict[str, Tensor]]:
        """Take one step on a batch, with the step size for this share (0..1) of the run.

        Returns:
            The posterior states of the batch (detached), from which a policy may learn in imagination, and metrics:
            the loss, what the model says of it, the gradient's norm, and whether no step was taken because it was not
            finite.
        """
        loss = self.model.loss(batch, generator)
        norm = self.optimiser.step(loss.value, progress)
        self.model.updated()
        skipped = (~norm.isfinite()).float()
        metrics = {"loss": loss.value.detach(), **loss.metrics, "grad_norm": norm, "skipped": skipped}
        return loss.states, {f"model/{name}": value for name, value in metrics.items()}

    def is_sound(self, batch: Batch) -> bool:
        """Return whether an update from here would have a finite gradient; nothing is changed, and nothing drawn.

        A step of enormous size leaves weights that are finite and of no use: what is next computed with them is not.
        """
        model = copy.deepcopy(self.model)  # which may hold randomness of its own
        loss = model.loss(batch, torch.Generator(model.device).manual_seed(0)).value
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return all(bool(grad.isfinite().all()) for grad in (loss, *grads) if grad is not None)
