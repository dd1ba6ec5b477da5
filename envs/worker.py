"""A process that plays some of a pool's environments."""

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import cast

from gymnasium.vector.utils import CloudpickleWrapper

from worldvae.envs.buffers import Buffers, check_layouts, reset_rows, step_rows
from worldvae.envs.world_env import WorldEnv
from worldvae.system.child import Child, Tasks
from worldvae.types import ActionLayout, ObservationLayout

Maker = Callable[[], WorldEnv]
Look = tuple[str, ObservationLayout, ActionLayout]
"""The id of an environment, and its layouts."""


class Worker(Child):
    """The caller's end of a process whose tasks are "reset" (a seed or None per row) and "step" (a flag per row).

    Args:
        makers: Functions that make its environments.
        buffers: The pool's shared buffers.
        first: Row of its first environment.
        layouts: What its environments must look like.
    """

    def __init__(
        self,
        makers: Sequence[Maker],
        buffers: Buffers,
        first: int,
        layouts: tuple[ObservationLayout, ActionLayout],
    ) -> None:
        self.rows = slice(first, first + len(makers))
        super().__init__(
            _build,
            ([CloudpickleWrapper(maker) for maker in makers], buffers, first, layouts),
            what="an environment process",
            advice="use fewer environments, or mode='sync' to see where.",
        )


def _build(
    opened: ExitStack,
    makers: Sequence[CloudpickleWrapper],
    buffers: Buffers,
    first: int,
    layouts: tuple[ObservationLayout, ActionLayout],
) -> Tasks:
    """Make the environments, in the process."""
    envs: list[WorldEnv] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the pool has made one of them already and shown its warnings
        for maker in makers:
            envs.append(cast(WorldEnv, maker.fn()))
            opened.callback(envs[-1].close)
    check_layouts(envs, *layouts)
    return {
        "reset": lambda seeds: reset_rows(envs, buffers, first, seeds),
        "step": lambda active: step_rows(envs, buffers, first, active),
    }


def look_here(maker: Maker) -> Look:
    """Make an environment, read its layouts, and close it."""
    env = maker()
    env.close()
    return env.id, env.observation_layout, env.action_layout


def look_elsewhere(maker: Maker) -> Look:
    """Do the same in a process of its own, so that this one, and those forked from it, never hold an instance.

    Raises:
        UserError: If the environment cannot be made.
    """
    child = Child(_glance, (CloudpickleWrapper(maker),), "an environment process", "see what it needs to run.")
    try:
        child.wait()
        child.send("look")
        look: Look = child.wait()
        return look
    finally:
        child.close()


def _glance(opened: ExitStack, maker: CloudpickleWrapper) -> Tasks:
    look = look_here(cast(Maker, maker.fn))
    return {"look": lambda _: look}
