"""Taking over what a study found: its best values, written into a YAML file whose comments and layout stay."""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from barcast.config import load_yaml, parse_yaml
from barcast.errors import ConfigError, DataError
from barcast.experiments import check_values, experiment_file
from barcast.files import atomic_file
from barcast.models.registry import ModelRegistry
from barcast.params import load_params
from barcast.paths import Paths, cell_name

_TARGET = re.compile(r"(?:tune@)?(\w+)-(\d+)")
PRODUCTION = "production"


def adopt(root: Path, target: str, into_params: bool) -> str:
    """Write the best values of a tuned cell into `config/experiments/production.yaml`, or into params.yaml.

    Args:
        root: the repository.
        target: `tune@{model}-{horizon}`.
        into_params: params.yaml instead.

    Returns:
        The change as a unified diff; empty where the file has those values already.

    Raises:
        ConfigError: `target` has another form or a horizon outside the matrix, or the file with the new values is
            refused; then nothing is written.
        DataError: the cell was not tuned.
        ModelError: there is no such model.
    """
    found = _TARGET.fullmatch(target)
    if not found:
        raise ConfigError(f"{target}: expected tune@model-horizon, such as tune@xgboost-5")
    model, horizon = found[1], int(found[2])
    best = Paths(root).tune / cell_name(model, horizon) / "best_params.yaml"
    if not best.is_file():
        raise DataError(f"{best.relative_to(root)}: no such file; run `{_tuning(root, model, horizon)}` first")
    file = Paths(root).params if into_params else experiment_file(root, PRODUCTION)
    before = file.read_text(encoding="utf-8") if file.is_file() else ""
    after = set_values(before, load_yaml(best))
    check_values(root, _plain(after), file)
    if after != before:
        with atomic_file(file) as temporary:
            temporary.write_text(after, encoding="utf-8")
    return diff(before, after, file.relative_to(root).as_posix())


def _tuning(root: Path, model: str, horizon: int) -> str:
    """The command that tunes a cell: only those of `tune:` are stages as they stand."""
    name = ModelRegistry.get_metadata(model).name
    params = load_params(Paths(root).params)
    if horizon not in params.horizons:
        known = ", ".join(map(str, params.horizons))
        raise ConfigError(f"params.yaml: horizon {horizon} is not in the matrix; horizons: {known}")
    tuned, changes = params.tune, []
    if name not in tuned.models:
        changes.append(f"-S 'tune.models=[{','.join([*tuned.models, name])}]'")
    if horizon not in tuned.horizons:
        changes.append(f"-S 'tune.horizons=[{','.join(map(str, [*tuned.horizons, horizon]))}]'")
    return " ".join(["dvc exp run" if changes else "dvc repro", *changes, f"tune@{name}-{horizon}"])


def diff(before: str, after: str, name: str) -> str:
    """A unified diff of one file, as `git diff` shows it."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}"))


def set_values(text: str, values: Mapping[str, Any]) -> str:
    """A YAML mapping with `values` merged into it; what they don't touch keeps its comments and its layout."""
    writer, stream = _round_trip(), io.StringIO()
    content = writer.load(text) or _commented({})
    _set(content, values)
    writer.dump(content, stream)
    return stream.getvalue()


def _round_trip() -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Representer(RoundTripRepresenter):
        """Writes `null` where ruamel.yaml would write nothing, and 1.0e-05 where a 1e-05 would be read as a text."""

    Representer.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    Representer.add_representer(
        float, lambda self, value: self.represent_scalar("tag:yaml.org,2002:float", yaml.safe_dump(value).split()[0])
    )
    writer = YAML()
    writer.Representer = Representer
    writer.width, writer.preserve_quotes = 4096, True
    return writer


def _plain(text: str) -> dict[str, Any]:
    content: dict[str, Any] = parse_yaml(text)
    return content


def _set(content: Any, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(content.get(key), Mapping) and isinstance(value, Mapping):
            _set(content[key], value)
        elif key in content:
            content[key] = _commented(value)
        else:
            after = _take_tail(content)
            content[key] = _commented(value)
            _put_tail(content, after)


def _commented(value: Any) -> Any:
    """Plain data as ruamel.yaml holds it: mappings a key a line, lists in brackets."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq

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
    """Take away the blank lines and comments after a mapping's last line, which ruamel.yaml hangs on that line."""
    owner, key = _last(content)
    comment = owner.ca.items.get(key)
    token = comment[2] if comment else None
    if token is None:
        return ""
    own, newline, rest = token.value.partition("\n")
    token.value = own + newline
    return str(rest)


def _put_tail(content: Any, tail: str) -> None:
    if not tail:
        return
    from ruamel.yaml.error import CommentMark
    from ruamel.yaml.tokens import CommentToken

    owner, key = _last(content)
    owner.ca.items[key] = [None, None, CommentToken("\n" + tail, CommentMark(0), None), None]
