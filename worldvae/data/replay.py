"""Replay: a memory-mapped ring of experience, bounded in bytes, from which slices of episodes are drawn.

Each environment has a lane: a ring of rows that holds the episodes of that environment one after another. The position
of a row counts from the beginning of its lane and is never reused: the row at position p lies in slot `p % lane_rows`.
A new row overwrites the oldest one once the ring is full; an episode that has lost its beginning stays with its newest
part. (Forgetting whole episodes instead would leave a single row when one episode fills its lane.)
"""

import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from worldvae.errors import UserError
from worldvae.types import ActionLayout, Batch, Observation, ObservationLayout

MIN_SLICE = 8
"""Smallest number of rows in a slice, if its episode and the sequence have room for them."""

MIN_LANE_ROWS = 2 * MIN_SLICE

_RUNNING = 2**62  # `stop` of the rows of an episode that has not ended
_RESERVED_BYTES = 2**24  # disk space that a lane reserves at a time


@dataclass(frozen=True)
class Episode:
    """Where an episode is stored: rows `start..stop` (positions) of `lane`.

    `whole`: its first row is still stored. `closed`: another episode has begun after it.
    """

    lane: int
    start: int
    stop: int
    whole: bool
    closed: bool

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class _Column:
    dtype: torch.dtype
    shape: tuple[int, ...] = ()

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _columns(observation: ObservationLayout, action: ActionLayout) -> dict[str, _Column]:
    columns = {} if observation.pixels is None else {"pixels": _Column(torch.uint8, observation.pixels)}
    if observation.vector is not None:
        columns["vector"] = _Column(torch.float32, (observation.vector,))
    return columns | {
        "action": _Column(torch.float32, (action.size,)),
        "reward": _Column(torch.float32),
        "termination": _Column(torch.bool),
        "begin": _Column(torch.int64),  # position of the first row of the row's episode
        "stop": _Column(torch.int64),  # position after the episode's last row, or _RUNNING
        "serial": _Column(torch.int64),  # the row's own position: shows whether a slot was overwritten
    }


def _fields(batch: Batch) -> dict[str, Tensor]:
    """Return the fields of a batch that are stored unchanged; `is_first` follows from where episodes begin."""
    observation = {"pixels": batch.observation.pixels, "vector": batch.observation.vector}
    fields = {name: value for name, value in observation.items() if value is not None}
    return fields | {"action": batch.action, "reward": batch.reward, "termination": batch.termination}


class Replay:
    """Rows of experience on disk, and batches of slices drawn from them.

    Args:
        folder: Folder of the files. Files of the right size are reused, and their rows forgotten.
        observation_layout: Shapes of the observations; pixels are stored as uint8.
        action_layout: Shape of the action vector.
        lanes: Number of environments that write.
        capacity_bytes: Bytes that all files together never exceed. Disk space is taken as rows arrive.

    Raises:
        UserError: The capacity is too small, the folder cannot be read or written, or the disk lacks that much space.
    """

    def __init__(
        self,
        folder: Path,
        observation_layout: ObservationLayout,
        action_layout: ActionLayout,
        lanes: int,
        capacity_bytes: int,
    ) -> None:
        self.folder = folder
        self.observation_layout = observation_layout
        self.action_layout = action_layout
        self.lanes = lanes
        self.capacity_bytes = capacity_bytes
        self._spec = _columns(observation_layout, action_layout)
        self.row_bytes = sum(column.row_bytes for column in self._spec.values())
        self.lane_rows = capacity_bytes // (lanes * self.row_bytes)
        if self.lane_rows < MIN_LANE_ROWS:
            raise UserError(
                f"a replay of {capacity_bytes} bytes is too small: {lanes} lanes with rows of {self.row_bytes} bytes "
                f"need at least {lanes * self.row_bytes * MIN_LANE_ROWS}; give the replay more bytes."
            )
        self._written = torch.zeros(lanes, dtype=torch.int64)
        self._oldest = torch.zeros(lanes, dtype=torch.int64)
        self._reserved = [0] * lanes
        try:
            self._create()
            self._maps = {name: self._map(name) for name in self._spec}
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot read and write the replay in {folder}: {reason}; it needs both.") from error
        self._rows = {name: torch.from_numpy(m.view(np.ndarray)) for name, m in self._maps.items()}

    # Writing

    def append(self, lanes: Sequence[int], rows: Batch) -> None:
        """Append one row to each of `lanes` (all different); `rows` has one leading axis, of the same length.

        A row is a time step in the row convention of `worldvae.types`, so that an episode of T steps is T + 1 rows
        (the last action is zeros). A row with `is_first` closes the episode before it. Float frames (0..1) are rounded
        to bytes.

        Raises:
            UserError: The disk is full, or a number is not finite in float32; then nothing is stored.
        """
        for name, value in _fields(rows).items():
            if value.dtype != torch.uint8 and not bool(value.float().isfinite().all()):
                raise UserError(f"the {name} of a row is not finite in float32: scale it, or leave that row out.")
        lane = torch.as_tensor(lanes, dtype=torch.int64)
        now = self._written[lane]
        for i, position in zip(lane.tolist(), now.tolist(), strict=True):
            if position == self._reserved[i] < self.lane_rows:
                self._reserve(i)
        empty = now == self._oldest[lane]
        first, closing = rows.is_first | empty, rows.is_first & ~empty
        previous = self._rows["begin"][self._slot(lane, now - 1)]
        values = {
            "serial": now,  # written first: after a crash in this loop, it shows that the old row is gone
            "begin": torch.where(first, now, previous),
            "stop": torch.full_like(now, _RUNNING),
        }
        slot = self._slot(lane, now)
        for name, value in (values | _fields(rows)).items():
            stored = (255 * value).round() if name == "pixels" and value.is_floating_point() else value
            self._rows[name][slot] = stored.to(self._spec[name].dtype)
        self._written[lane] = now + 1
        self._oldest = torch.maximum(self._oldest, self._written - self.lane_rows)
        for i, begin, stop in torch.stack([lane, previous, now], dim=1)[closing].tolist():
            self._set_stop(i, begin, stop, stop)

    def flush(self) -> None:
        """Wait until all rows are on disk."""
        for m in self._maps.values():
            m.flush()

    # Reading

    def sample(self, batch: int, length: int, generator: torch.Generator, out: Batch | None = None) -> Batch:
        """Draw sequences `[batch, length]`, each filled with slices one after another; there is no padding.

        A slice lies within one episode. Only its first row has `is_first`: previous state and action are reset there.
        Reward and termination of that row are the stored ones, even in the middle of an episode.

        The first slice begins at a row drawn uniformly, or earlier if needed to contain
        `min(length, MIN_SLICE, its episode)` rows. If it ends before the sequence does, the next episode of the same
        lane follows, so that first rows are drawn as often as other rows; after the newest row of a lane, another row
        is drawn. Episodes in progress take part once they have two rows.

        Args:
            batch: Number of sequences.
            length: Rows of a sequence.
            generator: Source of randomness, on the CPU.
            out: A batch from an earlier call, which is overwritten and returned to save the allocation.
        """
        assert self.ready(1), "the replay has nothing to sample"
        index, is_first = self._pack(batch, length, generator)
        return self._gather(index, is_first, self._empty(batch, length) if out is None else out)

    def ready(self, length: int) -> bool:
        """Whether at least `length` rows can be sampled, so that a sequence need not repeat itself."""
        return int((self._limit() - self._oldest).sum()) >= length

    def episodes(self) -> list[Episode]:
        """Return the stored episodes: lane by lane, oldest first."""
        found = []
        for lane, (oldest, written) in enumerate(zip(self._oldest.tolist(), self._written.tolist(), strict=True)):
            position = torch.arange(oldest, written)
            begin = self._rows["begin"][self._slot(torch.tensor(lane), position)]
            starts = position[begin.clamp(min=oldest) == position].tolist()
            for start, stop in zip(starts, [*starts, written][1:], strict=True):
                found.append(Episode(lane, start, stop, bool(begin[start - oldest] == start), stop < written))
        return found

    def read(self, episode: Episode) -> Batch:
        """Return all rows of an episode, as `[1, time]`."""
        assert episode.start >= int(self._oldest[episode.lane]), "that episode is not stored any more"
        position = torch.arange(episode.start, episode.stop)[None]
        is_first = position == episode.start
        index = self._slot(torch.tensor(episode.lane), position)
        return self._gather(index, is_first, self._empty(1, len(episode)))

    # Resuming

    def state_dict(self) -> dict[str, Any]:
        """Return what `open` needs besides the folder, ready for JSON. Call `flush` first."""
        return {
            "observation": asdict(self.observation_layout),
            "action": asdict(self.action_layout),
            "lanes": self.lanes,
            "capacity_bytes": self.capacity_bytes,
            "written": self._written.tolist(),
            "oldest": self._oldest.tolist(),
        }

    @classmethod
    def open(cls, folder: Path, state: dict[str, Any]) -> "Replay":
        """Return the replay as it was at `state_dict`; rows that were overwritten since are forgotten.

        Raises:
            UserError: The folder does not hold the files of that replay.
        """
        observation, action = state["observation"], state["action"]
        pixels = observation["pixels"]
        observation_layout = ObservationLayout(None if pixels is None else tuple(pixels), observation["vector"])
        action_layout = ActionLayout(action["continuous"], tuple(action["categorical"]))
        columns = _columns(observation_layout, action_layout)
        slots = state["capacity_bytes"] // (state["lanes"] * sum(column.row_bytes for column in columns.values()))
        for name, column in columns.items():
            file, size = folder / f"{name}.bin", state["lanes"] * slots * column.row_bytes
            if not file.is_file() or file.stat().st_size != size:  # do not create it: its rows would silently be zeros
                wrong = f"has a {name}.bin that is not of {size} bytes" if file.is_file() else f"lacks {name}.bin"
                raise UserError(f"the replay in {folder} {wrong}: restore that file, or train without resuming.")
        replay = cls(folder, observation_layout, action_layout, state["lanes"], state["capacity_bytes"])
        for lane, (oldest, written) in enumerate(zip(state["oldest"], state["written"], strict=True)):
            replay._restore(lane, oldest, written)
        return replay

    def __len__(self) -> int:
        return int((self._written - self._oldest).sum())

    @property
    def num_episodes(self) -> int:
        """Number of episodes that have stored rows."""
        return len(self.episodes())

    @property
    def bytes(self) -> int:
        """Bytes of the stored rows."""
        return len(self) * self.row_bytes

    def __repr__(self) -> str:
        return (
            f"Replay({len(self)} of {self.lanes * self.lane_rows} rows, {self.num_episodes} episodes, "
            f"{self.lanes} lanes, {self.bytes / 1e6:.1f} of {self.capacity_bytes / 1e6:.1f} MB, {self.folder})"
        )

    # Choosing rows

    def _slot(self, lane: Int64[Tensor, "..."], position: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
        return lane * self.lane_rows + position % self.lane_rows

    def _limit(self) -> Int64[Tensor, " lanes"]:
        """Return, per lane, the position after the last row that may be drawn: all but an episode's only row so far."""
        begin = self._rows["begin"][self._slot(torch.arange(self.lanes), self._written - 1)]
        lone = torch.maximum(begin, self._oldest) == self._written - 1
        return self._written - lone.long()

    def _draw(
        self, number: int, limit: Int64[Tensor, " lanes"], generator: torch.Generator
    ) -> tuple[Int64[Tensor, " batch"], Int64[Tensor, " batch"]]:
        """Return lane and position of rows drawn uniformly."""
        ends = (limit - self._oldest).cumsum(0)
        drawn = torch.randint(int(ends[-1]), (number,), generator=generator)
        lane = torch.searchsorted(ends, drawn, right=True)
        return lane, limit[lane] - ends[lane] + drawn

    def _cut(
        self, lane: Int64[Tensor, " batch"], position: Int64[Tensor, " batch"], need: Int64[Tensor, " batch"]
    ) -> tuple[Int64[Tensor, " batch"], Int64[Tensor, " batch"]]:
        """Return start and length of slices for the `need` rows still missing, at or just before `position`."""
        row = self._slot(lane, position)
        begin = torch.maximum(self._rows["begin"][row], self._oldest[lane])
        stop = torch.minimum(self._rows["stop"][row], self._written[lane])
        start = torch.minimum(position, stop - torch.minimum(need, stop - begin).clamp(max=MIN_SLICE))
        take = torch.minimum(need, stop - start)
        # A remainder too short for a good slice is filled from this episode, as far as it reaches back ...
        rest = need - take
        back = torch.minimum(rest, start - begin) * (rest < MIN_SLICE)
        start, take = start - back, take + back
        # ... and a remainder of one row, which contains no transition, becomes two rows.
        lone = ((need - take == 1) & (take > 2)).long()
        return start + lone, take - lone

    def _pack(
        self, batch: int, length: int, generator: torch.Generator
    ) -> tuple[Int64[Tensor, "batch length"], Bool[Tensor, "batch length"]]:
        """Return the slots of the rows of each sequence, and where its slices begin."""
        index = torch.zeros(batch, length, dtype=torch.int64)
        is_first = torch.zeros(batch, length, dtype=torch.bool)
        filled = torch.zeros(batch, dtype=torch.int64)
        limit = self._limit()
        lane, position = self._draw(batch, limit, generator)
        while int(filled.min()) < length:
            start, take = self._cut(lane, position, length - filled)
            local = torch.arange(length) - filled[:, None]
            slot = self._slot(lane[:, None], start[:, None] + local)
            index = torch.where((local >= 0) & (local < take[:, None]), slot, index)
            is_first |= local == 0
            filled, position = filled + take, start + take
            exhausted = position >= limit[lane]
            if bool(exhausted.any()):
                lane[exhausted], position[exhausted] = self._draw(int(exhausted.sum()), limit, generator)
        return index, is_first

    def _gather(
        self, index: Int64[Tensor, "batch length"], is_first: Bool[Tensor, "batch length"], out: Batch
    ) -> Batch:
        for name, target in _fields(out).items():
            torch.index_select(self._rows[name], 0, index.flatten(), out=target.flatten(0, 1))
        out.is_first.copy_(is_first)
        return out

    def _empty(self, batch: int, length: int) -> Batch:
        def tensor(name: str) -> Tensor:
            return torch.empty(batch, length, *self._spec[name].shape, dtype=self._spec[name].dtype)

        observation = Observation(**{name: tensor(name) for name in ("pixels", "vector") if name in self._spec})
        is_first = torch.empty(batch, length, dtype=torch.bool)
        return Batch(observation, tensor("action"), tensor("reward"), tensor("termination"), is_first)

    # Files

    def _size(self, name: str) -> int:
        return self.lanes * self.lane_rows * self._spec[name].row_bytes

    def _create(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        paths = {name: self.folder / f"{name}.bin" for name in self._spec}
        sizes = {name: path.stat().st_size if path.is_file() else None for name, path in paths.items()}
        missing = [name for name, size in sizes.items() if size != self._size(name)]
        free, size = shutil.disk_usage(self.folder).free, sum(self._size(name) for name in missing)
        if size > free:
            raise OSError(f"it may grow to {size} bytes, and the disk has {free} free")
        for name in missing:
            paths[name].unlink(missing_ok=True)
            with paths[name].open("wb") as file:
                file.truncate(self._size(name))  # a sparse file: it takes no disk space yet

    def _map(self, name: str) -> np.memmap[Any, Any]:
        column = self._spec[name]
        dtype = torch.empty(0, dtype=column.dtype).numpy().dtype
        shape = (self.lanes * self.lane_rows, *column.shape)
        return np.memmap(self.folder / f"{name}.bin", dtype=dtype, mode="r+", shape=shape)

    def _reserve(self, lane: int) -> None:
        """Reserve disk for the next rows of a lane: a full disk then raises here, and not as a bus error at a write."""
        start = self._reserved[lane]
        stop = min(start + max(1, _RESERVED_BYTES // self.row_bytes), self.lane_rows)
        for name, column in self._spec.items():
            offset, size = (lane * self.lane_rows + start) * column.row_bytes, (stop - start) * column.row_bytes
            try:
                with (self.folder / f"{name}.bin").open("r+b") as file:
                    if hasattr(os, "posix_fallocate"):  # missing on macOS and Windows
                        os.posix_fallocate(file.fileno(), offset, size)
            except OSError as error:
                raise UserError(
                    f"the replay in {self.folder} cannot grow: {error}; free some disk and resume."
                ) from error
        self._reserved[lane] = stop

    def _set_stop(self, lane: int, begin: int, end: int, stop: int) -> None:
        """Set `stop` for the rows of a lane from `begin` (or its oldest row) to `end`."""
        position = torch.arange(max(begin, int(self._oldest[lane])), end)
        self._rows["stop"][self._slot(torch.tensor(lane), position)] = stop

    def _restore(self, lane: int, oldest: int, written: int) -> None:
        position = torch.arange(oldest, written)
        gone = position[self._rows["serial"][self._slot(torch.tensor(lane), position)] != position]
        self._written[lane] = written
        self._oldest[lane] = oldest if len(gone) == 0 else int(gone[-1]) + 1
        self._reserved[lane] = min(written, self.lane_rows)
        if written > int(self._oldest[lane]):  # the newest episode may have continued after the checkpoint
            begin = int(self._rows["begin"][self._slot(torch.tensor(lane), torch.tensor(written - 1))])
            self._set_stop(lane, begin, written, _RUNNING)
