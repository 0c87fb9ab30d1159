"""What became of the records between the source and the rows that a model sees: who left where, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.evaluate.report import words
from pipeline.shards import read_manifest
from pipeline.shards.tables import KINDS, SPLITS

Reasons = dict[str, int]
"""By reason, how many records."""


@dataclass(frozen=True)
class Split:
    """The records of one kind in one split, as tokenize packed them."""

    kind: str
    split: str
    records_in: int
    records_out: int
    dropped: Reasons
    truncated: int
    rows: int
    tokens: int
    supervised_tokens: int
    efficiency: float


@dataclass(frozen=True)
class Flow:
    """The records of one kind: how many ingest found, and what each later stage dropped or wrote once more."""

    kind: str
    found: int
    preprocess: Reasons
    repeated: int
    tokenize: Reasons

    @property
    def cleaned(self) -> int:
        return self.found - sum(self.preprocess.values()) + self.repeated

    @property
    def packed(self) -> int:
        return self.cleaned - sum(self.tokenize.values())


@dataclass(frozen=True)
class Step:
    """What a stage did with some of the records, in the words of a table."""

    stage: str
    outcome: str
    records: Reasons
    """By kind; under "" what is of no kind."""
    lost: bool


@dataclass(frozen=True)
class Funnel:
    """All of it. What ingest left out, or put into quarantine, was never a record of a kind."""

    left_out: Reasons
    flows: list[Flow]
    splits: list[Split]

    def steps(self) -> Iterator[Step]:
        """From the source to the rows."""
        for reason, count in self.left_out.items():
            yield Step("ingest", f"left out: {words.reason(reason)}", {"": count}, lost=True)
        yield Step("ingest", "handed on", {flow.kind: flow.found for flow in self.flows}, lost=False)
        yield from self._dropped("preprocess", {flow.kind: flow.preprocess for flow in self.flows})
        if any(flow.repeated for flow in self.flows):
            yield Step("preprocess", "repeated", {flow.kind: flow.repeated for flow in self.flows}, lost=False)
        yield Step("preprocess", "handed on", {flow.kind: flow.cleaned for flow in self.flows}, lost=False)
        yield from self._dropped("tokenize", {flow.kind: flow.tokenize for flow in self.flows})
        yield Step("tokenize", "packed into rows", {flow.kind: flow.packed for flow in self.flows}, lost=False)

    def _dropped(self, stage: str, by_kind: dict[str, Reasons]) -> Iterator[Step]:
        for reason in sorted({reason for reasons in by_kind.values() for reason in reasons}):
            counts = {kind: reasons.get(reason, 0) for kind, reasons in by_kind.items()}
            yield Step(stage, f"dropped: {words.reason(reason)}", counts, lost=True)


def read_funnel(ingested: Path, clean: Path, tokens: Path) -> Funnel:
    """The counts in the manifests that the data stages wrote into their directories."""
    source, packed, repeated = read_manifest(ingested), read_manifest(tokens), read_manifest(clean)["repeated"]
    splits = [
        _split(kind, split, packed[kind][split]) for kind in KINDS for split in SPLITS if split in packed.get(kind, {})
    ]
    dropped = _dropped(clean)
    flows = [
        Flow(
            kind, found, dropped[kind], repeated[kind], _total(split.dropped for split in splits if split.kind == kind)
        )
        for kind, found in source["records"].items()
        if found
    ]
    put_aside = {f"in_quarantine:_{reason}": count for reason, count in source["quarantined"].items()}
    return Funnel(source["left_out"] | put_aside, flows, splits)


def _split(kind: str, split: str, facts: dict[str, Any]) -> Split:
    wanted = (field.name for field in fields(Split) if field.name not in ("kind", "split"))
    return Split(kind, split, **{name: facts[name] for name in wanted})


def _dropped(clean: Path) -> defaultdict[str, Reasons]:
    """By kind, what preprocess dropped."""
    counts = pl.scan_parquet(clean / "dropped.parquet").group_by("kind", "reason").len().sort("kind", "reason")
    dropped: defaultdict[str, Reasons] = defaultdict(dict)
    for kind, reason, count in counts.collect().iter_rows():
        dropped[kind][reason] = count
    return dropped


def _total(parts: Iterable[Reasons]) -> Reasons:
    return {
        reason: count
        for reason, count in sorted(sum((Counter(part) for part in parts), Counter[str]()).items())
        if count
    }
