"""The settings of a run, and the choices of "auto" that depend on the machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium
import torch

from worldvae.agents import ActorCriticConfig
from worldvae.config import config_names, find_config, load_config, setting
from worldvae.envs import EnvConfig
from worldvae.errors import UserError, near_miss
from worldvae.models.kinds import check_kind
from worldvae.models.parts import WorldModelConfig, choose_precision, family_defaults
from worldvae.networks.optimiser import OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.planning import (
    CEMConfig,
    GradientConfig,
    GuidedConfig,
    ICEMConfig,
    MPPIConfig,
    RiskConfig,
    TreeConfig,
)
from worldvae.seeds import check_seed
from worldvae.system.cores import usable_cores
from worldvae.types import ObservationLayout

PLANNER_SECTIONS = ("cem", "icem", "mppi", "gradient", "guided", "tree")
"""The names in `worldvae.planning.PLANNERS` that have a section in the config of a run."""

AGENTS = ("actor", *PLANNER_SECTIONS, "random")


@dataclass(frozen=True)
class TrainConfig:
    """How experience and updates alternate.

    Attributes:
        steps: environment steps in all (frames; a decision takes `env.action_repeat` of them).
        prefill: environment steps of uniform play before the first update.
        pretrain: updates at once after the prefill.
        ratio: updates per decision.
        updates: number of updates after which the training stops (0: only `steps` counts).
        batch: sequences per update.
        length: rows of a sequence.
        envs: environments stepped side by side.
        mode: "sync" steps them in this process, "async" in others.
        behaviour: "inline" learns behaviour after each update of the world model; "process" learns it meanwhile, in a
            process of its own on one core, one update behind (on a CPU; elsewhere it is inline); "none" learns none;
            "auto" becomes one of these when the run begins, by the number of cores (`behaviour_for`).
        explore: the agent that collects.
        persistence: probability that uniform play takes its last action once more (with explore=random).
        replay_bytes: size of the replay on disk.
        log_every: updates between two lines of metrics.jsonl.
        film_every: updates between two dream films in TensorBoard.
        checkpoint_every: updates between two checkpoints.
        eval_episodes: episodes of the evaluation at the end.
    """

    steps: int = 10_000
    prefill: int = 1_000
    pretrain: int = 100
    ratio: float = 0.5
    updates: int = 0
    batch: int = 16
    length: int = 32
    envs: int = 1
    mode: str = setting("sync", choices=["sync", "async"])
    behaviour: str = setting("auto", choices=["auto", "inline", "process", "none"])
    explore: str = setting("actor", choices=AGENTS)
    persistence: float = 0.0
    replay_bytes: int = 1_000_000_000
    log_every: int = 25
    film_every: int = 500
    checkpoint_every: int = 500
    eval_episodes: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "envs", "log_every", "film_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.length < 2:
            raise ValueError(f"length={self.length} must be at least 2: a transition has two rows")
        for name in ("prefill", "pretrain", "updates", "eval_episodes"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} cannot be negative")
        if self.behaviour == "none" and self.explore in ("actor", "guided"):
            raise ValueError(f"explore={self.explore} acts by a policy, and behaviour=none learns none: explore=random")
        if not 0 <= self.persistence < 1:
            raise ValueError(f"persistence={self.persistence} is not a probability below 1")
        if self.persistence and self.explore != "random":
            raise ValueError(f"persistence={self.persistence} repeats actions of random play: it needs explore=random")
        if not 0 <= self.ratio < math.inf:
            raise ValueError(f"ratio={self.ratio} is not a number of updates per decision, such as 0.5")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run is."""

    env: EnvConfig
    model: WorldModelConfig = field(default_factory=WorldModelConfig)
    objective: ELBOConfig = field(default_factory=ELBOConfig)
    optimiser: OptimiserConfig = field(default_factory=lambda: OptimiserConfig(learning_rate=1e-3, final=0.1))
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    cem: CEMConfig = field(default_factory=lambda: CEMConfig(value=True))
    icem: ICEMConfig = field(default_factory=lambda: ICEMConfig(value=True))
    mppi: MPPIConfig = field(default_factory=MPPIConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    guided: GuidedConfig = field(default_factory=GuidedConfig)
    tree: TreeConfig = field(default_factory=TreeConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    device: str = setting("auto", choices=["auto", "cpu", "cuda", "mps"])

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_kind(self.model.kind)
        for name in PLANNER_SECTIONS:
            risk: RiskConfig = getattr(self, name).risk
            try:
                risk.dreams()
            except ValueError as error:
                raise ValueError(f"{name}.risk: {error}") from None
            if risk.asks_disagreement and self.model.kind == "sequential_vae" and not self.model.ensemble:
                raise ValueError(f"{name}.risk: a model with model.ensemble=0 cannot disagree: take model.ensemble=5")


def find_or_make(name: str, extra: Sequence[str] = ()) -> Path | dict[str, Any]:
    """Return the config called `name`, or one for the environment of that id; `extra` configs are offered too.

    Raises:
        UserError: If it is neither.
    """
    if name.startswith("family/"):
        raise UserError(
            f"{name} is a set of parts for a task: worldvae train CONFIG family={name.removeprefix('family/')}"
        )
    path = find_config(name)
    if path is None:
        _check_id(name, [*config_names(), *extra])
    return path or {"env": {"id": name}}


def _check_id(name: str, configs: list[str]) -> None:
    """Raise unless `name`, which is no config, can be a Gymnasium id."""
    if Path(name).suffix in {".yaml", ".yml"}:
        raise UserError(f"there is no config file {name}.")
    known = [*configs, *gymnasium.registry]
    if name not in gymnasium.registry and ":" not in name and "/" not in name:
        raise UserError(
            f"{name!r} is neither a config ({', '.join(configs)}) nor a YAML file nor a Gymnasium id."
            f"{near_miss(name, known)}"
        )


def configure(source: Path | Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """Return the config of `source` with `overrides`, of which `family=NAME` puts in the parts of a model family.

    A family resets the settings of `model` that families decide to their defaults, and configs/family/NAME.yaml changes
    some of them; after the task's own settings and before every other override.

    Raises:
        UserError: If `load_config` refuses a setting, or there is no such family.
    """
    families, rest = [], []
    for override in overrides:
        key, _, name = override.partition("=")
        if key != "family":
            rest.append(override)
            continue
        known = config_names("family")
        if name not in known:
            raise UserError(f"family={name} is not a model family: {', '.join(known)}.{near_miss(name, known)}")
        families.append(find_config(f"family/{name}"))
    if len(families) > 1:
        raise UserError(
            "family was given more than once: each is a whole set of parts; single parts are model.prior=..."
        )
    reset = [{"model": family_defaults()}] if families else []
    return load_config(RunConfig, [source, *reset, *(path for path in families if path is not None)], rest)


def settled(config: RunConfig, observation: ObservationLayout, device: torch.device) -> RunConfig:
    """Return `config` with a choice in place of each "auto", for a run to keep."""
    model = replace(config.model, precision=choose_precision(config.model, observation.pixels, device))
    behaviour = config.train.behaviour
    if behaviour == "auto":
        behaviour = behaviour_for(device)
    return replace(config, model=model, train=replace(config.train, behaviour=behaviour))


def behaviour_for(device: torch.device) -> str:
    """Return what `train.behaviour=auto` becomes: "process" if there is a core for it, else "inline".

    Behaviour's updates hardly gain from a second thread (many small products, one after the other), the world model's
    do: with one core for each, neither waits for the other.
    """
    return "process" if device.type == "cpu" and usable_cores() > 1 else "inline"


def pick_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is CUDA where there is one, then MPS, then the CPU.

    Raises:
        UserError: If that device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, available in there.items() if available)
    if not there[name]:
        raise UserError(f"device={name!r} is not available on this machine; use device=auto.")
    return torch.device(name)
