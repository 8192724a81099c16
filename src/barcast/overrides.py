"""Checks `key=value` overrides before any training, with the words that DVC's own refusal lacks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from barcast.config import load_yaml, unknown_key
from barcast.errors import ConfigError
from barcast.params import load_params


def check_overrides(params: Path, overrides: Sequence[str]) -> None:
    """Apply overrides to a copy of `params` and check the result, each combination of a sweep too.

    Args:
        params: the params.yaml that they are for.
        overrides: Hydra's grammar, as `dvc exp run -S` takes it: `model.max_depth=8`, `seed=1,2,3`.

    Raises:
        ConfigError: an unknown key (names the nearest), a wrong type, or text that is no override.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
    from hydra.errors import HydraException

    content = load_yaml(params)
    for override in overrides:
        _check_key(override, content, params.name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / params.name
        try:
            for combination in get_hydra_sweeps({params.name: list(overrides)}):
                shutil.copy(params, copy)
                apply_overrides(copy, list(combination[params.name]))
                _check_copy(copy, params.name)
        except (DvcException, HydraException) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"-S {' '.join(overrides)}: {reason}; expected key=value, such as seed=1") from None


def _check_copy(copy: Path, name: str) -> None:
    try:
        load_params(copy)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(copy), name)) from None


def _check_key(override: str, content: dict[str, Any], file: str) -> None:
    """The key of an override must stand in the file; one with `+` in front may be new, and is checked later."""
    key, equals, _ = override.partition("=")
    if not equals:
        raise ConfigError(f"-S {override}: expected key=value, such as model.max_depth=8")
    if key.startswith(("+", "~")):
        return
    parts = key.split(".")
    level: Any = content
    for depth, part in enumerate(parts):
        known = level if isinstance(level, dict) else {}
        if part not in known:
            raise ConfigError(unknown_key(file, ".".join(parts[: depth + 1]), part, known))
        level = known[part]
