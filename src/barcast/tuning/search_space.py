"""What a study may try: `config/models/{name}.yaml`, checked against the model before anything is tried.

One entry a key of the model's block in params.yaml:

    max_depth: {int: [3, 10]}
    learning_rate: {float: [0.005, 0.3], log: true}
    lags: {choice: [all, [0, 1, 2, 5]]}
    spans: {choice: [[], [5, 20]], when: {lags: [[0, 1, 2, 5]]}, else: []}

`when` names keys above this one and the values at which this one is drawn. Where they have others it takes
the value of `else`, or, without `else`, what the cell has in params.yaml.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barcast.config import load_yaml, unknown_key, validate
from barcast.errors import ConfigError
from barcast.models.base import ModelConfig
from barcast.models.registry import ModelRegistry
from barcast.tuning._entries import Entry, parse_entry, same

if TYPE_CHECKING:
    from optuna import Trial

SearchSpaceFn = Callable[["Trial"], dict[str, Any]]

# They say what a cell is and where it runs; no search is to choose them.
FIXED = frozenset(
    {"model_name", "model_family", "horizon", "random_seed", "threads", "device", "compile", "deterministic"}
)


def space_file(root: Path, name: str) -> Path:
    """Where the search space of a model lies in a repository."""
    return root / f"config/models/{name}.yaml"


def tunable(config_class: type[ModelConfig]) -> list[str]:
    """The fields of a model's config that a search may set."""
    return [field for field in config_class.model_fields if field not in FIXED]


@dataclass(frozen=True)
class SearchSpace:
    """The entries of one model by key, in the order of the file.

    Calling it with an Optuna trial draws one value a key: it is a `search_space_fn` itself.
    """

    entries: Mapping[str, Entry]

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """Draw a value for each key; keys whose `when` does not hold and that have no `else` are left out."""
        drawn: dict[str, Any] = {}
        for key, entry in self.entries.items():
            if entry.applies(drawn):
                drawn[key] = entry.suggest(trial, key)
            elif entry.has_otherwise:
                drawn[key] = entry.otherwise
        return drawn

    def distributions_of(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """What a trial is told to try exactly `values`; None where a value lies outside the space."""
        told = {}
        for key, entry in self.entries.items():
            if entry.applies(values):
                if not entry.holds(values[key]):
                    return None
                told[key] = entry.encode(values[key])
            elif entry.has_otherwise and not same(values[key], entry.otherwise):
                return None
        return told

    def highest(self, key: str) -> Any:
        """The largest value that a key may take, None where the space does not have it."""
        return max(self.entries[key].extremes()) if key in self.entries else None

    def to_dict(self) -> dict[str, Any]:
        """The entries as plain data, as they stand in the file."""
        return {key: entry.to_dict() for key, entry in self.entries.items()}


def load_space(path: Path, name: str) -> SearchSpace:
    """Read the search space of the model `name`, without checking values against the model.

    Raises:
        ConfigError: an unknown key, two bounds the wrong way round, or an entry of another form.
    """
    return parse_space(load_yaml(path), name, path)


def parse_space(content: Mapping[str, Any], name: str, file: Path | str) -> SearchSpace:
    """The search space in plain data, such as `SearchSpace.to_dict` gives."""
    known = tunable(ModelRegistry.get_metadata(name).model_class.config_class)
    entries: dict[str, Entry] = {}
    for key, values in content.items():
        if key not in known:
            raise ConfigError(unknown_key(str(file), key, key, known))
        entries[key] = parse_entry(values, key, entries, file)
    return SearchSpace(entries)


def check_space(space: SearchSpace, base: Mapping[str, Any], name: str, file: Path | str) -> None:
    """Try the extremes of every entry, and every choice, on the model's config.

    Args:
        space: the space.
        base: the cell's whole config as plain values.
        name: the model.
        file: where the space stands, for the message.

    Raises:
        ConfigError: naming the key, the value and what the model accepts.
    """
    config_class = ModelRegistry.get_metadata(name).model_class.config_class
    for key, entry in space.entries.items():
        for value in entry.extremes():
            values = {**base, **_completed(space, key, value)}
            try:
                validate(config_class, values, file)
            except ConfigError as error:
                raise ConfigError(f"{error} (when {key} = {json.dumps(value)} is tried)") from None


def _completed(space: SearchSpace, key: str, value: Any) -> dict[str, Any]:
    """A whole draw in which `key` has `value`: what it depends on as it must be, the rest as it comes first."""
    forced = {key: value, **_parents(space, key)}
    drawn: dict[str, Any] = {}
    for name, entry in space.entries.items():
        if name in forced:
            drawn[name] = forced[name]
        elif entry.applies(drawn):
            drawn[name] = entry.extremes()[0]
        elif entry.has_otherwise:
            drawn[name] = entry.otherwise
    return drawn


def _parents(space: SearchSpace, key: str) -> dict[str, Any]:
    """For each key that `key` hangs on, and those that they hang on, the first value that lets it be drawn."""
    return dict(_ancestors(space, key))


def _ancestors(space: SearchSpace, key: str) -> Iterator[tuple[str, Any]]:
    for parent, allowed in space.entries[key].when.items():
        yield parent, allowed[0]
        yield from _ancestors(space, parent)
