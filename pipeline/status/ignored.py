"""Which files DVC does not look at: .dvcignore, read as DVC reads it."""

from __future__ import annotations

from pathlib import Path

from pathspec import PathSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

FILE = ".dvcignore"
ALWAYS = (".hg/", ".git/", ".git", ".dvc/")


class Ignored:
    """The patterns of the .dvcignore in the root of the project; outside of the project nothing is ignored."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        file = self._root / FILE
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
        patterns = [line for line in lines if line and not line.startswith("#")]
        self._spec = PathSpec.from_lines(GitIgnoreSpecPattern, [*ALWAYS, *patterns])
        self._folders: dict[Path, bool] = {self._root: False}

    def folder(self, path: Path) -> bool:
        """Whether a folder is ignored, or one that it is in."""
        if path not in self._folders:
            self._folders[path] = self._root in path.parents and (
                self.folder(path.parent) or self._matches(f"{path.relative_to(self._root).as_posix()}/")
            )
        return self._folders[path]

    def file(self, path: Path) -> bool:
        """Whether a file is ignored, or a folder that it is in."""
        return self._root in path.parents and (
            self.folder(path.parent) or self._matches(path.relative_to(self._root).as_posix())
        )

    def _matches(self, relative: str) -> bool:
        return self._spec.match_file(relative)
