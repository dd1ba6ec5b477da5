"""Parameters with a learning rate of their own."""

from collections.abc import Iterable

from torch import nn


def hasten(parameters: Iterable[nn.Parameter], haste: float) -> None:
    """Multiply the learning rate of these parameters by `haste`, in optimisers whose groups come from `by_haste`."""
    for parameter in parameters:
        parameter.haste = haste  # type: ignore[attr-defined]


def by_haste(parameters: Iterable[nn.Parameter]) -> dict[float, list[nn.Parameter]]:
    """Group parameters by the factor on their learning rate (1 unless `hasten` set another), for an optimiser."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "haste", 1.0), []).append(parameter)
    return groups
