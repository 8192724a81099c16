"""The entries of a search space, and how a trial samples them. Reading the file is `search_space`'s job."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from barcast.section import Section

if TYPE_CHECKING:
    from optuna import Trial

SearchSpaceFn = Callable[["Trial"], dict[str, Any]]

FIXED = "fixed"  # user attribute of a trial: the keys whose values were given to it instead of sampled
_DIGITS = 4  # significant digits of a sampled number: people read the file
_KINDS = ("int", "float", "choice")


def same(one: Any, other: Any) -> bool:
    """Whether two plain values are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _is_number(value: Any, *types: type) -> bool:
    return type(value) in types and math.isfinite(value)


def _bounds(expected: str, *types: type) -> Callable[[Any], Any]:
    def check(bounds: Any) -> Any:
        if not isinstance(bounds, list) or len(bounds) != 2 or not all(_is_number(bound, *types) for bound in bounds):
            raise ValueError(f"{expected}, [low, high]")
        if bounds[0] >= bounds[1]:
            raise ValueError("the lower bound first, below the upper one")
        return bounds

    return check


def _listed(values: Any) -> Any:
    if not isinstance(values, list) or not values:
        raise ValueError("a list of values")
    try:
        json.dumps(values)
    except TypeError:
        raise ValueError("plain values: numbers, text, true, false, null, lists") from None
    if twice := [value for n, value in enumerate(values) if any(same(value, other) for other in values[:n])]:
        raise ValueError(f"each value once; {twice[0]!r} is repeated")
    return values


Integers = Annotated[list[Any], BeforeValidator(_bounds("two whole numbers", int))]
Numbers = Annotated[list[Any], BeforeValidator(_bounds("two numbers", int, float))]
Values = Annotated[list[Any], BeforeValidator(_listed)]


class Entry(Section):
    """What one key may be: exactly one of `int`, `float` and `choice`.

    Bounds are included; `log` samples on a logarithmic scale; floats are sampled with four significant digits.
    Choices are any plain values, which Optuna stores as JSON text. `when`: key → the values at which this entry is
    sampled; `otherwise` (`else` in the file) is its value elsewhere.
    """

    int: Integers = Field(default_factory=list)
    float: Numbers = Field(default_factory=list)
    choice: Values = Field(default_factory=list)
    log: bool = False
    when: dict[str, Values] = Field(default_factory=dict)
    otherwise: Any = Field(default=None, alias="else")

    @model_validator(mode="before")
    @classmethod
    def _one_kind(cls, values: Any) -> Any:
        if not isinstance(values, dict) or sum(kind in values for kind in _KINDS) != 1:
            raise ValueError("one of {int: [low, high]}, {float: [low, high]} and {choice: [a, b]}")
        return values

    @model_validator(mode="after")
    def _fits_together(self) -> Entry:
        if self.log and self.choice:
            raise ValueError("`log` only with int or float")
        if self.log and self.extremes()[0] <= 0:
            raise ValueError("bounds above 0 with log: true")
        if self.has_otherwise and not self.when:
            raise ValueError("`when` together with `else`")
        return self

    @property
    def has_otherwise(self) -> bool:
        return "otherwise" in self.model_fields_set

    def applies(self, values: Mapping[str, Any]) -> bool:
        """Whether the entry is sampled, given the values of the keys above it."""
        return all(key in values and any(same(values[key], v) for v in allowed) for key, allowed in self.when.items())

    def extremes(self) -> list[Any]:
        """The bounds, or all choices: the values that a model is most likely to refuse."""
        return self.choice or self.int or self.float

    def holds(self, value: Any) -> bool:
        """Whether `value` can be sampled."""
        if self.choice:
            return any(same(value, choice) for choice in self.choice)
        low, high = self.extremes()
        return _is_number(value, int, float) and low <= value <= high and not (self.int and value != int(value))

    def encode(self, value: Any) -> Any:
        """A value of the entry as Optuna stores it; 1.0 becomes the 1 of `[0, 1]`."""
        if self.choice:
            return json.dumps(next(choice for choice in self.choice if same(value, choice)))
        return int(value) if self.int else value

    def suggest(self, trial: Trial, key: str) -> Any:
        """Sample a value."""
        if self.choice:
            return json.loads(trial.suggest_categorical(key, [self.encode(value) for value in self.choice]))
        low, high = self.extremes()
        if self.int:
            return trial.suggest_int(key, low, high, log=self.log)
        sampled = trial.suggest_float(key, low, high, log=self.log)
        if key in trial.user_attrs.get(FIXED, ()):
            return sampled
        return float(min(max(float(f"{sampled:.{_DIGITS}g}"), low), high))


@dataclass(frozen=True)
class SearchSpace:
    """The entries of one model by key, in the order of the file. Call it with an Optuna trial to sample values."""

    entries: Mapping[str, Entry]

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """Sample a value for each key; a key whose `when` does not hold takes `else`, or is left out."""
        sampled: dict[str, Any] = {}
        for key, entry in self.entries.items():
            if entry.applies(sampled):
                sampled[key] = entry.suggest(trial, key)
            elif entry.has_otherwise:
                sampled[key] = entry.otherwise
        return sampled

    def fixed_values(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """What to enqueue so that a trial tries exactly `values`; None where a value is outside the space."""
        fixed = {}
        for key, entry in self.entries.items():
            if entry.applies(values):
                if not entry.holds(values[key]):
                    return None
                fixed[key] = entry.encode(values[key])
            elif entry.has_otherwise and not same(values[key], entry.otherwise):
                return None
        return fixed

    def to_dict(self) -> dict[str, Any]:
        """The entries as plain data, as in the file."""
        return {key: entry.model_dump(by_alias=True, exclude_unset=True) for key, entry in self.entries.items()}
