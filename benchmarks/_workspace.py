"""A repository in a folder of its own, whose stages run as plain processes: no DVC, no tracker, other bars perhaps."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from barcast.data.bar_files import list_files, read_file
from barcast.files import read_json, write_json
from barcast.params import Params, load_params
from barcast.paths import Paths
from barcast.yaml_io import dump_yaml, load_yaml
from benchmarks._measure import MIB, ROOT, status

SETTINGS = {
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",  # refuses at once; a stage goes on without its tracker
    # Threads that spin while they wait are starved beside other work: LightGBM was 20 times slower in half of the runs.
    "OMP_WAIT_POLICY": "PASSIVE",
}


@dataclass(frozen=True)
class Cost:
    """Seconds of whole processes, by the clock and of their processors, and the most memory that one of them held."""

    seconds: float
    cpu_seconds: float
    peak_mib: float

    def __add__(self, other: Cost) -> Cost:
        seconds, cpu_seconds = self.seconds + other.seconds, self.cpu_seconds + other.cpu_seconds
        return Cost(seconds, cpu_seconds, max(self.peak_mib, other.peak_mib))


FREE = Cost(0.0, 0.0, 0.0)


def watched(command: Sequence[str], log: Path, folder: Path) -> Cost:
    """Run a process in `folder` to its end; what it prints goes to `log`.

    Raises:
        RuntimeError: it failed; with its exit status and its last words.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start, used, most = time.perf_counter(), _of_children(), 0
    environment = {key: value for key, value in os.environ.items() if not key.startswith("DVC_")} | SETTINGS
    streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    with log.open("w") as out, subprocess.Popen(command, cwd=folder, env=environment, stdout=out, **streams) as process:
        try:
            while process.poll() is None:
                most = max(most, _peak(process.pid))
                time.sleep(0.02)
        finally:
            process.kill()
    if process.returncode:
        words = log.read_text(errors="replace").splitlines() or ["no word"]
        killed = " (killed; out of memory?)" if process.returncode < 0 else ""
        raise RuntimeError(f"exit status {process.returncode}{killed}, last words: {words[-1][:160]}")
    return Cost(time.perf_counter() - start, _of_children() - used, most / MIB)


def _of_children() -> float:
    """Processor seconds of the processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _peak(process: int) -> int:
    """0 where the process has just ended."""
    try:
        return status("VmHWM", process)
    except (OSError, RuntimeError):
        return 0


@dataclass(frozen=True)
class Workspace:
    """The repository at `root`, and the whole of its params.yaml."""

    root: Path
    params: Params

    @classmethod
    def build(cls, root: Path, bars: Path | None, symbols: Sequence[str]) -> Workspace:
        """Write params.yaml and config/ as they are committed, with other bars and symbols where they are given.

        Raises:
            ConfigError: they don't go together with the rest of params.yaml.
            DataError: there are no such bars.
        """
        root.mkdir(parents=True, exist_ok=True)
        shutil.copytree(ROOT / "config", root / "config", dirs_exist_ok=True)
        content = replaced(load_yaml(ROOT / "params.yaml"), bars, symbols)
        (root / "params.yaml").write_text(dump_yaml(content), encoding="utf-8")
        return cls(root, load_params(root / "params.yaml"))

    @property
    def paths(self) -> Paths:
        return Paths(self.root)

    def stage(self, name: str, *arguments: str | int) -> Cost:
        """Run `barcast.stages.{name}` here.

        Raises:
            RuntimeError: it failed; with its last words.
        """
        words = [str(word) for word in arguments]
        log = self.root / "logs" / f"{'_'.join([name, *words])}.txt"
        return watched([sys.executable, "-m", f"barcast.stages.{name}", *words], log, self.root)

    def key(self, specs: Sequence[str], settings: Sequence[str] = ()) -> str:
        """A hash of the bars, of some specs and of what else counts."""
        files = [*list_files(Path(self.params.data.path)), *(self.paths.spec(name) for name in specs)]
        parts = [*(file.read_bytes() for file in files), *(text.encode() for text in settings)]
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    def once(self, name: str, key: str, run: Callable[[], Cost]) -> Cost:
        """What `run` cost; what it cost before, where a kept workspace holds its results under the same key."""
        file = self.root / "costs" / f"{name}.json"
        known = read_json(file) if file.is_file() else {"key": None}
        if known["key"] == key:
            return Cost(**known["cost"])
        file.unlink(missing_ok=True)
        cost = run()
        write_json(file, {"key": key, "cost": asdict(cost)})
        return cost


def replaced(content: dict[str, Any], bars: Path | None, symbols: Sequence[str]) -> dict[str, Any]:
    """The content of params.yaml with other bars, or those of the repository by their whole path."""
    data = content["data"]
    if bars is not None:
        data = {**data, "source": "bars", "path": str(bars.resolve())}
        symbols = symbols or found_symbols(bars)
    else:
        data = {**data, "path": str((ROOT / data["path"]).resolve())}
        symbols = symbols or content["symbols"]
    own = {name: barriers for name, barriers in content["label"]["symbols"].items() if name in symbols}
    return {**content, "symbols": list(symbols), "data": data, "label": {**content["label"], "symbols": own}}


def found_symbols(bars: Path) -> list[str]:
    """The symbols of a file of bars; of one without a `symbol` column the name of the file.

    Raises:
        DataError: the file is missing or can't be read.
    """
    return sorted({symbol for file in list_files(bars) for symbol in read_file(file, [], file.stem)[1]})
