"""What an error tells a user to do, done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from pipeline.sources.__main__ import main
from tests.pipeline.ingest.stage import params


def follow(source: str, folder: Path) -> None:
    """Do as the error of `ingest.source` says: the command that it has, with a folder of one's choice."""
    with pytest.raises(ValueError, match="where DVC would see no change") as failure:
        params(source)  # type: ignore[arg-type]  # a Path would change an address
    (command,) = re.findall(r"`python -m pipeline\.sources (.*)`", str(failure.value))
    main([str(folder) if word == "FOLDER" else word for word in shlex.split(command)])
