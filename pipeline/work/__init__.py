"""Work in progress: a folder for each stage and fingerprint, so that a stage that was stopped goes on.

Nothing here decides what a stage makes; it decides only what need not be made again.
"""

from pipeline.work.disk import disk_trouble
from pipeline.work.dvcfiles import keep_lock, mend
from pipeline.work.fingerprint import portable_fingerprint
from pipeline.work.folder import WorkFolder, open_work
from pipeline.work.lock import locked
from pipeline.work.pruning import WorkState, list_work, prune
from pipeline.work.publish import link_or_copy, link_tree, publish_directory, remove
from pipeline.work.root import work_root
from pipeline.work.seal import DamagedError, check_seal, seal
from pipeline.work.shards import ShardResults, list_shards, prune_shards

__all__ = [
    "DamagedError",
    "ShardResults",
    "WorkFolder",
    "WorkState",
    "check_seal",
    "disk_trouble",
    "keep_lock",
    "link_or_copy",
    "link_tree",
    "list_shards",
    "list_work",
    "locked",
    "mend",
    "open_work",
    "portable_fingerprint",
    "prune",
    "prune_shards",
    "publish_directory",
    "remove",
    "seal",
    "work_root",
]
