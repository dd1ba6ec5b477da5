"""One thing exchanged and everything else kept: what that one thing is worth."""

from worldvae.comparison.families import Comparison, FamilyRow, compare_families
from worldvae.comparison.training import Trainings

__all__ = ["Comparison", "FamilyRow", "Trainings", "compare_families"]
