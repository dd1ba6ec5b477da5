"""Training on recorded episodes for so many seconds or so many operations, with checkpoints."""

import copy
import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from worldvae.bench.timing import flops
from worldvae.envs import EnvPool
from worldvae.models.kinds import new_model
from worldvae.models.world_model import WorldModel
from worldvae.runs import checkpoint
from worldvae.runs.settings import RunConfig, pick_device, settled
from worldvae.studies.recorded import Recorded
from worldvae.training.learner import Learner
from worldvae.types import ActionLayout, ObservationLayout

SAVE_SECONDS = 30.0
"""Seconds of training between two checkpoints, and between two lines of progress."""


@dataclass(frozen=True)
class Spent:
    """What a training has used.

    Attributes:
        updates: steps of the optimiser.
        seconds: wall time of these steps and of drawing their batches.
        flops_per_update: floating-point operations of matrix products and convolutions in a step; None if the counter
            cannot count them.
        share: finished share of the budget.
        loss: mean loss of the last 50 steps.
        skipped: steps that were left out because a gradient was not finite.
    """

    updates: int
    seconds: float
    flops_per_update: int | None
    share: float
    loss: float
    skipped: int

    def as_json(self) -> dict[str, Any]:
        """Return plain numbers."""
        return asdict(self)


def layouts_of(config: RunConfig) -> tuple[ObservationLayout, ActionLayout]:
    """Return the shapes of what the environment of a task shows and takes."""
    with EnvPool([config.env]) as pool:
        return pool.observation_layout, pool.action_layout


def build(
    config: RunConfig, layouts: tuple[ObservationLayout, ActionLayout], seed: int
) -> tuple[RunConfig, WorldModel]:
    """Return an untrained model with the weights of a seed, and its settings with no "auto" left.

    Raises:
        ValueError: If settings do not fit together.
    """
    device = pick_device(config.device)
    config = settled(config, layouts[0], device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = new_model(*layouts, config.model, config.objective)
    assert isinstance(model, torch.nn.Module)
    return config, model.to(device)


class OfflineTraining:
    """Fits a model to recorded episodes; step sizes fall over the budget, as over the steps of a run.

    Args:
        model: the untrained model.
        config: settings of the optimiser and of batches.
        recorded: the episodes.
        folder: of its checkpoints; a training of the same settings on the same episodes that lies there goes on.
        seed: of batches and noise.
        seconds: budget in seconds, or what a budget in operations may take at most.
        operations: budget in floating-point operations, if that is the budget.

    Raises:
        ValueError: If the budget is in operations, and those of an update cannot be counted.
    """

    def __init__(
        self,
        model: WorldModel,
        config: RunConfig,
        recorded: Recorded,
        folder: Path,
        seed: int,
        seconds: float,
        operations: float | None = None,
    ) -> None:
        self.model, self.config, self.recorded, self.folder = model, config, recorded, folder
        self.limit, self.operations = seconds, operations
        self.noise = torch.Generator(model.device).manual_seed(seed)
        self.data = torch.Generator().manual_seed(seed)
        self.learner = Learner(model, config.optimiser)
        self.updates, self.seconds, self.losses = 0, 0.0, list[float]()
        self.flops_per_update: int | None = None
        self.what = hashlib.sha256(f"{config} {recorded.digest} {seed}".encode()).hexdigest()
        found = checkpoint.latest(folder)
        kept = None if found is None else checkpoint.load(found)
        if kept is None or kept["what"] != self.what:
            shutil.rmtree(folder, ignore_errors=True)
            self._begin()
        else:
            self._load(kept)
        if operations is not None and self.flops_per_update is None:
            raise ValueError("the operations of an update cannot be counted, and the budget is a number of them")

    def _begin(self) -> None:
        rows = self.recorded.sample(64, self.config.train.length, self.data).to(self.model.device)
        self.model.calibrate(rows.observation, rows.reward)
        batch = self.recorded.sample(self.config.train.batch, self.config.train.length, self.data).to(self.model.device)
        twin = Learner(copy.deepcopy(self.model), self.config.optimiser)  # counting must not change what is trained
        noise = torch.Generator(self.model.device).manual_seed(0)
        try:
            self.flops_per_update = flops(lambda: twin.update(batch, noise)) or None
        except Exception:  # the counter of torch 2.13 fails within some second derivatives
            self.flops_per_update = None

    def _load(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.learner.optimiser.load_state_dict(state["optimiser"])
        self.noise.set_state(state["noise"])
        self.data.set_state(state["data"])
        self.updates, self.seconds, self.losses = state["updates"], state["seconds"], state["losses"]
        self.flops_per_update = state["flops_per_update"]

    def save(self) -> None:
        """Write a checkpoint from which the same training goes on.

        Raises:
            UserError: If the disk is full or not writable.
        """
        state = {
            "what": self.what,
            "model": self.model.state_dict(),
            "optimiser": self.learner.optimiser.state_dict(),
            "noise": self.noise.get_state(),
            "data": self.data.get_state(),
            "updates": self.updates,
            "seconds": self.seconds,
            "losses": self.losses,
            "flops_per_update": self.flops_per_update,
        }
        checkpoint.save(self.folder, self.updates, state, keep=1)

    @property
    def share(self) -> float:
        """Finished share of the budget, for the step size."""
        if self.operations is None or self.flops_per_update is None:
            return min(1.0, self.seconds / self.limit)
        return min(1.0, self.updates * self.flops_per_update / self.operations)

    @property
    def finished(self) -> bool:
        """Whether the budget is used up."""
        return self.share >= 1 or self.seconds >= self.limit

    def run(self, stopped: Callable[[], bool] = lambda: False, tell: Callable[[str], object] = lambda _: None) -> bool:
        """Train for the rest of the budget; return whether it was used up, and not interrupted.

        Args:
            stopped: asked after every update; when it says yes, the training is saved and ends.
            tell: called with a line of progress now and then.

        Raises:
            Diverged: If gradients are no longer finite.
            ValueError: If weights are not.
        """
        train, saved = self.config.train, self.seconds
        while not self.finished:
            if stopped():
                self.save()
                return False
            start = time.perf_counter()
            batch = self.recorded.sample(train.batch, train.length, self.data).to(self.model.device)
            _, metrics = self.learner.update(batch, self.noise, self.share)
            self.losses = [*self.losses[-49:], float(metrics["model/loss"])]
            self.updates += 1
            self.seconds += time.perf_counter() - start
            if self.seconds - saved > SAVE_SECONDS:
                saved = self.seconds
                self.save()
                tell(f"{self.updates} updates in {self.seconds:.0f} s, {self.share:.0%} of the budget")
        if not all(bool(value.isfinite().all()) for value in self.model.parameters()):
            raise ValueError(f"weights are no longer finite after {self.updates} updates")
        self.save()
        return True

    @property
    def spent(self) -> Spent:
        """What has been used so far."""
        loss = sum(self.losses) / len(self.losses) if self.losses else float("nan")
        return Spent(
            self.updates, self.seconds, self.flops_per_update, self.share, loss, self.learner.optimiser.skipped
        )
