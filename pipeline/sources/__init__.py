"""Where records come from: the files of a folder, and what a sources.yaml in it names elsewhere.

A folder without a sources.yaml is one source, `input`. With one, each entry is a source:

    web:
      path: s3://bucket/crawl/*.jsonl.zst    # a path or a pattern, or a list of them
    questions:
      path: [questions/*.jsonl, /archive/more.parquet]
      split: test                            # optional: validation or test
      weight: 2                              # optional: in the training text, 1 where it is left out

Paths are relative to the folder, absolute, or URIs that fsspec knows. DVC sees the folder alone, so whatever lies
outside of it is pinned in a sources.lock.json beside (`python -m pipeline.sources`), and read only as pinned.
"""

from pipeline.sources.catalog import CATALOG, INPUT, read_weights
from pipeline.sources.files import BadFileError, Fault, File
from pipeline.sources.finding import find_files
from pipeline.sources.pins import LOCK
from pipeline.sources.remote import is_uri

__all__ = ["CATALOG", "INPUT", "LOCK", "BadFileError", "Fault", "File", "find_files", "is_uri", "read_weights"]
