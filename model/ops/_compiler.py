"""C for the CPU: compiled for this processor when first used, kept in the user's cache.

Plain C behind ctypes: it compiles in a second or two, where torch's headers take a minute and need ninja, and a call
costs less than one through torch's dispatcher. Its OpenMP is torch's own (one libgomp per process).
"""

import ctypes
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

FLAGS = (
    *("-std=c11", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-trapping-math", "-fno-math-errno"),  # else exponentials in a loop do not become vector instructions
)
SHARED = Path(__file__).with_name("c")
"""Headers of all."""

SECONDS_TO_COMPILE = 60


def load(name: str, folder: Path, functions: Iterable[str]) -> ctypes.CDLL | None:
    """The library of all C files of a folder, with these functions; None where there is no compiler, or, with a
    warning, where it fails.
    """
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        if not compiler or shutil.which(compiler[0]) is None:
            return None
        library = ctypes.CDLL(str(_compiled(name, folder, compiler)))
        if lacking := [function for function in functions if not hasattr(library, function)]:
            raise RuntimeError(f"what {' '.join(compiler)} made lacks {', '.join(lacking)}")  # not a compiler of C, say
        return library
    except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:  # no home, say
        warn(f"the C code for {name} could not be compiled ({getattr(error, 'stderr', '') or error})")
        return None


def warn(what: str) -> None:
    """Of what is wrong with the C code, which is not needed."""
    warnings.warn(f"{what}; the slower torch path is used", stacklevel=3)


def _compiled(name: str, folder: Path, compiler: list[str]) -> Path:
    files = sorted([*SHARED.glob("*.h"), *folder.glob("*.[ch]")])
    command = [*compiler, *FLAGS]
    parts = [*(file.read_bytes() for file in files), " ".join(command).encode(), _processor()]
    cache, stem = _cache(), f"{name}-{_digest(*parts)}"
    cache.mkdir(parents=True, exist_ok=True)
    for library in cache.glob(f"{stem}-*.so"):
        if library.stem == f"{stem}-{_digest(library.read_bytes())}":
            return library
        library.unlink(missing_ok=True)  # cut short, by a power cut say: to load it could end the process
    with tempfile.TemporaryDirectory(dir=cache) as room:
        draft = Path(room, f"{stem}.so")
        sources = [str(file) for file in files if file.suffix == ".c"]
        subprocess.run(
            [*command, "-I", str(SHARED), "-o", str(draft), *sources, "-lm"],
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_COMPILE,
        )
        return draft.replace(cache / f"{stem}-{_digest(draft.read_bytes())}.so")


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mamba2-pipeline")


def _processor() -> bytes:
    """What `-march=native` goes by: a cache may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(line for line in lines if line.startswith((b"model name", b"flags", b"Features", b"CPU ")))
