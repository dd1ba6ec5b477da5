"""The state of a training: at its beginning, in a checkpoint, and after a change of settings."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from worldvae.networks.optimiser import risen_again
from worldvae.runs.settings import PLANNER_SECTIONS, RunConfig
from worldvae.training.collector import without_unfinished


@dataclass(frozen=True)
class TrainState:
    """The state of a training. With the weights (`Run.weights`) and the rows of the replay it goes on exactly.

    Attributes:
        credit: updates that are due: each decision adds `train.ratio`, and each update takes 1.
        updates: updates made.
        calibrated: whether the model knows the units of its data, which it learns before the first update.
        noise: state of the generator on the run's device, which acting and learning draw from.
        data: state of the generator that picks rows of the replay.
        schedule: the settings that the step sizes depended on.
        acting: the settings of the agent that collected.
        optimiser: `state_dict` of the world model's optimiser. This and the three below are None at the beginning,
            where each of these objects is left as its constructor makes it.
        behaviour: `state_dict` of the behaviour learning, and its `kind`.
        collector: `state_dict` of the collector.
        replay: `state_dict` of the replay.
    """

    credit: float
    updates: int
    calibrated: bool
    noise: Tensor
    data: Tensor
    schedule: dict[str, Any]
    acting: dict[str, Any]
    optimiser: dict[str, Any] | None = None
    behaviour: dict[str, Any] | None = None
    collector: dict[str, Any] | None = None
    replay: dict[str, Any] | None = None

    @classmethod
    def zero(cls, config: RunConfig, device: torch.device) -> "TrainState":
        """Return the state in which a new run begins: the updates of `train.pretrain` are due."""
        return cls(
            credit=float(config.train.pretrain),
            updates=0,
            calibrated=False,
            noise=torch.Generator(device).manual_seed(config.seed).get_state(),
            data=torch.Generator().manual_seed(config.seed).get_state(),
            schedule=schedule(config),
            acting=acting(config),
        )

    @classmethod
    def from_checkpoint(cls, content: dict[str, Any]) -> "TrainState":
        """Return the state in the content of a checkpoint, which also holds the weights."""
        return cls(**{field.name: content[field.name] for field in fields(cls)})

    def to_checkpoint(self) -> dict[str, Any]:
        """Return what `from_checkpoint` reads, as a tree for `checkpoint.save`."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def under(self, config: RunConfig) -> "TrainState":
        """Return the state in which the training goes on with the settings of `config`.

        If the schedule of the step sizes has changed, they rise to the new one over a warm-up. If another agent
        collects, the unfinished episodes end here, because it cannot use the memory of the agent before it.
        """
        state = self
        if self.schedule != schedule(config):
            state = replace(
                state,
                optimiser=self.optimiser and risen_again(self.optimiser),
                behaviour=self.behaviour and _risen_again(self.behaviour),
            )
        if self.acting != acting(config):
            state = replace(state, collector=self.collector and without_unfinished(self.collector))
        return replace(state, schedule=schedule(config), acting=acting(config))


def schedule(config: RunConfig) -> dict[str, Any]:
    """Return the settings on which the step sizes at a moment of the run depend."""
    return {
        "steps": config.train.steps,
        "updates": config.train.updates,
        "optimiser": asdict(config.optimiser),
        "actor_critic": asdict(config.actor_critic.optimiser),
    }


def acting(config: RunConfig) -> dict[str, Any]:
    """Return the settings of the agent that collects, which determine what it remembers of an episode."""
    explore = config.train.explore
    own = asdict(getattr(config, explore)) if explore in PLANNER_SECTIONS else {}
    return {"explore": explore, "persistence": config.train.persistence, "planner": own}


def _risen_again(behaviour: dict[str, Any]) -> dict[str, Any]:
    """Return a state of behaviour learning in which the step sizes rise to another schedule."""
    if "optimisers" not in behaviour:
        return behaviour
    return behaviour | {"optimisers": {name: risen_again(own) for name, own in behaviour["optimisers"].items()}}
