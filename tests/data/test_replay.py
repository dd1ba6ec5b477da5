"""Tests of the replay. Every row identifies itself (lane, episode, time), so that sampled rows can be checked."""

import errno
import itertools
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from worldvae.data.replay import MIN_SLICE, Replay
from worldvae.errors import UserError
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

LAYOUT = ObservationLayout(pixels=(1, 2, 3), vector=3)
ACTION = ActionLayout(continuous=2)
ROW_BYTES = 6 + 3 * 4 + 2 * 4 + 4 + 1 + 3 * 8


def row(lane: int, episode: int, time: int, length: int) -> Batch:
    code = torch.tensor([[lane, episode, time]], dtype=torch.float32)
    frame = torch.full((1, 1, 2, 3), (41 * episode + time) % 256, dtype=torch.uint8)
    return Batch(
        observation=Observation(pixels=frame, vector=code),
        action=code[:, 1:] + 0.5,
        reward=torch.tensor([100.0 * episode + time]),
        termination=torch.tensor([time == length - 1]),
        is_first=torch.tensor([time == 0]),
    )


class Writer:
    """Writes episodes of given lengths to all lanes in parallel, and remembers the rows in order."""

    def __init__(self, replay: Replay, lengths: list[int]) -> None:
        self.replay, self.lengths = replay, lengths
        self.episode, self.time = [0] * replay.lanes, [0] * replay.lanes
        self.rows: list[list[tuple[int, int]]] = [[] for _ in range(replay.lanes)]

    def step(self, lanes: list[int] | None = None) -> None:
        lanes = list(range(self.replay.lanes)) if lanes is None else lanes
        rows = []
        for lane in lanes:
            length = self.lengths[(self.episode[lane] + lane) % len(self.lengths)]
            rows.append(row(lane, self.episode[lane], self.time[lane], length))
            self.rows[lane].append((self.episode[lane], self.time[lane]))
            self.time[lane] += 1
            if self.time[lane] == length:
                self.episode[lane], self.time[lane] = self.episode[lane] + 1, 0
        self.replay.append(lanes, Batch.cat(rows, dim=0))

    def stored(self) -> set[tuple[int, int, int]]:
        return {(i, *r) for i in range(self.replay.lanes) for r in self.rows[i][-self.replay.lane_rows :]}


def make(folder: Path, lanes: int, lane_rows: int = 24) -> Replay:
    return Replay(folder, LAYOUT, ACTION, lanes, lanes * lane_rows * ROW_BYTES)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def identities(batch: Batch) -> list[list[tuple[int, ...]]]:
    vector = batch.observation.vector
    assert vector is not None
    return [[tuple(int(x) for x in r) for r in sequence] for sequence in vector.tolist()]


def slices(batch: Batch) -> list[list[tuple[int, ...]]]:
    """Return the slices of all sequences, split at `is_first`."""
    out = []
    for sequence, first in zip(identities(batch), batch.is_first.tolist(), strict=True):
        starts = [t for t, f in enumerate(first) if f]
        assert starts[0] == 0
        out += [sequence[a:b] for a, b in zip(starts, [*starts[1:], len(sequence)], strict=True)]
    return out


def check_rows(batch: Batch, lengths: list[int]) -> None:
    """Check that all columns of a row belong to the same row."""
    vector, pixels = batch.observation.vector, batch.observation.pixels
    assert vector is not None and pixels is not None
    lane, episode, time = vector.unbind(-1)
    length = torch.tensor(lengths)[((episode + lane) % len(lengths)).long()]
    assert torch.equal(pixels, ((41 * episode + time) % 256).to(torch.uint8)[..., None, None, None].expand_as(pixels))
    assert torch.equal(batch.action, vector[..., 1:] + 0.5)
    assert torch.equal(batch.reward, 100 * episode + time)
    assert torch.equal(batch.termination, time == length - 1)


def equal(a: Batch, b: Batch) -> bool:
    pairs: list[tuple[Tensor | None, Tensor | None]] = [
        (a.observation.pixels, b.observation.pixels),
        (a.observation.vector, b.observation.vector),
        (a.action, b.action),
        (a.reward, b.reward),
        (a.termination, b.termination),
        (a.is_first, b.is_first),
    ]
    return all(x is not None and y is not None and torch.equal(x, y) for x, y in pairs)


@settings(max_examples=60, deadline=None)
@given(
    lanes=st.integers(1, 4),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    steps=st.integers(2, 90),
    length=st.integers(1, 20),
    seed=st.integers(0, 2**31),
)
def test_a_slice_is_a_contiguous_part_of_one_episode(tmp_path_factory, lanes, lengths, steps, length, seed) -> None:
    folder = tmp_path_factory.mktemp("replay")
    replay = make(folder, lanes)
    writer = Writer(replay, lengths)
    for _ in range(steps):
        writer.step()
    if not replay.ready(1):
        return  # there are only single first rows of episodes
    batch = replay.sample(5, length, generator(seed), None)
    assert batch.reward.shape == (5, length)
    check_rows(batch, lengths)
    stored = writer.stored()
    for piece in slices(batch):
        lane, episode, start = piece[0]
        assert piece == [(lane, episode, start + k) for k in range(len(piece))]
        assert stored.issuperset(piece)
    assert sum(f.stat().st_size for f in folder.iterdir()) <= replay.capacity_bytes
    shutil.rmtree(folder)


@settings(max_examples=40, deadline=None)
@given(episode=st.integers(2, 30), length=st.integers(4, 24), seed=st.integers(0, 2**31))
def test_a_slice_is_as_long_as_it_can_be(tmp_path_factory, episode, length, seed) -> None:
    folder = tmp_path_factory.mktemp("replay")
    replay = make(folder, lanes=1, lane_rows=10 * episode)
    writer = Writer(replay, [episode])
    for _ in range(10 * episode):
        writer.step()
    batch = replay.sample(8, length, generator(seed))
    for first in batch.is_first:
        starts = [*first.nonzero().flatten().tolist(), length]
        for a, b in itertools.pairwise(starts):
            needed = length - a
            floor = min(needed, MIN_SLICE, episode)
            assert b - a >= floor - 1  # one row fewer if otherwise a single row were left
            if episode > 2:
                assert b - a >= 2
            if episode >= 2 * length:  # not even the last slice is short: the one before it starts earlier
                assert b - a >= min(length, MIN_SLICE)
    shutil.rmtree(folder)


def test_no_single_rows(tmp_path) -> None:
    replay = make(tmp_path, lanes=2, lane_rows=200)
    writer = Writer(replay, [9, 5, 30])
    for _ in range(200):
        writer.step()
    for seed in range(50):
        assert min(map(len, slices(replay.sample(16, 13, generator(seed))))) >= 2


def test_every_stored_row_is_sampled_about_equally_often(tmp_path) -> None:
    replay = make(tmp_path, lanes=2, lane_rows=100)
    writer = Writer(replay, [50, 25])
    for _ in range(130):
        writer.step()
    assert all(not e.closed for e in replay.episodes() if e.stop == 130)
    count = dict.fromkeys(writer.stored(), 0)
    rounds, batch, length = 200, 32, 16
    g = generator()
    for _ in range(rounds):
        for sequence in identities(replay.sample(batch, length, g)):
            for identity in sequence:
                count[identity] += 1
    mean = rounds * batch * length / len(count)
    assert min(count.values()) > 0
    beginnings = [n for (lane, episode, time), n in count.items() if time == 0]
    assert min(beginnings) > 0.5 * mean  # not one in `length`, as if only starts of sequences were drawn
    assert max(count.values()) < 2.5 * mean


def test_the_oldest_rows_go_first_and_a_long_episode_keeps_its_newest_part(tmp_path) -> None:
    replay = make(tmp_path, lanes=1, lane_rows=20)
    writer = Writer(replay, [6, 50, 4])
    for _ in range(18):
        writer.step()
    assert [(e.start, e.stop, e.whole, e.closed) for e in replay.episodes()] == [
        (0, 6, True, True),
        (6, 18, True, False),
    ]
    for _ in range(4):
        writer.step()
    assert [(e.start, e.stop, e.whole) for e in replay.episodes()] == [(2, 6, False), (6, 22, True)]
    for _ in range(34):
        writer.step()
    assert [(e.start, e.stop, e.whole, e.closed) for e in replay.episodes()] == [(36, 56, False, False)]
    writer.step()  # the first row of the next episode does not remove the long one
    assert [(e.start, e.stop, e.whole, e.closed) for e in replay.episodes()] == [
        (37, 56, False, True),
        (56, 57, True, False),
    ]
    assert len(replay) == 20 and replay.num_episodes == 2 and replay.bytes == 20 * ROW_BYTES


def test_an_episode_of_one_row_is_sampled_only_when_it_is_closed(tmp_path) -> None:
    replay = make(tmp_path, lanes=1)
    writer = Writer(replay, [1])
    writer.step()
    assert not replay.ready(1)
    writer.step()
    assert replay.ready(1) and not replay.ready(2)
    assert identities(replay.sample(1, 3, generator())) == [[(0, 0, 0)] * 3]


def test_read_returns_a_whole_episode(tmp_path) -> None:
    replay = make(tmp_path, lanes=2)
    writer = Writer(replay, [7, 12])
    for _ in range(30):
        writer.step()
    episode = next(e for e in replay.episodes() if e.lane == 1 and e.whole and e.closed)
    batch = replay.read(episode)
    (sequence,) = identities(batch)
    assert len(sequence) == len(episode) and [time for _, _, time in sequence] == list(range(len(episode)))
    assert batch.is_first.tolist() == [[True] + [False] * (len(episode) - 1)]
    check_rows(batch, [7, 12])


def test_lanes_may_be_written_apart(tmp_path) -> None:
    replay = make(tmp_path, lanes=3, lane_rows=40)
    writer = Writer(replay, [5, 11])
    for step in range(60):
        writer.step([lane for lane in (2, 0, 1) if step % (lane + 1) == 0])
    for episode in replay.episodes():
        check_rows(replay.read(episode), [5, 11])
    assert len(replay) == 40 + 30 + 20


def test_same_seed_same_batch_and_the_buffer_is_reused(tmp_path) -> None:
    replay = make(tmp_path, lanes=2)
    writer = Writer(replay, [9, 5])
    for _ in range(40):
        writer.step()
    a = replay.sample(4, 12, generator(3))
    b = replay.sample(4, 12, generator(4))
    assert not equal(a, b)
    assert replay.sample(4, 12, generator(3), out=b) is b
    assert equal(a, b)


@pytest.mark.parametrize("extra", [0, 3, 15, 40])
def test_resume_forgets_what_was_overwritten_after_the_checkpoint(tmp_path, extra) -> None:
    replay = make(tmp_path, lanes=2, lane_rows=30)
    writer = Writer(replay, [9, 5])
    for _ in range(50):
        writer.step()
    replay.flush()
    state, before = json.loads(json.dumps(replay.state_dict())), replay.sample(8, 10, generator())
    rows = [list(r) for r in writer.rows]
    for _ in range(extra):  # then the run crashes
        writer.step()
    resumed = Replay.open(tmp_path, state)
    if extra == 0:
        assert equal(before, resumed.sample(8, 10, generator()))
        assert resumed.episodes() == replay.episodes()
    assert len(resumed) == 2 * max(0, 30 - extra)
    known = {(i, *r) for i in range(2) for r in rows[i][-30:][min(extra, 30) :]}
    found = {identity for e in resumed.episodes() for identity in identities(resumed.read(e))[0]}
    assert found == known
    # The rows of the crashed run are gone, and new episodes follow as if they had never existed.
    for episode in (20, 21):
        for time in range(9):
            resumed.append([0, 1], Batch.cat([row(lane, episode, time, 9) for lane in range(2)], dim=0))
    assert [len(e) for e in resumed.episodes() if e.start >= 50] == [9, 9] * 2
    for piece in slices(resumed.sample(32, 12, generator())):
        assert piece == [(*piece[0][:2], piece[0][2] + k) for k in range(len(piece))]


def test_a_resumed_episode_goes_on(tmp_path) -> None:
    replay = make(tmp_path, lanes=1, lane_rows=40)
    writer = Writer(replay, [15])
    for _ in range(10):
        writer.step()
    state = replay.state_dict()
    for _ in range(10):  # the episode ends at 15, which the resumed run does not know
        writer.step()
    replay = Replay.open(tmp_path, state)
    for time in range(10, 25):
        replay.append([0], row(0, 0, time, 30))
    assert [(e.start, e.stop) for e in replay.episodes()] == [(0, 25)]
    batch = replay.sample(64, 20, generator())
    across = [i for i, sequence in enumerate(identities(batch)) if 3 <= sequence[0][2] <= 5]
    assert across and not bool(batch.is_first[across, 1:].any())


def test_an_empty_lane_begins_an_episode(tmp_path) -> None:
    writer = Writer(make(tmp_path, lanes=1), [7])
    for _ in range(40):
        writer.step()
    replay = make(tmp_path, lanes=1)  # forgets those rows
    replay.append([0], row(0, 5, 3, 9))
    assert [(e.start, e.stop, e.whole) for e in replay.episodes()] == [(0, 1, True)]


def test_float_frames_become_bytes(tmp_path) -> None:
    replay = Replay(tmp_path, ObservationLayout(pixels=(1, 2, 2)), ACTION, 1, 10**5)
    for time in range(3):
        first = row(0, 0, time, 3)
        observation = Observation(pixels=torch.full((1, 1, 2, 2), 0.5))
        replay.append([0], Batch(observation, first.action, first.reward, first.termination, first.is_first))
    pixels = replay.sample(1, 2, generator()).observation.pixels
    assert pixels is not None and pixels.dtype == torch.uint8 and bool((pixels == 128).all())


@pytest.mark.parametrize(("name", "number"), [("reward", float("nan")), ("action", float("inf")), ("reward", 1e300)])
def test_what_is_not_finite_in_float32_is_not_stored(tmp_path, name, number) -> None:
    replay = Replay(tmp_path, LAYOUT, ACTION, 1, 100 * ROW_BYTES)
    replay.append([0], row(0, 0, 0, 3))
    good = row(0, 0, 1, 3)
    bad = replace(good, **{name: torch.full_like(getattr(good, name), number, dtype=torch.float64)})
    with pytest.raises(UserError, match=f"the {name} of a row is not finite"):
        replay.append([0], bad)
    replay.append([0], good)
    assert len(replay.read(replay.episodes()[0])[0].reward) == 2


def test_a_stale_folder_is_taken_over(tmp_path) -> None:
    for lengths in ([25], [4]):
        replay = make(tmp_path, lanes=1)
        assert len(replay) == 0
        writer = Writer(replay, lengths)
        for _ in range(9):
            writer.step()
    assert [len(e) for e in replay.episodes()] == [4, 4, 1]


def test_too_few_bytes(tmp_path) -> None:
    with pytest.raises(UserError, match=f"need at least {4 * ROW_BYTES * 16}"):
        Replay(tmp_path, LAYOUT, ACTION, 4, 100)
    Replay(tmp_path, LAYOUT, ACTION, 4, 4 * ROW_BYTES * 16)


def test_failing_disks(tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot read and write the replay"):
        make(tmp_path / "file", lanes=1)
    with pytest.raises(UserError, match="bytes, and the disk has"):
        Replay(tmp_path, LAYOUT, ACTION, 1, 10**17)
    replay = make(tmp_path, lanes=1)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full, raising=False)
    with pytest.raises(UserError, match="No space left"):
        Writer(replay, [3]).step()
    assert len(replay) == 0


def test_open_without_files(tmp_path) -> None:
    state = make(tmp_path, lanes=1).state_dict()
    (tmp_path / "reward.bin").unlink()
    with pytest.raises(UserError, match="lacks reward"):
        Replay.open(tmp_path, state)


def test_repr_tells_how_full_it_is(tmp_path) -> None:
    replay = make(tmp_path, lanes=2)
    writer = Writer(replay, [5])
    for _ in range(8):
        writer.step()
    assert "16 of 48 rows, 4 episodes, 2 lanes" in repr(replay)
