"""Whether what a world model of any kind predicts is as uncertain as it is wrong, at every horizon."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from worldvae.diagnostics.calibration import Calibration, calibration
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.senses import unit
from worldvae.models.world_model import WorldModel
from worldvae.types import Batch, Modality, Observation, State

CELLS_PER_SIDE = 8
"""Frames are compared as means of 8 x 8 cells: almost all single pixels are background, and trivially calibrated."""

MOST_STARTS = 32
"""Predictions of a model that is not `Probabilistic` start in at most so many rows: a frame may take many passes of a
U-Net, and 19 samples of 15 frames from 32 rows are 9120 frames (at 5.7 ms each, of 64 x 64 pixels by the default
`pixel_diffusion` on one core: 52 s)."""

DREAMS = 64
"""Dreams of such a model that are in memory at once: its states may hold frames."""


def why_no_predictions(model: WorldModel, valid: Bool[Tensor, "episode time"], length: int) -> str | None:
    """Return why `prediction_calibration` cannot do anything, or None if it can.

    Args:
        model: the world model.
        valid: which rows exist.
        length: rows that are observed or predicted, together.
    """
    if _modality(model) is None:
        return f"this {type(model).__name__} decodes neither frames nor vectors, so that its predictions are not seen"
    longest = int(valid.sum(1).max())
    if longest < length:
        return f"it needs episodes of {length} rows, and the longest has {longest}"
    return None


@torch.no_grad()
def prediction_calibration(
    model: WorldModel,
    rows: Batch,
    valid: Bool[Tensor, "episode time"],
    generator: torch.Generator,
    context: int,
    horizon: int,
    samples: int,
) -> Calibration:
    """Compare drawn predictions with what happened: standardised vectors if there are any, else cells of frames.

    Predictions of vectors contain the noise of p(x | state), those of frames are means.

    Args:
        model: the world model, for which `why_no_predictions` returns None.
        rows: episodes `[episode, time]` from their first row on, on the model's device.
        valid: which rows exist.
        generator: source of all draws, on that device.
        context: rows observed before a prediction.
        horizon: rows predicted.
        samples: predictions per row.
    """
    modality = _modality(model)
    assert modality is not None
    batch = _slices(rows, valid, context + horizon)
    if not isinstance(model, Probabilistic):
        batch = batch[:: -(-len(batch.reward) // MOST_STARTS)]
    number = len(batch.reward)
    seen = model.observe(batch[:, :context], generator=generator).posterior[:, -1]
    start = seen.map(lambda x: x.repeat(samples, *[1] * (x.dim() - 1)))
    actions = batch.action[:, context - 1 : -1].repeat(samples, 1, 1)
    together = len(actions) if isinstance(model, Probabilistic) else DREAMS
    drawn = []
    for first in range(0, len(actions), together):
        some = slice(first, first + together)
        dream = model.imagine(start[some], actions[some], generator=generator).states
        drawn.append(_vectors(model, dream, generator) if modality == "vector" else _frames(model, dream))
    truth = _truth(model, seen, batch.observation.map(lambda x: x[:, context:]), modality)
    return calibration(torch.cat(drawn).view(samples, number, horizon, -1), truth)


def _modality(model: WorldModel) -> Modality | None:
    both: tuple[Modality, ...] = ("vector", "pixels")
    return next((name for name in both if name in model.shows), None)


def _slices(rows: Batch, valid: Tensor, length: int) -> Batch:
    """Return all slices of `length` existing rows that do not overlap, from the first row of each episode on."""
    parts = [
        rows[:, start : start + length][valid[:, start + length - 1]]
        for start in range(0, rows.reward.shape[1] - length + 1, length)
    ]
    return Batch.cat(parts, dim=0)


def _vectors(model: WorldModel, dream: State, generator: torch.Generator) -> Float[Tensor, "dream horizon vector"]:
    """Return a vector drawn from what each state of dreams decodes to, standardised."""
    p = model.decode(dream, "vector")
    noise = torch.randn(p.mean.shape, device=model.device, generator=generator)
    if isinstance(model, Probabilistic):
        return model.senses.standardise(p.mean + p.stddev * noise)
    _, shown = model.in_shown_units(dream, Observation(vector=torch.zeros_like(p.mean)))
    return shown + _shown_per_decoded(p.mean, shown) * p.stddev * noise


def _shown_per_decoded(
    decoded: Float[Tensor, "dream horizon vector"], shown: Float[Tensor, "dream horizon vector"]
) -> Float[Tensor, " vector"]:
    """Return the factor by which a model standardises each entry of what it decodes.

    The protocol has both units, but not the factor: it follows from the smallest and the largest entry. It is 0 for
    an entry that hardly varies, so that the prediction is its mean.
    """
    x, y = decoded.flatten(0, 1).double(), shown.flatten(0, 1).double()
    ends = torch.stack([x.argmin(0), x.argmax(0)])
    x, y = x.gather(0, ends), y.gather(0, ends)
    known = (x[1] - x[0]) > 1e-4 * x.abs().amax(0)
    return torch.where(known, (y[1] - y[0]) / (x[1] - x[0]).clamp(min=1e-30), 0.0).to(shown.dtype)


def _frames(model: WorldModel, dream: State) -> Float[Tensor, "dream horizon cell"]:
    """Return the cells of the frames that states of dreams decode to."""
    chunks = [dream[first : first + 64] for first in range(0, dream.size, 64)]
    return torch.cat([_cells(model.decode(part, "pixels").mean) for part in chunks])


def _truth(
    model: WorldModel, seen: State, observed: Observation, modality: Modality
) -> Float[Tensor, "row horizon entry"]:
    """Return what was observed, in the units of predictions: cells of frames, or standardised vectors."""
    if modality == "pixels":
        assert observed.pixels is not None
        return _cells(unit(observed.pixels))
    assert observed.vector is not None
    if isinstance(model, Probabilistic):
        return model.senses.standardise(model.senses.squash(observed.vector))
    horizon = observed.vector.shape[1]  # the protocol's verb asks for states of the same leading shape
    states = seen.map(lambda x: x.unsqueeze(1).expand(-1, horizon, *x.shape[1:]))
    return model.in_shown_units(states, Observation(vector=observed.vector))[0]


def _cells(frames: Float[Tensor, "row time channel height width"]) -> Float[Tensor, "row time cell"]:
    pooled = F.adaptive_avg_pool2d(frames.float().flatten(0, 1), CELLS_PER_SIDE)
    out: Tensor = pooled.flatten(1).unflatten(0, frames.shape[:2])
    return out
