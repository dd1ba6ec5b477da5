"""Every environment in one shape: frames and a vector out, one float vector in."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import gymnasium as gym
import numpy as np
from jaxtyping import Float32, UInt8

from worldvae.envs.lookup import close, described, missing_package
from worldvae.envs.observations import Fault, ObservationCodec
from worldvae.envs.pixels import shrink
from worldvae.envs.spaces import ActionCodec
from worldvae.errors import UserError
from worldvae.types import ObservationLayout

DEFAULT_TIME_LIMIT = 1000
MAX_FLOAT32 = float(np.finfo(np.float32).max)
OBS_MODES = ("auto", "pixels", "state", "both")

Result = TypeVar("Result")


@dataclass(frozen=True)
class View:
    """Which parts of an environment are shown: its native images or its rendering as pixels, and its vector."""

    native: bool = False
    rendered: bool = False
    vector: bool = False


def choose_view(codec: ObservationCodec, obs: str, can_render: bool, id: str) -> View:
    """Return the parts of an environment that `obs` shows.

    - "auto": its observation if that holds an image or is a Dict, else its rendering, else its vector.
    - "pixels": the images it observes, else its rendering.
    - "state": its vector.
    - "both": its vector, and pixels as above.

    Raises:
        UserError: If the environment does not have what `obs` asks for.
    """
    images, vector = codec.channels > 0, codec.vector_size > 0
    if obs == "auto":
        if images or isinstance(codec.space, gym.spaces.Dict):
            return View(native=images, vector=vector)
        return View(rendered=can_render, vector=not can_render)
    if obs in ("state", "both") and not vector:
        raise UserError(f"{id} observes only images: obs={obs!r} needs a vector; obs='pixels' is possible.")
    if obs in ("pixels", "both") and not (images or can_render):
        raise UserError(
            f"{id} neither observes an image nor was made with render_mode='rgb_array': "
            f"obs={obs!r} needs one of them; obs='state' is possible."
        )
    wants_pixels = obs != "state"
    return View(native=wants_pixels and images, rendered=wants_pixels and not images, vector=obs != "pixels")


class WorldEnv(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """An environment as the world model sees it.

    `observation_space` is a Dict with "pixels" (uint8, channel × height × width), "vector" (float32, [n]) or both;
    `action_space` is a Box of float32 vectors in [-1, 1] (see `ActionCodec`). `step` repeats the action
    `action_repeat` times, sums the rewards and stops at the end of the episode. `terminated` and `truncated` are
    kept apart: the time limit only ever truncates.

    Attributes:
        id: Name of the environment, for messages.
        observation_layout: Shapes of the observation.
        action_layout: Shape of the action vector.
        action_codec: Both directions between the action vector and the environment's own actions.
        ignored: Entries of the observation that could not be read and are left out.
        widest: The entry of the observation with most numbers in the vector.
        action_repeat: Environment steps per `step`.
        time_limit: Environment steps after which an episode is truncated.
        has_own_limit: Whether that limit is the environment's or the user's, and not our default.
        elapsed: Environment steps since the last reset.
    """

    def __init__(
        self,
        env: gym.Env[Any, Any],
        codec: ObservationCodec,
        view: View,
        *,
        id: str,
        action_repeat: int = 1,
        time_limit: int | None = None,
    ) -> None:
        self.id, self.env, self.view = id, env, view
        self.action_repeat, self.time_limit = action_repeat, time_limit or DEFAULT_TIME_LIMIT
        self.has_own_limit = time_limit is not None
        self.spec, self.metadata, self.render_mode = env.spec, env.metadata, env.render_mode
        self.elapsed, self._playing = 0, False
        self._codec, self.ignored, self.widest = codec, codec.ignored, codec.widest
        self.action_codec = ActionCodec(env.action_space)
        self.action_layout = self.action_codec.layout
        channels = 3 if view.rendered else codec.channels
        self.observation_layout = ObservationLayout(
            pixels=(channels, *codec.size) if view.native or view.rendered else None,
            vector=codec.vector_size if view.vector else None,
        )
        self.observation_space = _space(self.observation_layout)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (self.action_layout.size,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Begin an episode and return its first observation and info.

        Raises:
            UserError: If the environment fails or returns something that its spaces exclude.
        """
        super().reset(seed=seed)
        self.elapsed = 0
        result = self._guard("reset", lambda: self.env.reset(seed=seed, options=options))
        if not (isinstance(result, tuple) and len(result) == 2):
            raise self._fault("reset() did not return (observation, info) as Gymnasium's API asks")
        observation = self.show(result[0])
        self._playing = True
        return observation, result[1]

    def step(
        self, action: Float32[np.ndarray, " action"]
    ) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """Play an action vector and return (observation, reward, terminated, truncated, info).

        Raises:
            UserError: If the environment fails or returns something that its spaces exclude.
        """
        assert self._playing, "step() was called before reset() or after the end of an episode"
        total, terminated, truncated = 0.0, False, False
        for _ in range(self.action_repeat):
            self.elapsed += 1
            # decoded anew for each step: an environment may change, or keep, the action that it is given
            result = self._guard("step", partial(self.env.step, self.action_codec.decode(action)))
            if not (isinstance(result, tuple) and len(result) == 5):
                raise self._fault("step() did not return the 5 values that Gymnasium's API asks for")
            total += self._reward(result[1])
            terminated = bool(result[2])
            truncated = bool(result[3]) or self.elapsed >= self.time_limit
            if terminated or truncated:
                self._playing = False
                break
        self._check_size(total)
        return self.show(result[0]), total, terminated, truncated, result[4]

    def render(self) -> Any:
        """Return the environment's own rendering, in its own size."""
        return self._guard("render", self.env.render)

    def close(self) -> None:
        """Close the environment."""
        close(self.env, self.id)

    def show(self, observation: Any) -> dict[str, np.ndarray]:
        """Return the world model's observation of the present state, for the environment's own observation of it.

        Raises:
            UserError: If that is not what the space promises.
        """
        shown: dict[str, np.ndarray] = {}
        try:
            if self.view.native:
                shown["pixels"] = self._codec.pixels(observation)
            elif self.view.rendered:
                shown["pixels"] = shrink(_frame(self.render()), self._codec.size)
            if self.view.vector:
                shown["vector"] = self._codec.vector(observation)
        except Fault as fault:
            raise self._fault(str(fault)) from None
        return shown

    def _reward(self, reward: Any) -> float:
        number = np.asarray(reward)
        if number.size != 1 or number.dtype.kind not in "biuf":
            raise self._fault(f"the reward is {reward!r}, expected a number")
        if not np.isfinite(number).all():
            raise self._fault(f"the reward is {number.item()}, expected a finite number")
        value = float(number.item())
        self._check_size(value)
        return value

    def _check_size(self, reward: float) -> None:
        if abs(reward) > MAX_FLOAT32:
            raise self._fault(
                f"the reward is {reward:g}, which is too large for float32 (at most {MAX_FLOAT32:.1e}): "
                "scale rewards to about 1 to 10"
            )

    def _guard(self, name: str, call: Callable[[], Result]) -> Result:
        """Run a method of the environment and turn its exceptions into a UserError.

        That includes `sys.exit()` and the panics of compiled engines, which are no Exceptions and would end a training
        without a word; Ctrl-C stays what it is.
        """
        try:
            return call()
        except gym.error.DependencyNotInstalled as error:
            raise missing_package(self.spec, error) from error
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._fault(f"the environment's {name}() raised {described(error)}") from error

    def _fault(self, what: str) -> UserError:
        self._playing = False
        when = f"step {self.elapsed} of an episode" if self.elapsed else "reset"
        return UserError(f"{self.id}, at {when}: {what}.")

    def __repr__(self) -> str:
        return (
            f"WorldEnv({self.id}, {self.observation_layout}, {self.action_layout}, "
            f"action_repeat={self.action_repeat}, time_limit={self.time_limit})"
        )


def _space(layout: ObservationLayout) -> gym.Space[dict[str, np.ndarray]]:
    parts: dict[str, gym.Space[Any]] = {}
    if layout.pixels is not None:
        parts["pixels"] = gym.spaces.Box(0, 255, layout.pixels, np.uint8)
    if layout.vector is not None:
        parts["vector"] = gym.spaces.Box(-np.inf, np.inf, (layout.vector,), np.float32)
    space: gym.Space[Any] = gym.spaces.Dict(parts)
    return space


def _frame(rendering: Any) -> UInt8[np.ndarray, "height width 3"]:
    if not (isinstance(rendering, np.ndarray) and rendering.dtype == np.uint8 and rendering.ndim == 3):
        raise Fault(f"render() returned {type(rendering).__name__}, expected a uint8 array (height, width, 3)")
    if rendering.shape[2] != 3:
        raise Fault(f"render() returned the shape {rendering.shape}, expected (height, width, 3)")
    return rendering
