"""Guided planning: roll-outs of a learnt policy are among the candidates, so that short horizons suffice."""

from dataclasses import dataclass

from worldvae.planning.core import Plan
from worldvae.planning.mppi import MPPIConfig, mppi
from worldvae.planning.problems import Problems


@dataclass(frozen=True)
class GuidedConfig(MPPIConfig):
    """Numbers of the planner; those of `MPPIConfig`, fewer of them, and one more.

    Attributes:
        proposals: how many of the candidates are roll-outs of the policy.
    """

    horizon: int = 8
    candidates: int = 128
    elites: int = 16
    iterations: int = 3
    proposals: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.proposals <= self.candidates:
            raise ValueError(f"proposals={self.proposals} must lie between 1 and candidates={self.candidates}")


def guided(problems: Problems, config: GuidedConfig) -> Plan:
    """Plan by MPPI with roll-outs of the guide among the candidates of every iteration.

    Raises:
        ValueError: If there is no guide.

    Reference: Hansen et al. 2024, "TD-MPC2: Scalable, Robust World Models for Continuous Control", appendix on
    planning.
    """
    return mppi(problems, config, problems.guided(config.proposals))
