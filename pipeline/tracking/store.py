"""Where MLflow keeps the runs: a server, or a database in work/ that is made once."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from pipeline.hashing import text_sha256
from pipeline.params import TrackingParams
from pipeline.tracking.redact import keep_secret, redact
from pipeline.work.root import work_root

SQLITE = "sqlite:///"

QUIET = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",  # the feeder has a patience of its own
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # it tells the password
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""How MLflow's client is to behave in the processes that talk to it; what the user has set stays."""


def store_uri(params: TrackingParams) -> str:
    """The MLflow server or database: MLFLOW_TRACKING_URI, else `tracking.uri`, else a database in work/.

    The path of a database is made absolute, from the repository's root.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI") or params.uri or f"{SQLITE}work/mlflow.db"
    keep_secret(uri)
    return f"{SQLITE}{(work_root().parent / uri.removeprefix(SQLITE)).resolve()}" if uri.startswith(SQLITE) else uri


def store_key(uri: str) -> str:
    """A name for the store that tells no secret, the same when only the password changes."""
    return text_sha256(redact(uri))[:16]


def database(uri: str) -> Path | None:
    """The file of an sqlite store; None of any other."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def is_database(uri: str) -> bool:
    """Whether MLflow would keep runs in a database there, which it serves itself."""
    return re.match(r"(sqlite|postgresql|mysql|mssql)(\+\w+)?://", uri) is not None


def check(uri: str, seconds: float) -> None:
    """Find out quickly, without MLflow's client, whether the store can be talked to.

    Raises:
        ConnectionError: it cannot; the message says why, and no secret.
    """
    file = database(uri)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConnectionError(f"{file.parent}: {error.strerror}") from None
        if not os.access(file.parent, os.W_OK):
            raise ConnectionError(f"{file.parent}: cannot be written to")
    elif is_server(uri):
        _check_server(uri, seconds)


def _check_server(uri: str, seconds: float) -> None:
    scheme, _, rest = uri.partition("://")
    host = rest.rpartition("@")[2].partition("?")[0].rstrip("/")  # urllib takes no user:password@
    try:
        urllib.request.urlopen(f"{scheme}://{host}/health", timeout=seconds).close()
    except urllib.error.HTTPError as error:
        if error.code >= 500:
            raise ConnectionError(f"it answers {error.code} {redact(str(error.reason))}") from None
    except (OSError, ValueError) as error:
        if isinstance(getattr(error, "reason", None), ssl.SSLError):
            return  # it answers; MLflow's client knows which certificates to trust
        raise ConnectionError(redact(str(getattr(error, "reason", error)))) from None


def make_database(uri: str) -> None:
    """Create an sqlite store that is not there yet: by one process at a time, complete or not at all.

    MLflow itself crashes when several processes create a database at once, and a migration that is killed halfway
    leaves one that it refuses to open.
    """
    file = database(uri)
    if file is None or file.exists():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_name(f"{file.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if file.exists():
            return
        draft = file.with_name(f"{file.name}.draft")
        draft.unlink(missing_ok=True)
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database is no news
        store = SqlAlchemyStore(f"{SQLITE}{draft}", artifact_root(file))
        store.engine.dispose()
        draft.rename(file)


def artifact_root(file: Path | None) -> str:
    """Where the artifacts of a database's runs are: beside an sqlite file, else in work/."""
    return ((file.parent if file else work_root().resolve()) / "mlartifacts").as_uri()
