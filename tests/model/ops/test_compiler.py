"""What the C code's cache may hold, and a compiler may make: never a process's end."""

import os
import shlex
import shutil
import warnings
from pathlib import Path

import pytest

from model.ops import _compiler

NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which(shlex.split(os.environ.get("CC") or "cc")[0]) is None, reason="no C compiler here"
)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of C; the cache is another."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "one.c").write_text("int one(void) { return 1; }\n")
    return folder


@NEEDS_COMPILER
@pytest.mark.parametrize("left", [0, 100, 4096, -1])
def test_a_library_that_was_cut_short_is_compiled_anew(code: Path, left: int) -> None:
    """A power cut may leave it so; to call what lies beyond its end is a bus error."""
    name = f"cut-{left}"
    whole = _compiler._compiled(name, code, ["cc"]).read_bytes()
    (library,) = (code.parent / "cache").rglob("*.so")
    library.write_bytes(whole[:left])
    assert _compiler._compiled(name, code, ["cc"]).read_bytes() == whole
    assert _compiler.load(name, code, ["one"]).one() == 1


@NEEDS_COMPILER
def test_a_library_without_its_functions_is_left(code: Path) -> None:
    with pytest.warns(UserWarning, match="lacks two"):
        assert _compiler.load("lacking", code, ["one", "two"]) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert _compiler.load("lacking", code, ["one"]) is not None
