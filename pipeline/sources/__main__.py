"""Pin what the sources.yaml of a folder names outside of it: write down, in sources.lock.json beside it, which files
and objects there are and what they hold (size, and etag or sha256). Ingest reads these and no others, and DVC sees a
change of the lock. Run it again to take in what has come or changed since. With paths, patterns or URIs after the
folder, a sources.yaml of one source, `input`, that names these is written first."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.params import load_params


def main(arguments: list[str] | None = None) -> None:
    """The command; a user's mistake ends in one line and exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.sources", description=__doc__)
    parser.add_argument("folder", nargs="?", help="where sources.yaml is; by default, ingest.source of params.yaml")
    parser.add_argument("paths", nargs="*", help="files, folders, patterns in quotation marks, URIs")
    chosen = parser.parse_args(arguments)
    from pipeline.sources.catalog import CATALOG, write_catalog
    from pipeline.sources.finding import pin_outside
    from pipeline.sources.pins import write_pins

    try:
        folder = Path(chosen.folder or load_params().ingest.source)
        if chosen.paths:
            write_catalog(folder, chosen.paths)
        try:
            pins = pin_outside(folder)
        except (ValueError, OSError):
            if chosen.paths:  # written by this command, and of no use
                (folder / CATALOG).unlink()
            raise
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    if chosen.paths:
        print(f"{folder / CATALOG}: written; it is read with `ingest.source: {folder}` in params.yaml")
        if not pins:
            return
    if not pins:
        sys.exit(f"{folder}: nothing of its sources.yaml lies outside: there is nothing to pin")
    path = write_pins(folder, pins)
    print(f"{path}: {sum(map(len, pins.values()))} files pinned")


if __name__ == "__main__":
    main()
