"""The blocks that are measured of a cell: each is run, recorded and failing by itself.

A measure is a function from a `MeasureContext` to a dictionary for JSON; `MEASURES` names them. Lists under the key
"returns" are numbers of single episodes, from which intervals are made.
"""

from collections.abc import Callable
from typing import Any

from worldvae.studies.study_context import MeasureContext, NotApplicableError
from worldvae.studies.study_measures import (
    measure_film,
    measure_frames,
    measure_generation,
    measure_inference,
    measure_predictions,
    measure_samples,
    measure_speed,
    measure_states,
)
from worldvae.studies.study_planning import measure_planning

MEASURES: dict[str, Callable[[MeasureContext], dict[str, Any]]] = {
    "predictions": measure_predictions,
    "samples": measure_samples,
    "frames": measure_frames,
    "states": measure_states,
    "speed": measure_speed,
    "inference": measure_inference,
    "generation": measure_generation,
    "film": measure_film,
    "planning": measure_planning,
}
"""Every block by its name. A new one is a line here."""


def measure_all(context: MeasureContext, tell: Callable[[str], object] = lambda _: None) -> dict[str, Any]:
    """Run every measure; one that fails, or does not exist for the row, costs no other."""
    found: dict[str, Any] = {}
    for name, measure in MEASURES.items():
        tell(f"measuring {name}")
        try:
            found[name] = measure(context)
        except NotApplicableError as reason:
            found[name] = {"left_out": str(reason)}
        except Exception as error:
            lines = str(error).splitlines() or [""]
            found[name] = {"failed": f"{type(error).__name__}: {lines[0]}"[:300]}
    return found
