"""Parameters that learn faster than others."""

from collections.abc import Iterable

from torch import nn


def hasten(parameters: Iterable[nn.Parameter], haste: float) -> None:
    """Let parameters learn with so many times the step size of others, wherever `by_haste` is heeded."""
    for parameter in parameters:
        parameter.haste = haste  # type: ignore[attr-defined]


def by_haste(parameters: Iterable[nn.Parameter]) -> dict[float, list[nn.Parameter]]:
    """Return parameters by their haste, 1 unless `hasten` said otherwise: groups for an optimiser."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "haste", 1.0), []).append(parameter)
    return groups
