"""`python -m tests.pipeline.ingest.fuzz FOLDER FIRST COUNT`: damage valid files at random, ingest them, hand on what is
left to preprocess and tokenize; after each, what came in was written or dropped, by a reason.

A process of its own: what ends it ends no test, and leaves the seed as its last word.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from backports import zstd

from pipeline.params import IngestParams
from tests.pipeline.handing_on import hand_on
from tests.pipeline.ingest.stage import ingest, manifest, quarantining

PAIR = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "é"}]
HOSTILE = [
    b"\n",
    b'"',
    b"{",
    b"[" * 3000,
    b"\\ud800",
    b"\0",
    b"\xff",
    b"NaN",
    b"1e999",
    b'"text": ',
    b"\xef\xbb\xbf",
    b" " * 99,
]


ODD = [
    *(
        "word ",
        "the ",
        "a b c d e f ",
        "\n",
        "\r\n",
        "\t",
        " " * 9,
        "\0",
        "\x1b[0m",
        "\ufeff",
        "\u200b",
        "\u202e",
        "\xa0",
    ),
    *(
        "e\u0301",
        "\u0301" * 40,
        "\u00c3\u00a9",
        "🏳️‍🌈",
        "漢字",
        "\u2028",
        "\ufffd",
        "\uffff",
        "\U0010ffff",
        "٣٤",
        "İ",
        "ﬁ",
    ),
    *("<|im_end|>", "<|endoftext|>", "{{ messages }}", "a@b.co ", "8.8.8.8 ", "+1 415 555 0100 ", "x" * 300),
]
"""Valid in a record, of one kind and another."""


def originals(rng: random.Random) -> dict[str, bytes]:
    """A valid file of every format."""
    records: list[dict[str, Any]] = [
        rng.choice(
            [{"text": "é" * rng.randrange(300)}, {"messages": PAIR}, {"prompt": "p", "completion": "r", "group": 3}]
        )
        for _ in range(rng.randrange(1, 60))
    ]
    lines = "".join(json.dumps(record, ensure_ascii=rng.random() < 0.5) + "\n" for record in records).encode()
    words = [f"{number} " + "x" * rng.randrange(200) for number in range(rng.randrange(1, 300))]
    tables = {
        "text.parquet": pa.table({"text": words}),
        "turns.parquet": pa.table({"messages": [PAIR] * len(words), "group": words}),
    }
    files = {"a.jsonl": lines, "a.txt": lines}
    for name, table in tables.items():
        stream = io.BytesIO()
        if rng.random() < 0.5:
            version, page = rng.choice(["1.0", "2.6"]), rng.choice([100, 10**6])
            codec = rng.choice(["none", "snappy", "zstd", "gzip"])
            pq.write_table(table, stream, rng.choice([1, 10, 1000]), version, compression=codec, data_page_size=page)
        else:
            pl.from_arrow(table).write_parquet(stream)  # type: ignore[union-attr]
        files[name] = stream.getvalue()
    for suffix, compress in ((".gz", gzip.compress), (".zst", zstd.compress), (".bz2", bz2.compress)):
        files[f"b.jsonl{suffix}"] = compress(lines) + compress(lines)
    return files


def fine(rng: random.Random) -> bytes:
    """Good records of both kinds with odd texts: so many, and so different, that few settings leave a split empty."""

    def text() -> str:
        return "".join(rng.choice([rng.choice(ODD), f"{rng.getrandbits(32):x} "]) for _ in range(rng.randrange(1, 40)))

    records: list[dict[str, Any]] = [{"text": text()} for _ in range(40)]
    for _ in range(30):
        turns = [{"role": role, "content": text()} for role in ("user", "assistant") * rng.choice([1, 1, 2])]
        records.append({"messages": [{"role": "system", "content": text()}, *turns] if rng.random() < 0.2 else turns})
    return b"".join(json.dumps(record, ensure_ascii=rng.random() < 0.5).encode() + b"\n" for record in records)


def damage(data: bytes, rng: random.Random) -> bytes:
    """A few changes of the kinds that disks, networks and people make."""
    broken = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 30])):
        place = rng.randrange(len(broken) + 1)
        match rng.randrange(6):
            case 0:
                del broken[place:]
            case 1:
                del broken[place : place + rng.randrange(1, 50)]
            case 2:
                broken[place:place] = rng.choice(HOSTILE)
            case 3:
                broken[place : place + 4] = rng.randbytes(4)
            case 4:
                broken[place:place] = broken[rng.randrange(len(broken) + 1) :][:100]
            case _:
                for index in range(place, min(place + 3, len(broken))):
                    broken[index] ^= 1 << rng.randrange(8)
    return bytes(broken)


def main(folder: Path, first: int, count: int) -> None:
    """Damage, ingest and hand on `count` times."""
    through = 0
    for seed in range(first, first + count):
        print("seed", seed, flush=True)
        rng = random.Random(seed)
        source, out = folder / "in", folder / "out"
        shutil.rmtree(folder, ignore_errors=True)
        source.mkdir(parents=True)
        for name, data in originals(rng).items():
            (source / name).write_bytes(damage(data, rng) if rng.random() < 0.7 else data)
        (source / "fine.jsonl").write_bytes(fine(rng))
        sizes = {"max_record_mb": rng.choice([0.0003, 1]), "shard_mb": rng.choice([5e-4, 0.01, 4])}
        ingest(out, quarantining(source, **sizes))
        manifest(out)
        through += hand_on(out, folder / "on", rng)
        _check_lines(source / "a.jsonl", out, quarantining(source / "a.jsonl", **sizes))
    assert through >= count // 2, "most settings leave something to train on"


def _check_lines(file: Path, out: Path, settings: IngestParams) -> None:
    """Every line is a record, good or bad, but for those that are blank and within the limit."""
    with file.open("ab") as stream:
        stream.write(b'\n{"text": "fine"}')
    ingest(out, settings)
    limit = int(settings.max_record_mb * 1e6)
    lines = file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    assert manifest(out)["records_in"] == sum(1 for line in lines if line.strip() or len(line) + 1 > limit)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
