"""Whether features have collapsed, and whether imagined ones come closer to the truth than those held still."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from worldvae.diagnostics.feature_spread import FeatureSpread, feature_spread
from worldvae.models.world_model import WorldModel
from worldvae.studies.recorded_starts import dream_from, filtered, find_starts
from worldvae.types import Batch


@dataclass(frozen=True)
class LatentHealth(FeatureSpread):
    """The spread of `State.features` of held-out rows, and the error of imagined ones.

    Attributes:
        error_over_copy: by horizon, |z' - z|^2 / |z_start - z|^2, summed over features and starts: z' imagined, z
            filtered from the row itself, z_start filtered where the dream starts. 1 is no better than holding still.
            NaN if the features never change.
    """

    error_over_copy: dict[int, float]


@torch.no_grad()
def latent_health(
    model: WorldModel,
    rows: Batch,
    lengths: Int[Tensor, " episode"],
    horizons: tuple[int, ...] = (1, 5, 10, 20),
    context: int = 5,
    every: int = 0,
) -> LatentHealth:
    """Measure the features of filtered rows, and those imagined from some of them.

    Args:
        model: the world model.
        rows: held-out episodes `[episode, time]` from their first row on.
        lengths: decisions of each episode; row t exists for t <= length.
        horizons: imagined steps, 1 or more; those that no episode reaches are left out.
        context: rows that are observed up to the first start.
        every: rows between two starts (0: one start an episode).

    Raises:
        ValueError: If no episode is longer than the context.
    """
    states, starts = filtered(model, rows), find_starts(lengths, context, every)
    features = states.features.cpu()
    flat = features[torch.arange(features.shape[1]) <= lengths.cpu().unsqueeze(1)]
    imagined = dream_from(model, rows, states, starts, max(horizons)).states.features.cpu()
    ratios: dict[int, float] = {}
    for k in horizons:
        exists = starts.exists(k)
        if not bool(exists.any()):
            continue
        some = starts.where(exists)
        true = features[some.episode, some.row + k].double()
        held = (features[some.episode, some.row].double() - true).square().sum()
        missed = (imagined[exists, k - 1].double() - true).square().sum()
        ratios[k] = float(missed / held) if float(held) > 0 else float("nan")
    return LatentHealth(**asdict(feature_spread(flat)), error_over_copy=ratios)
