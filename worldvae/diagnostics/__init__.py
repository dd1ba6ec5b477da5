"""Diagnostics of a trained model: is z used, does the prior match the posterior, are predictions calibrated?"""

from worldvae.diagnostics.calibration import Calibration, calibration
from worldvae.diagnostics.collapse import Collapse, active_units, collapse, kl_per_dimension
from worldvae.diagnostics.diagnosis import Diagnosis, Effort, diagnose
from worldvae.diagnostics.feature_spread import FeatureSpread, effective_rank, feature_spread
from worldvae.diagnostics.gaps import Gaps, Level, gaps
from worldvae.diagnostics.hole import log_ratio, mmd
from worldvae.diagnostics.inference import Inference, compare_inference
from worldvae.diagnostics.page import check_plotting, draw_page
from worldvae.diagnostics.probe import RidgeProbe, fit_ridge, linear_probe, r_squared
from worldvae.diagnostics.slices import MovedBound, Slices, pick_slices

__all__ = [
    "Calibration",
    "Collapse",
    "Diagnosis",
    "Effort",
    "FeatureSpread",
    "Gaps",
    "Inference",
    "Level",
    "MovedBound",
    "RidgeProbe",
    "Slices",
    "active_units",
    "calibration",
    "check_plotting",
    "collapse",
    "compare_inference",
    "diagnose",
    "draw_page",
    "effective_rank",
    "feature_spread",
    "fit_ridge",
    "gaps",
    "kl_per_dimension",
    "linear_probe",
    "log_ratio",
    "mmd",
    "pick_slices",
    "r_squared",
]
