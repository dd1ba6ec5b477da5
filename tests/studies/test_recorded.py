"""Recorded episodes: equal for equal arguments, told apart by their digest, and sampled by the replay's convention."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from worldvae.agents import RandomAgent
from worldvae.config import config_names, find_config
from worldvae.envs import EnvConfig, make_from
from worldvae.envs.worlds.wind import draw
from worldvae.errors import UserError
from worldvae.runs.settings import configure
from worldvae.studies.oracle import oracle
from worldvae.studies.recorded import Recorded, load, record_episodes, with_noise
from worldvae.types import Batch, VectorState

WIND = EnvConfig("worldvae/Wind-v0", obs="both", size=(16, 16), time_limit=20)
FALLING = EnvConfig("CartPole-v1", obs="state", time_limit=30)

IN_A_PROCESS = """
from worldvae.envs import EnvConfig
from worldvae.studies.recorded import record_episodes
print(record_episodes(EnvConfig("worldvae/Wind-v0", obs="both", size=(16, 16), time_limit=20), 6, 3).digest)
"""


@pytest.fixture(scope="module")
def wind() -> Recorded:
    return record_episodes(WIND, 20, 3)


@pytest.fixture(scope="module")
def falling() -> Recorded:
    return record_episodes(FALLING, 20, 1)


@pytest.mark.slow
def test_another_process_records_the_same_bytes() -> None:
    there = subprocess.run([sys.executable, "-c", IN_A_PROCESS], capture_output=True, text=True, check=True)
    assert there.stdout.strip() == record_episodes(WIND, 6, 3).digest


def test_equal_arguments_give_equal_bytes_and_others_do_not() -> None:
    short = replace(WIND, time_limit=6)
    here = record_episodes(short, 6, 3).digest
    assert record_episodes(short, 6, 3).digest == here
    others = [
        record_episodes(short, 6, 4),
        record_episodes(short, 7, 3),
        record_episodes(replace(short, time_limit=5), 6, 3),
        record_episodes(short, 6, 3, lambda state, generator: torch.zeros(1, 1), "still"),
    ]
    assert len({here, *(other.digest for other in others)}) == 5


def test_every_bit_and_every_setting_counts(wind: Recorded) -> None:
    reward = wind.rows.reward.clone()
    reward[5] += 1e-7
    changed = [
        replace(wind, rows=replace(wind.rows, reward=reward)),
        replace(wind, settings=wind.settings | {"seed": 4}),
        replace(wind, noisy=1 - wind.noisy),
    ]
    assert wind.digest not in {other.digest for other in changed}


def test_rows_follow_the_convention_and_the_truth_is_the_environments(falling: Recorded) -> None:
    """Playing the recorded actions with the true dynamics from the first true state gives all other rows."""
    assert int(falling.lengths.sum()) == len(falling.truth) == len(falling.rows.reward)
    simulator, held = oracle(FALLING), falling.held_out("train")
    for i, length in enumerate(held.lengths.tolist()):
        action, truth = held.rows.action[i], held.truth[i]
        assert (action[length - 1 :] == 0).all()
        if i % 4 == 0:
            dream = simulator.imagine(VectorState(truth[:1].double()), action[None, : length - 1])
            torch.testing.assert_close(dream.states.features[0].float(), truth[1:length], atol=1e-4, rtol=1e-4)
    rows = held.rows
    for i, length in enumerate(held.lengths.tolist()):
        assert rows.is_first[i].nonzero().flatten().tolist() == [0]
        assert rows.reward[i, 0] == 0 and (rows.reward[i, 1:length] == 1).all()
        assert bool(rows.termination[i, length - 1]) == (length < 31)
        assert not rows.termination[i, : length - 1].any() and not rows.termination[i, length:].any()
        assert torch.equal(rows.observation.vector[i, :length], held.truth[i, :length])  # type: ignore[index]


def test_frames_are_bytes_and_show_the_truth(wind: Recorded) -> None:
    pixels = wind.rows.observation.pixels
    assert pixels is not None and pixels.dtype == torch.uint8
    assert pixels.shape[1:] == (3, 16, 16)
    vector = wind.rows.observation.vector
    assert vector is not None and torch.equal(vector, wind.truth)
    shown = pixels[7, 0].sum(), pixels[7, 1].sum()
    drawn = draw(wind.truth[7].double().numpy(), 32)
    assert all(bool(found > 0) == bool(drawn[..., i].sum() > 0) for i, found in enumerate(shown))
    assert wind.observation_layout.pixels == (3, 16, 16)
    assert wind.action_layout.size == 1
    assert wind.env == WIND


def test_half_are_random_with_held_actions_and_both_policies_are_in_every_part(wind: Recorded) -> None:
    assert wind.counts.tolist() == [16, 2, 2]
    ends = wind.counts.cumsum(0).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        assert wind.noisy[begin:end].float().mean() == 0.5
    held = wind.held_out("train")
    again = (held.rows.action[:, 1:20] == held.rows.action[:, :19]).all(dim=-1).float().mean(dim=1)
    random = wind.noisy[:16] == 0
    assert 0.65 < float(again[random].mean()) < 0.92  # 0.8: an action is held for five decisions
    assert float(again[~random].mean()) < 0.3


def test_parts_share_no_episode(wind: Recorded) -> None:
    starts = [wind.held_out(part).truth[:, 0, 0] for part in ("train", "validation", "test")]
    assert len(set(torch.cat(starts).tolist())) == 20
    with pytest.raises(ValueError, match="none of train, validation, test"):
        wind.held_out("tests")


def positions(data: Recorded, sampled: Batch) -> torch.Tensor:
    """Return which row of the data each sampled row is, told by its vector (no two rows have the same)."""
    vectors, seen = data.rows.observation.vector, sampled.observation.vector
    assert vectors is not None and seen is not None
    same = (seen.unsqueeze(2) == vectors).all(dim=-1)
    assert (same.sum(dim=-1) == 1).all()
    return same.int().argmax(dim=-1)


@pytest.mark.parametrize("length", [2, 5, 16, 40])
def test_slices_are_training_rows_in_order_and_marked_where_they_begin(falling: Recorded, length: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sampled = falling.sample(64, length, generator)
    found = positions(falling, sampled)
    training = int(falling.lengths[: int(falling.counts[0])].sum())
    assert int(found.max()) < training
    first_rows = falling.rows.is_first.nonzero().flatten()
    assert sampled.is_first[:, 0].all()
    consecutive = found[:, 1:] == (found[:, :-1] + 1) % training
    assert consecutive.all()
    crossed = torch.isin(found[:, 1:], first_rows)
    assert torch.equal(sampled.is_first[:, 1:], crossed)  # never in the middle, always at a new episode
    for name in ("action", "reward", "termination"):
        assert torch.equal(getattr(sampled, name), getattr(falling.rows, name)[found])
    lengths = falling.lengths[torch.searchsorted(falling.lengths.cumsum(0), found[:, 0].contiguous(), right=True)]
    run = (torch.cat([crossed, torch.ones(64, 1, dtype=torch.bool)], dim=1)).int().argmax(dim=1) + 1
    assert (run >= torch.minimum(lengths, torch.tensor(min(8, length)))).all()


def test_sampling_is_deterministic_and_reaches_every_row(falling: Recorded) -> None:
    one, other = (falling.sample(8, 12, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one.reward, other.reward) and torch.equal(one.action, other.action)
    generator, seen = torch.Generator().manual_seed(0), set[int]()
    training = int(falling.lengths[: int(falling.counts[0])].sum())
    for _ in range(6):
        seen |= set(positions(falling, falling.sample(200, 8, generator)).flatten().tolist())
    assert seen == set(range(training))


def test_saved_and_loaded_and_a_changed_file_is_noticed(wind: Recorded, tmp_path: Path) -> None:
    wind.save(tmp_path / "data")
    again = load(tmp_path / "data")
    assert again.digest == wind.digest and again.env == WIND
    for name, tensor in wind.tensors().items():
        assert torch.equal(tensor, again.tensors()[name])
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["episodes.json", "episodes.safetensors"]
    file = tmp_path / "data" / "episodes.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(UserError, match="the files were changed; record them anew"):
        load(tmp_path / "data")
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="no recorded episodes that can be read"):
        load(tmp_path / "data")
    file.write_bytes(whole)
    settings = tmp_path / "data" / "episodes.json"
    kept = json.loads(settings.read_text())
    settings.write_text(json.dumps(kept | {"settings": kept["settings"] | {"seed": 9}}))
    with pytest.raises(UserError, match="the files were changed"):
        load(tmp_path / "data")
    with pytest.raises(UserError, match="nowhere holds no recorded episodes"):
        load(tmp_path / "nowhere")


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="episodes=5 are too few"):
        record_episodes(WIND, 5)
    with pytest.raises(UserError, match="not known"):
        record_episodes(EnvConfig("worldvae/Tiny-v0", size=(16, 16)), 6)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another folder"):
        record_episodes(WIND, 6).save(tmp_path / "file" / "below")


def test_the_noisy_policy_is_the_expert_with_noise(generator: torch.Generator) -> None:
    task = EnvConfig("CartPole-v1", obs="state")
    world, layout = oracle(task).world, make_from(task).action_layout
    state = torch.randn(2000, 4, dtype=torch.float64, generator=generator) * 0.05
    exact = with_noise(world, layout, chance=0.0)(state, generator)
    assert torch.equal(exact, world.expert(state).float())
    drawn = with_noise(world, layout, chance=0.4)(state, generator)
    assert 0.14 < float((drawn != exact).any(dim=1).float().mean()) < 0.26  # every other uniform action differs
    assert (drawn.sum(dim=1) == 1).all()
    box = with_noise(oracle(WIND).world, oracle(WIND).action_layout, spread=0.3, chance=0.0)
    still = torch.tensor([[0.0, -0.6, 0.0]], dtype=torch.float64).expand(500, 3)
    assert float(box(still, generator).abs().max()) <= 1.0


@pytest.mark.parametrize("name", config_names("study"))
def test_the_tasks_of_the_study_can_be_played_planned_and_recorded(name: str) -> None:
    path = find_config(f"study/{name}")
    assert path is not None
    config = configure(path, [])
    env = make_from(config.env)
    simulator = oracle(config.env)
    assert simulator.action_layout == env.action_layout
    assert not config.icem.value and not config.cem.value
    data = record_episodes(replace(config.env, time_limit=4), 6)
    assert data.observation_layout == env.observation_layout
    assert data.truth.shape == (int(data.lengths.sum()), len(simulator.world.names))
    agent = RandomAgent(env.action_layout)
    assert agent.layout == data.action_layout


def test_the_study_has_its_six_tasks() -> None:
    assert config_names("study") == ["cartpole", "detail", "linear", "pendulum", "pendulum_no_arrow", "wind"]
