"""The MLflow store: where it is, how to reach it within seconds, and one line for each way in which that fails."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from filelock import FileLock

from barcast.errors import BarcastError
from barcast.files import atomic_file
from barcast.paths import Paths

# MLflow's own defaults wait for minutes on a server that is gone. What the user has set stays.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_SQLITE = "sqlite:///"
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_TAKE_CONNECT_TIMEOUT = {"psycopg", "psycopg2", "pymysql", "mysqldb"}  # drivers
_PASSWORD = re.compile(r"(?<=://)[^/?#:@]*:(.+)@")  # unquoted, it may contain any character
_PROBE_SECONDS = 5.0
_LOCK_SECONDS = 60.0


class TrackingError(BarcastError):
    """The MLflow store can't be reached or refuses; the message names the store and the reason."""


def store_uri(paths: Paths) -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file of the repository.

    A relative `sqlite:///` path starts at the real root, so queued experiments share it too.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(paths.store / "mlflow.db")
    database = _sqlite_file(uri)
    return _sqlite_uri(paths.shared_root / database) if database else uri


@dataclass(frozen=True)
class Store:
    """A store that was reached, and the experiment that holds this project's runs."""

    uri: str
    client: Any
    experiment_id: str
    lock_file: Path

    @contextlib.contextmanager
    def calls(self) -> Iterator[Any]:
        """The client, for calls that raise only `TrackingError` if the store is gone."""
        with _one_error(self.uri):
            _probe(self.uri)
            yield self.client

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes of this machine from looking for a run and creating it at the same time."""
        with _one_error(self.uri):
            lock = _lock(self.lock_file)
        with lock:
            yield


def connect(paths: Paths) -> Store:
    """Reach the store; create the SQLite file and the experiment if there are none yet.
    Raises TrackingError: within seconds, if the store does not answer."""
    uri = store_uri(paths)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    artifacts = (paths.store / "artifacts").as_uri()
    with _one_error(uri, ValueError):  # ValueError: an address that is none
        database = _sqlite_file(uri)
        if database and not database.exists():
            _create(database, artifacts)
        _probe(uri)
        if database is None and _backend(uri) in {*_PORTS, "sqlite"}:
            _connect_once(uri)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = _experiment(client, None if uri.startswith(("http:", "https:", "databricks")) else artifacts)
        return Store(uri, client, experiment, paths.store / "sync.lock")


def _experiment(client: Any, artifacts: str | None) -> str:
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or "barcast"
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _create(database: Path, artifacts: str) -> None:
    """Make the tables in a temporary file: that takes seconds, and a killed process would leave half of them."""
    with _lock(database.with_name(f"{database.name}.lock")):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_file(database) as temporary:
            SqlAlchemyStore(_sqlite_uri(temporary), artifacts).engine.dispose()


def _lock(file: Path) -> Any:
    """Take a lock, and return what releases it; `FileLock` waits in vain in a folder that takes no files: touch one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    return FileLock(file).acquire(timeout=_LOCK_SECONDS)


def _sqlite_uri(database: Path) -> str:
    """Quotes only what would be misread: MLflow makes parent folders of the name exactly as it is in the URI."""
    return f"{_SQLITE}{str(database).replace('%', '%25').replace('?', '%3f')}"


def _sqlite_file(uri: str) -> Path | None:
    return Path(unquote(uri.removeprefix(_SQLITE).partition("?")[0])) if uri.startswith(_SQLITE) else None


def _backend(uri: str) -> str:
    """`postgresql` of `postgresql+psycopg://…`."""
    return uri.partition("://")[0].partition("+")[0]


def _probe(uri: str) -> None:
    """Find out within seconds what takes MLflow minutes: it retries a database ten times."""
    if database := _sqlite_file(uri):
        existing = f"{database.as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(existing, uri=True, timeout=_PROBE_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails if the file is locked, read-only or not a database
            connection.rollback()
    elif port := _PORTS.get(_backend(uri)):
        url = _database_url(uri)
        if url.host:
            socket.create_connection((url.host, url.port or port), timeout=_PROBE_SECONDS).close()


def _connect_once(uri: str) -> None:
    """Connect to a database as MLflow does, which would take two minutes to report a refusal such as of a password."""
    from mlflow.store.db.utils import create_sqlalchemy_engine

    url = _database_url(uri)
    if url.get_driver_name() in _TAKE_CONNECT_TIMEOUT and "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": f"{_PROBE_SECONDS:.0f}"})
    engine = create_sqlalchemy_engine(url.render_as_string(hide_password=False))
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _database_url(uri: str) -> Any:
    """The parts of a database's address as SQLAlchemy reads them; not every one is a valid web address."""
    from sqlalchemy.engine import make_url

    try:
        return make_url(uri)
    except ValueError as error:
        remedy = "set MLFLOW_TRACKING_URI to an address such as postgresql://user@host:5432/name"
        raise ValueError(f"the port is not a number; {remedy}") from error


@contextlib.contextmanager
def _one_error(uri: str, *also: type[Exception]) -> Iterator[None]:
    """Turn the failures of a store, and `also`, into a `TrackingError`, without the log lines that come with them."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    # OSError: requests' too; ImportError: a database's driver
    failures = (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError, *also)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    except failures as error:
        raise TrackingError(f"MLflow store {_without_password(uri, uri)}: {_reason(error, uri)}") from error
    finally:
        logging.disable(before)


def _reason(error: BaseException, uri: str) -> str:
    """The system's own words if they are in the chain (`Connection refused`), else MLflow's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | sqlite3.Error):
            error = cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _without_password(text, uri)[:300]


def _without_password(text: str, uri: str) -> str:
    """`text` without the password of `uri`, even if that is malformed."""
    found = _PASSWORD.search(uri)
    return text.replace(f":{found[1]}@", ":***@") if found else text
