"""What a measurement of the study may use."""

from dataclasses import dataclass
from pathlib import Path

from worldvae.models.world_model import WorldModel
from worldvae.runs.settings import RunConfig
from worldvae.studies.recorded import Recorded
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

    @property
    def learned(self) -> WorldModel:
        """The trained model.

        Raises:
            NotApplicableError: If the row has none.
        """
        if self.model is None:
            raise NotApplicableError("there is no model")
        return self.model
