"""Worlds with goals: how to put an environment into a state, when a goal is reached, and the true dynamics.

A goal world knows the true state of one environment. Only evaluations use it (`worldvae.evaluation.reaching`): agents
that act on a world model see the frame of the goal and nothing else.
"""

import math
from typing import Any, Protocol, cast, runtime_checkable

import gymnasium as gym
import numpy as np
import torch
from gymnasium.envs.classic_control.pendulum import PendulumEnv
from jaxtyping import Float
from torch import Tensor

from worldvae.envs.worlds.two_rooms import DOOR_HEIGHT, MAX_STEP, TIME_LIMIT, TwoRoomsEnv, advance, free
from worldvae.errors import UserError
from worldvae.types import Dream, State, VectorState


@runtime_checkable
class GoalWorld(Protocol):
    """What an evaluation of goals must know of an environment.

    Attributes:
        reached: when a goal counts as reached, a sentence.
        tolerance: the distance up to which a goal is reached.
        budget: environment steps within which it has to be reached.
    """

    reached: str
    tolerance: float
    budget: int

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a start and a goal that can be reached from it, as states."""
        ...

    def kind(self, start: np.ndarray, goal: np.ndarray) -> str:
        """Return the name of the group of pairs that this one is counted with."""
        ...

    def place(self, env: Any, state: np.ndarray) -> Any:
        """Put the unwrapped environment into a state and return the observation of it."""
        ...

    def state(self, env: Any) -> np.ndarray:
        """Return the true state of the unwrapped environment."""
        ...

    def distance(self, state: Float[Tensor, "*batch state"], goal: Float[Tensor, "*batch state"]) -> Tensor:
        """Return how far states are from goals."""
        ...

    def advance(
        self, state: Float[Tensor, "batch state"], action: Float[Tensor, "batch action"]
    ) -> Float[Tensor, "batch state"]:
        """Return the states one environment step later, for action vectors in [-1, 1]."""
        ...


class TwoRoomsGoals:
    """Goals of `worldvae/TwoRooms-v0`: a state is [x, y] of the disc's centre, anywhere in either room.

    Args:
        env: whose door counts.
    """

    tolerance = 0.1
    budget = TIME_LIMIT
    reached = f"the disc's centre comes within {tolerance} of the goal's (a room is about 1 wide, a step {MAX_STEP})"

    def __init__(self, env: TwoRoomsEnv) -> None:
        if env.random_door:
            raise UserError("goals need a door that stays where it is: leave random_door out of env.kwargs.")

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw both uniformly, in different rooms or in the same."""
        return self._somewhere(rng), self._somewhere(rng)

    def kind(self, start: np.ndarray, goal: np.ndarray) -> str:
        """Tell whether the way leads through the door."""
        return "other room" if start[0] * goal[0] < 0 else "same room"

    def place(self, env: TwoRoomsEnv, state: np.ndarray) -> np.ndarray:
        """Put the disc there."""
        env.place(state)
        return env.observe()

    def state(self, env: TwoRoomsEnv) -> np.ndarray:
        """Return where the disc is."""
        return env.position

    def distance(self, state: Float[Tensor, "*batch state"], goal: Float[Tensor, "*batch state"]) -> Tensor:
        """Return the length of the straight line between them, walls or not."""
        length: Tensor = torch.linalg.vector_norm(state - goal, dim=-1)
        return length

    def advance(
        self, state: Float[Tensor, "batch state"], action: Float[Tensor, "batch action"]
    ) -> Float[Tensor, "batch state"]:
        """Move the disc."""
        return advance(state, action, torch.full_like(state[:, 0], DOOR_HEIGHT))

    def _somewhere(self, rng: np.random.Generator) -> np.ndarray:
        while True:
            place = rng.uniform(-1, 1, 2)
            if bool(free(torch.from_numpy(place), torch.tensor(DOOR_HEIGHT, dtype=torch.float64))):
                return place


class PendulumGoals:
    """Goals of `Pendulum-v1`: a state is [angle (0: upright), angular velocity], and a goal is a turning point.

    One frame shows no velocity, so only states at rest are goals. They are turning points of held-out swings, in which
    a torque of constant size follows the velocity, or works against it: they can be reached, but few can be kept.
    """

    tolerance = 1.0
    budget = 100
    reached = "the angle comes within 0.2 rad of the goal's, and the angular velocity within 1 rad/s"
    angle, velocity = 0.2, 1.0
    still, soonest = 0.5, 20

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw a start as the environment does, a torque, and a turning point of the swing."""
        while True:
            start = np.array([rng.uniform(-math.pi, math.pi), rng.uniform(-1, 1)])
            torque = rng.uniform(-1, 1)
            state, turns = torch.from_numpy(start).unsqueeze(0), []
            for step in range(1, self.budget + 1):
                state = self.advance(state, torque * state[:, 1:].sign())
                if step >= self.soonest and float(state[0, 1].abs()) <= self.still:
                    turns.append(state[0])
            if turns:
                angle, velocity = turns[rng.integers(len(turns))].tolist()
                return start, np.array([math.remainder(angle, math.tau), velocity])

    def kind(self, start: np.ndarray, goal: np.ndarray) -> str:
        """Tell where the goal is."""
        return "upper half" if math.cos(goal[0]) > 0 else "lower half"

    def place(self, env: PendulumEnv, state: np.ndarray) -> Any:
        """Put the pendulum there; no torque is drawn."""
        env.state, env.last_u = np.array(state), None
        observation: np.ndarray = env._get_obs()  # type: ignore[no-untyped-call]
        return observation

    def state(self, env: PendulumEnv) -> np.ndarray:
        """Return angle and angular velocity."""
        return np.asarray(env.state, np.float64)

    def distance(self, state: Float[Tensor, "*batch state"], goal: Float[Tensor, "*batch state"]) -> Tensor:
        """Return the larger of both differences, each in units of its tolerance."""
        angle, velocity = (state - goal).unbind(dim=-1)
        angle = torch.remainder(angle + math.pi, math.tau) - math.pi
        return torch.maximum(angle.abs() / self.angle, velocity.abs() / self.velocity)

    def advance(
        self, state: Float[Tensor, "batch state"], action: Float[Tensor, "batch action"]
    ) -> Float[Tensor, "batch state"]:
        """Move the pendulum as Gymnasium does, with its default gravity."""
        angle, velocity = state.unbind(dim=-1)
        force = 15.0 * angle.sin() + 6.0 * action[:, 0].clamp(-1, 1)
        velocity = (velocity + 0.05 * force).clamp(-8, 8)
        return torch.stack([angle + 0.05 * velocity, velocity], dim=-1)


def goal_world(env: gym.Env[Any, Any], id: str) -> GoalWorld:
    """Return the goal world of an environment: its attribute `goals`, or one of this module.

    Raises:
        UserError: If there is none.
    """
    inner = env.unwrapped
    if isinstance(inner, TwoRoomsEnv):
        return TwoRoomsGoals(inner)
    if isinstance(inner, PendulumEnv):
        if inner.g != 10.0:
            raise UserError(f"goals of {id} are known for its own gravity of 10, and env.kwargs.g is {inner.g}.")
        return PendulumGoals()
    if hasattr(inner, "goals"):
        return cast(GoalWorld, inner.goals)
    raise UserError(
        f"no goals are known of {id}: there are some of worldvae/TwoRooms-v0 and Pendulum-v1, and of environments with "
        "an attribute `goals` (see worldvae.envs.goal_worlds.GoalWorld)."
    )


class TrueDynamics:
    """The true world as a simulator to plan with: a `VectorState` holds the true state, nothing is earned.

    Args:
        world: whose dynamics.
        repeat: environment steps per action.
    """

    def __init__(self, world: GoalWorld, repeat: int = 1) -> None:
        self.world, self.repeat = world, repeat

    def imagine(
        self,
        start: State,
        actions: Float[Tensor, "batch horizon action"],
        horizon: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Dream:
        """Roll forward from `start` with given actions."""
        state, states = start.features, []
        for action in actions.unbind(dim=1):
            for _ in range(self.repeat):
                state = self.world.advance(state, action)
            states.append(state)
        found = torch.stack(states, dim=1)
        nothing = torch.zeros_like(found[..., 0])
        return Dream(start, VectorState(found), actions, nothing, torch.ones_like(nothing))
