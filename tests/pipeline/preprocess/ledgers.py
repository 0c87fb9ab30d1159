"""Ledgers of a few records, and what was decided of them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipeline.arrays import I64
from pipeline.preprocess import runs
from pipeline.preprocess.decide import TYING, tie
from pipeline.preprocess.hashes import key_names, string_hashes
from pipeline.preprocess.ledger import FREE, SPLIT_CODES, Ledger
from pipeline.shards.tables import KINDS

Rows = list[dict[str, Any]]
"""Records: `id`, `kind`, `group`, `split`, `reason`, `detail`, `key`, and optionally `source` and `characters`."""

SHARD = 7
"""Records of a shard."""


def make_ledger(folder: Path, rows: Rows) -> Ledger:
    """The ledger of records that have been judged for what they are themselves."""
    ledger = Ledger(folder, list(range(0, len(rows), SHARD)), len(rows))
    for number, row in enumerate(rows):
        ledger["kind"][number] = KINDS.index(row["kind"])
        ledger["source"][number] = row.get("source", 0)
        ledger["fixed"][number] = SPLIT_CODES.index(row["split"]) if row["split"] else FREE
        ledger["reason"][number] = ledger.code(row["reason"] or "none")
        ledger["characters"][number] = row.get("characters", 1)
    ledger["group_hash"][:] = string_hashes(pl.Series([row["group"] for row in rows]))
    ledger["draw"][:] = string_hashes(pl.Series([row["id"] for row in rows]))
    return ledger


def tie_rows(ledger: Ledger, rows: Rows, bands: list[list[bytes]] | None = None) -> I64:
    """Deduplicate by `key`, and by `bands` if each record has some; the components of what is tied."""
    names = {
        "contents": [[row["key"] or b""] for row in rows],
        "groups": [[row["group"].encode()] for row in rows],
        "bands": bands or [],
    }

    def pairs(file: str, taking_part: Path) -> list[Path]:
        paths = []
        for index, start in enumerate(ledger.starts):
            folder = ledger.folder / str(index)
            folder.mkdir(exist_ok=True)
            members = names[file][start : start + SHARD]
            flat = [name for own in members for name in own]
            places = np.repeat(np.arange(len(members)), [len(own) for own in members])
            runs.write_run(folder / file, *key_names("name", flat), places)
            paths.append(folder / file)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs, "RANGE_BYTES", 256)
            jobs = runs.matches(paths, ledger.starts, taking_part, ledger.folder / file[:-4])
        for job in reversed(jobs):
            job.folder.mkdir(parents=True, exist_ok=True)
            runs.match(job)
        return [job.folder / runs.PAIRS for job in jobs]

    ties, _ = tie(ledger, pairs, ledger.stays(TYING), near=bands is not None)
    return ties


def outcomes(ledger: Ledger, rows: Rows) -> Rows:
    """The records with `split`, `reason` and `detail` as the ledger has them."""
    found = []
    for number, row in enumerate(rows):
        reason, cause = ledger.reasons[ledger["reason"][number]], ledger["cause"][number]
        split = [*SPLIT_CODES, None][ledger["split"][number]]
        detail = row["detail"] if cause < 0 else rows[cause]["id"]
        found.append({**row, "reason": None if reason == "none" else reason, "detail": detail, "split": split})
    return found
