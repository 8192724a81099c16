"""Strict configuration: YAML in, pydantic models out, and errors that name file, key, value and remedy.

Each section's model stands beside the class that it configures and derives from `Section`; none has
defaults, since `params.yaml` is the only place where a default stands.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from barcast.errors import ConfigError


class Section(BaseModel):
    """A block of configuration: immutable, strictly typed, unknown keys forbidden, numbers finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


S = TypeVar("S", bound=Section)


_CORE = {  # scalars of YAML 1.2, as DVC writes and reads them: 5e-05 is a number, NO a text, 010 ten, 1_000 a thousand
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9][0-9_]*|0o[0-7_]+|0x[0-9a-fA-F_]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2, where PyYAML has those of 1.1; and a key stands once, of which PyYAML keeps the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":  # `<<`, whose keys others may replace
                continue
            key, line = self.construct_object(key_node, deep=True), key_node.start_mark.line + 1
            if not isinstance(key, Hashable):
                raise ConfigError(f"line {line}: key {key}: expected a word or a number")
            if key in seen:
                raise ConfigError(f"line {line}: key '{key}' stands twice; delete one of the two")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = self.construct_scalar(node).replace("_", "")
        return int(text, 0) if text[1:2] in {"o", "x"} else int(text)


class _Dumper(yaml.SafeDumper):
    """Quotes each text that YAML 1.1 or 1.2 would read as something else."""


_Loader.yaml_implicit_resolvers = {
    first: [pair for pair in pairs if pair[0].rpartition(":")[2] not in _CORE]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _class in (_Loader, _Dumper):
    for _kind, (_form, _firsts) in _CORE.items():
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_form})\Z"), list(_firsts))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)


def parse_yaml(text: str) -> Any:
    """Plain data of a YAML 1.2 text.

    Raises:
        ConfigError: the text is no valid YAML, or repeats a key; names the line.
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}") from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, is no valid YAML or UTF-8, repeats a key, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the repository root") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is no UTF-8; save the file as UTF-8") from None
    try:
        content = parse_yaml(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(content).__name__}")
    return content


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Serialise plain data in its own key order, the same bytes every time."""
    return yaml.dump(dict(content), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def validate(
    section: type[S],
    values: Mapping[str, Any],
    file: str | Path,
    prefix: str = "",
    keys: Mapping[str, str] | None = None,
) -> S:
    """Check plain values against a section.

    Args:
        section: the section's class.
        values: what the file holds under `prefix`.
        file: the file's name, for the message.
        prefix: the dotted key of `values` inside the file, empty for the whole file.
        keys: the whole dotted key of each field that does not stand directly under `prefix`.

    Raises:
        ConfigError: naming the first offending key, its value, what is allowed, and the closest known key.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_explain(section, error, str(file), prefix, keys or {})) from None


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None where none is close."""
    found = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_key(file: str, key: str, name: str, known: Iterable[str]) -> str:
    """The one wording for a key that nothing reads."""
    known = list(known)
    close = nearest(name, known)
    hint = f"did you mean '{close}'?" if close else f"known keys: {', '.join(sorted(map(str, known)))}"
    return f"{file}: unknown key '{key}'; {hint}"


def _explain(section: type[Section], error: ValidationError, file: str, prefix: str, keys: Mapping[str, str]) -> str:
    details = error.errors(include_url=False)
    first = next((d for d in details if d["type"] == "extra_forbidden"), details[0])
    location = [str(part) for part in first["loc"]]
    start = [keys[location[0]], *location[1:]] if location and location[0] in keys else [prefix, *location]
    key = ".".join(filter(None, start))
    if first["type"] == "extra_forbidden":
        owner = _owner(section, location[:-1])
        return unknown_key(file, key, location[-1], owner.model_fields if owner else [])
    if first["type"] == "missing":
        return f"{file}: key '{key}' is missing; every value must stand in the file"
    message = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if isinstance(first["input"], Mapping):  # what is wrong lies between its keys, and the message names them
        return f"{file}: {f'{key}: ' if key else ''}expected {message}"
    return f"{file}: {key} = {first['input']!r}: expected {message}"


def _owner(section: type[Section], location: list[str]) -> type[Section] | None:
    """The section that holds the last key of a location such as `model → xgboost`."""
    current: Any = section
    for part in location:
        if isinstance(current, type) and issubclass(current, Section):
            field = current.model_fields.get(part)
            current = field.annotation if field else None
        else:  # a dict of sections: step over its key
            current = next(reversed(typing.get_args(current)), None)
        for option in typing.get_args(current):  # Optional[Section] -> Section
            if isinstance(option, type) and issubclass(option, Section) and typing.get_origin(current) is not dict:
                current = option
    return current if isinstance(current, type) and issubclass(current, Section) else None
