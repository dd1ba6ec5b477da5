"""Any Gymnasium environment as a `WorldEnv`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import gymnasium as gym
import numpy as np
from omegaconf import DictConfig, ListConfig

from worldvae.envs.lookup import close, create, find_spec
from worldvae.envs.observations import ObservationCodec
from worldvae.envs.statistics import refuse_statistics
from worldvae.envs.world_env import DEFAULT_TIME_LIMIT, OBS_MODES, WorldEnv, choose_view
from worldvae.errors import UserError, near_miss


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is shown.

    Attributes:
        id: Any Gymnasium id, also "module:Name-v0".
        obs: What the model sees: auto, pixels, state or both (see `choose_view`).
        size: Height and width of the frames.
        action_repeat: Environment steps per action.
        time_limit: Environment steps after which an episode is cut off; None takes the registered limit, or 1000
            where there is none.
        kwargs: Arguments of the environment itself.
        alone: Whether a process can hold only one instance at a time, as with many emulators and engines: an `EnvPool`
            then gives each environment a process of its own, in either mode.
    """

    id: str
    obs: str = "auto"
    size: tuple[int, int] = (64, 64)
    action_repeat: int = 1
    time_limit: int | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)
    alone: bool = False


def make(
    id: str,
    *,
    obs: str = "auto",
    size: Sequence[int] = (64, 64),
    action_repeat: int = 1,
    time_limit: int | None = None,
    **kwargs: Any,
) -> WorldEnv:
    """Make the environment `id` in this process; the rest of the arguments (see `EnvConfig`) goes to the environment.

    Example:
        >>> env = make("CartPole-v1", size=(32, 48))
        >>> env.observation_layout
        ObservationLayout(pixels=(3, 32, 48), vector=None)

    Raises:
        UserError: If there is no such environment, a package is missing, or it cannot be shown in this way.
    """
    _check(size)
    height, width = size
    return make_from(EnvConfig(id, obs, (height, width), action_repeat, time_limit, kwargs))


def make_from(config: EnvConfig) -> WorldEnv:
    """Make the environment that `config` describes.

    Raises:
        UserError: As `make`.
    """
    _check(config.size, config.obs, config.action_repeat, config.time_limit)
    if "render_mode" in config.kwargs:
        raise UserError("render_mode is chosen by `obs`: leave it out of the environment's arguments.")
    limit = config.time_limit or find_spec(config.id).max_episode_steps

    def instance(render: bool) -> gym.Env[Any, Any]:
        # (an environment may change its arguments: each has its own copy)
        return create(config.id, limit or DEFAULT_TIME_LIMIT, render, _plain(config.kwargs))

    env = instance(render=False)
    try:
        codec = _codec(env, config.size, config.id)
        can_render = "rgb_array" in (env.metadata.get("render_modes") or ())
        view = choose_view(codec, config.obs, can_render, config.id)
        if view.rendered:
            # the observation space, which only an instance has, shows whether rendering is needed
            close(env, config.id)
            env = instance(render=True)
        return WorldEnv(env, codec, view, id=config.id, action_repeat=config.action_repeat, time_limit=limit)
    except UserError:
        close(env, config.id)
        raise


def wrap(
    env: gym.Env[Any, Any],
    *,
    obs: str = "auto",
    size: Sequence[int] = (64, 64),
    action_repeat: int = 1,
    time_limit: int | None = None,
) -> WorldEnv:
    """Wrap an environment of your own; to be shown by its rendering it must have render_mode="rgb_array".

    Raises:
        UserError: If it cannot be shown in this way.
    """
    _check(size, obs, action_repeat, time_limit)
    if not isinstance(env, gym.Env):
        kind = f"{type(env).__module__}.{type(env).__qualname__}"
        raise UserError(
            f"{env!r} ({kind}) is not a gymnasium.Env, which is what wrap takes: worldvae.envs.make takes an id, such "
            "as 'CartPole-v1', and an environment of the old gym package has to inherit from gymnasium.Env."
        )
    id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    limit = time_limit or (env.spec.max_episode_steps if env.spec is not None else None)
    codec = _codec(env, size, id)
    view = choose_view(codec, obs, env.render_mode == "rgb_array", id)
    return WorldEnv(env, codec, view, id=id, action_repeat=action_repeat, time_limit=limit)


def _codec(env: gym.Env[Any, Any], size: Sequence[int], id: str) -> ObservationCodec:
    """Return how the observations of an environment are read, once it is clear that it can be played at all."""
    refuse_statistics(env, id)
    for name in ("observation_space", "action_space"):
        _check_space(getattr(env, name, None), name, id)
    return ObservationCodec(env.observation_space, (int(size[0]), int(size[1])))


def _check_space(space: Any, name: str, id: str) -> None:
    if space is None:
        raise UserError(
            f"{id} has no {name}: set self.{name} to a space of gymnasium.spaces when the environment is made."
        )
    if not isinstance(space, gym.Space):
        kind = f"{type(space).__module__}.{type(space).__qualname__}"
        old = kind.startswith("gym.")
        raise UserError(
            f"the {name} of {id}, {' '.join(repr(space).split())}, is of the class {kind}, where one of "
            "gymnasium.spaces is expected: "
            + ("write `import gymnasium as gym` instead of `import gym`." if old else "take Box, Discrete or another.")
        )


def _check(size: Any, obs: Any = "auto", action_repeat: Any = 1, time_limit: Any = None) -> None:
    if obs not in OBS_MODES:
        raise UserError(f"obs={obs!r} is not one of {', '.join(OBS_MODES)}.{near_miss(str(obs), OBS_MODES)}")
    if not (np.shape(size) == (2,) and all(map(_positive, size))):
        raise UserError(f"size={size!r} is not a height and a width, such as (64, 64).")
    if not _positive(action_repeat):
        raise UserError(f"action_repeat={action_repeat!r} is not a positive number of steps.")
    if time_limit is not None and not _positive(time_limit):
        raise UserError(f"time_limit={time_limit!r} is not a positive number of steps.")


def _positive(value: Any) -> bool:
    return isinstance(value, Integral) and int(value) >= 1


def _plain(value: Any) -> Any:
    """Return nested dicts and lists anew, and OmegaConf's as such, which environments do not expect; all else as is."""
    if isinstance(value, dict | DictConfig):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | ListConfig):
        return [_plain(entry) for entry in value]
    return tuple(map(_plain, value)) if type(value) is tuple else value
