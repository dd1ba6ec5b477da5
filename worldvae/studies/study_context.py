"""What a measurement of the study may use."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from worldvae.models.world_model import WorldModel
from worldvae.runs.settings import RunConfig
from worldvae.studies.recorded import Recorded
from worldvae.studies.study_data import whole_episodes
from worldvae.studies.study_rows import Row
from worldvae.studies.study_tasks import Budget, Task


class NotApplicableError(Exception):
    """A block does not exist for a row; the message says why."""


@dataclass(frozen=True)
class MeasureContext:
    """What a measure may use.

    Attributes:
        task: the task.
        budget: what is spent on measurements.
        row: the row.
        config: settings of the task and of the row.
        recorded: recorded episodes; those of `held_out("test")` no choice has seen.
        data: folder of the recorded episodes, with the task's probe.
        seed: of the cell.
        folder: for files, such as films.
        model: the trained model; None in rows without one.
        planner: the model with which the row plans: the same weights, but perhaps fewer steps of denoising.
    """

    task: Task
    budget: Budget
    row: Row
    config: RunConfig
    recorded: Recorded
    data: Path
    seed: int
    folder: Path
    model: WorldModel | None = None
    planner: WorldModel | None = None

    def check_affordable(self, model: WorldModel, dreams: int, steps: int, what: str) -> None:
        """Refuse a measurement that would take too long, after timing a single imagined step.

        Args:
            model: that imagines.
            dreams: number of dreams side by side.
            steps: steps of each, one after the other, in all of the measurement.
            what: is measured, in words.

        Raises:
            NotApplicableError: If it would take longer than the budget allows.
        """
        rows = whole_episodes(self.recorded, "test")[0][:1, :1].to(model.device)
        generator = torch.Generator(model.device).manual_seed(self.seed)
        with torch.no_grad():
            start = model.observe(rows, mode=True).posterior[:, -1]
            start = start[torch.zeros(dreams, dtype=torch.int64, device=model.device)]
            action = torch.zeros(dreams, 1, model.action_layout.size, device=model.device)
            began = time.perf_counter()
            model.imagine(start, action, generator=generator, last_only=True)
            seconds = time.perf_counter() - began
        if seconds * steps > self.budget.longest:
            raise NotApplicableError(
                f"{what} would take about {seconds * steps / 60:.0f} minutes: "
                f"an imagined step of {dreams} dreams takes {1e3 * seconds:.0f} ms"
            )

    @property
    def learned(self) -> WorldModel:
        """The trained model.

        Raises:
            NotApplicableError: If the row has none.
        """
        if self.model is None:
            raise NotApplicableError("there is no model")
        return self.model
