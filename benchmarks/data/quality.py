"""Quality rules here and in datatrove: speed, memory, and how often they agree.

    python -m benchmarks.data.quality [--corpora prose code] [--presets gopher c4 fineweb] [--mb 64] [--agreement-mb 8]

Both read the same Parquet shards with two processes and decide about each document; nothing is written. Times are of
the whole command, start and imports included, in turn. Then each rule's decision about each document, by itself,
next to that of datatrove's filter with its other rules off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import polars as pl

from benchmarks.data import corpus
from benchmarks.data.peers import Cost, run_measured, run_script
from benchmarks.machine import machine
from pipeline.preprocess.quality import measure, rewrite
from pipeline.preprocess.quality.decisions import breaks
from pipeline.rules import RULES

WORKERS = 2
SHARDS = 16

THEIRS = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
)
from datatrove.pipeline.readers import ParquetReader

if __name__ == "__main__":
    folder, logs, preset, workers = sys.argv[1:]
    filters = {
        "gopher": [GopherRepetitionFilter(), GopherQualityFilter()],
        "c4": [C4QualityFilter()],
        "fineweb": [FineWebQualityFilter()],
    }[preset]
    LocalPipelineExecutor(
        [ParquetReader(folder, glob_pattern="documents-*.parquet"), *filters],
        tasks=int(workers), workers=int(workers), logging_dir=logs,
    ).run()
"""

DECISIONS = """
import json, sys
import pyarrow.parquet as pq
from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter, FineWebQualityFilter, GopherQualityFilter, GopherRepetitionFilter
)

repetition = dict(dup_line_frac=None, dup_para_frac=None, dup_line_char_frac=None, dup_para_char_frac=None,
                  top_n_grams=(), dup_n_grams=())
quality = dict(min_doc_words=None, max_doc_words=None, min_avg_word_length=None, max_avg_word_length=None,
               max_symbol_word_ratio=None, max_bullet_lines_ratio=None, max_ellipsis_lines_ratio=None,
               max_non_alpha_words_ratio=None, min_stop_words=None)
fineweb = dict(line_punct_thr=0, short_line_thr=2, char_duplicates_ratio=2, new_line_ratio=1e9)
c4 = dict(min_num_sentences=-1, filter_lorem_ipsum=False, filter_curly_bracket=False)
only = lambda kind, off, **on: kind(**{**off, **on})
rules = {
    "gopher_duplicate_paragraphs": only(GopherRepetitionFilter, repetition, dup_para_frac=0.3),
    "gopher_duplicate_paragraph_chars": only(GopherRepetitionFilter, repetition, dup_para_char_frac=0.2),
    "gopher_duplicate_lines": only(GopherRepetitionFilter, repetition, dup_line_frac=0.3),
    "gopher_duplicate_line_chars": only(GopherRepetitionFilter, repetition, dup_line_char_frac=0.2),
    **{f"gopher_top_{n}_gram": only(GopherRepetitionFilter, repetition, top_n_grams=((n, most),))
       for n, most in ((2, 0.2), (3, 0.18), (4, 0.16))},
    **{f"gopher_duplicate_{n}_grams": only(GopherRepetitionFilter, repetition, dup_n_grams=((n, most),))
       for n, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))},
    "gopher_few_words": only(GopherQualityFilter, quality, min_doc_words=50),
    "gopher_many_words": only(GopherQualityFilter, quality, max_doc_words=100000),
    "gopher_short_words": only(GopherQualityFilter, quality, min_avg_word_length=3),
    "gopher_long_words": only(GopherQualityFilter, quality, max_avg_word_length=10),
    "gopher_hashes": only(GopherQualityFilter, quality, max_symbol_word_ratio=0.1),
    "gopher_bullet_lines": only(GopherQualityFilter, quality, max_bullet_lines_ratio=0.9),
    "gopher_ellipsis_lines": only(GopherQualityFilter, quality, max_ellipsis_lines_ratio=0.3),
    "gopher_letterless_words": only(GopherQualityFilter, quality, max_non_alpha_words_ratio=0.8),
    "gopher_few_stop_words": only(GopherQualityFilter, quality, min_stop_words=2),
    "fineweb_unpunctuated_lines": only(FineWebQualityFilter, fineweb, line_punct_thr=0.12),
    "fineweb_short_lines": only(FineWebQualityFilter, fineweb, short_line_thr=0.67),
    "fineweb_duplicate_line_chars": only(FineWebQualityFilter, fineweb, char_duplicates_ratio=0.01),
    "fineweb_newlines": only(FineWebQualityFilter, fineweb, new_line_ratio=0.3),
    "c4_lorem_ipsum": only(C4QualityFilter, c4, filter_lorem_ipsum=True),
    "c4_curly_brackets": only(C4QualityFilter, c4, filter_curly_bracket=True),
    "c4_few_sentences": only(C4QualityFilter, c4, min_num_sentences=5),
}
drops = {name: [] for name in rules}
for path in sys.argv[1:]:
    for text in pq.read_table(path, columns=["text"])["text"].to_pylist():
        for name, rule in rules.items():
            kept = rule.filter(Document(text=text, id=""))
            drops[name].append(kept is not True)
print(json.dumps(drops))
"""


def compare_speed(folder: Path, preset: str, mb: float) -> None:
    """Print what both took."""
    with tempfile.TemporaryDirectory() as logs:
        costs = {
            "ours": run_measured([sys.executable, "-m", "benchmarks.data.judge", str(folder), preset, str(WORKERS)]),
            "datatrove": run_script(THEIRS, folder, logs, preset, str(WORKERS)),
        }
        stats = json.loads((Path(logs) / "stats.json").read_text())[-1]["stats"]
    forwarded = stats.get("forwarded", 0)  # there is none where none is kept
    kept = {
        "ours": json.loads(costs["ours"].stdout.splitlines()[-1]).get("kept", 0),
        "datatrove": forwarded["total"] if isinstance(forwarded, dict) else forwarded,
    }
    for name, cost in costs.items():
        print(f"  {preset:8} {name:10} {row(cost, mb)}  kept {kept[name]:,}")
    ratio = costs["datatrove"].seconds / costs["ours"].seconds
    cpu = costs["datatrove"].cpu_seconds / costs["ours"].cpu_seconds
    print(f"  {preset:8} ratio      {ratio:.1f} wall, {cpu:.1f} CPU")


def row(cost: Cost, mb: float) -> str:
    """A cost in words."""
    speed = f"{mb / cost.seconds:7.2f} MB/s  {mb / cost.cpu_seconds:7.2f} MB/cpu-s"
    return f"{cost.seconds:7.1f} s  {speed}  {cost.peak_mb:6.0f} MB peak"


def compare_decisions(files: list[Path]) -> None:
    """Print, for each rule, the documents that each side drops and the share that they agree about."""
    theirs = pl.DataFrame(json.loads(run_script(DECISIONS, *files).stdout))
    texts = pl.concat([pl.read_parquet(path, columns=["text"])["text"] for path in files])
    print(f"  {'rule':34} {'ours':>6} {'theirs':>7} {'agree':>8}   of {len(texts):,} documents")
    for preset in ("gopher", "c4", "fineweb"):
        measures = measure(rewrite(texts, (preset,)), (preset,))
        for rule in RULES[preset]:
            dropped = measures.select(breaks(rule).fill_null(False)).to_series()
            if rule.name == "gopher_hashes":  # one rule there
                dropped |= measures.select(pl.col("ellipses_per_token") > rule.threshold).to_series()
            if rule.name in theirs:
                agree = (dropped == theirs[rule.name]).mean()
                print(f"  {rule.name:34} {dropped.sum():6} {theirs[rule.name].sum():7} {agree:8.2%}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", nargs="+", choices=("prose", "code"), default=["prose", "code"])
    parser.add_argument(
        "--presets", nargs="+", choices=("gopher", "c4", "fineweb"), default=["gopher", "c4", "fineweb"]
    )
    parser.add_argument("--mb", type=float, default=64)
    parser.add_argument("--agreement-mb", type=float, default=8)
    args = parser.parse_args()
    print(f"{machine()}, {WORKERS} processes")
    for kind in args.corpora:
        with tempfile.TemporaryDirectory(prefix="quality-") as temporary:
            table = corpus.prose(args.mb)[0] if kind == "prose" else corpus.code(args.mb)
            mb = table["text"].str.len_bytes().sum() / 1e6
            files = corpus.write_shards(table, Path(temporary) / kind, SHARDS)
            print(f"{kind}: {table.height:,} documents, {mb:.1f} MB")
            for preset in args.presets:
                compare_speed(Path(temporary) / kind, preset, mb)
            compare_decisions(files[: max(1, int(SHARDS * min(1, args.agreement_mb / mb)))])


if __name__ == "__main__":
    main()
