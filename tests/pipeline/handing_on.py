"""Preprocess and tokenize what was ingested, and check the law of conservation after each."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from pipeline.params import LongConversations, LongDocuments, load_params
from pipeline.preprocess.run import preprocess
from pipeline.rows import NEVER, open_rows
from pipeline.shards import Local, verify_manifest
from pipeline.shards.tables import KINDS, SPLITS
from pipeline.tokenize.run import tokenize
from pipeline.work import WorkFolder

PARAMS = load_params(Path(__file__).parents[2] / "params.yaml")


def hand_on(ingested: Path, folder: Path, rng: random.Random) -> bool:
    """Through both stages, at settings that are drawn; `folder` is emptied first. Whether any rows came of it."""
    shutil.rmtree(folder, ignore_errors=True)
    clean, tokens = WorkFolder(folder / "preprocess"), WorkFolder(folder / "tokenize")
    settings = replace(
        PARAMS.preprocess,
        min_chars=rng.choice([1, 4]),
        max_chars=rng.choice([600, 10**6]),
        quality=[rng.choice(["none", "none", "none", "gopher", "c4", "fineweb", "code"])],
        pii=rng.choice([[], ["email", "ip", "phone"]]),
        near_duplicates=True,
        near_words=rng.choice([1, 3]),
        near_bands=4,
        near_rows=3,
        contamination_words=rng.choice([8, 13]),
        contamination_share=rng.choice([0.0, 0.5]),
        validation_fraction=0.2,
        test_fraction=0.2,
        temperature=rng.choice([1.0, 2.0]),
    )
    try:
        preprocess(ingested, clean, settings, executor=Local(1))
    except ValueError as error:
        if "are left for the split" not in str(error):  # of so few records, a threshold may leave none
            raise
        assert not clean.out.exists()
        return False
    _check_clean(ingested, clean.out)
    options = {
        "vocab_size": 300,
        "seqlen": rng.choice([150, 1000]),
        "fast": False,
        "formats": ["rows", "parquet"],
        "long_documents": rng.choice(list(LongDocuments)),
        "long_conversations": rng.choice(list(LongConversations)),
    }
    try:
        tokenize(clean.out, tokens, replace(PARAMS.tokenize, **options), checkpoint="embedded", executor=Local(1))
    except ValueError as error:
        if "fits into a row" not in str(error):
            raise
        assert not tokens.out.exists()
        return False
    _check_tokens(clean.out, tokens.out)
    return True


def _check_clean(ingested: Path, out: Path) -> None:
    """What was ingested was written or dropped, once; what mixing repeats is counted apart."""
    manifest = verify_manifest(out)
    given = [name for kind in KINDS for name in _ids(sorted(ingested.glob(f"{kind}-*.parquet")))]
    written = [name for kind in KINDS for name in _ids(sorted(out.glob(f"*/{kind}-*.parquet")))]
    dropped = pl.read_parquet(out / "dropped.parquet")
    assert manifest["records_in"] == len(given)
    assert manifest["records_out"] == len(written)
    assert manifest["dropped"] == dict(sorted(Counter(dropped["reason"]).items()))
    repeated = sum(manifest["repeated"].values())
    assert len(given) + repeated == len(written) + dropped.height
    firsts = set(given)
    assert sorted([*(name for name in written if name in firsts), *dropped["id"]]) == sorted(given)
    assert sum(name not in firsts for name in written) == repeated
    assert not dropped["detail"].has_nulls()


def _check_tokens(clean: Path, out: Path) -> None:
    """What was clean is in rows or dropped, once, by kind and split."""
    before, manifest = verify_manifest(clean)["splits"], verify_manifest(out)
    for kind in KINDS:
        wanted = {split: before[split][kind]["records"] for split in SPLITS if kind in before.get(split, {})}
        found: dict[str, Any] = manifest.get(kind, {})
        assert {split: figures["records_in"] for split, figures in found.items()} == wanted
        for split, figures in found.items():
            assert figures["records_in"] == figures["records_out"] + sum(figures["dropped"].values())
            lengths = pl.read_parquet(out / kind / split / "tokens.parquet")["input_ids"].list.len()
            assert len(lengths) == figures["records_out"]
            rows = open_rows(out / kind / split)
            assert len(rows) == figures["rows"]
            targets = int((rows.loss_mask != NEVER).sum())
            assert targets == figures["tokens"] - figures["sequences"]
            assert targets == lengths.sum() - len(lengths)  # of each record all but the first token, however it is cut


def _ids(files: list[Path]) -> list[str]:
    return [name for file in files for name in pl.read_parquet(file, glob=False)["id"]]
