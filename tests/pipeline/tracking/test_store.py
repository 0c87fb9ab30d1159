"""Whether a store can be talked to is found out quickly, and without MLflow's client."""

from __future__ import annotations

import pytest

from pipeline.tracking.store import check
from tests.pipeline.tracking.servers import free_port


def test_nobody_there():
    with pytest.raises(ConnectionError, match="refused"):
        check(f"http://user:secret@127.0.0.1:{free_port()}", seconds=5)


def test_a_server_whose_certificate_we_do_not_know_is_there(server):
    """MLflow's client, which knows the user's settings, decides whether to trust it."""
    check(server.uri, seconds=5)
    check(server.uri.replace("http://", "https://"), seconds=5)  # it speaks, though not as it should


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConnectionError, match="file"):
        check(f"sqlite:///{tmp_path}/file/mlflow.db", seconds=5)
