"""All commands work with a world model that is not a VAE: train, resume, plan, film and evaluate.

`FakeModel` implements the protocol `WorldModel` and nothing else. Code that uses more than the protocol fails here.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import worldvae as wv
from tests.fake_model import FakeModel
from tests.test_commands import QUICK, call, complain
from worldvae.models.kinds import KINDS, register
from worldvae.models.probabilistic import Probabilistic
from worldvae.models.world_model import WorldModel

WORDS = [*QUICK, "model.kind=fake", "env.obs=state", "optimiser.learning_rate=1e-2"]

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    register("fake", FakeModel)
    yield
    del KINDS["fake"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "fake"
    assert call("train", "tiny", "--out", str(folder), "--seed", "3", *WORDS) == 0
    return folder


def test_it_is_trained_and_comes_back(run: Path) -> None:
    model = wv.load(run).model
    assert isinstance(model, FakeModel) and isinstance(model, WorldModel) and not isinstance(model, Probabilistic)
    missed = [
        row["model/missed"]
        for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        if "model/missed" in row
    ]
    assert float(model.updates) > 10 and missed[-1] < 0.5 * missed[0]


def test_it_is_resumed(run: Path) -> None:
    before = float(wv.load(run).model.updates)
    assert call("train", "--resume", str(run), "train.steps=480") == 0
    assert float(wv.load(run).model.updates) > before


def test_all_agents_act_on_it(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agents = ["actor", "cem", "icem", "mppi", "gradient", "guided", "random"]
    assert call("eval", str(run), "--agent", ",".join(agents), "--episodes", "2", "--json") == 0
    assert [row["agent"] for row in json.loads(capsys.readouterr().out)["agents"]] == agents


def test_its_dreams_and_plans_are_filmed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("dream", str(run), "--horizon", "5", "--episodes", "2") == 0
    assert call("eval", str(run), "--agent", "icem", "--episodes", "1", "--plan-film") == 0
    assert list((run / "dreams").glob("*")) and list((run / "plans").glob("*"))


def test_it_plans_towards_goals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [word for word in WORDS if not word.startswith("env.size")]
    assert call("train", "Pendulum-v1", "--out", str(tmp_path / "run"), *words, "env.time_limit=40") == 0
    capsys.readouterr()
    assert call("goals", str(tmp_path / "run"), "--pairs", "2", "--json") == 0
    found = {row["objective"] for row in json.loads(capsys.readouterr().out)["goals"]}
    assert found == {"none", "geodesic", "distance", "true"}


def test_a_model_that_decodes_nothing_is_not_filmed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeModel, "shows", frozenset())
        assert call("train", "tiny", "--out", str(folder), *WORDS, "train.film_every=20") == 0
        assert not (folder / "dreams").exists()
        for words in (["dream", str(folder)], ["eval", str(folder), "--agent", "icem", "--plan-film"]):
            assert "(model.kind=fake) decodes neither frames nor vectors" in complain(capsys, *words)


def test_a_diagnosis_says_what_a_model_without_latents_lacks(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("diagnose", str(run), "--episodes", "4", "--agent", "random", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["collapse"] is None and "FakeModel has no q(z | h, e)" in found["left_out"]["collapse"]
    assert found["features"]["size"] == 3 and len(found["calibration"]["coverage"]) == 15
    assert found["probe"] == pytest.approx([1] * 3, abs=0.01)  # its features are the vector itself
