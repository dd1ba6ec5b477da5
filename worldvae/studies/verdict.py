"""The rule that decides whether amortised latent world models win for planning. It was written before any training.

The claim holds on a task if and only if, with equal milliseconds for a decision, the best VAE row's return exceeds that
of every rival beyond the 95 % interval of the paired difference, at both budgets of training (B and 4B in time) and at
every measured number of milliseconds. It does not hold if one rival is at least as good beyond that interval, anywhere.
Otherwise it is undecided: where the interval contains 0, or numbers are missing.

The best VAE row and the best row of each rival kind are those with the highest mean return in the same comparison. With
several VAE rows this favours the claim a little; a lost comparison is all the more lost.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from worldvae.studies.bootstrap import Difference, paired_difference

Outcome = Literal["holds", "does not hold", "undecided"]

CLAIM = "amortised latent world models win for planning"

VAE_ROWS = ("vae", "vae_categorical", "mdn_rnn", "vae_diffusion_decoder")
"""The rows that the claim is about: an encoder with a density, and one pass of a prior for each imagined step."""

RIVALS: dict[str, tuple[str, ...]] = {
    "diffusion": ("pixel_diffusion",),
    "energy": ("pixel_energy",),
    "JEPA": ("jepa_sigreg", "jepa_vicreg"),
    "latent diffusion": ("latent_diffusion", "latent_flow"),
}
"""The rows of each rival kind. Rows that are expected to fail, and those without a model, are none."""

POINTS = ("B-time", "4B-time")
"""The budgets of training at which the claim must hold."""

FEWEST_SEEDS = 3
"""Seeds that both sides of a comparison need: with fewer the interval says little about another training."""

Seeds = Mapping[int, Sequence[float]]
"""Returns of single episodes, by seed."""


@dataclass(frozen=True)
class Comparison:
    """The best VAE row against the best row of a rival kind.

    Attributes:
        point: budget of training.
        milliseconds: for a decision.
        rival: kind of the rival.
        mine: name of the VAE row.
        theirs: name of the rival's row.
        difference: of returns, the VAE's minus the rival's.
    """

    point: str
    milliseconds: float
    rival: str
    mine: str
    theirs: str
    difference: Difference

    @property
    def won(self) -> bool:
        """Whether the VAE is better beyond the interval, with enough seeds."""
        return self.difference.low > 0 and self.difference.seeds >= FEWEST_SEEDS

    @property
    def lost(self) -> bool:
        """Whether the rival is at least as good beyond the interval, with enough seeds."""
        return self.difference.high <= 0 and self.difference.seeds >= FEWEST_SEEDS

    def __str__(self) -> str:
        one = self.difference
        return (
            f"{self.mine} − {self.theirs} ({self.rival}) at {self.point} and {self.milliseconds:g} ms: "
            f"{one.mean:+.3g} [{one.low:+.3g}, {one.high:+.3g}], {one.seeds} seed{'s' * (one.seeds != 1)}"
        )


@dataclass(frozen=True)
class TaskVerdict:
    """The verdict on a task.

    Attributes:
        task: its name.
        outcome: of the rule.
        reason: a sentence, with the numbers that decided.
        comparisons: all of them, in the order of budgets, milliseconds and rivals.
        missing: what could not be compared.
    """

    task: str
    outcome: Outcome
    reason: str
    comparisons: tuple[Comparison, ...]
    missing: tuple[str, ...]


Table = Mapping[tuple[str, float], Mapping[str, Seeds]]
"""Returns by (budget, milliseconds), then by row, then by seed."""


def judge(task: str, returns: Table) -> TaskVerdict:
    """Apply the rule to the returns of a task."""
    comparisons, missing = list[Comparison](), list[str]()
    missing += [f"{point} was not measured" for point in POINTS if all(point != at for at, _ in returns)]
    for (point, ms), rows in sorted(returns.items(), key=lambda item: (len(item[0][0]), *item[0])):
        if point not in POINTS:
            continue
        mine = _best(rows, VAE_ROWS)
        if mine is None:
            missing.append(f"no VAE row at {point} and {ms:g} ms")
            continue
        for rival, names in RIVALS.items():
            theirs = _best(rows, names)
            if theirs is None:
                missing.append(f"no row of {rival} at {point} and {ms:g} ms")
            elif not _paired(rows[mine], rows[theirs]):
                missing.append(f"{mine} and {theirs} have no seed in common at {point} and {ms:g} ms")
            else:
                found = paired_difference(rows[mine], rows[theirs])
                comparisons.append(Comparison(point, ms, rival, mine, theirs, found))
    outcome, reason = _decide(comparisons, missing)
    return TaskVerdict(task, outcome, reason, tuple(comparisons), tuple(missing))


def _decide(comparisons: Sequence[Comparison], missing: Sequence[str]) -> tuple[Outcome, str]:
    lost = [one for one in comparisons if one.lost]
    if lost:
        worst = min(lost, key=lambda one: one.difference.mean)
        return "does not hold", f"{len(lost)} of {len(comparisons)} comparisons are lost, the clearest: {worst}."
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        return "undecided", f"{missing[0]}{more}."
    few = [one for one in comparisons if one.difference.seeds < FEWEST_SEEDS]
    if few:
        return (
            "undecided",
            f"{len(few)} of {len(comparisons)} comparisons have fewer than {FEWEST_SEEDS} seeds: {few[0]}.",
        )
    closest = min(comparisons, key=lambda one: one.difference.low)
    open_ = [one for one in comparisons if not one.won]
    if open_:
        return "undecided", f"{len(open_)} of {len(comparisons)} intervals contain 0, the closest: {closest}."
    return "holds", f"all {len(comparisons)} comparisons are won, the closest: {closest}."


def _best(rows: Mapping[str, Seeds], names: Sequence[str]) -> str | None:
    """Return the row with the highest mean return, the first of equal ones; None if none has a return."""
    means = {name: _mean(rows[name]) for name in names if any(rows.get(name, {}).values())}
    return max(means, key=lambda name: means[name]) if means else None


def _mean(seeds: Seeds) -> float:
    means = [sum(one) / len(one) for one in seeds.values() if one]
    return sum(means) / len(means)


def _paired(mine: Seeds, theirs: Seeds) -> bool:
    return any(mine[seed] and theirs[seed] for seed in mine.keys() & theirs.keys())


def verdicts(cells: Sequence[Mapping[str, Any]]) -> list[TaskVerdict]:
    """Return the verdict on each task, in the order in which tasks appear.

    Args:
        cells: finished cells of the study with "task", "row", "seed", "point", "failed" (None, or why) and "measures",
            whose "planning" holds under "equal_ms" an entry with "ms" and "returns" for each number of milliseconds.
            Failed cells, and cells that did not plan, count as missing.
    """
    tables: dict[str, dict[tuple[str, float], dict[str, dict[int, list[float]]]]] = {}
    for cell in cells:
        table = tables.setdefault(str(cell["task"]), {})
        planning = (cell.get("measures") or {}).get("planning") or {}
        if cell.get("failed") is not None or cell.get("point") is None:
            continue
        for entry in planning.get("equal_ms", []):
            rows = table.setdefault((str(cell["point"]), float(entry["ms"])), {})
            rows.setdefault(str(cell["row"]), {})[int(cell["seed"])] = [float(one) for one in entry["returns"]]
    return [judge(task, table) for task, table in tables.items()]


def verdict(cells: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdict on every task as text: the claim, then a line for each."""
    lines = [f"- {one.task}: {one.outcome}. {one.reason}" for one in verdicts(cells)]
    failed = sum(cell.get("failed") is not None for cell in cells)
    counted = f" {failed} of {len(cells)} cells failed." if failed else ""
    return "\n".join([f'The claim: "{CLAIM}".{counted}', *(lines or ["- undecided: nothing was measured."])])
