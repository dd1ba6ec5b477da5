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
        model: the world model, whose `loss` is minimised.
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
            the loss, the model's own metrics, the gradient's norm, and whether the step was skipped because the
            gradient was not finite.
        """
        loss = self.model.loss(batch, generator)
        norm = self.optimiser.step(loss.value, progress)
        self.model.updated()
        skipped = (~norm.isfinite()).float()
        metrics = {"loss": loss.value.detach(), **loss.metrics, "grad_norm": norm, "skipped": skipped}
        return loss.states, {f"model/{name}": value for name, value in metrics.items()}

    def is_sound(self, batch: Batch) -> bool:
        """Return whether an update from here would have a finite gradient; nothing is changed, and nothing drawn.

        After an enormous step the weights may be finite and useless: then the next loss is not finite.
        """
        model = copy.deepcopy(self.model)  # (its loss may advance a generator of the model's own)
        loss = model.loss(batch, torch.Generator(model.device).manual_seed(0)).value
        grads = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
        return all(bool(grad.isfinite().all()) for grad in (loss, *grads) if grad is not None)
