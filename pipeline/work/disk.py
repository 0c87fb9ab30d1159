"""Errors that the disk is to blame for, in words for people."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path

from pipeline.work.root import work_root

FULL = re.compile(
    r"No space left on device|Disk quota exceeded|\d+ requested and \d+ written|inline_container.*unexpected pos"
    r"|Invalid thrift: transport error"
)
"""How libraries word it: the system's own words; NumPy; torch.save; Polars at the end of a Parquet file."""


def disk_trouble(error: Exception, *places: Path) -> str | None:
    """What is wrong and what to do, where a disk is full or may not be written to; None for any other error.

    Args:
        places: where was written to, beside work/ and this directory.
    """
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{error.filename}: {error.strerror}; make it writable"
    if not _is_full(error):
        return None
    there = [path for path in (work_root(), *places, Path()) if path.exists()]
    fullest = min(there, key=lambda path: shutil.disk_usage(path).free)
    free = shutil.disk_usage(fullest).free / 1e6
    return (
        f"the disk of {fullest.resolve()} is full ({free:,.1f} MB left); free some space, for "
        "example with `python -m pipeline.work prune --all` or `dvc gc --workspace`; `dvc repro` then goes on"
    )


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or FULL.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False
