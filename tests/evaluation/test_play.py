"""Evaluations: all agents play the same episodes; intervals; the cost of a decision."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from worldvae.agents import PlannerAgent, RandomAgent
from worldvae.config import load_config
from worldvae.envs import EnvConfig, EnvPool
from worldvae.evaluation.plan_film import CONTEXT, plans_and_outcomes
from worldvae.evaluation.play import TIMED_DECISIONS, Evaluation, bootstrap, evaluate, evaluate_all, play
from worldvae.runs.run import Run
from worldvae.runs.settings import RunConfig

TINY = EnvConfig("worldvae/Tiny-v0", obs="pixels", size=(16, 16))
SETTINGS = (Path(__file__).parents[1] / "small_run.txt").read_text().split()

pytestmark = pytest.mark.usefixtures("unchecked")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An untrained run: these tests do not depend on how good it is."""
    with EnvPool([TINY]) as pool:
        layouts = pool.observation_layout, pool.action_layout
    config = load_config(RunConfig, [{"env": {"id": TINY.id, "obs": "pixels"}}], SETTINGS)
    return Run(tmp_path_factory.mktemp("run"), config, *layouts, torch.device("cpu"))


def made(returns: list[float], seed: int = 0) -> Evaluation:
    return Evaluation("world", "agent", seed, returns, 0.0, 1.0, 0.0, (1.0, 1.0, 1.0))


def test_the_difference_of_paired_episodes_leaves_out_what_both_find_hard() -> None:
    easy_and_hard = [10.0 * k for k in range(20)]
    one, other = made([value + 1 for value in easy_and_hard]), made(easy_and_hard)
    mean, (low, high) = one.better(other)
    assert mean == low == high == 1.0
    assert one.ci95[1] - one.ci95[0] > 30
    with pytest.raises(ValueError, match="the same episodes"):
        one.better(made(easy_and_hard, seed=1))


def test_bootstrap_interval_of_a_gaussian_sample() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0)).double()
    low, high = bootstrap(values.tolist())
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.02)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.02)


def test_a_decision_costs_what_its_planner_imagines(run: Run) -> None:
    cem, guided = run.config.cem, run.config.guided
    played = play(run.make_agent("cem"), TINY, 2, limit=3)
    assert played.model_steps == 2 * 3 * cem.candidates * cem.iterations * cem.horizon
    assert len(played.seconds) == 4 and min(played.seconds) > 0
    played = play(run.make_agent("guided"), TINY, 1, limit=1)
    searched = guided.horizon * guided.candidates * guided.iterations
    assert played.model_steps == searched + (guided.horizon - 1) * guided.proposals
    assert play(run.agent, TINY, 1, limit=2).model_steps == 0


def test_agents_meet_the_same_episodes_together_and_one_by_one(run: Run) -> None:
    agents = [run.make_agent(name) for name in ("cem", "random", "actor")]
    told: list[str] = []
    cem, uniform, actor = evaluate_all(agents, TINY, 2, 7, told.append)
    assert [cem.agent, uniform.agent, actor.agent] == ["cem", "random", "actor"] == [one.split(":")[0] for one in told]
    assert actor.returns == evaluate(run.agent, TINY, 2, 7).returns
    assert cem.random_mean == actor.random_mean == uniform.mean == evaluate(run.agent, TINY, 2, 7).random_mean
    assert (
        cem.model_steps_per_decision == 160 and actor.model_steps_per_decision == uniform.model_steps_per_decision == 0
    )
    assert all(0 < one.latency_ms[0] <= one.latency_ms[1] <= one.latency_ms[2] for one in (cem, uniform, actor))


def test_a_planner_with_a_limit_of_time_plays_its_episodes_one_by_one(run: Run) -> None:
    """The episodes are the same; and with enough time the agent acts as without a limit."""
    cem = run.config.cem
    free = evaluate(PlannerAgent(run.model, replace(cem, value=False)), TINY, 3)
    limited = evaluate(PlannerAgent(run.model, replace(cem, value=False, max_ms=1e9)), TINY, 3)
    assert limited.returns[0] == pytest.approx(free.returns[0], abs=1e-3)
    assert len(limited.returns) == 3 and limited.model_steps_per_decision == free.model_steps_per_decision
    uniform = RandomAgent(run.model.action_layout)
    together, alone = (play(uniform, TINY, n, 0, limit=0, keep_rows=True, first=f) for n, f in ((3, 0), (1, 2)))
    assert together.rows is not None and alone.rows is not None
    assert torch.equal(together.rows.observation.pixels[2:], alone.rows.observation.pixels)


def test_latencies_are_of_one_environment(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    class Watched(RandomAgent):
        def act(self, observation, is_first, *rest):  # type: ignore[no-untyped-def]
            sizes.append(len(is_first))
            return super().act(observation, is_first, *rest)

    evaluate(Watched(run.model.action_layout), TINY, 4)
    assert sizes.count(1) == min(TIMED_DECISIONS, 50) + 1 and set(sizes) == {1, 4}


def test_plans_are_held_against_the_rows_that_follow_them(run: Run) -> None:
    agent = run.make_agent("cem")
    played = play(agent, TINY, 1, keep_rows=True)
    assert played.rows is not None and played.carries is not None
    length, horizon = int(played.lengths[0]), run.config.cem.horizon
    at = [CONTEXT - 1, 10, length - 2]
    found = plans_and_outcomes(run.model, played, at)
    frames = played.rows.observation.pixels
    assert frames is not None
    for column, t in enumerate(at):
        shown = min(CONTEXT + horizon, length + 1 - (t - CONTEXT + 1))
        happened = frames[0, t - CONTEXT + 1 : t - CONTEXT + 1 + shown].float() / 255
        assert torch.equal(found.truth[column, :shown], happened)
        assert torch.equal(found.rewards[column, : shown - CONTEXT], played.rows.reward[0, t + 1 : t + 1 + horizon])
        plan = played.carries[t].plan
        assert plan is not None
        dream = run.model.imagine(played.carries[t].state, plan.actions, mode=True)
        decoded = run.model.decode(dream.states).mean[0].float().clamp(0, 1)
        torch.testing.assert_close(found.dream[column, CONTEXT:], decoded, atol=2e-2, rtol=0.0)  # bfloat16
        torch.testing.assert_close(found.dreamt_rewards[column], dream.rewards[0], atol=1e-3, rtol=0.0)
    assert found.valid.tolist() == [[True] * horizon, [True] * horizon, [True, True] + [False] * (horizon - 2)]
    assert found.film().shape[0] == CONTEXT + horizon
