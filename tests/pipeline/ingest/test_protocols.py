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

from pipeline.sources.__main__ import main
from tests.pipeline.ingest.stage import ingest, manifest, params, quarantining, texts


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
        f"web: {{path: '{protocol}://data/web/*'}}\nmore: {{path: '{protocol}://data/held'}}\n"
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
