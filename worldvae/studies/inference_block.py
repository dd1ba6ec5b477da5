"""What amortised inference costs in nats and saves in time: on training rows, on held-out rows, and on shifted ones."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from worldvae.diagnostics import Inference, compare_inference
from worldvae.models.probabilistic import Probabilistic
from worldvae.types import Batch


@dataclass(frozen=True)
class InferenceLine:
    """A line of the table: one method on one set of rows.

    Attributes:
        rows: name of the rows.
        method: what the method did; its bound is in nats per row.
    """

    rows: str
    method: Inference

    def as_json(self) -> dict[str, Any]:
        """Return the line as one flat object."""
        return {"rows": self.rows} | asdict(self.method)


@dataclass(frozen=True)
class InferenceEffort:
    """How much is spent on a set of rows.

    The default decodes about 3 000 frames for each row: 16 rows of 64 x 64 pixels took 15 s of one core.

    Attributes:
        number: rows that are compared.
        steps: steps of refinement after the encoder; inference from scratch takes ten times the largest.
        draws: HMC steps after as many of warm-up, with 10 leapfrog steps each; several times the length of the latent.
        samples: samples of z for every bound.
    """

    number: int = 16
    steps: tuple[int, ...] = (10,)
    draws: int = 64
    samples: int = 128


def inference_block(
    model: Probabilistic, rows: Mapping[str, Batch], seed: int = 0, effort: InferenceEffort | None = None
) -> list[InferenceLine]:
    """Compare the encoder, the encoder with k steps of refinement, inference from scratch, and HMC, on sets of rows.

    Args:
        model: a trained model with an amortised Gaussian posterior.
        rows: sets of episodes by name, all of whose rows exist (`whole_slices`).
        seed: of all draws; the same for every set.
        effort: how much is spent on each set.

    Raises:
        ValueError: If the posterior has no parameters that could be refined, or is not Gaussian.
    """
    effort, found = effort or InferenceEffort(), list[InferenceLine]()
    for name, some in rows.items():
        generator = torch.Generator(model.device).manual_seed(seed)
        methods = compare_inference(
            model,
            some,
            generator,
            number=effort.number,
            steps=effort.steps,
            draws=effort.draws,
            samples=effort.samples,
        )
        found += [InferenceLine(name, one) for one in methods]
    return found


def whole_slices(rows: Batch, lengths: Int[Tensor, " episode"], time: int = 20) -> Batch:
    """Return the first `time` rows of every episode that has them, or of the longest episodes if none has."""
    time = min(time, int(lengths.max()) + 1)
    return rows[lengths.cpu() + 1 >= time][:, :time]


def shifted(rows: Batch, seed: int = 0, brightness: float = 0.1, noise: float = 0.05) -> Batch:
    """Return rows that look different: brighter frames with Gaussian noise, as from another camera.

    Args:
        rows: of any leading shape.
        seed: of the noise.
        brightness: added to frames in 0..1; to vectors in units of each entry's standard deviation.
        noise: standard deviation of the noise, in the same units.
    """
    seen = rows.observation
    pixels, vector = seen.pixels, seen.vector
    generator = torch.Generator().manual_seed(seed)
    if pixels is not None:
        frames = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels
        kick = torch.randn(frames.shape, generator=generator).to(frames)
        moved = (frames + brightness + noise * kick).clamp(0, 1)
        pixels = (255 * moved).round().to(torch.uint8) if pixels.dtype == torch.uint8 else moved
    if vector is not None:
        spread = vector.reshape(-1, vector.shape[-1]).std(dim=0, correction=0)
        kick = torch.randn(vector.shape, generator=generator).to(vector)
        vector = vector + spread * (brightness + noise * kick)
    return replace(rows, observation=replace(seen, pixels=pixels, vector=vector))
