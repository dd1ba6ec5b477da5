"""The evaluation of goals: its pairs, its two baselines, and that the oracle's dynamics are the true ones."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.test_commands import QUICK, call, complain
from worldvae.envs import EnvConfig, make
from worldvae.envs.goal_worlds import PendulumGoals, TrueDynamics, TwoRoomsGoals, goal_world
from worldvae.errors import UserError
from worldvae.evaluation.reaching import GoalSuite, Reached, held_out_pairs, wilson
from worldvae.planning import ICEMConfig
from worldvae.types import VectorState

ROOMS = EnvConfig("worldvae/TwoRooms-v0", obs="state")
ICEM = ICEMConfig(horizon=15, candidates=64, elites=8)

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.mark.parametrize(("id", "repeat"), [("worldvae/TwoRooms-v0", 1), ("Pendulum-v1", 2)])
def test_the_dynamics_of_the_oracle_are_those_of_the_environment(id: str, repeat: int) -> None:
    env = make(id, obs="state", action_repeat=repeat)
    world = goal_world(env.env, id)
    rng = np.random.default_rng(0)
    for start, _ in (world.draw(rng) for _ in range(5)):
        env.reset(seed=0)
        shown = env.show(world.place(env.env.unwrapped, start))
        np.testing.assert_allclose(world.state(env.env.unwrapped), start)
        actions = rng.uniform(-1, 1, (1, 12, env.action_layout.size)).astype(np.float32)
        simulator = TrueDynamics(world, repeat)
        begin = torch.from_numpy(start)[None]
        states = simulator.imagine(VectorState(begin), torch.from_numpy(actions)).states.features[0]
        for action, expected in zip(actions[0], states, strict=True):
            shown = env.step(action)[0]
            np.testing.assert_allclose(world.state(env.env.unwrapped), expected.numpy(), atol=1e-5)
        again = env.show(world.place(env.env.unwrapped, world.state(env.env.unwrapped)))
        np.testing.assert_allclose(shown["vector"], again["vector"], atol=1e-6)


def test_pairs_are_held_out_and_none_is_solved_already() -> None:
    world = goal_world(make("worldvae/TwoRooms-v0").env, "worldvae/TwoRooms-v0")
    pairs = held_out_pairs(world, 300, seed=1)
    apart = np.linalg.norm(pairs.starts - pairs.goals, axis=1)
    assert len(pairs) == 300 and apart.min() > TwoRoomsGoals.tolerance and pairs.solved > 0
    crossed = pairs.starts[:, 0] * pairs.goals[:, 0] < 0
    assert [kind == "other room" for kind in pairs.kinds] == crossed.tolist()
    assert 0.4 < crossed.mean() < 0.6
    assert np.array_equal(held_out_pairs(world, 300, seed=1).starts, pairs.starts)
    assert not np.array_equal(held_out_pairs(world, 300, seed=2).starts, pairs.starts)


def test_where_all_is_solved_there_is_nothing_to_evaluate() -> None:
    world = goal_world(make("worldvae/TwoRooms-v0").env, "worldvae/TwoRooms-v0")
    world.tolerance = 3.0
    with pytest.raises(ValueError, match="solved from the start"):
        held_out_pairs(world, 1)


def test_goals_of_the_pendulum_are_turning_points_of_swings() -> None:
    world = PendulumGoals()
    pairs = held_out_pairs(world, 40, seed=0)
    assert np.abs(pairs.goals[:, 1]).max() <= world.still and np.abs(pairs.goals[:, 0]).max() <= np.pi
    assert {"upper half", "lower half"} == set(pairs.kinds)
    one = torch.tensor([[3.1, 0.0], [0.0, 0.5], [0.1, 0.0]])
    other = torch.tensor([[-3.1, 0.0], [0.0, -0.5], [-0.1, 0.2]])
    assert world.distance(one, other).tolist() == pytest.approx([(2 * np.pi - 6.2) / 0.2, 1.0, 1.0], abs=1e-5)


def test_the_oracle_reaches_what_random_play_does_not() -> None:
    few, many = GoalSuite(ROOMS, 6, seed=0), GoalSuite(ROOMS, 48, seed=1)
    assert few.pairs.kinds.count("other room") >= 3
    few.budget = 30
    ceiling, floor = few.oracle(ICEM), many.random()
    assert ceiling.reached.mean() >= 0.95
    assert floor.reached.mean() <= 0.3
    assert floor.as_json()["groups"]["other room"]["success"] <= 0.15
    assert ceiling.distances.shape == (6, 31) and floor.distances.shape == (48, 51)
    np.testing.assert_allclose(
        floor.distances[:, 0], np.linalg.norm(many.pairs.starts - many.pairs.goals, axis=1), rtol=1e-6
    )
    assert np.array_equal(few.random().distances, few.random().distances)


def test_known_summary() -> None:
    """Four pairs: one arrives and stays, one passes by, one never arrives, one was there only at the start."""
    distances = np.array([[9.0, 5.0, 1.0, 0.5], [9.0, 1.0, 2.0, 3.0], [9.0, 8.0, 7.0, 6.0], [0.5, 4.0, 4.0, 4.0]])
    found = Reached("icem", "distance", distances, 1.0, ("a", "b", "b", "b"), 2.0).as_json()
    assert found["success"] == 0.5 and found["held"] == 0.25 and found["median_decisions"] == 1.5
    assert found["groups"]["a"]["success"] == 1.0 and found["groups"]["b"]["pairs"] == 3
    assert found["final_distance"] == 3.5 and found["decisions_per_second"] == 6.0


def test_known_intervals() -> None:
    """Results of Brown, Cai & DasGupta's formula, computed by hand for n = 10."""
    assert wilson(0, 10) == pytest.approx((0.0, 0.27753), abs=1e-5)
    assert wilson(5, 10) == pytest.approx((0.23659, 0.76341), abs=1e-5)
    assert wilson(10, 10) == pytest.approx((0.72247, 1.0), abs=1e-5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two_rooms"
    few = ["train.steps=60", "train.eval_episodes=0", "env.time_limit=8", "icem.horizon=3", "icem.candidates=24"]
    assert call("train", "two_rooms", "--out", str(folder), *QUICK, *few) == 0
    return folder


def test_eval_prints_one_object_and_films_what_was_played(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert call("goals", str(run), "--agent", "icem", "--pairs", "3", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["env_id"], found["pairs"], found["decisions"]) == ("worldvae/TwoRooms-v0", 3, 8)
    assert [entry["objective"] for entry in found["goals"]] == ["none", "geodesic", "distance", "probability", "true"]
    assert all(0 <= entry["success"] <= 1 and entry["pairs"] == 3 for entry in found["goals"])
    assert len(found["films"]) == 3 and all(Path(path).read_bytes().startswith(b"GIF8") for path in found["films"])


def test_without_a_replay_the_other_objectives_still_plan(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("replay"))
    assert call("goals", str(tmp_path / "run"), "--pairs", "1", "--json") == 0
    captured = capsys.readouterr()
    assert call("goals", str(tmp_path / "run"), "--pairs", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["random", "icem", "icem", "icem,"] and "oracle" in lines[6]
    assert [entry["objective"] for entry in json.loads(captured.out)["goals"]][1:3] == ["distance", "probability"]
    assert "left out: the replay in" in captured.err


def test_mistakes_are_one_sentence(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'icem'" in complain(capsys, "goals", str(run), "--agent", "icme")
    assert "cannot plan towards goals" in complain(capsys, "goals", str(run), "--agent", "cem,actor")
    with pytest.raises(UserError, match="no goals are known of CartPole-v1"):
        GoalSuite(EnvConfig("CartPole-v1", obs="state"), 3)
    with pytest.raises(UserError, match="leave random_door out"):
        GoalSuite(EnvConfig("worldvae/TwoRooms-v0", kwargs={"random_door": True}), 3)
