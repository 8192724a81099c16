"""What code and which libraries can change a result: the reason why a cell runs again, or does not.

The fingerprint of some root modules is one hash for each package module that they import, directly or not, and
the versions of the third-party libraries that those modules import. A hash is over the module's syntax tree without
what can't change a result: comments, formatting, docstrings, and the texts in `raise`, `print` and `warn`.
"""

from __future__ import annotations

import ast
import hashlib
import itertools
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from barcast.errors import ConfigError

PACKAGE = "barcast"

INFORMING = {"print", "warn"}
SOLVERS = {"sklearn": {"scipy"}}  # what a library computes with, though no module here imports it


@dataclass(frozen=True)
class Fingerprint:
    """`code`: module → hash; `libraries`: distribution → version. Both sorted by name."""

    code: dict[str, str]
    libraries: dict[str, str]

    @property
    def digest(self) -> str:
        """One hash of both."""
        return hashlib.sha256(repr((self.code, self.libraries)).encode()).hexdigest()[:16]


class Fingerprinter:
    """Reads each module of a source folder once, for as many fingerprints as are asked for.

    Args:
        source: the folder that holds the package (`src`); default: where barcast was imported from.
    """

    def __init__(self, source: Path | None = None) -> None:
        self.source = source or Path(__file__).resolve().parents[2]
        self._modules: dict[str, tuple[str, list[str]]] = {}

    def fingerprint(self, *roots: str) -> Fingerprint:
        """Fingerprint the modules `roots` and all that they import.
        Raises ConfigError: an imported library is not installed."""
        code, libraries, todo = dict[str, str](), set[str](), list(roots)
        while todo:
            module = todo.pop()
            if module in code:
                continue
            code[module], imports = self._read(module)
            for name in imports:
                library = name.partition(".")[0]
                if library == PACKAGE:
                    todo.extend(self._local(name))
                elif library not in sys.stdlib_module_names:
                    libraries |= {library, *SOLVERS.get(library, ())}
        written = {module: found for module, found in sorted(code.items()) if found != NOTHING}
        return Fingerprint(written, installed_versions(libraries))

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
        return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

    def _local(self, name: str) -> Iterator[str]:
        """The modules that importing `barcast.a.b` runs: its parents too; a trailing attribute is dropped."""
        return filter(self._path, itertools.accumulate(name.split("."), "{}.{}".format))


def installed_versions(modules: Iterable[str]) -> dict[str, str]:
    """Distribution → public version of the libraries that provide these top-level modules.
    Raises ConfigError: a module is not installed."""
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


def read_pins(lock: Path) -> list[Requirement]:
    """The pins of a lock file that hold on this machine."""
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]


def mismatched_pins(lock: Path, names: Collection[str] | None = None) -> list[str]:
    """What is not installed as pinned, only of `names` if given: `xgboost 3.1.0 instead of ==3.2.0`."""
    asked = None if names is None else {canonicalize_name(name) for name in names}
    wrong = []
    for pin in read_pins(lock):
        if asked is None or canonicalize_name(pin.name) in asked:
            try:
                version = metadata.version(pin.name)
            except metadata.PackageNotFoundError:
                version = "missing"
            if version == "missing" or not pin.specifier.contains(version, prereleases=True):
                wrong.append(f"{pin.name} {version} instead of {pin.specifier}")
    return wrong


def check_libraries(expected: Mapping[str, str], name: str) -> None:
    """The installed libraries must be those that the spec `name` lists, or the cache key would be wrong.
    Raises ConfigError: naming the first that differs."""
    for library, wanted in expected.items():
        if (version := distribution_version(library)) != wanted:
            remedy = "run `pip install --no-deps -r requirements.lock`"
            raise ConfigError(f"{name}: its spec lists {library} {wanted}, but {version} is installed; {remedy}")


@cache
def _distributions() -> dict[str, list[str]]:
    return {module: sorted(set(names)) for module, names in metadata.packages_distributions().items()}


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
    """A tree as nested tuples without positions, empty fields, docstrings and texts that only inform.

    `ast.dump` prints empty fields differently from one Python release to the next; leaving them out
    keeps a fingerprint the same on all of them.
    """
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, ast.AST):
        return node
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        node.body = node.body[ast.get_docstring(node) is not None :]
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        _drop_texts(node.exc)
    if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in INFORMING:
        _drop_texts(node)
    fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, []) and name != "kind"]
    return (type(node).__name__, *((name, _plain(value)) for name, value in fields))


def _drop_texts(call: ast.Call) -> None:
    """Remove the literal arguments of a call, f-strings included."""
    call.args = [value for value in call.args if not isinstance(value, ast.Constant | ast.JoinedStr)]
    call.keywords = [word for word in call.keywords if not isinstance(word.value, ast.Constant | ast.JoinedStr)]


NOTHING = _hash(ast.parse(""))  # of a module that holds at most a docstring
