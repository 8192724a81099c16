"""The MLflow store: where it is, how it is reached, and one line for every way in which that fails."""

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
_TAKE_CONNECT_TIMEOUT = {"psycopg", "psycopg2", "pymysql", "mysqldb"}  # drivers
_PASSWORD = re.compile(r"(?<=://)[^/?#:@]*:(.+)@")  # it may hold any character where it isn't quoted
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
            lock = _acquire(self.lock_file)
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
    with _one_error(uri, ValueError):  # what libraries raise for an address that is none
        database = _sqlite_file(uri)
        if database and not database.exists():
            _create(database, artifacts)
        _probe(uri)
        if database is None and _backend(uri) in {*_PORTS, "sqlite"}:
            _ask_once(uri)
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
    lock = _acquire(database.with_name(f"{database.name}.lock"))
    try:
        if database.exists():
            return
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        with atomic_file(database) as temporary:
            SqlAlchemyStore(_sqlite_uri(temporary), artifacts).engine.dispose()
    finally:
        lock.release()


def _acquire(file: Path) -> FileLock:
    """Take a lock; where its folder takes no files, this fails at once, and `FileLock` alone would wait in vain."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()
    lock = FileLock(file)
    lock.acquire(timeout=_LOCK_SECONDS)
    return lock


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
    if port := _PORTS.get(_backend(uri)):
        url = _database_url(uri)
        if url.host:
            socket.create_connection((url.host, url.port or port), timeout=_PROBE_SECONDS).close()


def _ask_once(uri: str) -> None:
    """Connect to a database as MLflow does: it would take two minutes to report a refusal, of a password or any."""
    from mlflow.store.db.utils import create_sqlalchemy_engine

    url = _database_url(uri)
    if url.get_driver_name() in _TAKE_CONNECT_TIMEOUT and "connect_timeout" not in url.query:
        url = url.update_query_dict({"connect_timeout": f"{_PROBE_SECONDS:.0f}"})
    engine = create_sqlalchemy_engine(url.render_as_string(hide_password=False))
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _backend(uri: str) -> str:
    """`postgresql` of `postgresql+psycopg://…`."""
    return uri.partition("://")[0].partition("+")[0]


def _database_url(uri: str) -> Any:
    """The parts of a database's address as SQLAlchemy reads them, which is not as a web address is read.

    Raises:
        ValueError: the port is no number.
    """
    from sqlalchemy.engine import make_url

    try:
        return make_url(uri)
    except ValueError as error:
        example = "postgresql://user@host:5432/name"
        raise ValueError(f"the port is no number; set MLFLOW_TRACKING_URI to an address such as {example}") from error


@contextlib.contextmanager
def _one_error(uri: str, *also: type[Exception]) -> Iterator[None]:
    """Turn what a store's failure raises, and `also`, into a `TrackingError`, without the log lines that go with it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    except (*_failures(), *also) as error:
        raise TrackingError(f"MLflow store {_without_password(uri, uri)}: {_reason(error, uri)}") from error
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
    return _without_password(text, uri)[:300]


def _without_password(text: str, uri: str) -> str:
    """`text` without the password of `uri`, be that malformed."""
    found = _PASSWORD.search(uri)
    return text.replace(f":{found[1]}@", ":***@") if found else text
