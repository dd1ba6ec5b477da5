"""The bench: its counts, its output, and that its cases are as large as the models they are named after."""

import json
import time
from pathlib import Path

import pytest
import torch

from worldvae.bench.limits import Limits, unrest
from worldvae.bench.measures import Measure
from worldvae.bench.timing import flops, median_seconds
from worldvae.commands.bench import MAX_LIMIT_CHANGE, _figure, _show, _warn_of_differences, _warn_of_unrest
from worldvae.commands.cli import main
from worldvae.config import config_names, find_config, load_config
from worldvae.runs.run import Run
from worldvae.runs.settings import PLANNER_SECTIONS, RunConfig
from worldvae.types import ActionLayout, ObservationLayout

SMALL = ["tiny", "train.batch=2", "train.length=8", "actor_critic.starts=8", "cem.candidates=10"]
SMALL += ["icem.candidates=10", "icem.elites=4", "mppi.candidates=64", "guided.candidates=64", "gradient.iterations=2"]
HERE = [name for name in PLANNER_SECTIONS if name != "tree"]  # `tree` needs discrete actions, which tiny does not have

pytestmark = pytest.mark.usefixtures("unchecked")


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["worldvae", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    return int(exit_.value.code or 0)


def test_operations_are_counted_forward_and_backward() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    assert flops(lambda: (a @ b).sum().backward()) == 3 * (2 * 3 * 4 * 5)


def test_flops_of_a_gradient_with_respect_to_a_leaf_and_of_its_own_gradient() -> None:
    """The score of an energy: a product forwards, one for the gradient, and two for the gradient of that."""
    net = torch.nn.Linear(4, 5, bias=False)
    x = torch.randn(3, 4, requires_grad=True)

    def score() -> torch.Tensor:
        return torch.autograd.grad(net(x).square().sum(), x, create_graph=True)[0]

    product = 2 * 3 * 4 * 5
    assert flops(score) == 2 * product
    assert flops(lambda: score().sum().backward()) >= 4 * product


def test_the_median_is_of_the_work_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that advances only during the work, and with one that advances a second at each reading."""
    now, lasting = [0.0], iter([70.0, 80.0, 3.0, 9.0, 5.0])  # a warm-up, then at least three repetitions

    def look() -> float:
        now[0] += 1
        return now[0]

    def work() -> None:
        now[0] += next(lasting)

    monkeypatch.setattr(time, "perf_counter", look)
    assert median_seconds(work, torch.device("cpu"), budget=0.0) == 5 + 1
    assert list(lasting) == []


def test_unrest_is_the_largest_change_of_a_rate_either_way(capsys: pytest.CaptureFixture[str]) -> None:
    before = Limits({"float32": 100.0, "bfloat16": 300.0}, {"float32": 80.0, "bfloat16": 200.0}, 1.0)
    after = Limits({"float32": 150.0, "bfloat16": 300.0}, {"float32": 80.0, "bfloat16": 100.0}, 9.0)
    assert unrest(before, before) == 1.0
    assert unrest(before, after) == unrest(after, before) == 2.0
    _warn_of_unrest(MAX_LIMIT_CHANGE)
    assert capsys.readouterr().err == ""
    _warn_of_unrest(2.0)
    assert "not quiet: its limits changed by a factor of 2.00" in capsys.readouterr().err


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("bench")
    with (folder / "out.json").open("w") as file, patch.context() as context:
        context.setattr("sys.stdout", file)
        assert call(context, "bench", *SMALL, "--seconds", "0.01", "--json") == 0
    return folder / "out.json"


def test_the_object_keeps_its_contract(measured: Path) -> None:
    found = json.loads(measured.read_text())
    assert {"machine", "train", "imagine", "plan", "infer", "replay"} <= set(found)
    assert {"ms_per_update", "frames_per_second", "roofline_share"} <= set(found["train"])
    assert found["machine"]["limits_changed_by"] >= 1
    assert found["chosen"]["precision"] == "float32" and found["chosen"]["behaviour"] in ("inline", "process")
    for section, key in (
        ("train", "ms_per_update"),
        ("train", "full_ms_per_update"),
        ("imagine", "steps_per_second"),
        *(("plan", name) for name in HERE),
        ("infer", "encode_ms"),
        ("replay", "sequences_per_second"),
    ):
        assert found[section][key] > 0
    assert set(found["plan"]) == {"cem_1000x10x12", *HERE} == set(found["plan_roofline_share"])
    assert found["train"]["frames_per_second"] == pytest.approx(16e3 / found["train"]["ms_per_update"])


def test_it_is_compared_with_an_earlier_one(measured: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = json.loads(measured.read_text())
    old = before["train"]["ms_per_update"]
    _show(before, [Measure("train.ms_per_update", "an update", 2 * old, "ms", 0.25)], before)
    lines = capsys.readouterr().out.splitlines()
    assert any("now / before" in line for line in lines)
    row = next(line for line in lines if line.startswith("train.ms_per_update"))
    assert row.split()[1:] == [f"{2 * old:.4g}", "ms", "25", "%", f"{old:.4g}", "2.00", "an", "update"]


def test_another_case_is_not_compared_with(
    measured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "bench", "tiny", "--compare", str(measured)) == 2
    assert "not 'tiny': take the same case" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["{", "[]", '{"train": 1, "machine": {}}', '{"train": {}}'])
def test_what_is_no_bench_is_not_compared_with(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "old.json").write_text(text)
    assert call(monkeypatch, "bench", *SMALL, "--compare", str(tmp_path / "old.json")) == 2
    assert "old.json" in capsys.readouterr().err


def test_a_comparison_says_what_differs(capsys: pytest.CaptureFixture[str]) -> None:
    machine = {"device": "cpu", "cpu": "a", "threads": 2, "torch": "2"}
    _warn_of_differences({"case": "tiny", "machine": machine}, {"case": "tiny", "machine": machine | {"threads": 1}})
    assert capsys.readouterr().err == "Not on equal terms: threads was 1 then and is 2 now.\n"
    assert _figure({"train": {"ms_per_update": "fast"}}, "train.ms_per_update") is None


def test_the_profile_is_a_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "trace.json"
    assert call(monkeypatch, "bench", *SMALL, "--profile", str(path)) == 0
    names = {event.get("name") for event in json.loads(path.read_text())["traceEvents"]}
    assert any("convolution_backward" in str(name) for name in names)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "nowhere.json"], "nowhere.json cannot be read"),
        (["--profile", "trace.txt"], "must end in .json"),
        (["--seconds", "0"], "must be above 0"),
        (["--threads", "0"], "must be at least 1"),
        (["--threads", "4096"], "at most the"),
        (["--profile", "/proc/nowhere/trace.json"], "cannot write the profile"),
        (["nothing"], "neither a config"),
        (["--json", "--profile", "trace.json"], "exclude one another"),
        (["tiny", "model.memory=block_gru", "model.memory_size=100"], "not divisible by 8 blocks"),
        (["tiny", "model.trunk=planet"], "frames of 64 x 64 only"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "bench", *arguments) == 2
    assert words in capsys.readouterr().err


# Millions of parameters of published world models, as counted by their own code, and the accepted difference: the
# first layer of DreamerV3's decoder is block-diagonal (0.3 M), here it is a full matrix (2.6 M).
PUBLISHED = {"small": (3.1, 0.02), "planet": (5.1, 0.05), "dreamer12m": (8.85 + 2.3, 0.06)}


def test_every_case_is_here() -> None:
    assert config_names("bench") == sorted(PUBLISHED)


@pytest.mark.parametrize("case", sorted(PUBLISHED))
def test_the_cases_are_as_large_as_what_they_are_named_after(case: str, tmp_path: Path) -> None:
    path = find_config(f"bench/{case}")
    assert path is not None
    config = load_config(RunConfig, [path])
    run = Run(tmp_path, config, ObservationLayout((3, 64, 64)), ActionLayout(6), torch.device("cpu"))
    millions = sum(p.numel() for p in run.model.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[case][0], rel=PUBLISHED[case][1])
