"""Where the actor and the critic learn: in this process, or in a process of their own."""

import pickle
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from worldvae.agents import ActorCritic, ActorCriticConfig
from worldvae.errors import Diverged, UserError
from worldvae.models.kinds import KINDS
from worldvae.models.world_model import WorldModel
from worldvae.runs.run import Run
from worldvae.seeds import stream
from worldvae.system.allocator import keep_freed_memory
from worldvae.system.child import Child, Tasks
from worldvae.system.cores import usable_cores
from worldvae.types import State

Tensors = dict[str, Tensor]


@runtime_checkable
class Behaviour(Protocol):
    """Takes posterior states of the world model and improves the actor and the critic in dreams that begin there.

    Attributes:
        kind: its name in `train.behaviour`.
        threads: cores that it keeps busy while the world model learns.
    """

    kind: str
    threads: int

    def update(self, states: State, progress: float) -> Tensors:
        """Learn from `states` (`[batch]`) at this share (0..1) of the run; return metrics."""
        ...

    def finish(self) -> Tensors:
        """Wait for the updates under way; return the metrics that were not returned yet."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs, beside the actor-critic's own weights, to go on exactly."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        ...

    def close(self) -> None:
        """End the process, if there is one."""
        ...


class Inline:
    """Learns at once, in this process.

    Args:
        actor_critic: what learns.
        noise: generator of the dreams' randomness.
    """

    kind, threads = "inline", 0

    def __init__(self, actor_critic: ActorCritic, noise: torch.Generator) -> None:
        self.actor_critic, self.noise = actor_critic, noise

    def update(self, states: State, progress: float) -> Tensors:
        """Learn from `states`."""
        return self.actor_critic.update(states, self.noise, progress)

    def finish(self) -> Tensors:
        """Nothing is ever under way."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the optimisers."""
        return {"optimisers": self.actor_critic.optimiser_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self.actor_critic.load_optimiser_state(state["optimisers"])

    def close(self) -> None:
        """Nothing was started."""


class NoBehaviour:
    """Learns no behaviour: for runs that train the world model alone."""

    kind, threads = "none", 0

    def update(self, states: State, progress: float) -> Tensors:
        """Learn nothing."""
        return {}

    def finish(self) -> Tensors:
        """Nothing is ever under way."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """There is no state."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is no state."""

    def close(self) -> None:
        """Nothing was started."""


class SeparateProcess:
    """Learns in a process of its own while the world model makes its next update: always one update behind.

    What it learns from the states of update k is in `actor_critic` from update k + 1 on, however fast the two processes
    are, so a run stays reproducible.

    Args:
        model: the world model; its weights are copied with every update.
        build: makes another model of the same kind, in that process.
        actor_critic: receives what the process learns.
        config: of the actor-critic.
        rows: number of states in an update.
        seed: of the dreams' randomness.
    """

    kind, threads = "process", 1

    def __init__(
        self,
        model: WorldModel,
        build: Callable[[], WorldModel],
        actor_critic: ActorCritic,
        config: ActorCriticConfig,
        rows: int,
        seed: int,
    ) -> None:
        self.model, self.actor_critic = model, actor_critic
        initial = model.initial(rows)
        self._sent = _shared(model.state_dict() | _parts(initial))
        self._learnt = _shared(actor_critic.state_dict())
        self._child = Child(
            _build,
            (build, config, self._sent, self._learnt, seed),
            what="the process that learns behaviour",
            advice="its last saved state is kept; train.behaviour=inline learns in one process, with less memory.",
            learns=True,
        )
        self._child.wait()
        self._under_way, self._untaken = False, False
        self._metrics: dict[str, float] = {}
        self._last = self._save()

    def update(self, states: State, progress: float) -> Tensors:
        """Copy the last update's weights into `actor_critic`, begin to learn from `states`; return its metrics."""
        metrics = self.finish()
        _copy(self.model.state_dict() | _parts(states), self._sent)
        self._child.send("update", progress)
        self._under_way = True
        return metrics

    def finish(self) -> Tensors:
        """Wait for the update under way, and copy its weights into `actor_critic`."""
        self._wait()
        if not self._untaken:
            return {}
        _copy(self._learnt, self.actor_critic.state_dict())
        self._untaken = False
        return {name: torch.tensor(value) for name, value in self._metrics.items()}

    def _wait(self) -> None:
        if self._under_way:
            self._under_way = False  # also if it fails: no answer will follow
            self._metrics = self._child.wait()
            self._untaken = True

    def state_dict(self) -> dict[str, Any]:
        """Return the process's state; `actor_critic` gets the newest weights no earlier because of this.

        If the process has died or failed, return the state that was saved (or loaded) last: older than the rest of the
        run, but enough to go on from.

        Raises:
            Diverged: If the weights that it learns are no longer finite.
        """
        try:
            self._wait()
            self._last = self._save()
        except Diverged:
            raise
        except (UserError, RuntimeError):
            return self._last | {"ahead": {}}
        ahead = {name: value.clone() for name, value in self._learnt.items()} if self._untaken else {}
        return self._last | {"ahead": ahead, "metrics": self._metrics}

    def _save(self) -> dict[str, Any]:
        self._child.send("save")
        state: dict[str, Any] = pickle.loads(self._child.wait())
        return state | {"ahead": {}, "metrics": {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state_dict`."""
        self._untaken, self._metrics = bool(state["ahead"]), state["metrics"]
        _copy(state["ahead"] or self.actor_critic.state_dict(), self._learnt)
        self._child.send("load", pickle.dumps({name: state[name] for name in ("optimisers", "generator")}))
        self._child.wait()
        self._last = state

    def close(self) -> None:
        """End the process."""
        self._child.close()


def make_behaviour(run: Run, noise: torch.Generator) -> Behaviour:
    """Return the behaviour learning that the config of a run asks for (`train.behaviour`).

    Args:
        run: the run, whose `actor_critic` learns.
        noise: generator of the dreams' randomness, if behaviour learns in this process.

    Raises:
        UserError: If its process cannot be started.
    """
    config = run.config
    if config.train.behaviour == "none":
        return NoBehaviour()
    if config.train.behaviour == "inline" or run.device.type != "cpu":
        return Inline(run.actor_critic, noise)
    rows = config.train.batch * config.train.length
    make = KINDS[config.model.kind]  # itself, not its name: a spawned process does not have the kinds registered here
    build = partial(make, run.model.observation_layout, run.model.action_layout, config.model, None)
    try:
        return SeparateProcess(
            run.model, build, run.actor_critic, config.actor_critic, rows, stream(config.seed, "dreams")
        )
    except (OSError, RuntimeError) as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise UserError(
            f"the process that learns behaviour could not be started ({lines[-1]}); use train.behaviour=inline."
        ) from error


@contextmanager
def leave_cores_to(behaviour: Behaviour) -> Iterator[None]:
    """Meanwhile, let torch use one thread less here for each core that `behaviour` keeps busy, and at least one."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, min(before, usable_cores() - behaviour.threads)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shared(tensors: Tensors) -> Tensors:
    """Return copies in memory that a child process shares."""
    return {name: tensor.detach().clone().share_memory_() for name, tensor in tensors.items()}


def _parts(states: State) -> Tensors:
    """Return the tensors of `states` under names that no weight has."""
    return {f"/{name}": tensor for name, tensor in states.tensors().items()}


@torch.no_grad()
def _copy(source: Tensors, target: Tensors) -> None:
    for name, tensor in target.items():
        tensor.copy_(source[name])


def _build(
    opened: ExitStack,
    build: Callable[[], WorldModel],
    config: ActorCriticConfig,
    received: Tensors,
    learnt: Tensors,
    seed: int,
) -> Tasks:
    """Make the process's own copy of the models."""
    keep_freed_memory()
    model = build()
    actor_critic = ActorCritic(model, config)
    _copy(learnt, actor_critic.state_dict())
    generator = torch.Generator().manual_seed(seed)
    kind = type(model.initial(1))

    def update(progress: float) -> dict[str, float]:
        _copy(received, model.state_dict())
        states = kind.from_tensors({name[1:]: tensor for name, tensor in received.items() if name.startswith("/")})
        metrics = actor_critic.update(states, generator, progress)
        _copy(actor_critic.state_dict(), learnt)
        return {name: float(value) for name, value in metrics.items()}

    def save(_: None) -> bytes:
        # As bytes: tensors sent as such are handed over as open files, which end with this process.
        return pickle.dumps({"optimisers": actor_critic.optimiser_state(), "generator": generator.get_state()})

    def load(data: bytes) -> None:
        state = pickle.loads(data)
        _copy(learnt, actor_critic.state_dict())
        actor_critic.load_optimiser_state(state["optimisers"])
        generator.set_state(state["generator"])

    return {"update": update, "save": save, "load": load}
