"""One fixed network per task that reads the true state from frames: it judges what every kind of model draws."""

import json
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from worldvae.diagnostics.probe import r_squared
from worldvae.errors import UserError
from worldvae.films.open_loop import OpenLoop
from worldvae.networks import MLP, ConvEncoder
from worldvae.types import Batch, Observation

WINDOW = 2
"""Rows that the probe reads: a single frame has no velocity."""


class FrameProbe(nn.Module):
    """A small network from two successive rows of frames, or of vectors, to the true state at the later one.

    Args:
        shape: (channel, height, width) of a frame in 0..1, or (length,) of a vector.
        entries: length of the true state.

    Attributes:
        centre: mean observation of the training rows; it is subtracted.
        scale: standard deviation of the entries of vectors; for frames that of all pixels.
        mean: mean of the true states.
        std: standard deviation of the true states.
    """

    centre: Tensor
    scale: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, shape: tuple[int, ...], entries: int) -> None:
        super().__init__()
        self.shape, self.entries = shape, entries
        self.register_buffer("centre", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape[-1] if len(shape) == 1 else 1))
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("std", torch.ones(entries))
        self.body: nn.Module = _convolutions(shape, entries) if len(shape) == 3 else _perceptron(shape[0], entries)

    def forward(self, window: Float[Tensor, "batch window ..."]) -> Float[Tensor, "batch entry"]:
        """Return the true states at the last row of each window."""
        return self.mean + self.std * self.standardised(window)

    def standardised(self, window: Float[Tensor, "batch window ..."]) -> Float[Tensor, "batch entry"]:
        """Return the true states in units of their standard deviation."""
        out: Tensor = self.body(((window - self.centre) / self.scale).flatten(1, 2))
        return out

    def save(self, path: Path) -> None:
        """Write the probe to a file.

        Raises:
            UserError: If it cannot be written.
        """
        size = json.dumps({"shape": self.shape, "entries": self.entries})
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
            save_file(tensors, path, {"size": size})
        except (OSError, SafetensorError) as error:
            raise UserError(f"cannot write the probe {path} ({error}): choose another folder with --out.") from error

    @classmethod
    def load(cls, path: Path) -> "FrameProbe":
        """Return the probe that `save` wrote.

        Raises:
            UserError: If the file is none, or damaged.
        """
        try:
            with safe_open(path, "pt") as file:
                size = json.loads(file.metadata()["size"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            probe = cls(tuple(size["shape"]), size["entries"])
            probe.load_state_dict(tensors)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{path} is not a probe ({reason}): delete it; it is then trained anew.") from error
        return probe.eval()


def _convolutions(shape: tuple[int, ...], entries: int) -> nn.Module:
    trunk = ConvEncoder((WINDOW * shape[0], shape[1], shape[2]), depth=16)
    trunk.centre.zero_()  # the probe subtracts its own
    return nn.Sequential(trunk, MLP(trunk.out_features, 128, 1, entries))


def _perceptron(length: int, entries: int) -> nn.Module:
    return MLP(WINDOW * length, 64, 2, entries, kind="plain")


def train_frame_probe(
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    truth: Float[Tensor, "episode time entry"],
    seed: int = 0,
    updates: int = 600,
    batch: int = 64,
) -> FrameProbe:
    """Train the probe of a task on real rows.

    Every model of the task is judged by the same probe: train it once, and save it.

    Args:
        rows: training episodes `[episode, time]`.
        lengths: decisions of each episode; row t exists for t <= length.
        truth: true state of every row.
        seed: of the initial weights and the batches.
        updates: steps of Adam, whose step size falls from 2e-3 to 0 along half a cosine.
        batch: windows in each.

    Raises:
        ValueError: If no episode has two rows.
    """
    seen = observed(rows.observation)
    last = torch.arange(1, seen.shape[1])
    episode, column = torch.nonzero(last <= lengths.cpu().unsqueeze(1), as_tuple=True)
    if not len(episode):
        raise ValueError("a frame probe is trained on pairs of rows, and no episode has two")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        probe = FrameProbe(tuple(seen.shape[2:]), truth.shape[-1])
    _calibrate(probe, seen[episode, column + 1], truth[episode, column + 1])
    adam = torch.optim.Adam(probe.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(adam, updates)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        drawn = torch.randint(len(episode), (batch,), generator=generator)
        first = column[drawn].unsqueeze(1) + torch.arange(WINDOW)
        window = unit_frames(seen[episode[drawn].unsqueeze(1), first])
        target = (truth[episode[drawn], column[drawn] + 1] - probe.mean) / probe.std
        loss = (probe.standardised(window) - target).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
    return probe.eval().requires_grad_(False)


def observed(observation: Observation) -> Tensor:
    """Return the frames, or the vectors where there are none."""
    found = observation.vector if observation.pixels is None else observation.pixels
    assert found is not None
    return found


def unit_frames(seen: Tensor) -> Tensor:
    """Return frames as float in 0..1; vectors, and frames that are so already, unchanged."""
    return seen.float() / 255 if seen.dtype == torch.uint8 else seen.float()


def _calibrate(probe: FrameProbe, seen: Tensor, truth: Tensor) -> None:
    frames = seen.dim() == 4
    some = unit_frames(seen[:: max(1, len(seen) // 2000)])
    probe.centre.copy_(some.mean(0))
    spread = (some - probe.centre).square().mean() if frames else some.var(dim=0, correction=0)
    probe.scale.copy_(spread.sqrt().clamp(min=1e-3))
    probe.mean.copy_(truth.mean(0))
    probe.std.copy_(truth.std(dim=0, correction=0).clamp(min=1e-6))


@torch.no_grad()
def frame_probe_r2(
    probe: FrameProbe,
    dream: OpenLoop,
    rows: Batch,
    truth: Float[Tensor, "episode time entry"],
    horizons: tuple[int, ...] = (0, 1, 5, 10, 20),
) -> dict[int, list[float]]:
    """Return, for each horizon, R^2 of each entry of the true state as the probe reads it from dreamt rows.

    At horizon 0 it reads the model's reconstruction of the last observed rows; horizons beyond the dream, or with
    fewer than two episodes, are left out. An entry that does not vary has no R^2: NaN.

    Args:
        probe: the task's probe.
        dream: dreams of `rows`.
        rows: the episodes that were dreamt of, `[episode, time]`.
        truth: their true states.
        horizons: steps ahead.
    """
    shown, found = _in_observed_units(dream, rows), dict[int, list[float]]()
    for horizon in horizons:
        row = dream.context - 1 + horizon
        if row < WINDOW - 1 or row >= shown.shape[1]:
            continue
        exists = dream.valid[:, horizon - 1] if horizon else torch.ones(len(shown), dtype=torch.bool)
        if int(exists.sum()) < 2:
            continue
        read = probe(shown[exists, row + 1 - WINDOW : row + 1])
        found[horizon] = r_squared(read, truth[exists, row].to(read)).tolist()
    return found


def _in_observed_units(dream: OpenLoop, rows: Batch) -> Tensor:
    """Return dreamt vectors in the units of the world, which a model's own standardised units hide.

    Raises:
        ValueError: If those are not an affine function, entry by entry, of the world's.
    """
    if dream.pixels:
        return dream.dream
    assert rows.observation.vector is not None
    world, shown = rows.observation.vector[:, : dream.truth.shape[1]].double(), dream.truth.double()
    world, shown = world.flatten(0, 1), shown.flatten(0, 1)
    spread = shown.std(dim=0, correction=0)
    factor = torch.where(spread > 1e-9, world.std(dim=0, correction=0) / spread.clamp(min=1e-9), 1.0)
    offset = world.mean(0) - factor * shown.mean(0)
    if not torch.allclose(offset + factor * shown, world, rtol=1e-3, atol=1e-3 * float(world.abs().max())):
        raise ValueError("a frame probe needs vectors in affine units: train with model.vector_symlog=false")
    return (offset + factor * dream.dream.double()).float()
