"""The value of a better prior on handwritten digits: one VAE, seven priors, held-out bounds."""

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
"""Number of digits whose bound is computed at once: few, so that their samples stay in the cache."""


@dataclass(frozen=True)
class DigitsConfig:
    """How every prior is trained and measured.

    Attributes:
        epochs: passes through the digits; the learning rate falls linearly to 0 over them.
        batch: digits per update.
        learning_rate: Adam's initial learning rate.
        look: epochs between evaluations on the validation digits; the weights of the best evaluation are kept.
        samples: k of the importance-weighted bound.
        elbo_samples: draws per digit over which the ELBO is averaged.
    """

    epochs: int = 200
    batch: int = 128
    learning_rate: float = 2e-3
    look: int = 10
    samples: int = 1000
    elbo_samples: int = 32


@dataclass(frozen=True)
class Measured:
    """Measurements of a trained VAE; nats are per held-out digit.

    Attributes:
        bound: importance-weighted bound, mean over the digits.
        bound_error: its standard error over the digits.
        kind: kind of `bound`: on average over the noise a "lower_bound" of log p(x), or an "estimate" if a solver
            computes log p(z) (flow matching).
        elbo: the evidence lower bound, which always is a lower bound.
        rate: KL(q(z | x) || p(z)) in nats, or an upper bound on it with flow matching.
        active: number of units of z whose posterior mean has a variance over the digits above 0.01 of the prior's
            variance.
        latent: number of units of z.
        mmd: squared maximum mean discrepancy of the aggregated posterior and the prior.
        log_ratio: their KL in nats as estimated by a classifier (kind: estimate).
        parameters: number of learned parameters.
        prior_parameters: those of the prior alone.
        epoch: epoch with the best validation ELBO.
        minutes: training time.
        nats: the bound of each digit.
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
    """One prior with one seed: its measurements, or the reason why there are none."""

    prior: str
    seed: int
    measured: Measured | None
    failure: str | None = None

    @property
    def nats(self) -> list[float] | None:
        """The bound of every held-out digit."""
        return None if self.measured is None else [round(x, 3) for x in self.measured.nats.tolist()]

    def figures(self) -> dict[str, Any]:
        """Return the row for a JSON object: numbers only, no tensors."""
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
    """Train the same VAE with each prior and each seed, and measure it on the held-out digits.

    All are trained alike, and keep the weights with the best validation ELBO. A failed training becomes a row that says
    why. The function writes `out/digits.json`, the rows so far with the bound of every held-out digit, and
    `out/digits.png`, samples with the first seed.

    Args:
        out: folder, created if it does not exist.
        seeds: seeds of weights, order of the examples and noise.
        names: keys of `PRIORS`.
        config: how all of them are trained and measured.
        say: called with a sentence after each row.

    Raises:
        UserError: If scikit-learn is not installed, a name or a seed is invalid, or `out` cannot be written.
    """
    config = config or DigitsConfig()
    check_names(names)
    for seed in seeds:
        check_seed(seed)
    digits = load_digits()
    rows: list[DigitsRow] = []
    path = out / "digits.json"
    write_json(path, rows)  # a folder that cannot be written fails before the training
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
    except Exception as error:  # one prior's failure must not lose the results of the others
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
    """Train on the training digits, then restore the weights with the best validation ELBO; return their epoch.

    The ELBO is averaged over 8 draws with the same noise in every evaluation.
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
    """Measure a trained VAE on the held-out digits; the prior hole uses the posterior of the training digits."""
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
    """Return the VAE with a prior whose density importance weights can use: for flow matching, the flow's density.

    A noisy bound on log p(z) cannot be used: the mean of w exp(noise) is dominated by noise that is too high. The
    result need not be a bound, and with 100 samples it was 20 nats above that with the flow's density.
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
    """Return draws from q(z | x), [sample, batch, latent]."""
    projected = vae.posterior.project(vae.encoder(x))
    projected = projected.expand(len(noise), *projected.shape)
    return vae.posterior.infer(projected[..., :0], projected, noise)[0]


@torch.no_grad()
def hole(
    vae: VAE, x: Float[Tensor, "batch 8 8"], generator: torch.Generator, draws: int = 4
) -> tuple[float, float, Float[Tensor, " latent"]]:
    """Return MMD^2 and log-ratio of the prior and the aggregated posterior of x, and the prior's deviations.

    The classifier of the log-ratio gets `draws` z of every digit, and is evaluated on digits it was not trained on.
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
