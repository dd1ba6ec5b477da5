"""What a trained model can be asked: is z used, does the prior know it, are its predictions honest?"""

from worldvae.diagnostics.calibration import Calibration, calibration
from worldvae.diagnostics.collapse import Collapse, active_units, collapse, kl_per_dimension
from worldvae.diagnostics.diagnose import Diagnosis, Effort, diagnose
from worldvae.diagnostics.gaps import Gaps, Level, gaps
from worldvae.diagnostics.hole import log_ratio, mmd
from worldvae.diagnostics.inference import Inference, compare_inference
from worldvae.diagnostics.linear_control import LinearControlResult, control
from worldvae.diagnostics.linear_training import learn_to_control
from worldvae.diagnostics.linear_world import LinearWorldResult, learn_linear_world
from worldvae.diagnostics.page import check_plotting, draw_page
from worldvae.diagnostics.probe import linear_probe
from worldvae.diagnostics.slices import MovedBound, Slices, pick_slices

__all__ = [
    "Calibration",
    "Collapse",
    "Diagnosis",
    "Effort",
    "Gaps",
    "Inference",
    "Level",
    "LinearControlResult",
    "LinearWorldResult",
    "MovedBound",
    "Slices",
    "active_units",
    "calibration",
    "check_plotting",
    "collapse",
    "compare_inference",
    "control",
    "diagnose",
    "draw_page",
    "gaps",
    "kl_per_dimension",
    "learn_linear_world",
    "learn_to_control",
    "linear_probe",
    "log_ratio",
    "mmd",
    "pick_slices",
]
