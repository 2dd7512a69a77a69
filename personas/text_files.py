"""Files of bytes and of text: what they are compressed by, and what their text is encoded in."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from personas.errors import TableError

COMPRESSED = (".gz", ".zst", ".bz2", ".xz")
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
# Bytes that are no UTF-8, as `surrogateescape` has them in text.
_NO_UTF8 = re.compile("[\udc80-\udcff]")


@contextmanager
def bytes_of(path: Path, compressed: str) -> Iterator[Any]:
    """A file's bytes, whatever it is compressed by."""
    opened: Any
    if compressed == ".zst":
        import pyarrow as pa

        opened = io.BufferedReader(pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))
    else:
        openers: dict[str, Callable[..., Any]] = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
        opened = openers[compressed](path, "rb")
    with opened as stream:
        yield stream


def text_of(stream: IO[bytes], source: str, encoding: str | None, *, newline: str) -> IO[str]:
    """A stream as text. Bytes that are no UTF-8 come as lone surrogates: they cost their own row (`no_text`)."""
    start = stream.peek(4)[:4] if hasattr(stream, "peek") else b""
    marked = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if encoding is None or (marked == "utf-8-sig" and codecs.lookup(encoding).name == "utf-8"):
        encoding = marked or "utf-8"
        if marked is None and b"\0" in start:
            raise TableError(source, "holds zero bytes: UTF-16 without its mark? Name its encoding, e.g. utf-16-le")
    errors = "surrogateescape" if encoding.lower().startswith(("utf-8", "utf8")) else "strict"
    return io.TextIOWrapper(stream, encoding, errors=errors, newline=newline)


def no_text(text: str) -> str | None:
    """Where a line holds bytes that are no text, and which; ``None``: it does not."""
    found = _NO_UTF8.search(text)
    if found is None:
        return None
    byte = len(text[: found.start()].encode("utf-8", "surrogateescape")) + 1
    remedy = "save the file as UTF-8, or name its encoding"
    return f"not UTF-8 at byte {byte} (0x{ord(found[0]) - 0xDC00:02x}); {remedy}"


def shown(text: str) -> str:
    """A line as it can be shown: bytes that are no text spelled out."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
