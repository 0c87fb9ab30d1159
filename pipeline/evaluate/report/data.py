"""What the report says of the data, read from what the data stages wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.evaluate.report.funnel import Funnel, read_funnel
from pipeline.evaluate.report.histograms import Histogram, TokenCounts, survey_records, survey_rows
from pipeline.rows import open_rows
from pipeline.shards import read_manifest
from pipeline.shards.tables import KINDS

TRAIN = "train"


@dataclass(frozen=True)
class Data:
    """Of the training split, by kind; a kind that it does not hold is missing."""

    funnel: Funnel
    characters: dict[str, Histogram]
    sequences: dict[str, Histogram]
    tokens: dict[str, TokenCounts]


def read_data(ingested: Path, clean: Path, tokens: Path) -> Data:
    """Look through the directories that ingest, preprocess and tokenize wrote."""
    surveyed = {
        kind: survey_rows(open_rows(tokens / kind / TRAIN)) for kind in KINDS if (tokens / kind / TRAIN).exists()
    }
    shards = {kind: _shards(clean, kind) for kind in KINDS}
    return Data(
        funnel=read_funnel(ingested, clean, tokens),
        characters={kind: survey_records(files, kind) for kind, files in shards.items() if files},
        sequences={kind: lengths for kind, (_, lengths) in surveyed.items()},
        tokens={kind: counts for kind, (counts, _) in surveyed.items()},
    )


def _shards(clean: Path, kind: str) -> dict[Path, int]:
    """The training shards of `kind` that hold records, and how many."""
    files = read_manifest(clean)["files"]
    wanted = f"{TRAIN}/{kind}-"
    return {
        clean / name: file["records"] for name, file in files.items() if name.startswith(wanted) and file["records"]
    }
