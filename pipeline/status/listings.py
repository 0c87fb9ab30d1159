"""Which files a directory held that now holds others: from DVC's cache, and from what was seen here before.

DVC's cache has a listing of each output, but none of a directory of code or of your data; those are kept in
work/listings/ whenever a stage starts and whenever they are seen to be what dvc.lock says.
"""

from __future__ import annotations

import configparser
import os
from contextlib import suppress
from pathlib import Path

from pipeline.status.content import Content, listing, read_listing
from pipeline.status.memory import note

KEPT = 200


class Listings:
    """Listings of directories, by DVC's md5."""

    def __init__(self, root: Path, work: Path) -> None:
        self._cache = dvc_cache(root) / "files" / "md5"
        self._own = work / "listings"

    def files(self, md5: str) -> dict[str, str] | None:
        """The md5 of each file of a directory as it was; None when that is not known."""
        return read_listing(self._cached(md5)) or read_listing(self._own / md5)

    def keep(self, content: Content) -> None:
        """Remember a directory, for the day when it has changed."""
        if content.files is None or self._cached(content.md5).exists():
            return
        file = self._own / content.md5
        note(file, listing(content.files))  # anew if it was there, so that it is among the latest
        with suppress(FileNotFoundError):  # another process may do the same
            latest_first = sorted(self._own.glob("*.dir"), key=lambda kept: kept.stat().st_mtime, reverse=True)
            for old in latest_first[KEPT:]:
                old.unlink()

    def in_cache(self, md5: str) -> bool:
        """Whether DVC's cache has a file, or a directory with all its files."""
        if not self._cached(md5).exists():
            return False
        files = read_listing(self._cached(md5)) if md5.endswith(".dir") else {}
        return files is not None and all(self._cached(file).exists() for file in files.values())

    def _cached(self, md5: str) -> Path:
        return self._cache / md5[:2] / md5[2:]


def dvc_cache(root: Path) -> Path:
    """The folder of DVC's cache: the last configuration that names one decides."""
    dvc = root / ".dvc"
    cache = dvc / "cache"
    for file in (*_configurations_of_the_machine(), dvc / "config", dvc / "config.local"):
        parser = configparser.RawConfigParser(strict=False)
        try:
            parser.read(file, encoding="utf-8")
        except (configparser.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}: not a configuration of DVC: {' '.join(str(error).split())}") from None
        if named := parser.get("cache", "dir", fallback="").strip("'\""):
            cache = file.parent / Path(named).expanduser()
    return cache


def _configurations_of_the_machine() -> tuple[Path, Path]:
    import platformdirs

    system = os.environ.get("DVC_SYSTEM_CONFIG_DIR") or platformdirs.site_config_dir("dvc", "iterative")
    user = os.environ.get("DVC_GLOBAL_CONFIG_DIR") or platformdirs.user_config_dir("dvc", "iterative")
    return Path(system, "config"), Path(user, "config")
