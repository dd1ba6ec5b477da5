"""The comparison on digits as a table: means over the seeds, and gains over N(0, I)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from rich.table import Table

from worldvae.studies.digits import DigitsRow, Measured


@dataclass(frozen=True)
class Standing:
    """One prior over all seeds; nats are per held-out digit.

    Attributes:
        prior: its name.
        runs: rows that did not fail.
        failures: why the others did.
        bound: mean over the seeds.
        lowest: under any seed.
        highest: under any seed.
        gain: over "standard", digit by digit under the same seeds, and mean; None if there is nothing to hold against.
        gain_error: its standard error, over the digits.
        mean: of every other figure, by the name that `Measured` gives it.
        kind: of the bound.
        latent: units of z.
    """

    prior: str
    runs: int
    failures: list[str]
    bound: float | None = None
    lowest: float | None = None
    highest: float | None = None
    gain: float | None = None
    gain_error: float | None = None
    mean: dict[str, float] | None = None
    kind: str | None = None
    latent: int | None = None


AVERAGED_FIELDS = (
    "bound_error",
    "elbo",
    "rate",
    "active",
    "mmd",
    "log_ratio",
    "parameters",
    "prior_parameters",
    "minutes",
)


def standings(rows: Sequence[DigitsRow]) -> list[Standing]:
    """Return what the seeds say together, prior after prior, in the order of the rows."""
    plain = {row.seed: row.measured for row in rows if row.prior == "standard" and row.measured is not None}
    return [_standing(name, rows, plain) for name in dict.fromkeys(row.prior for row in rows)]


def _standing(name: str, rows: Sequence[DigitsRow], plain: dict[int, Measured]) -> Standing:
    failures = [f"seed {row.seed}: {row.failure}" for row in rows if row.prior == name and row.measured is None]
    found = {row.seed: row.measured for row in rows if row.prior == name and row.measured is not None}
    if not found:
        return Standing(name, 0, failures)
    bounds = [measured.bound for measured in found.values()]
    gain = gain_error = None
    shared = [seed for seed in found if seed in plain]
    if shared and name != "standard":
        gains = torch.stack([found[seed].nats - plain[seed].nats for seed in shared]).mean(0)
        gain, gain_error = float(gains.mean()), float(gains.std() / len(gains) ** 0.5)
    first = next(iter(found.values()))
    return Standing(
        name,
        len(found),
        failures,
        sum(bounds) / len(bounds),
        min(bounds),
        max(bounds),
        gain,
        gain_error,
        {key: sum(getattr(measured, key) for measured in found.values()) / len(found) for key in AVERAGED_FIELDS},
        first.kind,
        first.latent,
    )


def _cell(standing: Standing, show: Callable[[Standing, dict[str, float]], str]) -> str:
    return "failed" if standing.mean is None else show(standing, standing.mean)


COLUMNS: dict[str, Callable[[Standing, dict[str, float]], str]] = {
    "IWAE bound": lambda s, m: f"{s.bound:.2f} ± {m['bound_error']:.2f}",
    "over the seeds": lambda s, m: f"{s.lowest:.2f} .. {s.highest:.2f}",
    "kind": lambda s, m: str(s.kind).replace("_", " "),
    "gain": lambda s, m: "" if s.gain is None else f"{s.gain:+.2f} ± {s.gain_error:.2f}",
    "ELBO": lambda s, m: f"{m['elbo']:.2f}",
    "KL": lambda s, m: f"{m['rate']:.2f}",
    "active": lambda s, m: f"{m['active']:.1f} of {s.latent}",
    "MMD\u00b2": lambda s, m: f"{m['mmd']:.4f}",
    "log-ratio": lambda s, m: f"{m['log_ratio']:.2f}",
    "parameters": lambda s, m: f"{m['parameters'] / 1e3:.0f} k",
    "minutes": lambda s, m: f"{m['minutes']:.2f}",
}

LEGEND = (
    "Nats per held-out digit: mean over the seeds ± its standard error over the digits; the gain is over the prior "
    "N(0, I), digit by digit under the same seeds. MMD² and log-ratio (nats, an estimate) are 0 where the prior is the "
    "aggregated posterior. Minutes of training, for one seed."
)


def digits_table(rows: Sequence[DigitsRow]) -> Table:
    """Return the table for people; a prior that failed under every seed has the word in every column."""
    table = Table(box=None, pad_edge=False)
    table.add_column("prior", no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for standing in standings(rows):
        table.add_row(standing.prior, *(_cell(standing, show) for show in COLUMNS.values()))
    return table


def failures(rows: Sequence[DigitsRow]) -> list[str]:
    """Return a sentence for every row that failed."""
    return [f"{row.prior}, seed {row.seed}, failed: {row.failure}" for row in rows if row.measured is None]
