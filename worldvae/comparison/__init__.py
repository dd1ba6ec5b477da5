"""Interchangeable parts, held against one another on the same task."""

from worldvae.comparison.families import Comparison, FamilyRow, compare_families

__all__ = ["Comparison", "FamilyRow", "compare_families"]
