"""Search spaces: `config/models/{name}.yaml`, checked against the model before any trial starts.

One entry per key of the model's block in params.yaml:

    max_depth: {int: [3, 10]}
    learning_rate: {float: [0.005, 0.3], log: true}
    lags: {choice: [all, [0, 1, 2, 5]]}
    spans: {choice: [[], [5, 20]], when: {lags: [[0, 1, 2, 5]]}, else: []}

`when` names keys above this one and the values at which this one is sampled. At other values it takes
the value of `else`, or, without `else`, the cell's own value in params.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from barcast.config import unknown_key, validate
from barcast.errors import ConfigError
from barcast.models.registry import ModelRegistry
from barcast.tuning._entries import Entry, SearchSpace

# They identify a cell or say where it runs; no search chooses them.
NOT_TUNABLE = frozenset(
    {"model_name", "model_family", "horizon", "random_seed", "threads", "device", "compile", "deterministic"}
)
_OPTIONS = [field.alias or name for name, field in Entry.model_fields.items()]


def space_file(root: Path, name: str) -> Path:
    """The file of a model's search space."""
    return root / f"config/models/{name}.yaml"


def parse_space(content: Mapping[str, Any], name: str, file: Path | str) -> SearchSpace:
    """The search space of the model `name` in plain data; a ConfigError for an unknown key or an entry that is none."""
    fields = ModelRegistry.get_metadata(name).model_class.config_class.model_fields
    known = [field for field in fields if field not in NOT_TUNABLE]
    entries: dict[str, Entry] = {}
    for key, values in content.items():
        if key not in known:
            raise ConfigError(unknown_key(str(file), key, key, known))
        if unknown := [option for option in values if option not in _OPTIONS] if isinstance(values, dict) else []:
            raise ConfigError(unknown_key(str(file), f"{key}.{unknown[0]}", str(unknown[0]), _OPTIONS))
        entry = validate(Entry, values, file, key)
        _check_condition(entry, key, entries, file)
        entries[key] = entry
    return SearchSpace(entries)


def _check_condition(entry: Entry, key: str, above: Mapping[str, Entry], file: Path | str) -> None:
    for parent, allowed in entry.when.items():
        if parent not in above:
            known = ", ".join(above) or "none"
            raise ConfigError(f"{file}: {key}.when.{parent}: expected a key above {key}: {known}")
        never = next((value for value in allowed if not above[parent].holds(value)), None)
        if never is not None:
            raise ConfigError(f"{file}: {key}.when.{parent} = {never!r}: expected a value that {parent} can take")


def check_space(space: SearchSpace, base: Mapping[str, Any], name: str, file: Path | str) -> None:
    """Check the extremes of every entry, and every choice, against the model's config.

    Args:
        space: the space of the model `name`.
        base: the cell's whole config as plain values.
        file: the file of the space, for the message.

    Raises:
        ConfigError: names the key, the value and what the model accepts.
    """
    config_class = ModelRegistry.get_metadata(name).model_class.config_class
    for key, entry in space.entries.items():
        for value in entry.extremes():
            try:
                validate(config_class, {**base, **_values_with(space, key, value)}, file)
            except ConfigError as error:
                raise ConfigError(f"{error} (when {key} = {json.dumps(value)} is tried)") from None


def _values_with(space: SearchSpace, key: str, value: Any) -> dict[str, Any]:
    """Values of all keys in which `key` has `value`: its conditions hold, the rest takes its first value."""
    forced = {key: value, **dict(_conditions(space, key))}
    values: dict[str, Any] = {}
    for name, entry in space.entries.items():
        if name in forced:
            values[name] = forced[name]
        elif entry.applies(values):
            values[name] = entry.extremes()[0]
        elif entry.has_otherwise:
            values[name] = entry.otherwise
    return values


def _conditions(space: SearchSpace, key: str) -> Iterator[tuple[str, Any]]:
    """Each key that `key` depends on, directly or not, with the first value at which `key` is sampled."""
    for parent, allowed in space.entries[key].when.items():
        yield parent, allowed[0]
        yield from _conditions(space, parent)
