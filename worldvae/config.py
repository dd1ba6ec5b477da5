"""Configs: dataclass defaults < YAML files < `a.b=c` overrides, and one clear sentence for every mistake.

A schema is a (nested, preferably frozen) dataclass. Its fields may be scalars, `X | None`, `list`, `tuple`,
`dict[str, ...]`, paths and further dataclasses; a field without a default must be given by the user.

OmegaConf merges, converts and resolves `${...}`. Its own errors span several lines, and some do not name the setting.
Each value is therefore merged separately: if that fails, the path, the value and the expected type are known.
"""

import dataclasses
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import yaml
from omegaconf import DictConfig, OmegaConf, SCMode
from omegaconf.errors import (
    GrammarParseError,
    KeyValidationError,
    OmegaConfBaseException,
    UnsupportedValueType,
    ValidationError,
)

from worldvae.errors import UserError, near_miss
from worldvae.system.text_file import replace_text

T = TypeVar("T")
PLAIN_VALUES = "numbers, text, true, false, null, and lists and dicts of these"
MISSING = "???"  # OmegaConf's mark for a setting without a value
Keys = tuple[Any, ...]  # the path of a setting, e.g. ("model", "latent")


def setting(default: T, *, choices: Collection[T]) -> T:
    """Return a dataclass field that accepts only `choices` (and None, if the annotation allows it).

    If `choices` is a mapping, its keys are accepted, including keys that are added later.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class MemoryConfig:
        ...     cell: str = setting("gru", choices=["gru", "block_gru"])
    """
    kept = choices if isinstance(choices, Mapping) else tuple(choices)
    return dataclasses.field(default=default, metadata={"choices": kept})


def load_config(schema: type[T], sources: Sequence[Path | Mapping[str, Any]] = (), overrides: Sequence[str] = ()) -> T:
    """Return an instance of `schema`: its defaults, then each of `sources`, then `overrides`; later ones win.

    Args:
        schema: A dataclass.
        sources: YAML files or nested mappings, which contain only what differs from the defaults.
        overrides: `a.b=c`, where c is read as YAML.

    Raises:
        UserError: For an unknown setting, a value of the wrong type or outside its choices, a missing setting, a
            malformed override, a file that cannot be read, and every error of a `__post_init__`.
    """
    config: DictConfig = OmegaConf.structured(schema)
    for source in sources:
        if isinstance(source, Path):
            try:
                _merge(config, schema, _read(source))
            except UserError as error:
                raise UserError(f"{source}: {error}") from None
        else:
            _merge(config, schema, source)
    for override in overrides:
        _merge(config, schema, _parse(override))
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        values = OmegaConf.to_container(config, resolve=True, structured_config_mode=SCMode.DICT)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}.") from None
    if missing:
        raise UserError(f"{missing[0]} is missing: give it as {missing[0]}=VALUE or in the YAML file.")
    built: T = _build(schema, values, ())
    return built


def find_config(name: str) -> Path | None:
    """Return the packaged config called `name`, else the YAML file at that path."""
    path = _packaged() / f"{name}.yaml"
    if path.is_file():
        return path
    path = Path(name)
    return path if path.suffix in {".yaml", ".yml"} and path.is_file() else None


def config_names(folder: str = "") -> list[str]:
    """Return the names of the packaged task configs, or of those in `folder` (`"family"`: the model families)."""
    return sorted(path.stem for path in (_packaged() / folder).glob("*.yaml"))


def dump_config(config: Any, path: Path) -> None:
    """Write every setting of `config`, a dataclass instance, to a YAML file that `load_config` reads back equal.

    Raises:
        UserError: If a file cannot hold a value, or would be read back with another value. Nothing is written then.
    """
    plain = _plain(config, ())
    try:
        text = OmegaConf.to_yaml(OmegaConf.create(plain))
        text.encode("utf-8")  # fails on half a surrogate pair, before anything is written
        again = load_config(type(config), [OmegaConf.to_container(OmegaConf.create(text))])  # type: ignore[list-item]
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeEncodeError, UserError) as error:
        reason = _first_line(error).rstrip(".")
        raise UserError(f"this config could not be read back from its file ({reason}): change that value.") from None
    if (changed := _difference(config, again, ())) is not None:
        keys, before, after = changed
        raise UserError(
            f"{_dotted(keys)} is {_short(before)}, and would be read back from the config's file as {_short(after)}: "
            "give it in that form."
        )
    replace_text(path, text)


def _packaged() -> Path:
    return Path(str(files("worldvae") / "configs"))


def _read(path: Path) -> Any:
    """Return the contents of a YAML file as plain dicts and lists."""
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror or str(error)
        raise UserError(f"cannot read the file ({reason}): give the path of a YAML file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or _first_line(error)
        raise UserError(f"not valid YAML{where}: {problem}.") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {_first_line(error)}.") from None


def _parse(override: str) -> Any:
    """Return `a.b=c` as nested dicts."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise UserError(f"the override {override!r} is malformed: write it as section.setting=VALUE.")
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([override]))
    except (yaml.YAMLError, OmegaConfBaseException):
        raise UserError(f"{key} is {text!r}, which is not a complete YAML value: quote it or close it.") from None


def _merge(config: DictConfig, schema: Any, values: Any) -> None:
    """Merge nested `values` into `config` in place, value by value."""
    if not isinstance(values, Mapping):
        raise UserError(f"expected settings as 'name: value', got {values!r}.")
    for keys, value in _leaves(values, ()):
        hint = _hint(schema, keys)
        if isinstance(value, float) and value.is_integer() and int in _options(hint) and float not in _options(hint):
            value = int(value)  # YAML reads 1e6 as a float; as a number of steps it means the integer
        try:
            if isinstance(value, Mapping) and not value and (_section(hint) or _entry(hint)):
                _enter(config, schema, keys)
            else:
                _enter(config, schema, keys[:-1]).merge_with({keys[-1]: value})
        except (ValidationError, UnsupportedValueType, KeyValidationError, GrammarParseError, TypeError):
            raise UserError(f"{_dotted(keys)} is {_short(value)}, expected {_words(hint)}.") from None


def _enter(config: DictConfig, schema: Any, keys: Keys) -> Any:
    """Return the section at `keys`, created if necessary, and writable although its dataclass is frozen."""
    node: Any = config
    OmegaConf.set_readonly(node, False)
    for depth, key in enumerate(keys, start=1):
        if node.get(key) is None:
            section = _section(_hint(schema, keys[:depth]))
            node[key] = OmegaConf.structured(section) if section else {}
        node = node[key]
        OmegaConf.set_readonly(node, False)
    return node


def _leaves(values: Mapping[Any, Any], keys: Keys) -> Iterator[tuple[Keys, Any]]:
    """Yield the path and value of every setting in nested mappings; a list is one value."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, (*keys, key))
        else:
            yield (*keys, key), value


def _hint(schema: Any, keys: Keys) -> Any:
    """Return the annotation of the setting at `keys`; raise UserError if `schema` does not have it."""
    hint = schema
    for depth, key in enumerate(keys):
        section = _section(hint)
        if section is None:
            entry = _entry(hint)
            if entry is None:
                parent = _dotted(keys[:depth])
                raise UserError(f"{_dotted(keys)} does not exist: {parent} is {_words(hint)}, give it as one value.")
            hint = entry
            continue
        hints = typing.get_type_hints(section)
        if moved := getattr(section, "MOVED", {}).get(key):
            raise UserError(f"{_dotted(keys[: depth + 1])} does not exist any more: {moved}.")
        if key not in hints:
            suggestion = _suggestion(schema, keys[:depth], key, hints)
            raise UserError(f"{_dotted(keys[: depth + 1])} does not exist.{suggestion}")
        hint = hints[key]
    return hint


def _suggestion(schema: Any, parent: Keys, key: Any, siblings: Iterable[str]) -> str:
    """Name the closest setting, first among the siblings of the unknown `key`, then anywhere in the schema."""
    here = {name: (*parent, name) for name in siblings}
    elsewhere = {keys[-1]: keys for keys in reversed(list(_paths(schema, ())))}  # the first of a name wins
    for candidates, cutoff in ((here, 0.6), (elsewhere, 0.8)):
        if close := get_close_matches(str(key), candidates, n=1, cutoff=cutoff):
            return f" Did you mean {_dotted(candidates[close[0]])!r}?"
    return f" Accepted here: {', '.join(map(_dotted, here.values()))}."


def _paths(schema: Any, keys: Keys) -> Iterator[Keys]:
    for name, hint in typing.get_type_hints(schema).items():
        yield (*keys, name)
        if section := _section(hint):
            yield from _paths(section, (*keys, name))


def _build(section: Any, values: Any, keys: Keys) -> Any:
    """Return an instance of the dataclass `section`; OmegaConf.to_object could not name the section of an error."""
    hints = typing.get_type_hints(section)
    arguments = {}
    for field in dataclasses.fields(section):
        here = (*keys, field.name)
        arguments[field.name] = value = _convert(hints[field.name], values[field.name], here)
        if choices := field.metadata.get("choices"):
            _check_choices(value, choices, here)
    try:
        return section(**arguments)
    except ValueError as error:
        raise UserError(f"{_dotted(keys)}: {error}" if keys else str(error)) from None


def _convert(hint: Any, value: Any, keys: Keys) -> Any:
    """Return the plain `value` in the type of `hint`: a dataclass, a tuple, or unchanged."""
    if value is None:
        return None
    if section := _section(hint):
        return _build(section, value, keys)
    if isinstance(value, dict):
        return _listed(value)
    for option in _options(hint):
        if typing.get_origin(option) is tuple:
            items = typing.get_args(option)
            if Ellipsis not in items and len(items) != len(value):
                raise UserError(f"{_dotted(keys)} has {len(value)} entries, expected {_words(hint)}.")
            return tuple(value)
    return value


def _listed(value: Any) -> Any:
    """Return the contents of a user's dict as a file would hold them: without tuples, which YAML does not have."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


def _check_choices(value: Any, choices: Collection[Any], keys: Keys) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        if item is not None and item not in choices:
            accepted = f"{', '.join(map(repr, choices))}.{near_miss(str(item), map(str, choices))}"
            raise UserError(f"{_dotted(keys)} is {item!r}, accepted: {accepted}")


def _options(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union, or the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _section(hint: Any) -> Any:
    """Return the dataclass in `Sub` or `Sub | None`, or None if it is an ordinary setting."""
    return next((option for option in _options(hint) if dataclasses.is_dataclass(option)), None)


def _entry(hint: Any) -> Any:
    """Return the annotation of the entries of a dict whose keys are free; None for any other setting."""
    for option in _options(hint):
        if option in (Any, dict):
            return Any
        if typing.get_origin(option) is dict:
            return typing.get_args(option)[1]
    return None


def _words(hint: Any) -> str:
    """Return an annotation in the words of an error message."""
    if section := _section(hint):
        return f"a section with {', '.join(field.name for field in dataclasses.fields(section))}"
    if hint is Any:
        return PLAIN_VALUES
    names = (option.__name__ if type(option) is type else str(option) for option in _options(hint))
    return " or ".join(names).replace("NoneType", "null").replace("typing.", "")


def _plain(value: Any, keys: Keys) -> Any:
    """Return dataclasses as dicts, tuples as lists, NumPy's numbers as Python's, paths as text, and text escaped."""
    if dataclasses.is_dataclass(value):
        return {
            field.name: _plain(getattr(value, field.name), (*keys, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping) and all(isinstance(key, str | int | float) for key in value):
        return {key: _plain(item, (*keys, key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, (*keys, i)) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value != MISSING:
        # otherwise OmegaConf would insert the setting named in ${...}; backslashes before it are doubled, too
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
    if isinstance(value, Path):
        return _plain(str(value), keys)
    if not isinstance(value, bool | int | float | None):
        raise UserError(f"{_dotted(keys)} is {_short(value)}, and the config's file can only hold {PLAIN_VALUES}.")
    return value


def _difference(one: Any, other: Any, keys: Keys, free: bool = False) -> tuple[Keys, Any, Any] | None:
    """Return the first setting in which two configs differ, with both values, or None if they are equal.

    A list equals a tuple if the annotation says which of the two is meant; inside `free` dicts there is no annotation.
    """
    here = (keys, one, other)
    pairs: Iterable[tuple[Any, Any, Any]]
    if dataclasses.is_dataclass(one):
        pairs = ((f.name, getattr(one, f.name), getattr(other, f.name, None)) for f in dataclasses.fields(one))
    elif isinstance(one, Mapping):
        if not isinstance(other, Mapping) or set(one) != set(other):
            return here
        free, pairs = True, ((key, value, other[key]) for key, value in one.items())
    elif isinstance(one, list | tuple):
        alike = type(one) is type(other) if free else isinstance(other, list | tuple)
        if not alike or len(one) != len(other):
            return here
        pairs = ((i, *both) for i, both in enumerate(zip(one, other, strict=True)))
    else:
        one = one.item() if isinstance(one, np.generic) else one
        same = one == other or (one != one and other != other)  # (NaN)
        return None if same and (type(one) is type(other) or not free) else here
    found = (_difference(before, after, (*keys, key), free) for key, before, after in pairs)
    return next((difference for difference in found if difference is not None), None)


def _short(value: Any) -> str:
    """Return the repr of a value in one line, cut after 100 characters."""
    text = repr(value)
    text = " ".join(text.split()) if "\n" in text else text
    return text if len(text) <= 100 else f"{text[:100]}..."


def _dotted(keys: Keys) -> str:
    return ".".join(map(str, keys))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
