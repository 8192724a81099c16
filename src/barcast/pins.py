"""The libraries that `requirements.lock` pins, beside those that are installed."""

from __future__ import annotations

from collections.abc import Collection
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def read_pins(lock: Path) -> list[Requirement]:
    """The pins of a lock file that hold on this machine."""
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]


def unmet(lock: Path, names: Collection[str] | None = None) -> list[str]:
    """What is installed otherwise than pinned, of `names` alone if given: `xgboost 3.1.0 instead of ==3.2.0`."""
    asked = None if names is None else {canonicalize_name(name) for name in names}
    pins = [pin for pin in read_pins(lock) if asked is None or canonicalize_name(pin.name) in asked]
    return [f"{pin.name} {_installed(pin.name)} instead of {pin.specifier}" for pin in pins if not _satisfied(pin)]


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "missing"


def _satisfied(pin: Requirement) -> bool:
    version = _installed(pin.name)
    return version != "missing" and pin.specifier.contains(version, prereleases=True)
