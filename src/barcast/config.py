"""Checks plain values against a section, with errors that name file, key, value and remedy.

A section's class is in the module that it configures. None has defaults: they are only in `params.yaml`.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, TypeVar

from pydantic import ValidationError

from barcast.errors import ConfigError
from barcast.section import Section

S = TypeVar("S", bound=Section)


def validate(
    section: type[S],
    values: Mapping[str, Any],
    file: str | Path,
    prefix: str = "",
    keys: Mapping[str, str] | None = None,
) -> S:
    """Check plain values against a section.

    Args:
        values: what `file` has under the dotted key `prefix`; an empty one is the whole file.
        keys: the full dotted key of each field that is not directly under `prefix`.

    Raises:
        ConfigError: names the first wrong key, its value, what is allowed, and the closest known key.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
    first = next((detail for detail in details if detail["type"] == "extra_forbidden"), details[0])
    path = [str(part) for part in first["loc"]]
    start = [keys[path[0]], *path[1:]] if keys and path and path[0] in keys else [prefix, *path]
    key = ".".join(filter(None, start))
    if first["type"] == "extra_forbidden":
        raise ConfigError(unknown_key(str(file), key, path[-1], _fields(section, path[:-1])))
    if first["type"] == "missing":
        raise ConfigError(f"{file}: key '{key}' is missing; set it in the file")
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if isinstance(first["input"], Mapping):  # a rule between several keys, which the message names
        raise ConfigError(f"{file}: {f'{key}: ' if key else ''}expected {expected}")
    raise ConfigError(f"{file}: {key} = {first['input']!r}: expected {expected}")


def listed_once(values: list[Any]) -> list[Any]:
    """A pydantic check: no entry is repeated."""
    if repeated := [value for position, value in enumerate(values) if value in values[:position]]:
        raise ValueError(f"each entry once; {repeated[0]!r} is repeated")
    return values


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`, or None if none is close."""
    return next(iter(difflib.get_close_matches(str(name), map(str, known), n=1, cutoff=0.5)), None)


def unknown_key(file: str, key: str, name: str, known: Iterable[str]) -> str:
    """The message for a key that nothing reads."""
    known = sorted(map(str, known))
    close = nearest(name, known)
    hint = f"did you mean '{close}'?" if close else f"known keys: {', '.join(known)}"
    return f"{file}: unknown key '{key}'; {hint}"


def _fields(section: type[Section], path: Sequence[str]) -> Collection[str]:
    """The fields of the section that a path such as `model, xgboost` leads to; empty if it leads to none."""
    kind: Any = section
    for key in path:
        if isinstance(kind, type) and issubclass(kind, Section):
            field = kind.model_fields.get(key)
            kind = field.annotation if field else None
        else:  # a dict of sections: step over its key
            kind = next(reversed(typing.get_args(kind)), None)
        if NoneType in typing.get_args(kind):  # Section | None
            kind = typing.get_args(kind)[0]
    return kind.model_fields if isinstance(kind, type) and issubclass(kind, Section) else ()
