"""Check params.yaml, open the run in the tracking that all stages share, and run `dvc repro` with the given arguments.

What `dvc repro` by itself does, and besides: a mistake in params.yaml is named before DVC starts; Ctrl-C, SIGTERM and
the end of whoever started this stop the stage that runs, which saves its work first.
"""

from __future__ import annotations

import argparse
import sys

from pipeline.params import load_params
from pipeline.process import Interrupted, end_with_parent, stop_on_signals
from pipeline.repro.run import repro
from pipeline.work import disk_trouble


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m pipeline.repro", description=__doc__)
    _, arguments = parser.parse_known_args()
    stop_on_signals()
    try:
        end_with_parent()
        load_params()
        sys.exit(repro(arguments))
    except (ValueError, OSError) as error:
        what = error if isinstance(error, ValueError) else disk_trouble(error)
        if what is None:
            raise
        sys.exit(f"error: {what}")
    except Interrupted as stop:
        sys.exit(stop.exit_status)


if __name__ == "__main__":
    main()
