"""The recorded episodes of a task of the study: recorded once, then read by every job."""

import shutil
from pathlib import Path
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from worldvae.envs import EnvConfig
from worldvae.errors import UserError
from worldvae.studies.frame_probe import FrameProbe, train_frame_probe
from worldvae.studies.recorded import Recorded, load, record_episodes
from worldvae.types import Batch

Part = Literal["train", "validation", "test"]
HeldOutRows = tuple[Batch, Int[Tensor, " episode"], Float[Tensor, "episode time state"]]
"""Rows `[episode, time]`, decisions of each episode (row t exists for t <= decisions), and true states."""

PROBE_FILE = "frame_probe.safetensors"


def open_recorded(env: EnvConfig, episodes: int, folder: Path, seed: int = 0) -> Recorded:
    """Return the episodes that lie in `folder`; if there are none, record them there, and train the task's probe.

    Raises:
        UserError: If the environment fails, what lies there is damaged, or it cannot be written.
    """
    if folder.exists():
        return load(folder)
    found = record_episodes(env, episodes, seed)
    part = folder.with_name(folder.name + ".part")  # so that a folder of that name is whole
    try:
        shutil.rmtree(part, ignore_errors=True)
        found.save(part)
        train_frame_probe(*whole_episodes(found, "train"), seed).save(part / PROBE_FILE)
        part.rename(folder)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another folder with --out.") from error
    return found


def whole_episodes(recorded: Recorded, part: Part) -> HeldOutRows:
    """Return the episodes of a part side by side."""
    found = recorded.held_out(part)
    return found.rows, found.lengths - 1, found.truth


def open_probe(folder: Path) -> FrameProbe:
    """Return the probe of a task, from the folder of its episodes.

    Raises:
        UserError: If there is none, or it is damaged.
    """
    return FrameProbe.load(folder / PROBE_FILE)
