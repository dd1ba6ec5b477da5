"""Studies, which train models: one part exchanged at a time, or worlds whose optimum is known exactly."""

from worldvae.studies.families import Comparison, FamilyRow, compare_families
from worldvae.studies.trainings import Trainings

__all__ = ["Comparison", "FamilyRow", "Trainings", "compare_families"]
