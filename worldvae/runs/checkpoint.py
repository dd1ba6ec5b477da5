"""Checkpoints: a tree of tensors and plain values as safetensors and JSON, written all or not at all; no pickle."""

import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from worldvae.errors import UserError

FORMAT_VERSION = 6

_TENSORS, _STATE = "tensors.safetensors", "state.json"


def pack(tree: Any) -> tuple[dict[str, Tensor], Any]:
    """Split a tree into its tensors and a structure for JSON that names them.

    A tree is made of dict, list, tuple, Tensor, str, int, float, bool and None: the state dicts of modules and
    optimisers, the state of a `torch.Generator`, `Replay.state_dict()`, and dicts of all these. The tensors are copies
    on the CPU, named by their path in the tree; one that appears twice is stored once.

    Raises:
        TypeError: Something else is in the tree; the message says where and what.

    Example:
        >>> pack({"step": 3, "model": {"weight": torch.zeros(2)}})
        ({'model/weight': tensor([0., 0.])}, {'step': 3, 'model': {'weight': {'$tensor': 'model/weight'}}})
    """
    tensors: dict[str, Tensor] = {}
    seen: dict[tuple[Any, ...], str] = {}

    def name_of(tensor: Tensor, path: str) -> str:
        # Equal memory read in the same way is the same tensor; empty ones have no address to tell them apart.
        key = (tensor.data_ptr(), tensor.dtype, tensor.device, tensor.shape, tensor.stride())
        if tensor.numel() == 0 or key not in seen:
            while path in tensors:  # {"a": {"b": x}, "a/b": y}
                path += "'"
            tensors[path] = tensor.detach().to("cpu", copy=True).contiguous()
            seen[key] = path
        return seen[key]

    def visit(node: Any, path: str) -> Any:
        below = f"{path}/" if path else ""
        match node:
            case Tensor():
                return {"$tensor": name_of(node, path)}
            case dict() if all(isinstance(key, str) and not key.startswith("$") for key in node):
                return {key: visit(value, f"{below}{key}") for key, value in node.items()}
            case dict():  # the keys of an optimiser's state are integers
                return {"$items": [[visit(k, path), visit(v, f"{below}{k}")] for k, v in node.items()]}
            case list():
                return [visit(value, f"{below}{i}") for i, value in enumerate(node)]
            case tuple():
                return {"$tuple": [visit(value, f"{below}{i}") for i, value in enumerate(node)]}
            case float() if not math.isfinite(node):  # for which JSON has no word
                return {"$float": str(float(node))}
            case str() | int() | float() | None:
                return node
        raise TypeError(f"a checkpoint holds tensors and plain values, but {path!r} is a {type(node).__name__}")

    structure = visit(tree, "")
    return tensors, structure


def unpack(tensors: dict[str, Tensor], structure: Any) -> Any:
    """Return the tree that `pack` took apart."""
    match structure:
        case {"$tensor": name}:
            return tensors[name]
        case {"$items": items}:
            return {unpack(tensors, key): unpack(tensors, value) for key, value in items}
        case {"$tuple": values}:
            return tuple(unpack(tensors, value) for value in values)
        case {"$float": text}:
            return float(text)
        case dict():
            return {key: unpack(tensors, value) for key, value in structure.items()}
        case list():
            return [unpack(tensors, value) for value in structure]
    return structure


def save(folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the checkpoint `folder/step_XXXXXXXX`, and then delete those it makes obsolete.

    It is written beside its place and moved there when it is complete and on disk, so that a crash at any moment
    leaves the checkpoints before it as they were.

    Args:
        folder: Where the checkpoints of a run lie.
        step: Environment steps so far. Checkpoints of later steps are of a past that this run gave up when it was
            resumed from an earlier one: they are deleted.
        state: What `pack` can take.
        keep: How many checkpoints to keep, this one included.

    Raises:
        UserError: The disk is full, or there is no permission to write.
    """
    path = folder / f"step_{step:08d}"
    temporary = folder / f".{path.name}.tmp"
    tensors, structure = pack(state)
    try:
        for leftover in folder.glob(".step_*"):
            shutil.rmtree(leftover)
        temporary.mkdir(parents=True)
        save_file(tensors, temporary / _TENSORS)
        text = json.dumps({"format": FORMAT_VERSION, "step": step, "state": structure}, indent=1, allow_nan=False)
        (temporary / _STATE).write_text(text, encoding="utf-8")
        for part in (temporary / _TENSORS, temporary / _STATE, temporary):
            _sync(part)
        if path.exists():  # a folder cannot be moved onto another
            path.rename(folder / f".{path.name}.old")
        temporary.rename(path)
        _sync(folder)
        for old in _checkpoints(folder):
            if old > path:
                shutil.rmtree(old)
        for old in [*_checkpoints(folder)[:-keep], *folder.glob(".step_*")]:
            shutil.rmtree(old)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"cannot write the checkpoint {path}: {error}; free some disk, or choose another folder."
        ) from error
    return path


def load(path: Path) -> dict[str, Any]:
    """Return the state that was saved as `path`, with its tensors on the CPU.

    Raises:
        UserError: There is no checkpoint, it is damaged, or another format wrote it.
    """
    try:
        content = json.loads((path / _STATE).read_text(encoding="utf-8"))
        if content["format"] != FORMAT_VERSION:
            raise UserError(
                f"the checkpoint {path} was written by worldvae format {content['format']}, and this worldvae reads "
                f"format {FORMAT_VERSION}: install the version that wrote it, or train again."
            )
        state: dict[str, Any] = unpack(load_file(path / _TENSORS), content["state"])
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint in {path}: {error.filename or error} is missing.") from error
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(
            f"the checkpoint {path} is damaged ({error}): delete it and resume from the one before."
        ) from error
    return state


def latest(folder: Path) -> Path | None:
    """Return the newest complete checkpoint in `folder`, or None."""
    found = _checkpoints(folder)
    return found[-1] if found else None


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step_*") if re.fullmatch(r"step_\d+", path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step_")))


def _sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
