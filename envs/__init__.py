"""Environments: any Gymnasium id as rows of observations, rewards and float action vectors."""

if __name__ != "worldvae.envs":
    raise ImportError(f"this folder was imported as {__name__!r}: import it as 'worldvae.envs'")

from worldvae.envs.make import EnvConfig, make, make_from, wrap
from worldvae.envs.observations import ObservationCodec
from worldvae.envs.pixels import shrink
from worldvae.envs.pool import EnvPool, Step
from worldvae.envs.spaces import ActionCodec
from worldvae.envs.world_env import WorldEnv
from worldvae.envs.worlds import detail, linear, plain_pendulum, tiny, two_rooms, wind

__all__ = [
    "ActionCodec",
    "EnvConfig",
    "EnvPool",
    "ObservationCodec",
    "Step",
    "WorldEnv",
    "detail",
    "linear",
    "make",
    "make_from",
    "plain_pendulum",
    "shrink",
    "tiny",
    "two_rooms",
    "wind",
    "wrap",
]

detail.register()
linear.register()
plain_pendulum.register()
tiny.register()
two_rooms.register()
wind.register()
