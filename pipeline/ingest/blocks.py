"""The bytes of a file as a stream of blocks, decompressed if its name says that it is compressed.

Concatenated gzip members, bzip2 streams and zstd frames are one stream. What comes from a compressed file is
bounded: one whose content is far larger than itself is taken for a bomb.
"""

from __future__ import annotations

import bz2
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import BinaryIO, Protocol

from pipeline.ingest.pieces import Bounds
from pipeline.sources import BadFileError, File

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

BLOCK = 1 << 18
COMPRESSED_BLOCK = 1 << 14
"""What is left of it is copied at the end of each member, of which there may be very many."""


class Decompressor(Protocol):
    """Of one member, stream or frame, as bz2 and zstd have it."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Member:
    """Of gzip, which zlib reads in another form."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        self._full = False

    @property
    def eof(self) -> bool:
        return self._member.eof

    @property
    def needs_input(self) -> bool:
        return not (self._member.eof or self._member.unconsumed_tail or self._full)

    @property
    def unused_data(self) -> bytes:
        return self._member.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        block = self._member.decompress(self._member.unconsumed_tail + data, max_length)
        self._full = len(block) == max_length  # more of it may be held back, without a byte left to read
        return block


def _framed(new: Callable[[], Decompressor], padding: bytes = b"") -> Callable[[BinaryIO], Iterator[bytes]]:
    """One after another, each with the `padding` that may follow it.

    The library's own file objects pass over what is damaged at the start of a later frame, and raise at the end of
    what is cut short without what came before; this does neither.
    """

    def read(stream: BinaryIO) -> Iterator[bytes]:
        decompressor, data = new(), stream.read(COMPRESSED_BLOCK)
        while data or not decompressor.needs_input:
            if block := decompressor.decompress(data, BLOCK):
                yield block
            if decompressor.eof:
                data = decompressor.unused_data
                while not (data := data.lstrip(padding)):
                    if not (data := stream.read(COMPRESSED_BLOCK)):
                        return
                decompressor = new()
            else:
                data = stream.read(COMPRESSED_BLOCK) if decompressor.needs_input else b""
        raise EOFError

    return read


COMPRESSIONS: dict[str, Callable[[BinaryIO], Iterator[bytes]]] = {
    ".gz": _framed(_Member, padding=b"\0"),  # as the program gzip takes it, of tapes
    ".zst": _framed(zstd.ZstdDecompressor),
    ".bz2": _framed(bz2.BZ2Decompressor),
}
"""How a compressed file is read, by the extension of its name."""


def compression(name: str) -> str:
    """The extension that says how a file is compressed; empty if it is not."""
    suffix = PurePath(name).suffix.lower()
    return suffix if suffix in COMPRESSIONS else ""


def read_blocks(file: File, start: int, bounds: Bounds) -> Iterator[bytes]:
    """The bytes of `file` from `start` on (0 in a compressed one), decompressed.

    Raises:
        BadFileError: it cannot be read; it ends too early; it is damaged; it is a bomb.
    """
    with file.open() as stream:
        if suffix := compression(file.name):
            yield from _bounded(file, COMPRESSIONS[suffix](stream), bounds)
        else:
            stream.seek(start)
            while block := stream.read(BLOCK):
                yield block


def bomb(file: File, bounds: Bounds) -> BadFileError:
    """What holds more than its size lets expect."""
    return BadFileError(
        file,
        "bomb",
        f"holds more than {bounds.expansion:g} times its {file.size:,} bytes: "
        "take it away, or raise ingest.max_expansion if you trust it",
    )


def _bounded(file: File, blocks: Iterator[bytes], bounds: Bounds) -> Iterator[bytes]:
    most = max(bounds.record_bytes, bounds.expansion * file.size)
    total = 0
    try:
        for block in blocks:
            total += len(block)
            if total > most:
                raise bomb(file, bounds)
            yield block
    except EOFError:
        message = f"is cut short, {total:,} bytes into what it holds: bring the whole file"
        raise BadFileError(file, "truncated", message) from None
    except (zlib.error, OSError, zstd.ZstdError) as error:
        remedy = "bring a whole file"
        if "too much memory" in str(error):  # nothing else tells it apart
            remedy += ", or, if it is one of `zstd --long`, compress it anew with a window of 128 MiB at most"
        message = f"is damaged, {total:,} bytes into what it holds ({error}): {remedy}"
        raise BadFileError(file, "damaged", message) from None
