"""What a better prior is worth on handwritten digits: one VAE, seven priors, held-out bounds."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from worldvae.diagnostics import active_units, log_ratio, mmd
from worldvae.models.static_vae import VAE
from worldvae.priors import FlowMatchingPrior
from worldvae.seeds import check_seed
from worldvae.studies.digit_vaes import PRIORS, Digits, check_names, load_digits, make_vae
from worldvae.studies.flow_density import FlowDensity
from worldvae.studies.grid import draw_grid
from worldvae.system.json_file import write_json
from worldvae.types import Kind

SHOWN_SAMPLES = 16
"""Samples of each prior on the grid."""

DIGITS_PER_CALL = 3
"""Digits whose bound is computed at once: few, so that what is computed of their samples stays in the cache."""


@dataclass(frozen=True)
class DigitsConfig:
    """How every prior is trained and measured, whichever it is.

    Attributes:
        epochs: passes through the digits; the learning rate falls linearly to 0 over them.
        batch: digits of an update.
        learning_rate: of Adam, at the beginning.
        look: epochs between two looks at the validation digits; the weights of the best look are kept.
        samples: k of the importance-weighted bound.
        elbo_samples: draws that the ELBO of a digit is averaged over.
    """

    epochs: int = 200
    batch: int = 128
    learning_rate: float = 2e-3
    look: int = 10
    samples: int = 1000
    elbo_samples: int = 32


@dataclass(frozen=True)
class Measured:
    """What a trained VAE was found to be; nats are per held-out digit.

    Attributes:
        bound: importance-weighted bound, mean over the digits.
        bound_error: its standard error, over the digits.
        kind: what `bound` is: a "lower_bound" of log p(x) on average over the noise; or an "estimate" where log p(z) of
            flow matching comes from a solver.
        elbo: the evidence lower bound, always one.
        rate: KL(q(z | x) || p(z)), or its upper bound under flow matching: the nats that z holds.
        active: units of z whose posterior mean varies over the digits, by more than 0.01 of the prior's variance.
        latent: units of z.
        mmd: squared maximum mean discrepancy of the aggregated posterior and the prior.
        log_ratio: their KL in nats as far as a classifier sees it (kind: estimate).
        parameters: numbers that are learnt.
        prior_parameters: those of the prior alone.
        epoch: where the validation digits were modelled best.
        minutes: of training.
        nats: the bound, digit after digit.
        samples: means of p(x | z) for z from the prior.
    """

    bound: float
    bound_error: float
    kind: Kind
    elbo: float
    rate: float
    active: int
    latent: int
    mmd: float
    log_ratio: float
    parameters: int
    prior_parameters: int
    epoch: int
    minutes: float
    nats: Float[Tensor, " digit"] = field(repr=False)
    samples: Float[Tensor, "sample 8 8"] = field(repr=False)


@dataclass(frozen=True)
class DigitsRow:
    """One prior under one seed: what was measured, or else why nothing was."""

    prior: str
    seed: int
    measured: Measured | None
    failure: str | None = None

    @property
    def nats(self) -> list[float] | None:
        """The bound of every held-out digit."""
        return None if self.measured is None else [round(x, 3) for x in self.measured.nats.tolist()]

    def figures(self) -> dict[str, Any]:
        """Return the row as it stands in a JSON object: figures alone, no tensors."""
        found = {} if self.measured is None else asdict(self.measured)
        numbers = {key: value for key, value in found.items() if not isinstance(value, Tensor)}
        return {"prior": self.prior, "seed": self.seed, "failure": self.failure, **numbers}


def compare_priors(
    out: Path,
    seeds: Sequence[int],
    names: Sequence[str] = tuple(PRIORS),
    config: DigitsConfig | None = None,
    say: Callable[[str], object] | None = None,
) -> list[DigitsRow]:
    """Train the same VAE with each prior under each seed and measure it on the held-out digits.

    All are trained alike, and stopped where the ELBO of the validation digits is best. What fails becomes a row that
    says why. Written are `out/digits.json`, the rows as far as they are, with the bound of every held-out digit, and
    `out/digits.png`, samples under the first seed.

    Args:
        out: folder, made if there is none.
        seeds: of weights, order of the examples and noise.
        names: of `PRIORS`.
        config: how all of them are trained and measured.
        say: is given a sentence after each row.

    Raises:
        UserError: If scikit-learn is not installed, a name or a seed is none, or there is no way to write to `out`.
    """
    config = config or DigitsConfig()
    check_names(names)
    for seed in seeds:
        check_seed(seed)
    digits = load_digits()
    rows: list[DigitsRow] = []
    path = out / "digits.json"
    write_json(path, rows)  # what cannot be written is known before anything is trained
    for seed in seeds:
        for name in names:
            rows.append(_row(name, seed, digits, config))
            write_json(path, [row.figures() | {"nats": row.nats} for row in rows])
            if say is not None:
                say(_sentence(rows[-1]))
    pictures: dict[str, Tensor | None] = {"real": digits.test[:SHOWN_SAMPLES]}
    first = [row for row in rows if row.seed == seeds[0]]
    pictures |= {row.prior: None if row.measured is None else row.measured.samples for row in first}
    draw_grid(out / "digits.png", pictures)
    return rows


def _row(name: str, seed: int, digits: Digits, config: DigitsConfig) -> DigitsRow:
    try:
        vae = make_vae(name, seed, digits.train)
        started = time.perf_counter()
        epoch = train(vae, digits, config, seed)
        minutes = (time.perf_counter() - started) / 60
        measured = measure(vae, digits, config, seed, epoch, minutes)
    except Exception as error:  # one prior's failure must not cost what was found of the others
        return DigitsRow(name, seed, None, f"{type(error).__name__}: {error}")
    if not torch.isfinite(measured.nats).all():
        return DigitsRow(name, seed, None, "its bound is not finite")
    return DigitsRow(name, seed, measured)


def _sentence(row: DigitsRow) -> str:
    head = f"{row.prior}, seed {row.seed}: "
    if row.measured is None:
        return f"{head}failed ({row.failure})"
    return f"{head}{row.measured.bound:.2f} nats per digit ({row.measured.kind})"


def train(vae: VAE, digits: Digits, config: DigitsConfig, seed: int) -> int:
    """Train on the training digits and go back to where the ELBO of the validation digits was best; return the epoch.

    The ELBO is averaged over 8 draws whose noise is the same at every look.
    """
    per_epoch = -(-len(digits.train) // config.batch)
    best, best_epoch, kept = -torch.inf, 0, None

    def watch(update: int) -> None:
        nonlocal best, best_epoch, kept
        epoch, rest = divmod(update, per_epoch)
        if rest or (epoch % config.look and epoch != config.epochs):
            return
        value = float(_elbo(vae, digits.validation, 8, torch.Generator().manual_seed(0))[0].mean())
        if value > best:
            best, best_epoch, kept = value, epoch, {k: v.clone() for k, v in vae.state_dict().items()}

    generator = torch.Generator().manual_seed(seed)
    vae.fit(
        digits.train,
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        generator=generator,
        watch=watch,
    )
    if kept is None:
        raise ValueError("the bound of the validation digits was never finite")
    vae.load_state_dict(kept)
    return best_epoch


@torch.no_grad()
def measure(vae: VAE, digits: Digits, config: DigitsConfig, seed: int, epoch: int, minutes: float) -> Measured:
    """Measure a trained VAE on the held-out digits; the prior hole, whose posterior is that of the training digits."""
    generator = torch.Generator().manual_seed(seed)
    x = digits.test
    elbo, rate = _elbo(vae, x, config.elbo_samples, generator)
    exact = with_density(vae)
    bounds = [exact.bound(part, config.samples, generator) for part in x.split(DIGITS_PER_CALL)]
    nats = torch.cat([bound.nats for bound in bounds])
    gap, ratio, std = hole(vae, digits.train, generator)
    return Measured(
        bound=float(nats.mean()),
        bound_error=float(nats.std() / len(nats) ** 0.5),
        kind=bounds[0].kind,
        elbo=float(elbo.mean()),
        rate=float(rate.mean()),
        active=int(active_units(vae.parameters_of(x)[0] / std).sum()),
        latent=vae.prior.latent_size,
        mmd=gap,
        log_ratio=ratio,
        parameters=sum(p.numel() for p in vae.parameters()),
        prior_parameters=sum(p.numel() for p in vae.prior.parameters()),
        epoch=epoch,
        minutes=minutes,
        nats=nats,
        samples=vae.sample(SHOWN_SAMPLES, generator),
    )


def with_density(vae: VAE) -> VAE:
    """Return the VAE with a prior whose density importance weights can be made of: under flow matching, its flow's.

    A noisy bound of log p(z) would not do. The mean of w exp(noise) prefers the noise that is too high: what comes out
    need be no bound, and with 100 samples was 20 nats above what the flow's density gives.
    """
    if not isinstance(vae.prior, FlowMatchingPrior):
        return vae
    return VAE(vae.encoder, vae.posterior, FlowDensity(vae.prior), vae.likelihood)


@torch.no_grad()
def _elbo(vae: VAE, x: Tensor, samples: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the ELBO of every example, averaged over `samples` draws, and its KL part."""
    noise = vae.posterior.noise((samples, len(x)), x.device, generator)
    elbo = vae.log_weights(x, noise)
    likelihood = vae.decode(infer(vae, x, noise)).log_prob(x)
    return elbo.mean(0), (likelihood - elbo).mean(0)


def infer(vae: VAE, x: Float[Tensor, "batch 8 8"], noise: Float[Tensor, "sample batch noise"]) -> Tensor:
    """Return draws of q(z | x), [sample, batch, latent]."""
    projected = vae.posterior.project(vae.encoder(x))
    projected = projected.expand(len(noise), *projected.shape)
    return vae.posterior.infer(projected[..., :0], projected, noise)[0]


@torch.no_grad()
def hole(
    vae: VAE, x: Float[Tensor, "batch 8 8"], generator: torch.Generator, draws: int = 4
) -> tuple[float, float, Float[Tensor, " latent"]]:
    """Return how far the prior is from the aggregated posterior of x: MMD^2 and log-ratio; and the prior's deviations.

    The classifier of the log-ratio gets `draws` z of every digit, and is judged on digits it did not see.
    """
    posterior = infer(vae, x, vae.posterior.noise((draws, len(x)), x.device, generator))
    number = draws * len(x)
    noise = vae.prior.noise((number,), x.device, generator)
    prior = vae.prior.step(noise[..., :0], noise)
    std = prior.std(0)
    by_digit = posterior.transpose(0, 1).reshape(number, -1)
    with torch.enable_grad():
        ratio = log_ratio(by_digit, prior, generator)
    return float(mmd(posterior[0] / std, prior[: len(x)] / std)), ratio, std
