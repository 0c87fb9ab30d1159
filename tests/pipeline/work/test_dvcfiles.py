"""Files of DVC that a kill cut off: DVC's own reader decides what it would refuse."""

from __future__ import annotations

import fcntl
import io
from pathlib import Path

import pytest
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import dumps_yaml
from ruamel.yaml import YAML

from pipeline.work import keep_lock, mend
from pipeline.work.dvcfiles import BROKEN, DVC, KEPT


def entry(name: str) -> dict:
    out = {"path": f"data/{name}", "hash": "md5", "md5": f"{name:a<32}.dir", "size": 12, "nfiles": 3}
    params = {"params.yaml": {"make.lr": 1e-3, "make.source": "a: b", "make.names": ["x", None]}}
    return {"cmd": f"python -m {name}", "deps": [dict(out)], "params": params, "outs": [dict(out), out]}


WHOLE = dumps_yaml({"schema": "2.0", "stages": {name: entry(name) for name in ("first", "second", "third")}}).encode()


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    (tmp_path / DVC).mkdir(parents=True)
    (tmp_path / DVC / "lock").touch()
    (tmp_path / DVC / "rwlock.lock").touch()
    (tmp_path / "dvc.lock").write_bytes(WHOLE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def dvc_reads(lock: bytes) -> bool:
    try:
        COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe").load(io.BytesIO(lock)) or {})
    except Exception:  # of its YAML reader or of its schema
        return False
    return True


def test_wherever_it_is_cut_off_dvc_reads_what_is_there_afterwards(project):
    keep_lock()
    refused = 0
    for length in range(0, len(WHOLE) + 1, 7):
        cut = WHOLE[:length]
        Path("dvc.lock").write_bytes(cut)
        mended = mend()
        now = Path("dvc.lock").read_bytes()
        assert dvc_reads(now), cut[-80:]
        assert now == (WHOLE if mended else cut)
        refused += not dvc_reads(cut)
        assert mended or dvc_reads(cut)
    assert refused > 20


def test_before_the_first_stage_there_was_none(project):
    Path("dvc.lock").unlink()
    keep_lock()
    Path("dvc.lock").write_bytes(b"")
    assert mend() == ["dvc.lock"]
    assert not Path("dvc.lock").exists()


@pytest.mark.parametrize("length", [0, WHOLE.rindex(b"- path") + 4])
def test_what_is_cut_off_is_not_kept(project, length):
    keep_lock()
    Path("dvc.lock").write_bytes(WHOLE[:length])
    keep_lock()
    assert KEPT.read_bytes() == WHOLE


@pytest.mark.parametrize(
    "lock",
    [
        WHOLE[:-1],  # an editor's
        WHOLE.replace(b"    md5: ", b"    checksum: "),  # of a dependency elsewhere
        WHOLE.replace(b"\n  second:", b"\n   second:"),  # a mistake of somebody's
        WHOLE.replace(b"stages:", b"<<<<<<< HEAD\nstages:"),
    ],
)
def test_what_no_kill_did_stays(project, lock):
    keep_lock()
    Path("dvc.lock").write_bytes(lock)
    assert mend() == []
    keep_lock()
    assert mend() == []
    assert Path("dvc.lock").read_bytes() == lock
    assert dvc_reads(KEPT.read_bytes())


def test_what_was_put_right_is_kept_aside(project):
    keep_lock()
    cut = WHOLE[: WHOLE.index(b"cmd", len(WHOLE) // 3) + 4]
    Path("dvc.lock").write_bytes(cut)
    assert mend() == ["dvc.lock"]
    assert BROKEN.read_bytes() == cut


def test_without_a_copy_it_stays(project):
    Path("dvc.lock").write_bytes(b"")
    assert mend() == []
    assert Path("dvc.lock").read_bytes() == b""


@pytest.mark.parametrize("name", ["lock", "rwlock.lock"])
def test_while_another_dvc_writes_it_nothing_is_touched(project, name):
    keep_lock()
    Path("dvc.lock").write_bytes(b"")
    (DVC / "rwlock").write_bytes(b"{")
    with (DVC / name).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert mend() == []
    assert mend() == ["dvc.lock", str(DVC / "rwlock")]


def test_the_list_of_processes_is_begun_anew_only_where_it_is_cut_off(project):
    (DVC / "rwlock").write_bytes(b'{"read": {}}')
    assert mend() == []
    (DVC / "rwlock").write_bytes(b'{"rea')
    assert mend() == [str(DVC / "rwlock")]
    assert not (DVC / "rwlock").exists()
