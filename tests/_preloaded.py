"""A `python` for tests that run many commands: it forks from a process that has imported the libraries already.

On tiny bars most of a stage's time goes into imports. `preloaded(folder)` starts a server and writes `folder/python`,
which sends its arguments, environment and open files to the server. The server imports no module of barcast, so each
command runs the sources of its own repository.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

LIBRARIES = (
    "arch.bootstrap",
    "dvc.cli",
    "dvc.parsing",
    "dvc.repo.experiments",
    "dvclive",
    "lightgbm",
    "mlflow.pyfunc",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
    "numba",
    "optuna",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "rich.table",
    "ruamel.yaml",
    "scipy.stats",
    "sklearn.linear_model",
    "talib",
    "typer",
    "xgboost",
    "yaml",
)
CLIENT = """#!{python} -SEI
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
    server.sendall(asked)
    sys.exit(int(server.makefile().read() or 1))
"""


@contextlib.contextmanager
def preloaded(folder: Path) -> Iterator[Path]:
    """A folder to put first in PATH: its `python` is quick, its `dvc` and `barcast` run by it."""
    folder.mkdir()
    address = str(folder / "socket")
    server = subprocess.Popen([sys.executable, __file__, address], stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"
    scripts = {"python": CLIENT.format(python=sys.executable, address=address)}
    for name, module in (("barcast", "barcast.cli"), ("dvc", "dvc")):
        scripts[name] = f'#!/bin/sh\nexec {folder}/python -m {module} "$@"\n'
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    try:
        yield folder
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


def _serve(address: str) -> None:
    for name in LIBRARIES:
        __import__(name)
    assert threading.active_count() == 1, "a fork would lose the other threads"
    sys.modules["numba"].njit(lambda value: value + 1)(1)  # the first function takes a second more than others
    gc.freeze()  # else each command would end by collecting all the libraries
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            _answer(connection)
        connection.close()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _answer(connection: socket.socket) -> None:
    """In a child: run the command in a child of its own, then send its exit status."""
    header, files, _, _ = socket.recv_fds(connection, 8, 3)
    asked = b""
    while len(asked) < int.from_bytes(header, "big"):
        asked += connection.recv(1 << 16)
    arguments, folder, environment = json.loads(asked)
    worker = os.fork()
    if worker == 0:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)  # held by what a command leaves running, it would keep the caller waiting
        connection.close()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.executable = shutil.which("python") or sys.executable  # for what the command starts in turn
        sys.path[:0] = [folder, *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
        _run(arguments)
    status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
    connection.sendall(str(status if status >= 0 else 128 - status).encode())
    os._exit(0)


def _run(arguments: list[str]) -> NoReturn:
    """As `python -m MODULE …`, `python -c CODE` and `python -` do; an error ends this process as usual."""
    kind, *rest = arguments
    sys.argv = rest if kind == "-m" else [kind, *rest[1:]]
    try:
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            exec(compile(rest[0] if kind == "-c" else sys.stdin.read(), "<command>", "exec"), {"__name__": "__main__"})
    except SystemExit as ended:
        if ended.code:
            raise
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # sooner than taking all libraries down


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _serve(sys.argv[1])
