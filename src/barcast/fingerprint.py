"""What code and which libraries can change a result: the reason why a cell runs again, or does not.

The fingerprint of some root modules is a hash for each package module that they import, directly or not,
over its syntax tree without docstrings (so comments, docstrings and formatting don't count), and the
versions of the third-party libraries that those modules import.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

from barcast.errors import ConfigError

PACKAGE = "barcast"

# They watch a result or word an error about it, and can't change what a stage writes.
OBSERVERS = (
    "barcast.errors",
    "barcast.fingerprint",
    "barcast.stages._main",
    "barcast.tracking",
    "barcast.training.progress",
    "barcast.tuning.progress",
)
SOLVERS = {"sklearn": {"scipy"}}  # what a library computes with, though no module of ours imports it


@dataclass(frozen=True)
class Fingerprint:
    """`code`: module → hash; `libraries`: distribution → version. Both sorted by name."""

    code: dict[str, str]
    libraries: dict[str, str]


class Fingerprinter:
    """Reads each module of a source folder once, for as many fingerprints as are asked for.

    Args:
        source: the folder that holds the package (`src`); default: where barcast was imported from.
    """

    def __init__(self, source: Path | None = None) -> None:
        self.source = source or Path(__file__).resolve().parents[1]
        self._modules: dict[str, tuple[str, list[str]]] = {}

    def fingerprint(self, *roots: str) -> Fingerprint:
        """Fingerprint the modules `roots` and all that they import.

        Raises:
            ConfigError: an imported library is not installed.
        """
        code: dict[str, str] = {}
        libraries: set[str] = set()
        todo = list(roots)
        while todo:
            module = todo.pop()
            if module in code or _is_observer(module):
                continue
            code[module], imports = self._read(module)
            for name in imports:
                if name == PACKAGE or name.startswith(f"{PACKAGE}."):
                    todo.extend(self._local(name))
                elif name.partition(".")[0] not in sys.stdlib_module_names:
                    library = name.partition(".")[0]
                    libraries |= {library, *SOLVERS.get(library, ())}
        return Fingerprint(dict(sorted(code.items())), installed_versions(libraries))

    def _read(self, module: str) -> tuple[str, list[str]]:
        if module not in self._modules:
            path = self._path(module)
            if path is None:
                raise ConfigError(f"{module}: no such module under {self.source}")
            tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
            self._modules[module] = (_hash(tree), sorted(set(_imports(tree, module))))
        return self._modules[module]

    def _path(self, module: str) -> Path | None:
        base = self.source.joinpath(*module.split("."))
        candidates = (base.with_suffix(".py"), base / "__init__.py")
        return next((path for path in candidates if path.is_file()), None)

    def _local(self, name: str) -> Iterator[str]:
        """The modules that importing `barcast.a.b` runs: its parents too; a trailing attribute is dropped."""
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            module = ".".join(parts[:length])
            if self._path(module):
                yield module


def installed_versions(modules: Iterable[str]) -> dict[str, str]:
    """Distribution → public version of the libraries that provide these top-level modules.

    Raises:
        ConfigError: a module is not installed.
    """
    versions = {}
    for module in sorted(modules):
        names = _distributions().get(module)
        if not names:
            raise ConfigError(f"library '{module}' is not installed; run `pip install --no-deps -r requirements.lock`")
        for name in names:
            versions[name.lower()] = distribution_version(name)
    return dict(sorted(versions.items()))


def distribution_version(name: str) -> str:
    """The public version of an installed distribution (`2.13.0` also for the build `2.13.0+cpu`)."""
    return Version(metadata.version(name)).public


@cache
def _distributions() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in metadata.packages_distributions().items()}


def _is_observer(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in OBSERVERS)


def _imports(tree: ast.AST, module: str) -> Iterator[str]:
    """Dotted names of everything imported at any depth, type-checking blocks left out."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: -node.level] if node.level else []
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        else:
            yield from _imports(node, module)


def _hash(tree: ast.Module) -> str:
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()[:16]


def _plain(node: Any) -> Any:
    """A tree as nested tuples without positions, docstrings and empty fields.

    `ast.dump` prints empty fields differently from one Python release to the next; leaving them out
    keeps a fingerprint the same on all of them.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        node.body = node.body[ast.get_docstring(node) is not None :]
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"]
    return (type(node).__name__, *((name, _plain(value)) for name, value in fields))
