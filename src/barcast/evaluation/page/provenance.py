"""What the results were made from: hashes and versions that are the same wherever they are made.

A commit can't hold its own hash, so the page names none; `dvc.lock` of a commit names the page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from barcast.config import load_yaml
from barcast.paths import Paths

SHOWN = 12  # characters of a hash
STAGES = ("prepare", "audit", "window", "evaluate", "compare")


@dataclass(frozen=True)
class Origin:
    """One stage's or cell's settings and code, as short hashes; `key`: the inputs of its training."""

    name: str
    settings: str
    code: str
    modules: int
    key: str


@dataclass(frozen=True)
class Provenance:
    """`data`: path → SHA-256 of the file (or of a folder's files)."""

    data: dict[str, str]
    origins: list[Origin]
    libraries: dict[str, str]


def read_provenance(paths: Paths, cells: Sequence[str]) -> Provenance:
    """Read the specs of all stages and cells, and hash the source data.

    Raises:
        ConfigError: a spec is missing.
    """
    found = [name for name in (*STAGES, *cells) if name in STAGES or paths.spec(name).is_file()]
    specs = {name: load_yaml(paths.spec(name)) for name in found}
    libraries = {library: version for spec in specs.values() for library, version in spec["libraries"].items()}
    source = specs["prepare"]["config"]["data"]["path"]
    return Provenance(
        data={source: hash_of(paths.root / source)},
        origins=[_origin(name, spec, paths) for name, spec in specs.items()],
        libraries=dict(sorted(libraries.items())),
    )


def hash_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, over the names and hashes of its files in order."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [
        f"{file.relative_to(path).as_posix()} {hash_of(file)}" for file in sorted(path.rglob("*")) if file.is_file()
    ]
    return _hash("\n".join(lines))


def _origin(name: str, spec: Mapping[str, Any], paths: Paths) -> Origin:
    stamp = paths.live(name) / "params.yaml"
    key = str(load_yaml(stamp).get("cell_key", "")) if stamp.is_file() else ""
    code = "\n".join(f"{module} {hash_}" for module, hash_ in sorted(spec["code"].items()))
    settings = _hash(repr(_sorted(spec["config"])))
    return Origin(name, settings[:SHOWN], _hash(code)[:SHOWN], len(spec["code"]), key[:SHOWN])


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((key, _sorted(content)) for key, content in value.items())
    return value


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
