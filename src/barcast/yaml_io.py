"""YAML 1.2 as DVC reads and writes it; errors name the file and the line."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from barcast.errors import ConfigError


class _Constructor(SafeConstructor):
    """Refuses a repeated key, and a list as a key."""

    def check_mapping_key(self, node: Any, key_node: Any, mapping: Any, key: Any, value: Any) -> bool:
        line = key_node.start_mark.line + 1
        if isinstance(key, tuple):
            raise ConfigError(f"line {line}: key {list(key)}: expected a word or a number")
        if key in mapping:
            raise ConfigError(f"line {line}: key '{key}' is repeated; delete one of the two")
        return True


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 to plain data.
    Raises ConfigError: the text is not valid YAML, or repeats a key; names the line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise ConfigError(f"line {mark.line + 1}: not valid YAML: {error.problem}") from None
    except YAMLError as error:
        raise ConfigError(f"not valid YAML: {' '.join(str(error).split())}") from None


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.
    Raises ConfigError: the file is missing, is not valid YAML or UTF-8, repeats a key, or holds no mapping."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; run from the repository root") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(content).__name__}")
    return content


def dump_yaml(content: Mapping[str, Any]) -> str:
    """Write plain data in its own key order; the same data give the same bytes."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = False, 100
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    stream = io.StringIO()
    yaml.dump(dict(content), stream)
    return stream.getvalue()


def flatten(values: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """`{"h5": {"k_up": 1}}` as `{"h5.k_up": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat |= flatten(value, separator, f"{name}{separator}") if isinstance(value, Mapping) else {name: value}
    return flat
