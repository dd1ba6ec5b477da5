"""The rule on made-up numbers: it holds only if everything is won, and says what decided."""

from collections.abc import Callable
from typing import Any

import pytest

from worldvae.studies.verdict import POINTS, RIVALS, judge, verdict, verdicts

ROWS = ("vae", *(names[0] for names in RIVALS.values()))
EPISODES = [-3.0, 0.0, 3.0, 10.0, -10.0]


def returns(mean: Callable[[str, str, float], float], seeds: int = 3, points: tuple[str, ...] = POINTS) -> Any:
    """Returns with easy and hard episodes, the same for all rows; seeds differ by 0.1."""

    def of(row: str, point: str, ms: float) -> dict[int, list[float]]:
        return {seed: [mean(row, point, ms) + 0.1 * seed + e for e in EPISODES] for seed in range(seeds)}

    return {(point, ms): {row: of(row, point, ms) for row in ROWS} for point in points for ms in (20.0, 100.0)}


def test_it_holds_if_all_is_won() -> None:
    found = judge("world", returns(lambda row, *_: 1.0 * (row == "vae")))
    assert found.outcome == "holds" and len(found.comparisons) == 2 * 2 * 4 and not found.missing
    assert all(one.difference.mean == pytest.approx(1.0) for one in found.comparisons)
    assert "all 16 comparisons are won" in found.reason and "+1 [+1, +1], 3 seeds" in found.reason


def test_one_lost_comparison_is_enough_against_it() -> None:
    def mean(row: str, point: str, ms: float) -> float:
        return 2.0 if (row, point, ms) == ("jepa_sigreg", "4B-time", 100.0) else 1.0 * (row == "vae")

    found = judge("world", returns(mean))
    assert found.outcome == "does not hold" and [one.rival for one in found.comparisons if one.lost] == ["JEPA"]
    assert "1 of 16 comparisons are lost" in found.reason
    assert "vae − jepa_sigreg (JEPA) at 4B-time and 100 ms: -1 [-1, -1]" in found.reason


def test_equal_returns_do_not_win() -> None:
    assert judge("world", returns(lambda *_: 1.0)).outcome == "does not hold"


def test_an_interval_with_zero_decides_nothing() -> None:
    table = returns(lambda row, *_: 1.0 * (row == "vae"))
    table["B-time", 20.0]["pixel_energy"] = {0: [0.0] * 5, 1: [0.0] * 5, 2: [3.0] * 5}
    found = judge("world", table)
    assert found.outcome == "undecided" and "1 of 16 intervals contain 0" in found.reason
    assert "pixel_energy" in found.reason


def test_what_is_missing_leaves_it_undecided_unless_it_is_lost_anyway() -> None:
    won = returns(lambda row, *_: 1.0 * (row == "vae"), points=("B-time",))
    assert judge("world", won).reason == "4B-time was not measured."
    lost = returns(lambda row, *_: -1.0 * (row == "vae"), points=("B-time",))
    assert judge("world", lost).outcome == "does not hold"
    few = judge("world", returns(lambda row, *_: 1.0 * (row == "vae"), seeds=2))
    assert few.outcome == "undecided" and "fewer than 3 seeds" in few.reason
    assert judge("world", returns(lambda row, *_: -1.0 * (row == "vae"), seeds=1)).outcome == "undecided"
    gone = returns(lambda row, *_: 1.0 * (row == "vae"))
    del gone["4B-time", 20.0]["pixel_diffusion"], gone["4B-time", 20.0]["vae"]
    found = judge("world", gone)
    assert found.missing == ("no VAE row at 4B-time and 20 ms",) and found.outcome == "undecided"
    del gone["4B-time", 100.0]["pixel_diffusion"]
    assert judge("world", gone).reason == "no VAE row at 4B-time and 20 ms (and 1 more)."


def test_the_best_vae_row_competes() -> None:
    table = returns(lambda row, *_: 1.0 * (row == "vae"))
    table["B-time", 20.0]["mdn_rnn"] = {seed: [5.0 + e for e in EPISODES] for seed in range(3)}
    found = judge("world", table)
    assert {one.mine for one in found.comparisons if (one.point, one.milliseconds) == ("B-time", 20.0)} == {"mdn_rnn"}
    assert found.outcome == "holds"


def cell(row: str, seed: int, point: str | None, mean: float, failed: str | None = None) -> dict[str, Any]:
    planning = {"equal_ms": [{"ms": 20.0, "returns": [mean + e for e in EPISODES], "candidates": 64.0}]}
    measures = {"planning": planning} if failed is None else {}
    return {"task": "world", "row": row, "seed": seed, "point": point, "failed": failed, "measures": measures}


def test_cells_are_read_and_failures_counted() -> None:
    cells = [cell(row, seed, p, 1.0 * (row == "vae")) for row in ROWS for seed in range(3) for p in POINTS]
    cells += [cell("oracle", seed, None, 100.0) for seed in range(3)]  # no row of the claim, nor a rival
    assert [one.outcome for one in verdicts(cells)] == ["holds"]
    assert verdict(cells).splitlines()[1].startswith("- world: holds. all 8 comparisons are won")
    for one in cells:
        if one["row"] == "pixel_energy" and one["point"] == "4B-time":
            one |= {"failed": "diverged", "measures": {}}
    text = verdict(cells)
    assert "3 of 33 cells failed." in text and "undecided. no row of energy at 4B-time and 20 ms." in text
    assert "nothing was measured" in verdict([])
