"""Tracking of runs: an append-only local event log is the truth, MLflow is fed from it.

A stage calls `track` and talks to the `Run` it gets; nothing else in the pipeline knows of MLflow.
"""

from pipeline.tracking.lineage import content_hashes
from pipeline.tracking.run import Run, track

__all__ = ["Run", "content_hashes", "track"]
