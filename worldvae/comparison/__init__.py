"""One thing exchanged and everything else kept: what that one thing is worth."""

from worldvae.comparison.families import Comparison, FamilyRow, compare_families

__all__ = ["Comparison", "FamilyRow", "compare_families"]
