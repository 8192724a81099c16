"""Memory, rates, and the processes in which they are measured.

The standard library alone: the peers' environment imports this too, and barcast is not installed there.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any, NoReturn, Protocol

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20

Ask = Callable[..., dict[str, Any]]


def status(field: str, process: int | str = "self") -> int:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/{process}/status has no {field}; these benchmarks need Linux")


def resident() -> int:
    """Bytes resident now, what is garbage given back first."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return status("VmRSS")


def peak() -> int:
    """The most bytes that were ever resident. Not `ru_maxrss`: that counts the parent before `exec` too."""
    return status("VmHWM")


def forget_peak() -> None:
    """Let `peak` count from what is resident now; ask `resident` first, which gives garbage back."""
    Path("/proc/self/clear_refs").write_text("5")


class Stopwatch:
    """Seconds by the clock and of this process's own processors, over all `with` blocks since `reset`."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.wall = self.cpu = 0.0

    def __enter__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def __exit__(self, *_: object) -> None:
        self.wall += time.perf_counter() - self._start[0]
        self.cpu += time.process_time() - self._start[1]


def windows_a_second(batches: Iterator[Sized], seconds: float) -> float:
    """Draw from endless batches for a while; the first one, which pays for buffers and shuffling, isn't timed."""
    next(batches)
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds or not done:
        done += len(next(batches))
    return done / elapsed


def machine() -> str:
    """Cores and memory, in words."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{os.cpu_count()} cores, {memory:.0f} GB"


def rounded(value: float, digits: int = 4) -> float:
    """`digits` significant digits: the rest is noise."""
    return float(f"{value:.{digits}g}")


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of neighbouring measurements: what else the machine does falls on both."""
    return rounded(median(a / b for a, b in zip(ours, theirs, strict=True)))


def say(text: str) -> None:
    """Progress; the JSON alone goes to standard output."""
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> NoReturn:
    say(f"error: {text}")
    sys.exit(1)


def finish(figures: Mapping[str, Any]) -> None:
    """Print the figures as the one JSON object of the last line."""
    print(json.dumps(figures, allow_nan=False), flush=True)


class Contestant(Protocol):
    """A way to make batches."""

    def build(self) -> None: ...
    def batches(self, size: int) -> Iterator[Sized]: ...


@contextmanager
def worker(command: Sequence[str]) -> Iterator[Ask]:
    """A process that answers one JSON line with another, so that it is timed alone and its memory is its own.

    What is yielded raises RuntimeError with the process's last words when it has died.
    """
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process,
    ):

        def ask(**request: Any) -> dict[str, Any]:
            print(json.dumps(request), file=process.stdin, flush=True)
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                errors.seek(0)
                raise RuntimeError((errors.read().strip() or "it died without a word").splitlines()[-1])
            answer: dict[str, Any] = json.loads(line)
            return answer

        try:
            yield ask
        finally:
            process.kill()


def serve(answer: Callable[..., Mapping[str, Any]]) -> None:
    """Answer requests until standard input ends. Whatever libraries print goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(answer(**json.loads(line))), file=replies, flush=True)


def run_once(module: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run `python -m module` with the request on standard input; its last line is the answer.

    Raises:
        RuntimeError: it failed; with its last words.
    """
    command = [sys.executable, "-m", module]
    done = subprocess.run(command, cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, check=False)
    if done.returncode:
        words = done.stderr.strip() or f"no word, exit status {done.returncode}; was it out of memory?"
        raise RuntimeError(f"{module}: {words.splitlines()[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
