"""Stores other than s3: nothing here knows one; what a store calls the tag of an object is all that differs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from backports import zstd
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

from pipeline.sources import find_files
from pipeline.sources.__main__ import main
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantine, quarantining, texts


class Store(MemoryFileSystem):
    """Objects in memory under another protocol, with a tag beside what a store says of each."""

    tag: str

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        return super()._strip_protocol(str(path).replace(f"{cls.protocol}://", "memory://"))

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        found = super().info(path, **options)
        if found["type"] == "file":
            found[self.tag] = hashlib.md5(self.cat_file(path)).hexdigest()
        return found


class Google(Store):
    protocol = "gs"
    tag = "md5Hash"


class HuggingFace(Store):
    protocol = "hf"
    tag = "blob_id"


@pytest.fixture(params=["memory", "gs", "hf"])
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Of an empty store; gs and hf are the two above."""
    for store in (Google, HuggingFace):
        monkeypatch.setitem(_registry, store.protocol, store)
    yield request.param
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def lines(*words: str) -> bytes:
    return "".join(json.dumps({"text": word}) + "\n" for word in words).encode()


def test_objects_of_any_store_are_found_pinned_and_read(tmp_path: Path, protocol: str) -> None:
    system = fsspec.filesystem(protocol)
    system.pipe({"/data/web/a.jsonl": lines("a"), "/data/web/b.jsonl.zst": zstd.compress(lines("b", "c"))})
    system.pipe({"/data/web/deep/c.jsonl": lines("not matched"), "/data/held/test.txt": b"whole\n"})
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "sources.yaml").write_text(
        f"web: {{path: '{protocol}://data/web/*.jsonl*'}}\nmore: {{path: '{protocol}://data/held'}}\n"
    )
    main([str(folder)])
    pinned = json.loads((folder / "sources.lock.json").read_text())
    kinds = {name for found in pinned.values() for pin in found.values() for name in pin}
    assert kinds == {"size", "sha256" if protocol == "memory" else "etag"}
    ingest(tmp_path / "out", params(folder))
    assert sorted(texts(tmp_path / "out")) == ["a", "b", "c", "whole\n"]
    assert manifest(tmp_path / "out")["sources"] == {"more": 1, "web": 3}
    system.pipe("/data/web/a.jsonl", lines("A"))
    with pytest.raises(ValueError, match=rf"{protocol}://.*/data/web/a\.jsonl is not what sources\.lock\.json pins"):
        ingest(tmp_path / "out", quarantining(folder))
    main([str(folder)])
    system.rm("/data/held/test.txt")
    with pytest.raises(ValueError, match=rf"{protocol}://.*/data/held/test\.txt: there is no such object"):
        ingest(tmp_path / "out", quarantining(folder))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", "a.jsonl crawl-1/a.jsonl crawl-1/test/deep/b.jsonl crawl-2.jsonl test/c.jsonl"),
        ("*", "a.jsonl crawl-1/a.jsonl crawl-1/test/deep/b.jsonl crawl-2.jsonl test/c.jsonl"),
        ("**", "a.jsonl crawl-1/a.jsonl crawl-1/test/deep/b.jsonl crawl-2.jsonl test/c.jsonl"),
        ("crawl-*", "crawl-1/a.jsonl crawl-1/test/deep/b.jsonl crawl-2.jsonl"),
        ("*/test", "crawl-1/test/deep/b.jsonl"),
        ("**/a*", "a.jsonl crawl-1/a.jsonl"),
        ("crawl-1", "crawl-1/a.jsonl crawl-1/test/deep/b.jsonl"),
        (".h", ".h/d.jsonl"),
    ],
)
def test_a_pattern_means_in_a_store_what_it_means_on_a_disk(
    tmp_path: Path, protocol: str, pattern: str, expected: str
) -> None:
    names = ["a.jsonl", "crawl-1/a.jsonl", "crawl-1/test/deep/b.jsonl", "crawl-2.jsonl", "test/c.jsonl"]
    hidden = [".h/d.jsonl", ".e.jsonl", "crawl-1/.f/g.jsonl", "crawl-1/test/.h.jsonl"]
    folder, system = tmp_path / "in", fsspec.filesystem(protocol)
    folder.mkdir()
    found = []
    for name in names + hidden:
        system.pipe(f"/data/test/far/{name}", lines(name))
        (tmp_path / "test/far" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "test/far" / name).write_bytes(lines(name))
    for base in (f"{protocol}://data/test/far", f"{tmp_path}/test/far"):
        (folder / "sources.yaml").write_text(f"web: {{path: '{base}/{pattern}'}}\n")
        main([str(folder)])
        found.append([(file.name.partition("/far/")[2].lstrip("/"), file.split) for file in find_files(folder)])
    assert found[0] == found[1]
    assert [name for name, _ in found[0]] == expected.split()
    for name, split in found[0]:
        assert split == ("test" if name in ("crawl-1/test/deep/b.jsonl", "test/c.jsonl") else None)


def test_an_empty_object_is_what_an_empty_file_is(tmp_path: Path, protocol: str) -> None:
    names = ["a.jsonl", "b.jsonl.gz", "c.parquet", "d.txt", "e.txt.zst", "f.md.bz2"]
    stored = {f"{base}/{name}": b"" for base in ("in", "out") for name in names} | {"out/g.txt": b"whole\n"}
    fsspec.filesystem(protocol).pipe({f"/data/{name}": content for name, content in stored.items()})
    for name, content in stored.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    paths = [f"{protocol}://data/out", str(tmp_path / "out"), "*"]
    (tmp_path / "in/sources.yaml").write_text(f"all: {{path: {json.dumps(paths)}}}\n")
    main([str(tmp_path / "in")])
    ingest(tmp_path / "found", quarantining(tmp_path / "in"))
    assert texts(tmp_path / "found") == ["whole\n"] * 2
    found = [(row["file"].rpartition("/")[2], row["reason"], row["message"]) for row in quarantine(tmp_path / "found")]
    assert sorted(found) == [(name, "empty", "is empty: fill it or take it away") for name in names for _ in range(3)]
