"""From an id to a Gymnasium environment, with a message for every failure."""

import importlib
import os
import re
import reprlib
import warnings
from typing import Any

import gymnasium as gym

from worldvae.errors import UserError, near_miss

# Packages that register their environments only when they are imported, by how their ids begin.
PROVIDERS = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid"}

# Families of Gymnasium's own environments that need more packages, by a word in their entry point.
EXTRAS = {
    "box2d": "worldvae[box2d]",
    "mujoco": "gymnasium[mujoco]",
    "toy_text": "gymnasium[toy-text]",
    "classic_control": "gymnasium[classic-control]",
    "phys2d": "gymnasium[jax]",
    "tabular": "gymnasium[jax]",
}


def find_spec(id: str) -> gym.envs.registration.EnvSpec:
    """Return the registration of `id` ("Name-v0", "namespace/Name-v0" or "module:Name-v0").

    Raises:
        UserError: If there is no such environment, or its module or package cannot be imported.
    """
    if not isinstance(id, str):
        raise UserError(
            f"{_short(id)} is not the id of an environment, such as 'CartPole-v1': "
            "worldvae.envs.wrap takes an environment, worldvae.envs.make_from an EnvConfig."
        )
    module, _, name = id.rpartition(":")
    provider = next((package for start, package in PROVIDERS.items() if name.startswith(start)), None)
    if module:
        _import(module, id)
    if provider is not None:
        _import(provider, id, f"pip install '{provider.replace('_', '-')}'")
    try:
        return gym.spec(name)
    except gym.error.Error as error:
        versions = [key for key in gym.registry if _unversioned(key) == _unversioned(name)]
        hint = f" Did you mean {versions[-1]!r}?" if versions else near_miss(name, gym.registry)
        raise UserError(f"there is no environment {id!r}.{hint} ({_sentence(error)})") from error


def create(id: str, time_limit: int, render: bool, kwargs: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make the Gymnasium environment `id`, able to render if `render`.

    Raises:
        UserError: If it needs a package that is not installed, or refuses `kwargs`.
    """
    # A window would need a display, and pygame's greeting would end up in the --json output.
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")  # else it swallows SIGTERM, and nothing can stop the process
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    spec = find_spec(id)
    options = kwargs | ({"render_mode": "rgb_array"} if render else {})
    try:
        # The checks of Gymnasium's own checker are made by WorldEnv, at each step.
        return gym.make(id, max_episode_steps=time_limit, disable_env_checker=True, **options)
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        raise missing_package(spec, error) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        given = f" with {_short(kwargs)}" if kwargs else ""
        raise UserError(f"{id} cannot be made{given}: {described(error)}") from error


def close(env: gym.Env[Any, Any], id: str) -> None:
    """Close an environment; a failure to close is a warning, as no data depend on it."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        warnings.warn(f"{id} could not be closed: {described(error)}.", stacklevel=2)


def missing_package(spec: gym.envs.registration.EnvSpec | None, error: Exception) -> UserError:
    """Return the error that says which package `spec` needs."""
    id = spec.id if spec is not None else "the environment"
    entry = str(spec.entry_point) if spec is not None else ""
    extra = next((extra for word, extra in EXTRAS.items() if f".{word}." in entry), None)
    if extra is None:
        return UserError(f"{id} needs something that is not installed: {_sentence(error)}")
    return UserError(f"{id} needs a package that is not installed: pip install '{extra}'.")


def described(error: BaseException) -> str:
    """Return the kind of an error and its message, on one line."""
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _import(module: str, id: str, fix: str = "") -> None:
    """Import the module that registers the environment `id`."""
    folder, _, file = module.replace("\\", "/").rpartition("/")
    if folder or module.startswith(".") or module.endswith(".py"):
        name = file.removesuffix(".py")
        raise UserError(
            f"the environment {id!r} begins with the path of a file, where the name of a module is expected: "
            f"write {name}:{id.rpartition(':')[2]}, and run worldvae in the folder that holds {file}."
        )
    try:
        importlib.import_module(module)
    except KeyboardInterrupt:
        raise
    except ModuleNotFoundError as error:
        if not fix and error.name == module.partition(".")[0]:
            fix = f"{_sentence(error)}: install it, or run worldvae in the folder that holds it"
        raise UserError(
            f"the module of the environment {id!r} cannot be imported: {fix or _sentence(error)}."
        ) from error
    except BaseException as error:  # a user's module may do anything when it is imported, even sys.exit()
        raise UserError(f"the module of the environment {id!r} cannot be imported: {described(error)}.") from error


def _short(value: Any) -> str:
    """Return what a value looks like, on one line."""
    return " ".join(reprlib.repr(value).split())


def _unversioned(id: str) -> str:
    return re.sub(r"-v\d+$", "", id)


def _sentence(error: Exception) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
