"""Where MLflow keeps the runs."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.params import TrackingParams

LOCAL = Path("work/mlflow.db")


def store_uri(params: TrackingParams) -> str:
    """The MLflow server or database: MLFLOW_TRACKING_URI, else `tracking.uri`, else a database in work/."""
    return os.environ.get("MLFLOW_TRACKING_URI") or params.uri or f"sqlite:///{LOCAL.resolve()}"
