"""A run directory, opened: the config, the world model, the agents that act on it, and its environment."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from worldvae import planning
from worldvae.agents import ActorAgent, ActorCritic, Agent, PlannerAgent, RandomAgent
from worldvae.config import dump_config, load_config
from worldvae.envs import EnvPool, WorldEnv, make_from
from worldvae.errors import UserError, near_miss
from worldvae.models.kinds import new_model
from worldvae.models.world_model import WorldModel
from worldvae.planning import PlanConfig
from worldvae.runs import checkpoint
from worldvae.runs.resuming import resumed_config
from worldvae.runs.settings import AGENTS, PLANNER_SECTIONS, RunConfig, pick_device, settled
from worldvae.types import ActionLayout, ObservationLayout


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
        self.folder, self.device = folder, device
        self.config = config = settled(config, observation, device)
        # The seed draws the weights; the state of torch's global generator does not change.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            model = new_model(observation, action, config.model, config.objective)
            assert isinstance(model, torch.nn.Module), f"model.kind={config.model.kind} is no torch module"
            self.model: WorldModel = model.to(device)
            self.actor_critic = ActorCritic(self.model, config.actor_critic).to(device)
        self.steps = 0

    def __repr__(self) -> str:
        size = sum(p.numel() for p in self.model.parameters()) / 1e6
        return f"Run({self.folder}, {self.config.env.id}, {self.steps} steps, world model of {size:.2f} M parameters)"

    @property
    def agent(self) -> Agent:
        """The policy learnt in imagination; in a run that learns none, the agent that explores."""
        train = self.config.train
        if train.behaviour != "none":
            return self.make_agent("actor")
        if train.explore == "random":
            return RandomAgent(self.model.action_layout, train.persistence)
        return self.make_agent(train.explore)

    def make_agent(self, name: str) -> Agent:
        """Return the agent `name` (one of `AGENTS`, or any other planner), acting on this run's world model.

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
        if name in planning.PLANNERS:  # one without a section of the config plans with its defaults
            config: PlanConfig = getattr(self.config, name, None) or planning.PLANNERS[name][0]()
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
        known = list(dict.fromkeys([*AGENTS, *planning.PLANNERS]))
        raise UserError(f"there is no agent {name!r}; there are {', '.join(known)}.{near_miss(name, known)}")

    def change_planners(self, overrides: Sequence[str]) -> None:
        """Change settings of planners, given as `cem.candidates=1000`; a trained run takes no others.

        Raises:
            UserError: If one is not a planner's, or does not exist or fit.
        """
        for override in overrides:
            section, dot, _ = override.partition(".")
            if section not in PLANNER_SECTIONS or not dot:
                raise UserError(
                    f"{override!r} cannot be given here: a trained run takes settings of its planners "
                    f"({', '.join(PLANNER_SECTIONS)}), such as cem.candidates=1000."
                )
        if not overrides:
            return
        self.config = load_config(RunConfig, [self.folder / "config.yaml"], overrides)
        for name in PLANNER_SECTIONS:
            if getattr(self.config, name).value and any(one.startswith(f"{name}.discount=") for one in overrides):
                raise UserError(
                    f"{name}.discount would not be used: with {name}.value=true an agent takes the critic's discount "
                    f"({self.config.actor_critic.discount}); give {name}.value=false, too."
                )

    def make_env(self) -> WorldEnv:
        """Return a new environment of the kind that the run was trained on."""
        return make_from(self.config.env)

    def check_env(self) -> None:
        """Raise unless the environment in the config has the observations and actions that the model was trained on.

        Raises:
            UserError: If it does not: its config.yaml was edited, or the environment has changed.
        """
        with EnvPool([self.config.env]) as pool:
            self.check_layouts(pool.observation_layout, pool.action_layout)

    def check_shows(self) -> None:
        """Raise unless the model decodes what it imagines, which a film needs.

        Raises:
            UserError: If it does not.
        """
        if not self.model.shows:
            raise UserError(
                f"the model of {self.folder} (model.kind={self.config.model.kind}) decodes neither frames nor vectors: "
                "there is nothing to film."
            )

    def check_layouts(self, observation: ObservationLayout, action: ActionLayout) -> None:
        """Raise unless these are the layouts that the model was trained on.

        Raises:
            UserError: If they are not.
        """
        model = self.model
        if (observation, action) != (model.observation_layout, model.action_layout):
            raise UserError(
                f"{self.folder} was trained on {model.observation_layout} and {model.action_layout}, and its "
                f"config.yaml now makes {observation} and {action}: undo what was edited under env, or train a new run."
            )

    def write_config(self) -> None:
        """Write the settings to config.yaml, from which `load` reads them.

        Raises:
            UserError: If there is no permission to write, or no room.
        """
        try:
            dump_config(self.config, self.folder / "config.yaml")
        except OSError as error:
            raise UserError(
                f"cannot write to {self.folder}: {error.strerror}; choose another folder with --out."
            ) from error

    @property
    def is_finite(self) -> bool:
        """Whether every weight of the world model, the actor and the critic is a finite number."""
        tensors = [*self.model.state_dict().values(), *self.actor_critic.state_dict().values()]
        return all(bool(tensor.isfinite().all()) for tensor in tensors if tensor.is_floating_point())

    def weights(self) -> dict[str, Any]:
        """Return weights, layouts and steps, from which `load` opens the run, as a tree for `checkpoint.save`."""
        return {
            "observation": asdict(self.model.observation_layout),
            "action": asdict(self.model.action_layout),
            "steps": self.steps,
            "device": self.device.type,
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
    # Made before anything is written: a refused setting must not leave half a run behind.
    device = pick_device(config.device)
    try:
        run = Run(folder, config, observation, action, device)
        run.make_agent(config.train.explore)
    except ValueError as error:  # settings that are possible one by one, but not together
        raise UserError(str(error)) from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; choose another folder with --out.") from error
    run.write_config()
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


def check_folder(folder: Path) -> None:
    """Raise unless the folder exists.

    Raises:
        UserError: If there is none.
    """
    if not folder.is_dir():
        raise UserError(f"there is no run in {folder}: no such folder. Train one with: worldvae train CONFIG")


def load_with_state(
    folder: Path, device: str | None = None, overrides: Sequence[str] = (), *, resuming: bool = False
) -> tuple[Run, dict[str, Any]]:
    """Open a run directory, and return also its checkpoint's whole state, from which training goes on.

    Args:
        folder: the run directory.
        device: as for `load`.
        overrides: settings that change from now on (`resumed_config`).
        resuming: whether training goes on: then on the kind of device that the run was trained on.

    Raises:
        UserError: As `load`, or if a setting cannot change any more.
    """
    check_folder(folder)
    path = checkpoint.latest(folder / "checkpoints")
    if path is None:
        raise UserError(
            f"there is no run in {folder}: it has no checkpoints/step_*. Train one with: worldvae train CONFIG"
        )
    state = checkpoint.load(path)
    try:
        config = resumed_config(folder / "config.yaml", overrides, state["steps"], state.get("updates", 0))
        pixels = state["observation"]["pixels"]
        observation = ObservationLayout(None if pixels is None else tuple(pixels), state["observation"]["vector"])
        action = ActionLayout(state["action"]["continuous"], tuple(state["action"]["categorical"]))
        if resuming and config.device == "auto":
            device = state["device"]  # whose random numbers no other device can go on with
        run = Run(folder, config, observation, action, pick_device(device or config.device))
        run.make_agent(config.train.explore)
        run.model.load_state_dict(state["model"])
        run.actor_critic.load_state_dict(state["actor_critic"])
    except UserError:
        raise
    except (KeyError, RuntimeError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        reason = lines[-1][:200]  # torch's errors begin with a heading and go on with every tensor of the model
        raise UserError(f"{path} does not fit {folder / 'config.yaml'} ({reason}): was one of them edited?") from error
    run.steps = state["steps"]
    if not run.is_finite:
        raise UserError(
            f"the weights in {path} are not finite numbers: training diverged. Delete that checkpoint, to use the one "
            "before it, or train a new run with a smaller optimiser.learning_rate."
        )
    return run, state
