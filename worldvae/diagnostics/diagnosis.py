"""All diagnostics of a world model, on episodes that it was not trained on."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from worldvae.diagnostics.calibration import Calibration
from worldvae.diagnostics.feature_spread import FeatureSpread, feature_spread
from worldvae.diagnostics.gaps import Gaps, gaps
from worldvae.diagnostics.inference import Inference, compare_inference
from worldvae.diagnostics.latent_findings import NO_LATENTS, LatentFindings, latent_findings, why_no_latents
from worldvae.diagnostics.prediction_calibration import prediction_calibration, why_no_predictions
from worldvae.diagnostics.probe import linear_probe
from worldvae.diagnostics.slices import pick_slices
from worldvae.models.probabilistic import Inferred, Probabilistic
from worldvae.models.world_model import WorldModel
from worldvae.system.json_file import plain
from worldvae.types import Batch


@dataclass(frozen=True)
class Effort:
    """How much computation is spent on measuring the gain of better inference.

    Attributes:
        slices: number of slices of episodes for which the three gaps are measured.
        length: rows of each slice.
        steps: gradient steps of each search for better parameters of q.
        samples: samples per slice for every bound.
        rows: number of single rows for which the methods of inference are compared.
        refinements: gradient steps of the semi-amortised methods; inference from scratch takes ten times the largest.
        draws: draws of HMC.
    """

    slices: int = 8
    length: int = 16
    steps: int = 60
    samples: int = 64
    rows: int = 12
    refinements: tuple[int, ...] = (10, 50)
    draws: int = 200


@dataclass(frozen=True)
class Diagnosis(LatentFindings):
    """The results of `diagnose`; nats per row, of the kind `prior_kind` if they depend on the prior's density.

    Attributes:
        features: standard deviations and effective rank of the features of observed rows.
        calibration: calibration of predictions at every horizon, for standardised vectors or cells of frames; None if
            no episode is long enough, or the model decodes nothing.
        probe: R^2 of a linear regression of each known entry of the true state on the features (of a VAE: h and z);
            None if none is known.
        gaps: what the ELBO loses by approximation, by amortisation and by conditioning.
        inference: one pass of the encoder compared with iterative inference.
        left_out: why `calibration`, `gaps` or `inference` is None, by name; and each of the `LatentFindings`, if the
            model is not `Probabilistic`.
    """

    features: FeatureSpread
    calibration: Calibration | None
    probe: list[float] | None
    gaps: Gaps | None
    inference: list[Inference] | None
    left_out: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """Return plain lists and numbers; numbers that are not finite become None."""
        out: dict[str, Any] = plain(asdict(self))
        return out


@torch.no_grad()
def diagnose(
    model: WorldModel,
    rows: Batch,
    valid: Bool[Tensor, "episode time"],
    generator: torch.Generator,
    truth: Float[Tensor, "episode time state"] | None = None,
    *,
    context: int = 5,
    horizon: int = 15,
    samples: int = 19,
    effort: Effort | None = None,
) -> Diagnosis:
    """Compute all diagnostics that a model's kind permits; the others are None, with the reasons.

    Args:
        model: the world model.
        rows: episodes `[episode, time]` from their first row on.
        valid: which rows exist.
        generator: source of all draws, on the CPU.
        truth: known entries of the true state of every row.
        context: rows observed before a prediction.
        horizon: rows predicted.
        samples: predictions per row.
        effort: computation for `gaps` and `inference`, which take most of the time (None: skip them).

    Raises:
        ValueError: If there are fewer than 16 rows.
    """
    if int(valid.sum()) < 16:
        raise ValueError(f"{int(valid.sum())} rows are too few for a diagnosis, which needs 16: take more episodes")
    rows, valid = rows.to(model.device), valid.to(model.device)
    rows = replace(rows, is_first=rows.is_first | ~valid)  # no smoother may read beyond the end of an episode
    draws = torch.Generator(model.device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
    latents, gap, ways = NO_LATENTS, None, None
    if isinstance(model, Probabilistic):
        observed = model.observe(rows, generator=draws)
        features = observed.posterior.features[valid]
        latents = latent_findings(model, observed, valid, generator, draws)
    else:
        features = _features(model, rows, draws)[valid]
    predictions, why_none = None, why_no_predictions(model, valid, context + horizon)
    if why_none is None:
        predictions = prediction_calibration(model, rows, valid, draws, context, horizon, samples)
    if isinstance(model, Probabilistic):
        gap, ways, left_out = _inference(model, rows, valid, observed, effort, generator, draws)
    else:
        left_out = why_no_latents(model)
    return Diagnosis(
        **vars(latents),
        features=feature_spread(features),
        calibration=predictions,
        probe=None if truth is None else linear_probe(features, truth.to(model.device)[valid]).tolist(),
        gaps=gap,
        inference=ways,
        left_out=left_out if why_none is None else {"calibration": why_none, **left_out},
    )


def _features(model: WorldModel, rows: Batch, generator: torch.Generator) -> Float[Tensor, "episode time feature"]:
    """Return the features of observed rows, one episode after the other: the states of some kinds hold frames."""
    episodes = [rows[number : number + 1] for number in range(len(rows.reward))]
    return torch.cat([model.observe(rows, generator=generator).posterior.features for rows in episodes])


def _inference(
    model: Probabilistic,
    rows: Batch,
    valid: Tensor,
    observed: Inferred,
    effort: Effort | None,
    generator: torch.Generator,
    draws: torch.Generator,
) -> tuple[Gaps | None, list[Inference] | None, dict[str, str]]:
    """Return the gaps and the comparison of inference, and the reasons if they are missing."""
    if effort is None:
        return None, None, dict.fromkeys(("gaps", "inference"), "not asked")
    left_out: dict[str, str] = {}
    split, ways = None, None
    some = pick_slices(model, rows, valid, observed, effort.slices, effort.length, generator)
    with torch.enable_grad():
        try:
            split = gaps(model, some, draws, steps=effort.steps, samples=effort.samples)
        except ValueError as error:
            left_out["gaps"] = str(error)
        try:
            ways = compare_inference(
                model,
                some.rows,
                draws,
                state=some.state,
                action=some.action,
                number=effort.rows,
                steps=effort.refinements,
                draws=effort.draws,
            )
        except ValueError as error:
            left_out["inference"] = str(error)
    return split, ways, left_out
