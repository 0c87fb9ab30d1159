"""A file of a source, wherever it lies, and what keeps it from being read."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple, cast

from pipeline.sources.remote import is_uri, open_object

BUFFER = 1 << 20
REMOTE_BUFFER = 1 << 22
"""Bytes asked for at a time; a request to an object store has a price of its own."""


class Fault(NamedTuple):
    """Why a file cannot be read: a word to count by, and a sentence for people."""

    reason: str
    message: str


EMPTY = Fault("empty", "is empty: fill it or take it away")


@dataclass(frozen=True)
class File:
    """A file of a source."""

    location: str = field(metadata={"in_key": False})  # of pipeline.shards.keys: the hash or etag below stands for it
    """A path, or a URI that fsspec knows."""
    name: str
    """What the ids of its records begin with: relative to the source's folder, or as sources.yaml has it."""
    source: str
    split: str | None
    """The split that all its records belong to, if its name or sources.yaml says so."""
    size: int = 0
    """In bytes."""
    etag: str | None = None
    """What a remote object is pinned by: it is opened only while it has this."""
    sha256: str | None = None
    """What a file outside the folder is pinned by; to be compared once, before anything is read."""
    fault: Fault | None = None
    """Seen when it was found."""

    def open(self, buffer: int | None = None) -> BinaryIO:
        """Open it for reading; it can seek.

        Args:
            buffer: the bytes to ask for at a time, where few are read in each place; otherwise as many as pay.

        Raises:
            BadFileError: it cannot be read, now or later in the stream. This is the file's own trouble.
            ValueError: a remote object cannot be reached, or is not the one that was pinned.
        """
        if self.fault:
            raise BadFileError(self, *self.fault)
        if is_uri(self.location):
            remote = io.BufferedReader(_Guarded(open_object(self.location, self.etag), self), buffer or REMOTE_BUFFER)
            if not self.size and not remote.peek(1):  # a store that does not know a size says 0, too
                raise BadFileError(self, *EMPTY)
            return cast(BinaryIO, remote)
        try:
            return cast(
                BinaryIO, io.BufferedReader(_Guarded(open(self.location, "rb", buffering=0), self), buffer or BUFFER)
            )
        except OSError as error:
            raise _trouble(self, error) from None


class BadFileError(ValueError):
    """A file that cannot be read, or not to its end, because of what it is."""

    def __init__(self, file: File, reason: str, message: str) -> None:
        super().__init__(file, reason, message)
        self.file, self.reason, self.message = file, reason, message

    def __str__(self) -> str:
        return f"{self.file.location} {self.message}"


def unreadable(error: OSError) -> Fault:
    """The fault of a local file that cannot be opened, or read on."""
    return Fault("unreadable", f"cannot be read ({error.strerror or error}): mend it or take it away")


def _trouble(file: File, error: OSError) -> ValueError:
    """A local file is at fault itself; a remote one is not when the network is."""
    if is_uri(file.location):
        return ValueError(f"{file.location} cannot be read to its end ({error}): run again when it can be reached")
    return BadFileError(file, *unreadable(error))


class _Guarded(io.RawIOBase):
    """A stream whose failures say which file and are told apart from those of what is made of its bytes."""

    def __init__(self, stream: BinaryIO | io.FileIO, file: File) -> None:
        self._stream, self._file = stream, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        try:
            return self._stream.readinto(buffer)  # type: ignore[union-attr]
        except OSError as error:
            raise _trouble(self._file, error) from None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        self._stream.close()
        super().close()
