"""Values as JSON, and JSON files."""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from worldvae.errors import UserError


def plain(value: Any) -> Any:
    """Return tensors and tuples as lists, also within dicts, and None for numbers that are not finite."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, value: Any) -> None:
    """Write a file, and its folder if there is none; a reader finds either the old file or the new one.

    Raises:
        UserError: If the file cannot be written.
    """
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(plain(value), default=str, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another folder with --out.") from error
