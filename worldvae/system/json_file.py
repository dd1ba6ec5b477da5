"""Values as JSON, and JSON files."""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from worldvae.errors import UserError
from worldvae.system.text_file import replace_text


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(plain(value), default=str, allow_nan=False) + "\n")
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): choose another folder with --out.") from error
