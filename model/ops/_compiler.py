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
from pathlib import Path

FLAGS = (
    *("-std=c11", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-shared", "-fPIC"),
    *("-fno-trapping-math", "-fno-math-errno"),  # else exponentials in a loop do not become vector instructions
)
SHARED = Path(__file__).with_name("c")
"""Headers of all."""

SECONDS_TO_COMPILE = 60


def load(name: str, folder: Path) -> ctypes.CDLL | None:
    """The library of all C files of a folder; None where there is no compiler, or, with a warning, where it fails."""
    try:
        compiler = shlex.split(os.environ.get("CC") or "cc")
        if not compiler or shutil.which(compiler[0]) is None:
            return None
        library = _compiled(name, folder, compiler)
        try:
            return ctypes.CDLL(str(library))
        except OSError:  # damaged: once more
            library.unlink()
            return ctypes.CDLL(str(_compiled(name, folder, compiler)))
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
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    library = _cache() / f"{name}-{key}.so"
    if not library.exists():
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as room:
            draft = Path(room, library.name)
            sources = [str(file) for file in files if file.suffix == ".c"]
            subprocess.run(
                [*command, "-I", str(SHARED), "-o", str(draft), *sources, "-lm"],
                check=True,
                capture_output=True,
                text=True,
                timeout=SECONDS_TO_COMPILE,
            )
            os.replace(draft, library)
    return library


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mamba2-pipeline")


def _processor() -> bytes:
    """What `-march=native` goes by: a cache may be shared by machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_bytes().split(b"\n\n")[0].splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".encode()
    return b"\n".join(line for line in lines if line.startswith((b"model name", b"flags", b"Features", b"CPU ")))
