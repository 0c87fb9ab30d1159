"""Where work in progress, the event log and MLflow's database are."""

from __future__ import annotations

import os
from pathlib import Path


def work_root() -> Path:
    """work/ of this repository; in DVC's temporary copies of it (`dvc exp run --temp`, `--queue`), of the original.

    DVC names the original in the variable DVC_ROOT.
    """
    root = Path(os.environ.get("DVC_ROOT", "."))
    return Path("work") if root.resolve() == Path.cwd().resolve() else root.resolve() / "work"
