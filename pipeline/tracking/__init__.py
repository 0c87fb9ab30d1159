"""Tracking of runs: an append-only local event log is the truth, MLflow is fed from it.

A stage calls `track` and talks to the `Run` it gets; `make repro` opens the execution that its stages belong to.
Nothing else in the pipeline knows of MLflow. docs/tracking.md tells how it works.
"""

from pipeline.tracking.execution import Execution
from pipeline.tracking.lineage import content_hashes
from pipeline.tracking.run import Run, track
from pipeline.tracking.whole import close_execution, open_execution

__all__ = ["Execution", "Run", "close_execution", "content_hashes", "open_execution", "track"]
