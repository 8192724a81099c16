"""One entry of a search space: whole numbers, numbers, or a choice, perhaps under a condition."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from barcast.config import unknown_key
from barcast.errors import ConfigError

if TYPE_CHECKING:
    from optuna import Trial

DIGITS = 4  # significant digits of a drawn number: a file that people read has no use for sixteen
_OPTIONS = ("when", "else")
TOLD = "told"  # user attribute of a trial: the keys whose values it was given instead of drawing them


@dataclass(frozen=True, kw_only=True)
class Entry(ABC):
    """What one key may be. `when`: key → the values at which this entry is drawn."""

    when: Mapping[str, Sequence[Any]]
    has_otherwise: bool
    otherwise: Any
    kind: ClassVar[str]

    def applies(self, drawn: Mapping[str, Any]) -> bool:
        """Whether the entry is drawn, given the values drawn before it."""
        return all(
            key in drawn and any(same(drawn[key], value) for value in allowed) for key, allowed in self.when.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """The entry as it stands in a file."""
        condition = {"when": {k: list(v) for k, v in self.when.items()}} if self.when else {}
        return {**self._own(), **condition, **({"else": self.otherwise} if self.has_otherwise else {})}

    def encode(self, value: Any) -> Any:
        """A value that `holds` allows as Optuna holds it."""
        return value

    @abstractmethod
    def suggest(self, trial: Trial, key: str) -> Any:
        """Draw a value."""

    @abstractmethod
    def holds(self, value: Any) -> bool:
        """Whether `value` can be drawn."""

    @abstractmethod
    def extremes(self) -> list[Any]:
        """The values at which a model is most likely to refuse."""

    @abstractmethod
    def _own(self) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class _Range(Entry):
    low: Any
    high: Any
    log: bool

    def extremes(self) -> list[Any]:
        return [self.low, self.high]

    def holds(self, value: Any) -> bool:
        return self._is_number(value) and self.low <= value <= self.high

    @classmethod
    @abstractmethod
    def _is_number(cls, value: Any) -> bool: ...

    def _own(self) -> dict[str, Any]:
        return {self.kind: [self.low, self.high], **({"log": True} if self.log else {})}


@dataclass(frozen=True, kw_only=True)
class Integers(_Range):
    """`{int: [low, high]}`, both included; `log: true` draws on a logarithmic scale."""

    kind: ClassVar[str] = "int"

    @classmethod
    def _is_number(cls, value: Any) -> bool:
        return type(value) is int

    def holds(self, value: Any) -> bool:
        return Floats._is_number(value) and value == int(value) and self.low <= value <= self.high

    def encode(self, value: Any) -> int:
        return int(value)

    def suggest(self, trial: Trial, key: str) -> int:
        return trial.suggest_int(key, self.low, self.high, log=self.log)


@dataclass(frozen=True, kw_only=True)
class Floats(_Range):
    """`{float: [low, high]}`, both included, drawn in four significant digits; `log: true` as for whole numbers."""

    kind: ClassVar[str] = "float"

    @classmethod
    def _is_number(cls, value: Any) -> bool:
        return type(value) in (int, float) and math.isfinite(value)

    def suggest(self, trial: Trial, key: str) -> float:
        drawn = trial.suggest_float(key, self.low, self.high, log=self.log)
        if key in trial.user_attrs.get(TOLD, ()):
            return drawn
        return float(min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high))


@dataclass(frozen=True, kw_only=True)
class Choice(Entry):
    """`{choice: [a, b, …]}`: any plain values, also lists. Optuna is given them as JSON text."""

    values: Sequence[Any]
    kind: ClassVar[str] = "choice"

    def suggest(self, trial: Trial, key: str) -> Any:
        return json.loads(trial.suggest_categorical(key, [self.encode(value) for value in self.values]))

    def holds(self, value: Any) -> bool:
        return any(same(value, own) for own in self.values)

    def encode(self, value: Any) -> str:
        """As the list has it: 1.0 is the 1 of `[0, 1]`."""
        return json.dumps(next(own for own in self.values if same(value, own)))

    def extremes(self) -> list[Any]:
        return list(self.values)

    def _own(self) -> dict[str, Any]:
        return {"choice": list(self.values)}


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are the same by value: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_RANGES: dict[str, type[_Range]] = {"int": Integers, "float": Floats}


def parse_entry(values: Any, key: str, before: Mapping[str, Entry], file: Path | str) -> Entry:
    """An entry from plain data.

    Args:
        values: what stands under `key`.
        key: the key.
        before: the entries that stand above it, which `when` may name.
        file: for the message.

    Raises:
        ConfigError: the entry has another form, bounds the wrong way round, or a condition that never holds.
    """
    if not isinstance(values, dict) or len(kinds := [k for k in ("int", "float", "choice") if k in values]) != 1:
        raise _refusal(file, key, values, "one of {int: [low, high]}, {float: [low, high]} and {choice: [a, b]}")
    kind = kinds[0]
    options = _OPTIONS if kind == "choice" else (*_OPTIONS, "log")
    for option in values:
        if option not in (kind, *options):
            raise ConfigError(unknown_key(str(file), f"{key}.{option}", str(option), (kind, *options)))
    if "else" in values and "when" not in values:
        raise _refusal(file, f"{key}.else", values["else"], "`when` beside `else`")
    shared: dict[str, Any] = {
        "when": _condition(values.get("when", {}), key, before, file),
        "has_otherwise": "else" in values,
        "otherwise": values.get("else"),
    }
    if kind == "choice":
        return Choice(values=_choices(values[kind], key, file), **shared)
    low, high, log = _bounds(_RANGES[kind], values, key, file)
    return _RANGES[kind](low=low, high=high, log=log, **shared)


def _bounds(kind: type[_Range], values: Mapping[str, Any], key: str, file: Path | str) -> tuple[Any, Any, bool]:
    bounds, log = values[kind.kind], values.get("log", False)
    where = f"{key}.{kind.kind}"
    if not isinstance(bounds, list) or len(bounds) != 2 or not all(kind._is_number(bound) for bound in bounds):
        numbers = "two whole numbers" if kind is Integers else "two numbers"
        raise _refusal(file, where, bounds, f"{numbers}, [low, high]")
    if bounds[0] >= bounds[1]:
        raise _refusal(file, where, bounds, "the lower bound first, below the upper one")
    if type(log) is not bool:
        raise _refusal(file, f"{key}.log", log, "true or false")
    if log and bounds[0] <= 0:
        raise _refusal(file, where, bounds, "bounds above 0 beside log: true")
    return bounds[0], bounds[1], log


def _choices(values: Any, key: str, file: Path | str) -> list[Any]:
    if not isinstance(values, list) or not values:
        raise _refusal(file, f"{key}.choice", values, "a list of values")
    try:
        json.dumps(values)
    except TypeError:
        raise _refusal(file, f"{key}.choice", values, "plain values: numbers, text, true, false, null, lists") from None
    for number, value in enumerate(values):
        if any(same(value, earlier) for earlier in values[:number]):
            raise _refusal(file, f"{key}.choice", value, "each value once")
    return values


def _condition(when: Any, key: str, before: Mapping[str, Entry], file: Path | str) -> dict[str, list[Any]]:
    if not isinstance(when, dict):
        raise _refusal(file, f"{key}.when", when, "a mapping of keys to lists of values")
    for parent, allowed in when.items():
        if parent not in before:
            above = ", ".join(before) or "none"
            raise ConfigError(f"{file}: {key}.when.{parent}: expected a key that stands above {key}: {above}")
        if not isinstance(allowed, list) or not allowed:
            raise _refusal(file, f"{key}.when.{parent}", allowed, "a list of the values at which this key is drawn")
        never = next((value for value in allowed if not before[parent].holds(value)), None)
        if never is not None:
            raise _refusal(file, f"{key}.when.{parent}", never, f"a value that {parent} can take")
    return when


def _refusal(file: Path | str, key: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(f"{file}: {key} = {value!r}: expected {expected}")
