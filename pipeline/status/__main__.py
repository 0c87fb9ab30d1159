"""Show for each stage whether it is fresh, stale and why, running, or interrupted at which step."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import yaml

from pipeline.dvcfile import StageDefinition, read_stages
from pipeline.status.stages import look
from pipeline.status.table import render, wants_colour
from pipeline.work import work_root


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m pipeline.status",
        description=__doc__,
        epilog="fresh: made from the present data, parameters and code, as dvc.lock says. It changes nothing and "
        "runs nothing; `dvc repro` does.",
    ).parse_args()
    try:
        project = look(Path(), work_root(), stages(Path()))
    except (ValueError, OSError) as error:
        sys.exit(f"status: error: {error}")
    print("\n".join(render(project, colour=wants_colour(sys.stdout))))


def stages(root: Path) -> Mapping[str, StageDefinition]:
    """The stages of dvc.yaml.

    Raises:
        ValueError: there is none here, or it cannot be read.
    """
    try:
        found = read_stages(root)
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename}: not found; run from the repository's root") from None
    except yaml.YAMLError as error:
        raise ValueError(f"dvc.yaml or params.yaml: not valid YAML: {' '.join(str(error).split())}") from None
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"dvc.yaml: not a pipeline as DVC knows them ({error!r})") from None
    if not found:
        raise ValueError("dvc.yaml: it has no stages")
    return found


if __name__ == "__main__":
    main()
