"""Logger: the numbers of a run as lines of JSON, and numbers, frames and films for TensorBoard."""

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from torch import Tensor

from worldvae.films.film import gif_bytes
from worldvae.system.text_file import replace_text


class Logger:
    """Writes `metrics.jsonl` and TensorBoard's `events.*` into the folder of a run.

    A line of `metrics.jsonl` is `{"step": ..., "time": ..., NAME: ...}`: environment steps, seconds of training (going
    on where a resumed run stopped), and the scalars in full precision, null if not finite.

    Args:
        folder: The run.
        resumed_at: The step from which a resumed run goes on. Later lines and events are dropped.
    """

    def __init__(self, folder: Path, resumed_at: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        path = folder / "metrics.jsonl"
        elapsed = 0.0 if resumed_at is None else _drop_after(path, resumed_at)
        self._started = time.monotonic() - elapsed
        self._file = path.open("a", encoding="utf-8")
        self._resumed_at = resumed_at
        self._events: Any = None

    def scalars(self, step: int, values: Mapping[str, float | int]) -> None:
        """Log scalars of one step; the line is on its way to disk when this returns."""
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = {"step": step, "time": round(time.monotonic() - self._started, 3)} | finite
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        self._summary(step, [{"tag": name, "simple_value": value} for name, value in values.items()])

    def image(self, step: int, tag: str, frame: UInt8[Tensor, "height width 3"]) -> None:
        """Show one frame in TensorBoard."""
        self.gif(step, tag, frame[None])

    def gif(self, step: int, tag: str, frames: UInt8[Tensor, "time height width 3"], fps: int = 15) -> None:
        """Show an animated film in TensorBoard.

        The GIF goes in as an image summary, which TensorBoard's page animates: with moviepy 2 installed,
        `SummaryWriter.add_video` silently writes nothing.
        """
        _, height, width, channels = frames.shape
        image = {"height": height, "width": width, "colorspace": channels}
        self._summary(step, [{"tag": tag, "image": image | {"encoded_image_string": gif_bytes(frames, fps)}}])

    def close(self) -> None:
        """Write all buffers and close the files."""
        self._file.close()
        if self._events is not None:
            self._events.close()

    def __repr__(self) -> str:
        return f"Logger({self.folder})"

    def _summary(self, step: int, values: list[dict[str, Any]]) -> None:
        # Imported here: TensorBoard takes a fifth of a second, which commands that log nothing should not pay.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # type: ignore[import-untyped]

        if self._events is None:
            self._events = EventFileWriter(str(self.folder), flush_secs=10)
            if self._resumed_at is not None:  # TensorBoard forgets the events from this step on
                start = SessionLog(status=SessionLog.START)
                self._events.add_event(Event(wall_time=time.time(), step=self._resumed_at + 1, session_log=start))
        summary = Summary(value=[Summary.Value(**value) for value in values])
        self._events.add_event(Event(wall_time=time.time(), step=step, summary=summary))


def _drop_after(path: Path, step: int) -> float:
    """Drop the lines after `step`, and one that a crash cut short; return the time of the last line that remains."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept, elapsed = [], 0.0
    for line in lines:
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if row["step"] <= step:
            kept.append(line + "\n")
            elapsed = row["time"]
    replace_text(path, "".join(kept))
    return elapsed
