"""A run directory, opened: the config, the world model, the agents that act on it, and its environment."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from worldvae import checkpoint
from worldvae.agents import ActorAgent, ActorCritic, ActorCriticConfig, Agent, PlannerAgent, RandomAgent
from worldvae.config import config_names, dump_config, find_config, load_config, setting
from worldvae.envs import EnvConfig, WorldEnv, make_from
from worldvae.errors import UserError, near_miss
from worldvae.learner import OptimiserConfig
from worldvae.objectives import ELBOConfig
from worldvae.parts import WorldModelConfig
from worldvae.planning import (
    CEMConfig,
    GradientConfig,
    GuidedConfig,
    ICEMConfig,
    MPPIConfig,
    PlanConfig,
    RiskConfig,
    TreeConfig,
)
from worldvae.seeds import check_seed
from worldvae.types import ActionLayout, ObservationLayout
from worldvae.world_model import WorldModel

PLANNERS = ("cem", "icem", "mppi", "gradient", "guided", "tree")
"""The planners that a run has a section of its config for, by its name."""

AGENTS = ("actor", *PLANNERS, "random")


@dataclass(frozen=True)
class TrainConfig:
    """How experience and updates alternate.

    Attributes:
        steps: environment steps in all (frames; a decision takes `env.action_repeat` of them).
        prefill: environment steps of uniform play before the first update.
        pretrain: updates at once after the prefill.
        ratio: updates per decision.
        updates: stop after so many updates (0: only `steps` counts).
        batch: sequences per update.
        length: rows of a sequence.
        envs: environments stepped side by side.
        mode: "sync" steps them in this process, "async" in others.
        behaviour: "inline" learns behaviour after each update of the world model, "process" beside it, on one core,
            in a process of its own and one update behind (on a CPU; elsewhere it is inline), "none" learns none.
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
    behaviour: str = setting("inline", choices=["inline", "process", "none"])
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
            raise ValueError(f"persistence={self.persistence} is of uniform play: it needs explore=random")
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
        for name in PLANNERS:
            risk: RiskConfig = getattr(self, name).risk
            try:
                risk.dreams()
            except ValueError as error:
                raise ValueError(f"{name}.risk: {error}") from None
            if risk.asks_disagreement and not self.model.ensemble:
                raise ValueError(f"{name}.risk: a model with model.ensemble=0 cannot disagree: take model.ensemble=5")


def configure(source: Path | Mapping[str, Any], overrides: Sequence[str]) -> RunConfig:
    """Return the config of `source` with `overrides`, of which `family=NAME` puts in the parts of a model family.

    The parts of configs/family/NAME.yaml come after the task's own settings and before every other override.

    Raises:
        UserError: For whatever `load_config` objects to, and a family that is not there.
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
    return load_config(RunConfig, [source, *(path for path in families if path is not None)], rest)


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


class Run:
    """A run directory, opened.

    Args:
        folder: the run directory.
        config: its resolved config.
        observation: shapes of its observations.
        action: shape of its action vectors.
        device: where the model goes.

    Attributes:
        model: the world model.
        actor_critic: the actor and the critic learnt in imagination.
    """

    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        observation: ObservationLayout,
        action: ActionLayout,
        device: torch.device,
    ) -> None:
        self.folder, self.config, self.device = folder, config, device
        # Weights are drawn from a generator of our own choosing, and the global one is left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = WorldModel(observation, action, config.model).to(device)
            self.actor_critic = ActorCritic(self.model, config.actor_critic).to(device)
        self.steps = 0

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Run({self.folder}, {self.config.env.id}, {self.steps} steps, world model of {size:.2f} M parameters)"

    @property
    def agent(self) -> Agent:
        """The policy learnt in imagination; where none is learnt, what explores."""
        train = self.config.train
        if train.behaviour != "none":
            return self.make_agent("actor")
        if train.explore == "random":
            return RandomAgent(self.model.action_layout, train.persistence)
        return self.make_agent(train.explore)

    def make_agent(self, name: str) -> Agent:
        """Return the agent `name` (one of `AGENTS`), acting on this run's world model.

        Raises:
            UserError: If there is no agent of that name, it cannot plan such actions, or has learnt nothing.
        """
        learnt = self.config.train.behaviour != "none"
        if name in ("actor", "guided") and not learnt:
            raise UserError(
                f"the agent {name!r} acts by a policy, and this run learnt none (train.behaviour=none): plan with icem."
            )
        if name == "actor":
            return ActorAgent(self.model, self.actor_critic.actor)
        if name in PLANNERS:
            config: PlanConfig = getattr(self.config, name)
            if not learnt:
                config = replace(config, value=False)
            if config.value:  # the critic's values are of rewards discounted as it learnt them
                config = replace(config, discount=self.config.actor_critic.discount)
            try:
                return PlannerAgent(self.model, config, self.actor_critic.value, actor=self.actor_critic.actor)
            except ValueError as error:  # a tree search for actions that are not discrete
                raise UserError(f"the agent {name!r} is not for this run: {error}.") from error
        if name == "random":
            return RandomAgent(self.model.action_layout)
        raise UserError(f"there is no agent {name!r}; there are {', '.join(AGENTS)}.{near_miss(name, AGENTS)}")

    def change_planners(self, overrides: Sequence[str]) -> None:
        """Change settings of planners, given as `cem.candidates=1000`; all else was decided when the run was trained.

        Raises:
            UserError: If one is not a planner's, or does not exist or fit.
        """
        for override in overrides:
            section, dot, _ = override.partition(".")
            if section not in PLANNERS or not dot:
                raise UserError(
                    f"{override!r} cannot be given here: a trained run takes settings of its planners "
                    f"({', '.join(PLANNERS)}), such as cem.candidates=1000."
                )
        if not overrides:
            return
        self.config = load_config(RunConfig, [self.folder / "config.yaml"], overrides)
        for name in PLANNERS:
            if getattr(self.config, name).value and any(one.startswith(f"{name}.discount=") for one in overrides):
                raise UserError(
                    f"{name}.discount would not be used: with {name}.value=true an agent takes the critic's discount "
                    f"({self.config.actor_critic.discount}); give {name}.value=false, too."
                )

    def make_env(self) -> WorldEnv:
        """Return a fresh environment of the kind the run was trained on."""
        return make_from(self.config.env)

    def check_env(self) -> None:
        """Raise unless the environment in the config still shows what the model was trained on.

        Raises:
            UserError: If it does not: its config.yaml was edited, or the environment has changed.
        """
        env = self.make_env()
        env.close()
        self.check_layouts(env.observation_layout, env.action_layout)

    def check_layouts(self, observation: ObservationLayout, action: ActionLayout) -> None:
        """Raise unless these are what the model was trained on.

        Raises:
            UserError: If they are not.
        """
        model = self.model
        if (observation, action) != (model.observation_layout, model.action_layout):
            raise UserError(
                f"{self.folder} was trained on {model.observation_layout} and {model.action_layout}, and its "
                f"config.yaml now makes {observation} and {action}: undo what was edited under env, or train a new run."
            )

    def weights(self) -> dict[str, Any]:
        """Return what `load` needs, as a tree for `checkpoint.save`."""
        return {
            "observation": asdict(self.model.observation_layout),
            "action": asdict(self.model.action_layout),
            "steps": self.steps,
            "model": dict(self.model.state_dict()),
            "actor_critic": dict(self.actor_critic.state_dict()),
        }


def create(folder: Path, config: RunConfig, observation: ObservationLayout, action: ActionLayout) -> Run:
    """Begin a run in `folder` and write its config there.

    Raises:
        UserError: If there already is a run, or no permission to write.
    """
    if (folder / "config.yaml").exists():
        if checkpoint.latest(folder / "checkpoints") is None:
            raise UserError(f"{folder} holds a run without a checkpoint: delete the folder, or choose another --out.")
        raise UserError(f"{folder} already holds a run: resume it with --resume {folder}, or choose another --out.")
    # Made before anything is written: what the model refuses must not leave half a run behind.
    device = pick_device(config.device)
    try:
        run = Run(folder, config, observation, action, device)
        run.make_agent(config.train.explore)
    except ValueError as error:  # settings that are possible one by one, but not together
        raise UserError(str(error)) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        dump_config(config, folder / "config.yaml")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out.") from error
    return run


def load(folder: str | Path, device: str | None = None) -> Run:
    """Open a run directory at its newest checkpoint.

    Args:
        folder: the run directory.
        device: auto, cpu, cuda or mps; default: what the run's config says.

    Raises:
        UserError: If there is no run, no checkpoint, or another version wrote it.

    Example:
        >>> run = load("runs/pendulum")
        >>> run.model, run.agent, run.make_env()
    """
    return load_with_state(Path(folder), device)[0]


def load_with_state(folder: Path, device: str | None = None) -> tuple[Run, dict[str, Any]]:
    """Open a run directory and return its checkpoint's whole state too, which training goes on from."""
    if not folder.is_dir():
        raise UserError(f"there is no run in {folder}: no such folder. Train one with: worldvae train CONFIG")
    path = checkpoint.latest(folder / "checkpoints")
    if path is None:
        raise UserError(
            f"there is no run in {folder}: it has no checkpoints/step_*. Train one with: worldvae train CONFIG"
        )
    state = checkpoint.load(path)
    try:
        config = load_config(RunConfig, [folder / "config.yaml"])
        pixels = state["observation"]["pixels"]
        observation = ObservationLayout(None if pixels is None else tuple(pixels), state["observation"]["vector"])
        action = ActionLayout(state["action"]["continuous"], tuple(state["action"]["categorical"]))
        run = Run(folder, config, observation, action, pick_device(device or config.device))
        run.model.load_state_dict(state["model"])
        run.actor_critic.load_state_dict(state["actor_critic"])
    except UserError:
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[-1][:200]  # torch's errors begin with a heading and go on with every tensor of the model
        raise UserError(f"{path} does not fit {folder / 'config.yaml'} ({reason}): was one of them edited?") from error
    run.steps = state["steps"]
    return run, state
