"""Named experiments: overrides on params.yaml, kept as `config/experiments/{name}.yaml`.

Such a file holds the part of params.yaml that it changes. Blocks are merged, everything else is replaced.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.config import dump_yaml, load_yaml, nearest
from barcast.errors import ConfigError
from barcast.params import load_params
from barcast.paths import Paths

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True)
class Experiment:
    """One file of `config/experiments/`."""

    name: str
    description: str  # its first comment
    values: dict[str, Any]
    file: Path

    def overrides(self) -> list[str]:
        """The values as `dvc exp run -S` takes them: one `key=value` a leaf, in Hydra's grammar."""
        return [f"++{key}={_grammar(value)}" for key, value in _leaves(self.values)]


def experiment_file(root: Path, name: str) -> Path:
    """Where a named experiment lies."""
    return root / f"config/experiments/{name}.yaml"


def list_experiments(root: Path) -> list[Experiment]:
    """All named experiments, by name.

    Raises:
        ConfigError: a file is not valid YAML.
    """
    return [_read(path) for path in sorted(experiment_file(root, "x").parent.glob("*.yaml"))]


def load_experiment(root: Path, name: str) -> Experiment:
    """Read a named experiment and check it: params.yaml with its values must be valid as a whole.

    Raises:
        ConfigError: there is none of this name (names the nearest), or a key or value is refused.
    """
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

    Raises:
        ConfigError: what params.yaml itself would be refused for.
    """
    merged = merge(load_yaml(Paths(root).params), values)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "params.yaml"
        copy.write_text(dump_yaml(merged), encoding="utf-8")
        try:
            load_params(copy)
        except ConfigError as error:
            raise ConfigError(str(error).replace(str(copy), str(file.relative_to(root)))) from None


def merge(base: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `values` on top: blocks merged, everything else replaced."""
    merged = dict(base)
    for key, value in values.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def _read(path: Path) -> Experiment:
    if not _NAME.fullmatch(path.stem) or path.stem == "list":
        raise ConfigError(f"{path}: expected a name of a-z, 0-9, - and _, and not 'list'; rename the file")
    comments = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.lstrip("# "))
    return Experiment(path.stem, " ".join(comments), load_yaml(path), path)


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
