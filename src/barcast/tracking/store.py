"""The MLflow store: where it is, how it is reached, and one line for every way in which that fails."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

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
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_PROBE_SECONDS = 5.0
_LOCK_SECONDS = 60.0


class TrackingError(BarcastError):
    """The MLflow store can't be reached or refuses; the message says which store and why."""


def store_uri(paths: Paths) -> str:
    """`MLFLOW_TRACKING_URI`, or the SQLite file of the repository.

    A relative `sqlite:///` path counts from the real root, so queued experiments share it too.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or _sqlite_uri(paths.store / "mlflow.db")
    if database := _sqlite_file(uri):
        return _sqlite_uri(Path(os.environ.get("DVC_ROOT", paths.root)).resolve() / database)
    return uri


@dataclass(frozen=True)
class Store:
    """A store that answered, and the experiment that holds this project's runs."""

    uri: str
    client: Any
    experiment_id: str
    lock_file: Path

    @contextlib.contextmanager
    def calls(self) -> Iterator[Any]:
        """The client, for calls that raise nothing but `TrackingError` when the store is gone."""
        with _one_error(self.uri):
            _probe(self.uri)
            yield self.client

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes of this machine from looking for a run and creating it at the same time."""
        with _one_error(self.uri):
            self.lock_file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.lock_file)
            lock.acquire(timeout=_LOCK_SECONDS)
        try:
            yield
        finally:
            lock.release()


def connect(paths: Paths) -> Store:
    """Reach the store; create the SQLite file and the experiment where there are none yet.

    Raises:
        TrackingError: within seconds, where the store does not answer.
    """
    uri = store_uri(paths)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    artifacts = (paths.store / "artifacts").as_uri()
    with _one_error(uri):
        database = _sqlite_file(uri)
        if database and not database.exists():
            _create(database, artifacts)
        _probe(uri)
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        experiment = _experiment(client, None if _is_remote(uri) else artifacts)
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
    """Build the tables in a temporary file, so that no process ever meets a half-migrated store."""
    database.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(database.with_name(f"{database.name}.lock"), timeout=_LOCK_SECONDS):
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_file(database) as temporary:
            SqlAlchemyStore(_sqlite_uri(temporary), artifacts).engine.dispose()


def _is_remote(uri: str) -> bool:
    return urlsplit(uri).scheme in {"http", "https"} or uri.startswith("databricks")


def _sqlite_uri(database: Path) -> str:
    """Only what would be misread is quoted: MLflow makes parent folders of the name as it stands in the URI."""
    return f"sqlite:///{str(database).replace('%', '%25').replace('?', '%3f')}"


def _sqlite_file(uri: str) -> Path | None:
    prefix = "sqlite:///"
    return Path(unquote(uri.removeprefix(prefix).partition("?")[0])) if uri.startswith(prefix) else None


def _probe(uri: str) -> None:
    """Ask within seconds what MLflow would find out in minutes: it retries a database ten times."""
    database = _sqlite_file(uri)
    if database:
        existing = f"{database.as_uri()}?mode=rw"
        with contextlib.closing(sqlite3.connect(existing, uri=True, timeout=_PROBE_SECONDS)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails where the file is locked, read-only or no database
            connection.rollback()
        return
    parts = urlsplit(uri)
    port = _PORTS.get(parts.scheme.partition("+")[0])
    if port and parts.hostname:
        socket.create_connection((parts.hostname, parts.port or port), timeout=_PROBE_SECONDS).close()


@contextlib.contextmanager
def _one_error(uri: str) -> Iterator[None]:
    """Turn what a store's failure raises into a `TrackingError`, without the log lines that go with it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    except _failures() as error:
        raise TrackingError(f"MLflow store {_without_password(uri)}: {_reason(error, uri)}") from error
    finally:
        logging.disable(before)


def _failures() -> tuple[type[Exception], ...]:
    """OSError has requests' errors under it; ImportError is a database whose driver is not installed."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError


def _reason(error: BaseException, uri: str) -> str:
    """The system's own words where they are in the chain (`Connection refused`), else MLflow's first line."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError | sqlite3.Error):
            error = cause
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    return text.replace(uri, _without_password(uri))[:300]


def _without_password(uri: str) -> str:
    password = urlsplit(uri).password
    return uri.replace(f":{password}@", ":***@") if password else uri
