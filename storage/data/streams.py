"""Opens a file's bytes, unpacked and within bounds; says what a file is by its first bytes."""

import io
from pathlib import Path

import pyarrow as pa

CHUNK_BYTES = 1 << 20
GZIP = b"\x1f\x8b"
TAR, TAR_AT = b"ustar", 257  # offset of the mark in the first header
# a month of csv shrinks to a tenth by gzip; what unpacks to more than this is no month
MAX_GROWTH, MAX_UNPACKED = 100, 256 << 20
KINDS = (
    (
        b"version https://git-lfs.github.com/",
        "a Git LFS pointer, for which `git lfs pull` fetches the file",
    ),
    (b"<!doctype html", "an HTML page, as servers send for an error or a login"),
    (b"<html", "an HTML page, as servers send for an error or a login"),
    (b"<?xml", "an XML page, as stores send for an error"),
    (b"PK\x03\x04", "a zip: unpack it"),
    (GZIP, "packed by gzip: unpack it"),
    (b"BZh", "packed by bzip2: unpack it"),
    (b"\xfd7zXZ", "packed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "packed by zstd: unpack it"),
    (b"PAR1", "parquet: name it .parquet"),
    (b"PARE", "encrypted parquet: write it without encryption"),
)


class BoundedStream(io.RawIOBase):
    """A stream that raises an error once it is longer than allowed."""

    def __init__(self, stream: pa.NativeFile, max_bytes: int) -> None:
        self._stream, self._left, self._max_bytes = stream, max_bytes, max_bytes

    def readable(self) -> bool:
        """Return True: the stream can be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Read some bytes; a read of everything stops one byte beyond the bound.

        Raises:
            pa.ArrowInvalid: the stream is longer than allowed.
        """
        # if a read fails, pyarrow leaks the bytes object that it allocated, but not a buffer
        content = self._stream.read_buffer(self._left + 1 if size < 0 else size).to_pybytes()
        self._left -= len(content)
        if self._left < 0:
            raise pa.ArrowInvalid(f"it unpacks to more than {self._max_bytes:,} bytes")
        return content

    def close(self) -> None:
        """Close the stream and its file."""
        self._stream.close()
        super().close()


def max_unpacked_bytes(n_bytes: int) -> int:
    """Return the most bytes to which n_bytes may unpack."""
    return MAX_UNPACKED + MAX_GROWTH * n_bytes


def open_bytes(path: Path, *, gzipped: bool) -> pa.NativeFile | BoundedStream:
    """Open a file; unpack it, within bounds, if it is packed by gzip."""
    if not gzipped:
        return pa.input_stream(str(path), compression=None)
    max_bytes = max_unpacked_bytes(path.stat().st_size)
    return BoundedStream(pa.input_stream(str(path), compression="gzip"), max_bytes)


def is_gzipped(path: Path, name: str) -> bool:
    """Whether a csv is packed by gzip, by its name or its first bytes."""
    if name.lower().endswith(".gz"):
        return True
    with pa.input_stream(str(path), compression=None) as stream:
        return bool(stream.read(len(GZIP)) == GZIP)


def guess_kind(head: bytes) -> str:
    """Say what a file is by its first bytes; empty if that is not known."""
    if head[TAR_AT:].startswith(TAR):
        return "a tar: unpack it"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:64].lower()
    known = (what for begin, what in KINDS if start.startswith(begin.lower()))
    return next(known, "")
