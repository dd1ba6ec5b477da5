"""worldvae: learn a world as a sequential VAE, plan in its latent space, film its dreams."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from worldvae.errors import UserError
from worldvae.types import ActionLayout, Batch, Dream, Observation, ObservationLayout, State, VectorState

if TYPE_CHECKING:
    from worldvae.memory import LatentState
    from worldvae.models.parts import WorldModelConfig
    from worldvae.models.sequential_vae import SequentialVAE
    from worldvae.models.sequential_vae import SequentialVAE as WorldModel
    from worldvae.models.static_vae import VAE
    from worldvae.planning import plan
    from worldvae.runs.run import Run, load
    from worldvae.runs.settings import RunConfig
    from worldvae.training.trainer import Trainer

_LAZY = {
    "LatentState": "worldvae.memory",
    "load": "worldvae.runs.run",
    "Run": "worldvae.runs.run",
    "RunConfig": "worldvae.runs.settings",
    "SequentialVAE": "worldvae.models.sequential_vae",
    "Trainer": "worldvae.training.trainer",
    "VAE": "worldvae.models.static_vae",
    "WorldModelConfig": "worldvae.models.parts",
    "envs": "worldvae.envs",
    "agents": "worldvae.agents",
    "plan": "worldvae.planning",
    "planning": "worldvae.planning",
}
# A user of `wv.WorldModel(...)` wants a model; the protocol of all models is in models/world_model.py.
_OTHER_NAMES = {"WorldModel": "SequentialVAE"}

__all__ = [
    "VAE",
    "ActionLayout",
    "Batch",
    "Dream",
    "LatentState",
    "Observation",
    "ObservationLayout",
    "Run",
    "RunConfig",
    "SequentialVAE",
    "State",
    "Trainer",
    "UserError",
    "VectorState",
    "WorldModel",
    "WorldModelConfig",
    "load",
    "plan",
]


def __getattr__(name: str) -> Any:
    """Import what needs Gymnasium, rich or a config reader only on demand."""
    name = _OTHER_NAMES.get(name, name)
    if name in _LAZY:
        module = import_module(_LAZY[name])
        return module if _LAZY[name] == f"worldvae.{name}" else getattr(module, name)
    raise AttributeError(f"module 'worldvae' has no attribute {name!r}")
