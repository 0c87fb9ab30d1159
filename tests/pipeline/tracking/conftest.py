from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.pipeline.tracking.servers import RealServer
from tests.pipeline.tracking.stages import Workplace


@pytest.fixture
def workplace(tmp_path) -> Workplace:
    return Workplace(tmp_path / "place")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[RealServer]:
    """A real MLflow server that stays up."""
    server = RealServer(tmp_path_factory.mktemp("server")).start()
    yield server
    server.kill()
