"""s3:// through s3fs, against a real server of its protocol: the same code, the same records."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from backports import zstd

from pipeline.ingest import run
from pipeline.shards import Local
from pipeline.sources.__main__ import main
from pipeline.work import WorkFolder
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantine, quarantining, rows, texts
from tests.pipeline.sources.commands import follow

boto3 = pytest.importorskip("boto3")
pytest.importorskip("s3fs")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A server on a free port."""
    command = [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr
        address = next(line.split()[-1] for line in process.stderr if "Running on http" in line)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"{address}/moto-api/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket, and an environment in which s3:// is the server."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    made = boto3.resource("s3").create_bucket(Bucket="data")
    yield made
    made.objects.all().delete()
    made.delete()


def lines(*words: str) -> bytes:
    return "".join(json.dumps({"text": word}) + "\n" for word in words).encode()


def put(bucket: Any, name: str, content: bytes) -> None:
    bucket.put_object(Key=name, Body=content)


def catalog(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "sources.yaml").write_text(text)
    return folder


def test_objects_read_like_files(tmp_path: Path, bucket: Any) -> None:
    many = [f"{number} {'x' * (number % 70)}" for number in range(1500)]
    put(bucket, "web/a.jsonl", lines(*many))
    put(bucket, "web/b.jsonl.zst", zstd.compress(lines("b")) + zstd.compress(lines("c")))
    put(bucket, "web/deep/test/c.jsonl", lines("d"))
    put(bucket, "web/deep/", b"")
    put(bucket, "web/empty/", b"")
    put(bucket, "web/.hidden/e.jsonl", lines("passed over"))
    put(bucket, "held/test.txt", b"whole\n")
    pl.DataFrame({"text": many}).write_parquet(tmp_path / "x.parquet", row_group_size=500)
    put(bucket, "more/x.parquet", (tmp_path / "x.parquet").read_bytes())
    folder = catalog(
        tmp_path / "in", "web: {path: 's3://data/web/*'}\nmore: {path: ['s3://data/held', 's3://data/more']}\n"
    )
    main([str(folder)])
    ingest(tmp_path / "out", params(folder, shard_mb=0.03), workers=2)
    assert texts(tmp_path / "out") == [*many, "b", "c", "d", "whole\n", *many]
    assert manifest(tmp_path / "out")["sources"] == {"more": 1501, "web": 1503}
    found = {row[0]: row[1:4:2] for row in rows(tmp_path / "out", "documents")}
    assert found["s3://data/web/a.jsonl:1500"] == ("web", None)
    assert found["s3://data/web/deep/test/c.jsonl:1"] == ("web", "test")
    assert found["s3://data/held/test.txt:1"] == ("more", "test")


def test_the_error_for_an_address_has_the_command_that_helps(tmp_path: Path, bucket: Any) -> None:
    put(bucket, "web/a.jsonl", lines("a"))
    put(bucket, "web/b.txt", b"b")
    for uri, found in (("s3://data/web/*.jsonl", ["a"]), ("s3://data/web", ["a", "b"])):
        folder = tmp_path / str(len(found))
        follow(uri, folder)
        ingest(tmp_path / "out", params(folder))
        assert texts(tmp_path / "out") == found


def test_only_what_is_pinned_is_read(tmp_path: Path, bucket: Any) -> None:
    folder = catalog(tmp_path / "in", "web: {path: 's3://data/web/*.jsonl'}\n")
    with pytest.raises(SystemExit, match="'web': there is nothing at s3://data/web"):
        main([str(folder)])
    put(bucket, "web/a.jsonl", lines("a"))
    main([str(folder)])
    put(bucket, "web/b.jsonl", lines("came later"))
    ingest(tmp_path / "out", params(folder))
    assert texts(tmp_path / "out") == ["a"]
    put(bucket, "web/a.jsonl", lines("A"))
    for settings in (params(folder), quarantining(folder)):  # another object is no bad record
        with pytest.raises(ValueError, match=r"s3://data/web/a\.jsonl is not what sources\.lock\.json pins"):
            ingest(tmp_path / "out", settings)
    main([str(folder)])
    ingest(tmp_path / "out", params(folder))
    assert texts(tmp_path / "out") == ["A", "came later"]
    bucket.Object("web/a.jsonl").delete()
    with pytest.raises(ValueError, match=r"s3://data/web/a\.jsonl: there is no such object"):
        ingest(tmp_path / "out", quarantining(folder))


def test_damage_goes_into_quarantine_a_lost_server_does_not(
    tmp_path: Path, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, "a.jsonl.zst", zstd.compress(lines("a" * 100))[:-5])
    put(bucket, "b.jsonl", lines("b"))
    put(bucket, "c.parquet", b"")
    folder = catalog(tmp_path / "in", "web: {path: 's3://data/*'}\n")
    main([str(folder)])
    ingest(tmp_path / "out", quarantining(folder))
    manifest(tmp_path / "out")
    assert [(row["file"], row["reason"]) for row in quarantine(tmp_path / "out")] == [
        ("s3://data/a.jsonl.zst", "truncated"),
        ("s3://data/c.parquet", "empty"),
    ]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(ValueError, match=r"s3://data/a\.jsonl\.zst cannot be reached: EndpointConnectionError"):
        ingest(tmp_path / "out", quarantining(folder))
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_stopped_run_goes_on_with_the_objects_that_are_left(tmp_path: Path, bucket: Any) -> None:
    for number in range(4):
        put(bucket, f"{number}.jsonl", lines(f"text {number}") if number < 3 else b"{")
    folder = catalog(tmp_path / "in", "web: {path: 's3://data/*'}\n")
    main([str(folder)])
    settings, work = params(folder, shard_mb=1e-6), WorkFolder(tmp_path / "work")
    with pytest.raises(ValueError, match=r"s3://data/3\.jsonl:1: not JSON"):
        run.ingest(work, settings, executor=Local(1))
    put(bucket, "3.jsonl", lines("text 3"))
    main([str(folder)])
    for number in range(3):
        bucket.Object(f"{number}.jsonl").delete()
    run.ingest(work, settings, executor=Local(1))
    work_out = WorkFolder(tmp_path / "work").out
    assert texts(work_out) == [f"text {number}" for number in range(4)]
