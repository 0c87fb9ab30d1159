"""Packing: seconds, memory and share of real tokens, by the number of records; tokens written per second, by format.

    python -m benchmarks.data.packing [--records 1000000 10000000] [--tokens 20000000]

Lengths of records are drawn as those of instruction data are spread: log-normal, median a fifth of a row. Each plan is
made in a fresh process; memory is what it adds (high-water mark of anonymous memory, files that are mapped left out).
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from benchmarks.data.anonymous import peak_memory
from benchmarks.machine import machine
from pipeline import mapped
from pipeline.params import TOKEN_FORMATS, LongConversations, LongDocuments
from pipeline.rows import NEVER, RESPONSE
from pipeline.shards import Local
from pipeline.tokenize.cutting import cut
from pipeline.tokenize.encoded import IDS, MASK, Encoded, join_encoded
from pipeline.tokenize.fitting import fewest_rows, fit
from pipeline.tokenize.pack import pack
from pipeline.tokenize.plan import draw_order


def draw_lengths(records: int, seqlen: int) -> np.ndarray:
    drawn = np.random.default_rng(0).lognormal(np.log(seqlen / 5), 0.8, records)
    return np.clip(drawn.astype(np.int64), 2, seqlen)


def plan(records: int, seqlen: int) -> None:
    """A line of the first table, of this (fresh) process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lengths = mapped.write(folder / "lengths.npy", "i8", [draw_lengths(records, seqlen)])
        order = draw_order(records, np.random.default_rng(0), folder / "order.npy")
        start = time.process_time()
        with peak_memory() as memory:
            rows = len(fit(lengths, seqlen, folder))
        seconds = time.process_time() - start
        start = time.process_time()
        cut(lengths, order, seqlen, folder)
        splitting = time.process_time() - start
        least, real = fewest_rows(lengths, seqlen), lengths.sum() / seqlen
    print(
        f"{records:10,} {seqlen:7,} {seconds:7.2f} s {memory.added_mb:6.0f} MB {real / rows:8.2%} {real / least:8.2%}"
        f" {splitting:7.2f} s",
        flush=True,
    )


def write_encoded(folder: Path, tokens: int, seqlen: int) -> Encoded:
    lengths = draw_lengths(tokens // (seqlen // 4), seqlen)
    rng = np.random.default_rng(1)
    folder.mkdir()
    mask = np.full(lengths.sum(), RESPONSE, dtype=np.uint8)
    mask[np.cumsum(lengths) - lengths] = NEVER
    rng.integers(0, 2048, lengths.sum()).astype(np.uint16).tofile(folder / IDS)
    mask.tofile(folder / MASK)
    np.save(folder / "lengths.npy", lengths)
    np.save(folder / "first_response.npy", np.ones_like(lengths))
    np.save(folder / "text_bytes.npy", 4 * lengths)
    return join_encoded([folder], 2048, folder / "joined")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--tokens", type=int, default=20_000_000)
    arguments = parser.parse_args()
    print(machine())
    print(f"{'records':>10} {'seqlen':>7} {'fit':>9} {'memory':>9} {'real':>8} {'at most':>8} {'cut':>9}", flush=True)
    context = multiprocessing.get_context("spawn")
    for records in arguments.records:
        for seqlen in (512, 8192):
            process = context.Process(target=plan, args=(records, seqlen))
            process.start()
            process.join()
    tokenizer = SimpleNamespace(vocab_size=2048, pad_id=0)
    print(f"\n{'formats':>24} {'fitted':>15} {'cut':>15}")
    with tempfile.TemporaryDirectory() as name:
        encoded = write_encoded(Path(name) / "encoded", arguments.tokens, 512)
        for formats in (["rows"], *(["rows", other] for other in TOKEN_FORMATS[1:])):
            rates = []
            for long in (LongConversations.truncate, LongDocuments.split):
                start = time.process_time()
                packed = pack(
                    encoded,
                    Path(name) / f"{long.name}-{formats[-1]}",
                    tokenizer,  # type: ignore[arg-type]
                    seqlen=512,
                    long=long,
                    rng=np.random.default_rng(0),
                    formats=formats,
                    executor=Local(1),
                )
                rates.append(packed.figures["tokens"] / (time.process_time() - start) / 1e6)
            print(f"{', '.join(formats):>24} " + " ".join(f"{rate:7.1f} Mtoken/s" for rate in rates), flush=True)


if __name__ == "__main__":
    main()
