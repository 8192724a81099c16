"""What a revision recorded: its `dvc.lock` from Git, and the outputs that it names from DVC's cache.

Nothing is checked out and nothing is run: the workspace stays as it is.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.config import load_yaml, parse_yaml
from barcast.errors import DataError

WORKSPACE = "workspace"


class Cache:
    """DVC's cache of the repository at `root`; what it lacks comes from the DVC remote, where one is set."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _repo(self) -> Any:
        from dvc.repo import Repo  # a quarter of a second that only those who compare revisions wait for

        return Repo(str(self.root))

    def read(self, hash_: str) -> bytes:
        """The content of the object `hash_`, which `bring` has seen."""
        return self._path(hash_).read_bytes()

    def folder(self, hash_: str) -> dict[str, str]:
        """Relative path → hash of the files of a folder; `hash_` ends in `.dir`."""
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self.read(hash_))}

    def bring(self, hashes: Iterable[str]) -> set[str]:
        """Fetch what is missing; returns what is missing still, folders with a missing file included."""
        wanted = set(hashes)
        self._pull(wanted)
        folders = [hash_ for hash_ in wanted if hash_.endswith(".dir") and self._path(hash_).is_file()]
        self._pull({file for folder in folders for file in self.folder(folder).values()})
        return {hash_ for hash_ in wanted if not self._whole(hash_)}

    def _whole(self, hash_: str) -> bool:
        if not self._path(hash_).is_file():
            return False
        return not hash_.endswith(".dir") or all(self._path(file).is_file() for file in self.folder(hash_).values())

    def _path(self, hash_: str) -> Path:
        return Path(self._repo.cache.local.oid_to_path(hash_))

    def _pull(self, hashes: set[str]) -> None:
        """Fetch those of the objects that are missing, where there is a remote to fetch from."""
        missing = sorted(hash_ for hash_ in hashes if not self._path(hash_).is_file())
        if missing and self._repo.config["core"].get("remote"):
            from dvc_data.hashfile.hash_info import HashInfo

            self._repo.cloud.pull([HashInfo("md5", hash_) for hash_ in missing])


@dataclass(frozen=True)
class Revision:
    """The stages of one `dvc.lock`; `name` is what the user called the revision."""

    name: str
    stages: Mapping[str, Any]
    cache: Cache

    @classmethod
    def committed(cls, name: str, cache: Cache) -> Revision:
        """The revision that Git knows as `name` (a branch, a tag, a commit, an experiment).

        Raises:
            DataError: Git knows no such revision, or several experiments, or it holds no `dvc.lock`.
        """
        content = _git(cache.root, "show", f"{_commit(cache.root, name)}:./dvc.lock")
        if content is None:
            raise DataError(f"{name}: holds no dvc.lock; commit the one that `dvc repro` wrote there")
        return cls(name, (parse_yaml(content) or {}).get("stages", {}), cache)

    @classmethod
    def workspace(cls, cache: Cache) -> Revision:
        """What the last `dvc repro` recorded in the workspace.

        Raises:
            DataError: there is no `dvc.lock` yet.
        """
        lock = cache.root / "dvc.lock"
        if not lock.is_file():
            raise DataError(f"{lock}: no such file; run `dvc repro` first")
        return cls(WORKSPACE, load_yaml(lock).get("stages", {}), cache)

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path → hash of everything that a stage wrote into the cache."""
        return {path: hash_ for stage in self.stages.values() for path, hash_ in _hashes(stage, "outs").items()}

    def outs_of(self, stage: str) -> list[str]:
        """What one stage wrote; empty where it never ran."""
        return list(_hashes(self.stages.get(stage, {}), "outs"))

    def deps(self, out: str) -> dict[str, str]:
        """Path → hash of what the stage that wrote `out` had read; empty where no stage wrote it."""
        writers = (stage for stage in self.stages.values() if out in _hashes(stage, "outs"))
        return _hashes(next(writers, {}), "deps")

    def params(self) -> dict[str, Any]:
        """The parameters that `spec` read, as nested in params.yaml."""
        recorded = self.stages.get("spec", {}).get("params", {})
        return {key: value for file in sorted(recorded) for key, value in recorded[file].items()}

    def bring(self, outs: Iterable[str]) -> None:
        """Have these outputs in the cache.

        Raises:
            DataError: one was never made, or is neither in the cache nor in a remote.
        """
        wanted = {self._hash(out): out for out in outs}
        missing = self.cache.bring(wanted)
        if missing:
            paths = sorted(wanted[hash_] for hash_ in missing)
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise DataError(f"{self.name}: {paths[0]}{more} not in DVC's cache; {self._remedy()}")

    def read(self, out: str, file: str) -> bytes:
        """The content of `file` inside the folder `out`; `bring` it first.

        Raises:
            DataError: the folder holds no such file.
        """
        files = self.cache.folder(self._hash(out))
        if file not in files:
            raise DataError(f"{self.name}: {out} has no {file}; run `dvc repro` on that revision")
        return self.cache.read(files[file])

    def files(self, out: str) -> dict[str, str]:
        """Relative path → hash of the files inside the folder `out`."""
        return self.cache.folder(self._hash(out))

    def _hash(self, out: str) -> str:
        if out not in self.outs:
            raise DataError(f"{self.name}: its dvc.lock has no {out}; run `dvc repro` on that revision")
        return self.outs[out]

    def _remedy(self) -> str:
        if self.name == WORKSPACE:
            return "run `dvc pull`, or `dvc repro`"
        return "run `dvc fetch --all-branches` where a remote has it, or `dvc repro` on that revision"


def _hashes(stage: Mapping[str, Any], part: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in stage.get(part, []) if "md5" in entry}


def _commit(root: Path, name: str) -> str:
    """The hash of the commit that Git, or else DVC, calls `name`.

    Raises:
        DataError: neither knows it, or DVC has several experiments of this name and none on the present commit.
    """
    found = _git(root, "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if found is not None:
        return found.strip()
    experiments = _experiments(root, name)
    head = (_git(root, "rev-parse", "--verify", "--quiet", "HEAD") or "").strip()
    if head in experiments:
        return experiments[head]
    if len(experiments) > 1:
        several = ", ".join(f"{commit[:10]} (on {base[:7]})" for base, commit in sorted(experiments.items()))
        raise DataError(f"'{name}': several experiments have this name; give the hash of one: {several}")
    if not experiments:
        raise DataError(
            f"'{name}': no revision that Git knows; `git branch --all` lists branches, `dvc exp list --all-commits` "
            "experiments; fetch it first"
        )
    return next(iter(experiments.values()))


def _experiments(root: Path, name: str) -> dict[str, str]:
    """The commit that an experiment started from → its own; DVC keeps it as `refs/exps/{2 letters}/{38}/{name}`."""
    refs = _git(root, "for-each-ref", "--format=%(objectname) %(refname)", "refs/exps") or ""
    found = {}
    for line in refs.splitlines():
        commit, _, ref = line.partition(" ")
        parts = ref.split("/")
        if len(parts) == 5 and parts[4] == name:
            found[parts[2] + parts[3]] = commit
    return found


def _git(root: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
