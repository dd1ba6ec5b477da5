"""Any Gymnasium environment as a `WorldEnv`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym

from worldvae.envs.lookup import create, find_spec
from worldvae.envs.observations import ObservationCodec
from worldvae.envs.world_env import DEFAULT_TIME_LIMIT, MODES, WorldEnv, choose_view
from worldvae.errors import UserError, near_miss


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, and how it is shown.

    Attributes:
        id: Any Gymnasium id, also "module:Name-v0".
        obs: What is shown: auto, pixels, state or both (see `choose_view`).
        size: Height and width of the frames.
        action_repeat: Environment steps per action.
        time_limit: Environment steps after which an episode is cut off; None takes the registered limit, or 1000
            where there is none.
        kwargs: Arguments of the environment itself.
    """

    id: str
    obs: str = "auto"
    size: tuple[int, int] = (64, 64)
    action_repeat: int = 1
    time_limit: int | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


def make(
    id: str,
    *,
    obs: str = "auto",
    size: Sequence[int] = (64, 64),
    action_repeat: int = 1,
    time_limit: int | None = None,
    **kwargs: Any,
) -> WorldEnv:
    """Make the environment `id`; the arguments are those of `EnvConfig`, the rest goes to the environment.

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
    kwargs = _plain(config.kwargs)
    env = create(config.id, limit or DEFAULT_TIME_LIMIT, render=False, kwargs=kwargs)
    codec = ObservationCodec(env.observation_space, (config.size[0], config.size[1]))
    can_render = "rgb_array" in (env.metadata.get("render_modes") or ())
    view = choose_view(codec, config.obs, can_render, config.id)
    if view.rendered:
        # whether rendering is needed shows in the observation space, which only an instance has
        env.close()
        env = create(config.id, limit or DEFAULT_TIME_LIMIT, render=True, kwargs=kwargs)
    return WorldEnv(env, codec, view, id=config.id, action_repeat=config.action_repeat, time_limit=limit)


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
    id = env.spec.id if env.spec is not None else type(env.unwrapped).__name__
    limit = time_limit or (env.spec.max_episode_steps if env.spec is not None else None)
    codec = ObservationCodec(env.observation_space, (size[0], size[1]))
    view = choose_view(codec, obs, env.render_mode == "rgb_array", id)
    return WorldEnv(env, codec, view, id=id, action_repeat=action_repeat, time_limit=limit)


def _check(size: Sequence[int], obs: str = "auto", action_repeat: int = 1, time_limit: int | None = None) -> None:
    if obs not in MODES:
        raise UserError(f"obs={obs!r} is not one of {', '.join(MODES)}.{near_miss(obs, MODES)}")
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"size={size!r} is not a height and a width, such as (64, 64).")
    if action_repeat < 1:
        raise UserError(f"action_repeat={action_repeat} is not a positive number of steps.")
    if time_limit is not None and time_limit < 1:
        raise UserError(f"time_limit={time_limit} is not a positive number of steps.")


def _plain(value: Any) -> Any:
    """Return nested mappings and sequences as dicts and lists: environments do not expect OmegaConf's types."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | tuple):
        return [_plain(entry) for entry in value]
    return value
