"""What a revision recorded: the stages in its `dvc.lock`, and their outputs in DVC's cache.

Nothing is checked out and nothing is run: the workspace stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from barcast.errors import DataError
from barcast.yaml_io import load_yaml, parse_yaml

WORKSPACE = "workspace"


class Revision:
    """The stages of one `dvc.lock`, and DVC's cache of the repository at `root`.

    `name` is a branch, tag, commit or experiment; None: what the last `dvc repro` recorded in the workspace. DataError
    if there is no such revision, several experiments have this name, or it has no `dvc.lock`.
    """

    def __init__(self, root: Path, name: str | None = None) -> None:
        from dvc.repo import Repo  # a quarter of a second that only a comparison of revisions needs

        self.name = name or WORKSPACE
        self._repo = Repo(str(root))
        file = root / "dvc.lock"
        if not (name or file.is_file()):
            raise DataError(f"{file}: no such file; run `dvc repro` first")
        lock = _committed(self._repo, root, name) if name else load_yaml(file)
        self.stages: Mapping[str, Any] = lock.get("stages", {})

    @cached_property
    def outs(self) -> dict[str, str]:
        """Path → hash of everything that a stage wrote into the cache."""
        return {path: hash_ for stage in self.stages.values() for path, hash_ in _hashes(stage, "outs").items()}

    def outs_of(self, stage: str) -> list[str]:
        """What one stage wrote; empty if it never ran."""
        return list(_hashes(self.stages.get(stage, {}), "outs"))

    def deps(self, out: str) -> dict[str, str]:
        """Path → hash of what the stage that wrote `out` had read; empty if no stage wrote it."""
        writers = (stage for stage in self.stages.values() if out in _hashes(stage, "outs"))
        return _hashes(next(writers, {}), "deps")

    def fetch(self, outs: Iterable[str]) -> None:
        """Get what the cache lacks of these outputs from the DVC remote, all of them at once; DataError if an output
        was never made, or is neither in the cache nor in a remote."""
        wanted = {self._hash(out): out for out in outs}
        self._pull(wanted)  # of a folder: the list of its files
        self._pull(file for hash_ in wanted for file in self._listed(hash_).values())
        complete = {hash_ for hash_ in wanted if all(map(self._has, (hash_, *self._listed(hash_).values())))}
        missing = sorted(out for hash_, out in wanted.items() if hash_ not in complete)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            fetch = "run `dvc fetch --all-branches` if a remote has it, or `dvc repro` on that revision"
            remedy = "run `dvc pull`, or `dvc repro`" if self.name == WORKSPACE else fetch
            raise DataError(f"{self.name}: {missing[0]}{more} not in DVC's cache; {remedy}")

    def files(self, out: str) -> dict[str, str]:
        """Relative path → hash of the files in the folder `out`; `fetch` it first."""
        return self._listed(self._hash(out))

    def read(self, out: str, file: str) -> bytes:
        """The content of `file` in the folder `out`; `fetch` it first. DataError if the folder has no such file."""
        if file not in (files := self.files(out)):
            raise DataError(f"{self.name}: {out} has no {file}; run `dvc repro` on that revision")
        return self._path(files[file]).read_bytes()

    def _hash(self, out: str) -> str:
        if out not in self.outs:
            raise DataError(f"{self.name}: its dvc.lock has no {out}; run `dvc repro` on that revision")
        return self.outs[out]

    def _listed(self, hash_: str) -> dict[str, str]:
        """Relative path → hash of the files of a folder; empty for a file, and for what is not in the cache."""
        if not (hash_.endswith(".dir") and self._has(hash_)):
            return {}
        return {entry["relpath"]: entry["md5"] for entry in json.loads(self._path(hash_).read_bytes())}

    def _path(self, hash_: str) -> Path:
        return Path(self._repo.cache.local.oid_to_path(hash_))

    def _has(self, hash_: str) -> bool:
        return self._path(hash_).is_file()

    def _pull(self, hashes: Iterable[str]) -> None:
        missing = sorted({hash_ for hash_ in hashes if not self._has(hash_)})
        if missing and self._repo.config["core"].get("remote"):
            from dvc_data.hashfile.hash_info import HashInfo

            self._repo.cloud.pull([HashInfo("md5", hash_) for hash_ in missing])


def _hashes(stage: Mapping[str, Any], part: str) -> dict[str, str]:
    return {entry["path"]: entry["md5"] for entry in stage.get(part, []) if "md5" in entry}


def _committed(repo: Any, root: Path, name: str) -> dict[str, Any]:
    """The `dvc.lock` of a branch, tag, commit or experiment."""
    from dvc.api import DVCFileSystem
    from dvc.scm import SCMError

    try:
        files = DVCFileSystem(str(root), rev=name)
        folder = root.resolve().relative_to(files.repo.scm.root_dir)  # for a revision, DVC's root is that of Git
    except (SCMError, AttributeError):  # AttributeError: DVC's, for a tree or a file
        raise DataError(f"'{name}': {_why_unknown(repo.scm, name)}") from None
    try:
        return parse_yaml(files.read_text(f"/{(folder / 'dvc.lock').as_posix()}")) or {}
    except FileNotFoundError:
        raise DataError(f"{name}: has no dvc.lock; commit the one that `dvc repro` wrote there") from None


def _why_unknown(scm: Any, name: str) -> str:
    from dvc.repo.experiments.utils import exp_refs_by_names
    from dvc.scm import Git

    experiments = sorted(map(str, exp_refs_by_names(scm, {name})[name])) if isinstance(scm, Git) else []
    if experiments:  # more than one, and none of the commit that is checked out
        return f"several experiments have this name; give one of {', '.join(experiments)}"
    lists = "`git branch --all` lists branches, `dvc exp list --all-commits` experiments"
    return f"Git knows no such revision; {lists}; fetch it first"
