"""The linear-Gaussian world: a state-space model with exact solutions.

    z_1 ~ N(m0, P0),    x_t = C z_t + N(0, R),    z_{t+1} = A z_t + B u_t + N(0, Q)

Rows follow the library's convention: row t holds x_t and the action u_t taken at it, so that the last action of an
episode leads to a state that is not observed. All of `worldvae.exact` computes in float64, because a difference of two
bounds is often a thousand times smaller than either.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LinearGaussian:
    """The matrices of a linear-Gaussian world.

    Attributes:
        A: transition matrix of the state.
        B: effect of an action on the state.
        C: observation matrix.
        Q: covariance of the noise on the state in each step.
        R: covariance of the noise on the observation.
        P0: covariance of the first state.
        m0: mean of the first state.
    """

    A: Float64[Tensor, "latent latent"]
    B: Float64[Tensor, "latent action"]
    C: Float64[Tensor, "observation latent"]
    Q: Float64[Tensor, "latent latent"]
    R: Float64[Tensor, "observation observation"]
    P0: Float64[Tensor, "latent latent"]
    m0: Float64[Tensor, " latent"]

    def drift(self, actions: Float64[Tensor, "batch time action"]) -> Float64[Tensor, "batch time latent"]:
        """Return b_t of z_t = A z_{t-1} + b_t + noise: m0 in the first row, then the effect of the previous action."""
        first = self.m0.expand(actions.shape[0], 1, -1)
        return torch.cat([first, actions[:, :-1] @ self.B.mT], dim=1)

    def step_covariance(self, t: int) -> Float64[Tensor, "latent latent"]:
        """Return the covariance of z_t given z_{t-1}; for the first row (t = 0), that of z_1."""
        return self.Q if t else self.P0


def _world(disturbance: tuple[float, float], noise: float) -> LinearGaussian:
    def tensor(rows: object) -> Tensor:
        return torch.tensor(rows, dtype=torch.float64)

    return LinearGaussian(
        A=tensor([[1.0, 0.1], [-0.1, 0.98]]),
        B=tensor([[0.0], [0.1]]),
        C=tensor([[1.0, 0.0]]),
        Q=torch.diag(tensor(disturbance)),
        R=tensor([[noise]]),
        P0=torch.eye(2, dtype=torch.float64),
        m0=torch.zeros(2, dtype=torch.float64),
    )


STIFF = _world((1e-4, 1e-2), 0.05)
"""A damped oscillator whose position has almost no noise: a bound that does not look ahead loses many nats."""

MILD = _world((0.05, 0.05), 0.1)
"""The same oscillator with more noise on state and observation, where looking ahead matters less."""

WORLDS = {"mild": MILD, "stiff": STIFF}
"""Both by their names."""


def named_world(name: str) -> LinearGaussian:
    """Return the world of that name.

    Raises:
        ValueError: If there is none.
    """
    if name not in WORLDS:
        raise ValueError(f"world={name!r} is not a linear-Gaussian world: take one of {', '.join(WORLDS)}")
    return WORLDS[name]


def roll_out(
    world: LinearGaussian, actions: Float64[Tensor, "batch time action"], generator: torch.Generator
) -> tuple[Float64[Tensor, "batch time observation"], Float64[Tensor, "batch time latent"]]:
    """Return observations and states of episodes with these actions.

    Args:
        world: the world to draw from.
        actions: actions of every row.
        generator: source of all draws.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(len(actions), *shape, dtype=torch.float64, generator=generator)

    disturb, noise = torch.linalg.cholesky(world.Q), torch.linalg.cholesky(world.R)
    state = world.m0 + normal(len(world.m0)) @ torch.linalg.cholesky(world.P0).mT
    states = []
    for push in (actions @ world.B.mT).unbind(1):
        states.append(state)
        state = state @ world.A.mT + push + normal(len(world.m0)) @ disturb.mT
    found = torch.stack(states, dim=1)
    seen = found @ world.C.mT
    return seen + normal(*seen.shape[1:]) @ noise.mT, found


def random_episodes(
    world: LinearGaussian, number: int, length: int, reach: float, generator: torch.Generator
) -> tuple[Float64[Tensor, "batch time observation"], Float64[Tensor, "batch time action"]]:
    """Return the observations and actions of episodes in which every action is uniform in [-reach, reach].

    Args:
        world: the world to draw from.
        number: number of episodes.
        length: rows of an episode.
        reach: largest magnitude of an action.
        generator: source of all draws.
    """
    shape = (number, length, world.B.shape[1])
    actions = reach * (2 * torch.rand(shape, dtype=torch.float64, generator=generator) - 1)
    return roll_out(world, actions, generator)[0], actions


def reference_episodes(
    world: LinearGaussian, seeds: Iterable[int] = range(32), length: int = 50
) -> tuple[Float64[Tensor, "batch time observation"], Float64[Tensor, "batch time action"]]:
    """Return the observations and actions for which the published exact numbers were computed, one episode per seed.

    The actions are u_t = sin(0.3 t), t = 0 .. length - 1.

    Args:
        world: the world to draw from.
        seeds: one seed per episode.
        length: rows of an episode.
    """
    a, c = world.A.numpy(), world.C.numpy()
    actions = np.repeat(np.sin(0.3 * np.arange(length))[:, None], world.B.shape[1], axis=1)
    pushes = actions @ world.B.numpy().T
    zero = np.zeros(len(a))
    episodes = []
    for seed in seeds:
        # The legacy generator, because the published numbers were computed with it.
        draw = np.random.RandomState(seed).multivariate_normal
        state, rows = draw(world.m0.numpy(), world.P0.numpy()), []
        for push in pushes:
            rows.append(draw(c @ state, world.R.numpy()))
            state = a @ state + push + draw(zero, world.Q.numpy())
        episodes.append(rows)
    observations = torch.from_numpy(np.asarray(episodes))
    return observations, torch.from_numpy(actions).expand(len(episodes), -1, -1)
