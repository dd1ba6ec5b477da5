"""Studies, which train models: of one thing that is exchanged, and of worlds in which the best answer is known."""

from worldvae.studies.families import Comparison, FamilyRow, compare_families
from worldvae.studies.trainings import Trainings

__all__ = ["Comparison", "FamilyRow", "Trainings", "compare_families"]
