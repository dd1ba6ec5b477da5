"""Parameters whose learning rate is a multiple of everybody else's."""

from collections.abc import Iterable

from torch import nn


def scale_learning_rate(parameters: Iterable[nn.Parameter], factor: float) -> None:
    """Multiply the learning rate of these parameters by `factor`, in every optimiser that groups by `by_lr_scale`."""
    for parameter in parameters:
        parameter.lr_scale = factor  # type: ignore[attr-defined]


def by_lr_scale(parameters: Iterable[nn.Parameter]) -> dict[float, list[nn.Parameter]]:
    """Return the groups of an optimiser: parameters by the factor of their learning rate, 1 unless it was scaled."""
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "lr_scale", 1.0), []).append(parameter)
    return groups
