"""Overrides of params.yaml: named experiments in `config/experiments/{name}.yaml`, and `key=value` for one run.

A file contains the part of params.yaml that it changes. Blocks are merged, everything else is replaced.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.config import nearest, unknown_key
from barcast.errors import ConfigError
from barcast.params import check_params
from barcast.paths import Paths
from barcast.yaml_io import load_yaml

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Experiment:
    """One file of `config/experiments/`."""

    name: str
    description: str  # its first comment
    values: dict[str, Any]

    def overrides(self) -> list[str]:
        """The values as `dvc exp run -S` takes them: one `key=value` per leaf, in Hydra's grammar."""
        return [f"++{key}={_grammar(value)}" for key, value in _leaves(self.values)]


def experiment_file(root: Path, name: str) -> Path:
    """The file of a named experiment."""
    return root / f"config/experiments/{name}.yaml"


def list_experiments(root: Path) -> list[Experiment]:
    """All named experiments, by name. Raises ConfigError: a file is not valid YAML."""
    return [_read(path) for path in sorted(experiment_file(root, "x").parent.glob("*.yaml"))]


def load_experiment(root: Path, name: str) -> Experiment:
    """Read a named experiment and check it: params.yaml with its values must be valid as a whole.
    Raises ConfigError: there is none of this name (names the closest), or a key or value is refused."""
    path = experiment_file(root, name)
    if not path.is_file():
        known = [experiment.name for experiment in list_experiments(root)]
        close = nearest(name, known)
        hint = f"did you mean '{close}'?" if close else f"known: {', '.join(known) or 'none'}"
        raise ConfigError(f"{path.relative_to(root)}: no such experiment; {hint}")
    experiment = _read(path)
    check_values(root, experiment.values, path)
    return experiment


def check_values(root: Path, values: Mapping[str, Any], file: Path) -> None:
    """Check params.yaml with `values` merged into it; an error names `file`.
    Raises ConfigError: params.yaml with these values is invalid."""
    check_params(merge(load_yaml(Paths(root).params), values), file.relative_to(root))


def merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` overridden by `values`: blocks are merged, everything else is replaced."""
    merged = dict(base)
    for key, value in values.items():
        below = merged.get(key)
        blocks = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if blocks else value  # type: ignore[arg-type]
    return merged


def _read(path: Path) -> Experiment:
    if not _NAME.fullmatch(path.stem) or path.stem == "list":
        raise ConfigError(f"{path}: expected a name of a-z, 0-9, - and _, and not 'list'; rename the file")
    comments = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return Experiment(path.stem, " ".join(line.lstrip("# ") for line in comments), load_yaml(path))


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _grammar(value: Any) -> str:
    """A plain value in Hydra's override grammar."""
    if isinstance(value, list):
        return f"[{','.join(map(_grammar, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_grammar(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, str):
        # a backslash is one of Hydra's escapes only in front of a quotation mark
        inner = re.sub(r'(\\*)"', r'\1\1\\"', value)
        return '"' + re.sub(r"(\\+)$", r"\1\1", inner) + '"'
    return json.dumps(value)


def check_overrides(params: Path, overrides: Sequence[str]) -> None:
    """Apply overrides to a copy of `params` and check the result, for each combination of a sweep.

    Args:
        params: the params.yaml to override.
        overrides: in Hydra's grammar, as `dvc exp run -S` takes them: `model.max_depth=8`, `seed=1,2,3`.

    Raises:
        ConfigError: an unknown key (names the closest), a wrong type, or text that is no override.
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
                check_params(load_yaml(copy), params.name)
        except (DvcException, HydraException) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"-S {' '.join(overrides)}: {reason}; expected key=value, such as seed=1") from None


def _check_key(override: str, content: dict[str, Any], file: str) -> None:
    """The key of an override must be in the file; one that begins with `+` may be new, and is checked later."""
    key, equals, _ = override.partition("=")
    if not equals:
        raise ConfigError(f"-S {override}: expected key=value, such as model.max_depth=8")
    if key.startswith(("+", "~")):
        return
    level, path = content, ""
    for part in key.split("."):
        known = level if isinstance(level, dict) else {}
        path = f"{path}.{part}".lstrip(".")
        if part not in known:
            raise ConfigError(unknown_key(file, path, part, known))
        level = known[part]
