"""Adopting the result of a study: its best values, written into a YAML file that keeps its comments and layout."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import CommentMark
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.tokens import CommentToken

from barcast.errors import ConfigError, DataError
from barcast.experiments import check_values, experiment_file
from barcast.files import atomic_file
from barcast.models.registry import ModelRegistry
from barcast.params import load_params
from barcast.paths import Paths, cell_name
from barcast.yaml_io import load_yaml, parse_yaml

_TARGET = re.compile(r"(?:tune@)?(\w+)-(\d+)")
PRODUCTION = "production"


class _Representer(RoundTripRepresenter):
    """Writes `null` where ruamel.yaml would write nothing, and 1.0e-05 for 1e-05, which YAML 1.1 reads as text."""


_Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
_Representer.add_representer(
    float, lambda self, value: self.represent_scalar("tag:yaml.org,2002:float", yaml.safe_dump(value).split()[0])
)


def adopt(root: Path, target: str, into_params: bool) -> str:
    """Write the best values of a tuned cell, `tune@{model}-{horizon}`, into `config/experiments/production.yaml`, or
    into params.yaml.

    Returns:
        The change as a unified diff; empty where the file has those values already.

    Raises:
        ConfigError: `target` has another form or a horizon outside the matrix, or the new values are refused.
        DataError: the cell was not tuned.
        ModelError: there is no such model.
    """
    if not (match := _TARGET.fullmatch(target)):
        raise ConfigError(f"{target}: expected tune@model-horizon, such as tune@xgboost-5")
    model, horizon, paths = match[1], int(match[2]), Paths(root)
    best = paths.tune / cell_name(model, horizon) / "best_params.yaml"
    if not best.is_file():
        raise DataError(f"{best.relative_to(root)}: no such file; run `{_tuning(root, model, horizon)}` first")
    file = paths.params if into_params else experiment_file(root, PRODUCTION)
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    after = set_values(before, load_yaml(best))
    check_values(root, parse_yaml(after), file)
    if after != before:
        with atomic_file(file) as temporary:
            temporary.write_text(after, encoding="utf-8")
    old, new, name = before.splitlines(keepends=True), after.splitlines(keepends=True), file.relative_to(root)
    return "".join(difflib.unified_diff(old, new, f"a/{name.as_posix()}", f"b/{name.as_posix()}"))


def _tuning(root: Path, model: str, horizon: int) -> str:
    """The command that tunes a cell, which is no stage of the pipeline unless `tune:` has it."""
    name, params = ModelRegistry.get_metadata(model).name, load_params(Paths(root).params)
    if horizon not in params.horizons:
        known = ", ".join(map(str, params.horizons))
        raise ConfigError(f"params.yaml: horizon {horizon} is not in the matrix; horizons: {known}")
    tuned, changes = params.tune, []
    if name not in tuned.models:
        changes.append(f"-S 'tune.models=[{','.join([*tuned.models, name])}]'")
    if horizon not in tuned.horizons:
        changes.append(f"-S 'tune.horizons=[{','.join(map(str, [*tuned.horizons, horizon]))}]'")
    return " ".join(["dvc exp run" if changes else "dvc repro", *changes, f"tune@{name}-{horizon}"])


def set_values(text: str, values: Mapping[str, Any]) -> str:
    """A YAML mapping with `values` merged into it; all else keeps its comments and layout."""
    writer: Any = YAML()
    writer.Representer = _Representer
    writer.width, writer.preserve_quotes = 4096, True
    content, stream = writer.load(text) or _commented({}), io.StringIO()
    _set(content, values)
    writer.dump(content, stream)
    return stream.getvalue()


def _set(content: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(content.get(key), Mapping) and isinstance(value, Mapping):
            _set(content[key], value)
        elif key in content:
            content[key] = _commented(value)
        else:
            tail = _take_tail(content)
            content[key] = _commented(value)
            if tail:
                owner, last = _last(content)
                owner.ca.items[last] = [None, None, CommentToken("\n" + tail, CommentMark(0), None), None]


def _commented(value: Any) -> Any:
    """Plain data as ruamel.yaml holds it: mappings with one key per line, lists in brackets."""
    if isinstance(value, Mapping):
        return CommentedMap((key, _commented(inner)) for key, inner in value.items())
    if isinstance(value, list):
        sequence = CommentedSeq(map(_commented, value))
        sequence.fa.set_flow_style()
        return sequence
    return value


def _last(content: Any) -> tuple[Any, Any]:
    """The mapping that holds the last line of a mapping, and its key there."""
    key = next(reversed(content), None)
    while isinstance(content.get(key), Mapping) and content[key]:
        content = content[key]
        key = next(reversed(content))
    return content, key


def _take_tail(content: Any) -> str:
    """Remove the blank lines and comments after a mapping's last line, which ruamel.yaml attaches to that line."""
    owner, key = _last(content)
    token = (owner.ca.items.get(key) or [None] * 3)[2]
    if token is None:
        return ""
    head, newline, tail = token.value.partition("\n")
    token.value = head + newline
    return str(tail)
