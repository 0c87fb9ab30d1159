"""Compressed files read as what they hold, in memory that does not grow with it; a broken one says so."""

import bz2
import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from backports import zstd

from pipeline.ingest.blocks import BLOCK, COMPRESSIONS, read_blocks
from pipeline.ingest.pieces import Bounds
from pipeline.sources import BadFileError, File
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantine, quarantining, rows, texts, write_jsonl

CHECKED = {zstd.CompressionParameter.checksum_flag: 1}  # as the program zstd does, unless told otherwise
COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": lambda data: zstd.compress(data, options=CHECKED),
}
BOUNDS = Bounds(record_bytes=10**6, expansion=200)


def file_of(path: Path, content: bytes) -> File:
    path.write_bytes(content)
    return File(str(path), path.name, "input", None, len(content))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_it_holds_what_the_plain_file_holds(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(0)
    records = [{"text": "".join(rng.choices("abé \n", k=rng.choice([1, 20, 3000])))} for _ in range(300)]
    plain = write_jsonl(tmp_path / "plain" / "a.jsonl", records).read_bytes()
    (tmp_path / "packed").mkdir()
    third = len(plain) // 3
    members = (plain[:third], b"", plain[third : 2 * third], plain[2 * third :])
    (tmp_path / "packed" / f"a.jsonl{suffix}").write_bytes(b"".join(map(COMPRESS[suffix], members)))
    for name, workers in (("plain", 1), ("packed", 2)):
        ingest(tmp_path / f"{name}-out", params(tmp_path / name, shard_mb=0.02), workers=workers)
        manifest(tmp_path / f"{name}-out")
    assert texts(tmp_path / "packed-out") == texts(tmp_path / "plain-out") == [record["text"] for record in records]
    ids = [row[0] for row in rows(tmp_path / "packed-out", "documents")]
    assert ids == [f"a.jsonl{suffix}:{line}" for line in range(1, 301)]
    assert len(list((tmp_path / "packed-out").glob("documents-*"))) > 5


@pytest.mark.parametrize("suffix", ["", *COMPRESS])
def test_a_long_text_is_cut_at_line_ends_alike_however_it_is_kept(tmp_path: Path, suffix: str) -> None:
    text = "".join(f"line {number} {'x' * (number % 50)}\n" for number in range(20_000)).encode()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / f"a.txt{suffix}").write_bytes(COMPRESS[suffix](text) if suffix else text)
    found = {}
    for shard_mb in (0.05, 0.3, 4):
        out = tmp_path / f"out-{shard_mb}"
        ingest(out, params(tmp_path / "in", shard_mb=shard_mb, max_record_mb=0.1), workers=1)
        assert "".join(texts(out)).encode() == text
        found[shard_mb] = texts(out)
    documents = found[4]
    assert found[0.05] == found[0.3] == documents
    assert len(documents) == -(-len(text) // 100_000)
    assert all(part.endswith("\n") and len(part) < 100_100 for part in documents)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_cut_short_anywhere_or_changed_anywhere_is_never_passed_over(tmp_path: Path, suffix: str) -> None:
    rng = random.Random(0)
    text = bytes(rng.choices(b"abcdefgh\n", k=400))
    whole = COMPRESS[suffix](text[:200]) + COMPRESS[suffix](text[200:])
    seen = set()
    for cut in range(1, len(whole)):
        try:
            found = b"".join(read_blocks(file_of(tmp_path / f"a{suffix}", whole[:cut]), 0, BOUNDS))
            assert found == text[:200]  # exactly the first member
            assert cut == len(COMPRESS[suffix](text[:200]))
        except BadFileError as error:
            seen.add(error.reason)
    assert "truncated" in seen
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << rng.randrange(8)
        try:
            found = b"".join(read_blocks(file_of(tmp_path / f"a{suffix}", bytes(broken)), 0, BOUNDS))
            assert found == text  # a bit of a header that says nothing of the content
        except BadFileError as error:
            seen.add(error.reason)
    assert seen == {"truncated", "damaged"}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_what_was_read_before_the_damage_stays(tmp_path: Path, suffix: str) -> None:
    whole = COMPRESS[suffix](b"".join(b'{"text": "%d"}\n' % number for number in range(200)))
    cut = {".gz": 5, ".bz2": 5, ".zst": 3}[suffix]  # of the checksum: all of the text is there
    (tmp_path / "in").mkdir()
    for damaged, reason in (
        (whole + b"garbage", "damaged"),
        (whole + whole[:5], "truncated"),
        (whole[:-cut], "truncated"),
    ):
        (tmp_path / "in" / f"a.jsonl{suffix}").write_bytes(damaged)
        ingest(tmp_path / "out", quarantining(tmp_path / "in"))
        assert texts(tmp_path / "out") == [str(number) for number in range(200)]
        assert manifest(tmp_path / "out")["quarantined"] == {reason: 1}


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK])
def test_gzip_of_any_length_and_with_padding(tmp_path: Path, size: int) -> None:
    """What zlib holds back when a block is full is not lost at the end of a file; a tape's zeros are no damage."""
    content = random.Random(size).randbytes(size // 3) * 3
    for data in (content, b"x" * size):
        member = gzip.compress(data)
        whole = member + bytes(2 * BLOCK - len(member) % BLOCK) + member + b"\0"
        assert b"".join(read_blocks(file_of(tmp_path / "a.gz", whole), 0, BOUNDS)) == gzip.decompress(whole)


@pytest.mark.parametrize("suffix", COMPRESS)
def test_the_end_of_a_member_copies_little(suffix: str) -> None:
    """What is left of a block is copied at each, so that the sizes of blocks and of what follows would multiply."""
    stream = io.BytesIO(COMPRESS[suffix](b"x") + COMPRESS[suffix](b"") * 20_000)
    assert next(COMPRESSIONS[suffix](stream)) == b"x"
    assert stream.tell() <= 1 << 14


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_bomb_is_an_error_or_one_entry(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in"
    write_jsonl(source / "b.jsonl", [{"text": "fine"}])
    line = json.dumps({"text": "x" * 1000}).encode() + b"\n"
    (source / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](line * 5000))
    with pytest.raises(ValueError, match=rf"a\.jsonl\{suffix} holds more than 20 times its .*ingest\.max_expansion"):
        ingest(tmp_path / "out", params(source, max_record_mb=0.01, max_expansion=20))
    ingest(tmp_path / "out", quarantining(source, max_record_mb=0.01, max_expansion=20))
    assert manifest(tmp_path / "out")["quarantined"] == {"bomb": 1}
    assert quarantine(tmp_path / "out")[0]["file"] == f"a.jsonl{suffix}"
    assert texts(tmp_path / "out")[-1] == "fine"
    ingest(tmp_path / "out", params(source, max_record_mb=10, max_expansion=1))
    assert manifest(tmp_path / "out")["records_in"] == 5001


def test_a_window_that_takes_too_much_memory_has_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, log in (("a", 27), ("b", 28)):
        stream = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
        content = stream.compress(b'{"text": "a"}\n') + stream.flush()
        (tmp_path / "in" / f"{name}.jsonl.zst").write_bytes(content)
    ingest(tmp_path / "out", quarantining(tmp_path / "in"))
    assert manifest(tmp_path / "out")["records"]["documents"] == 1
    (entry,) = quarantine(tmp_path / "out")
    assert (entry["file"], entry["reason"]) == ("b.jsonl.zst", "damaged")
    assert "compress it anew" in entry["message"]


def test_compressed_parquet_is_no_format(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.gz").write_bytes(gzip.compress(b"PAR1"))
    with pytest.raises(ValueError, match=r"a\.parquet\.gz: unknown format .*all but \.parquet"):
        ingest(tmp_path / "out", params(tmp_path / "a.parquet.gz"))
