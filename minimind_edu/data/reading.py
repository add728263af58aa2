"""Opening a data file with care, and its lines, or the items of its JSON array, as text.

A fault of the whole file (missing, compressed, empty, in another encoding) raises `DataError` at once. A
fault of one line is handed on in place of the text, as a `BadRecord`.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from minimind_edu.data.errors import file_error
from minimind_edu.data.validation import BadRecord, parse_object

RECORD_SUFFIXES = (".jsonl", ".json")
TEXT_SUFFIXES = (".txt", ".md")
MAX_LINE_BYTES = 64 * 2**20  # a longer line is a mistake, and would not fit into memory as objects
UTF8_BOM = b"\xef\xbb\xbf"
_SPACE = b" \t\r\n"  # what JSON allows between values

# First bytes of files that are no text, and what to do about them.
MAGIC = (
    (b"\x1f\x8b", "is compressed (gzip): unpack it first"),
    (b"PK\x03\x04", "is compressed (zip): unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed (zstd): unpack it first"),
    (b"BZh", "is compressed (bzip2): unpack it first"),
    (b"\xfd7zXZ\0", "is compressed (xz): unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "is compressed (7z): unpack it first"),
    (b"\x04\x22\x4d\x18", "is compressed (lz4): unpack it first"),
    (b"Rar!", "is compressed (rar): unpack it first"),
    (b"PAR1", "is a Parquet file: convert it to JSONL first"),
    (b"ARROW1", "is an Arrow file: convert it to JSONL first"),
    (b"version https://git-lfs", "is only a Git LFS pointer: fetch the data with `git lfs pull`"),
    (b"\xff\xfe\0\0", "is UTF-32, not UTF-8: save it as UTF-8"),
    (b"\0\0\xfe\xff", "is UTF-32, not UTF-8: save it as UTF-8"),
    (b"\xff\xfe", "is UTF-16, not UTF-8: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16, not UTF-8: save it as UTF-8"),
)


@contextmanager
def open_data_file(path: str | os.PathLike, name: str | None = None) -> Iterator[BinaryIO]:
    """Open a data file after looking at what it is; it is positioned at its start (behind a byte order mark).

    Args:
        path: the file.
        name: what to call it in messages; the path, unless the file was downloaded.

    Raises:
        DataError: there is no such file, or it cannot hold records.
    """
    name = name or os.fspath(path)
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise file_error(name, "is a folder: name a file in it")
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            raise file_error(name, "is not a regular file")
        with open(path, "rb") as file:
            _check_start(file, name)
            yield file
    except FileNotFoundError:
        raise file_error(name, "no such file") from None
    except PermissionError:
        raise file_error(name, "no permission to read it") from None
    except OSError as error:
        raise file_error(name, f"cannot be read ({error.strerror or error})") from None
    except ValueError as error:
        if "null byte" in str(error) or "null character" in str(error):
            raise file_error(ascii(name), "is no valid file name") from None
        raise


def _check_start(file: BinaryIO, name: str) -> None:
    start = file.read(4096)
    if not start.removeprefix(UTF8_BOM):
        raise file_error(name, "the file is empty")
    for magic, what in MAGIC:
        if start.startswith(magic):
            raise file_error(name, what)
    suffix = Path(name).suffix.lower()
    if suffix not in RECORD_SUFFIXES + TEXT_SUFFIXES:
        known = ", ".join(RECORD_SUFFIXES + TEXT_SUFFIXES)
        raise file_error(name, f"unknown file type {suffix or '(no extension)'!r}; known are {known}")
    # Latin text in UTF-16 without a mark: every other byte is zero.
    if len(start) >= 4 and (not any(start[0:64:2]) or not any(start[1:64:2])) and any(start):
        raise file_error(name, "is UTF-16 or UTF-32, not UTF-8: save it as UTF-8")
    if suffix in RECORD_SUFFIXES and start.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise file_error(name, "is a web page, not data: the download went wrong")
    file.seek(len(UTF8_BOM) if start.startswith(UTF8_BOM) else 0)


def content_digest(file: BinaryIO) -> str:
    """SHA-256 of the whole file, in hex; the position stays where it was."""
    position = file.tell()
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(position)
    return digest


class LineReader:
    """Iterates over the lines of a file as `(number, text or BadRecord, bytes read so far)`.

    Lines count from 1 and keep their "\\n"; "\\r\\n" becomes "\\n". Only one line is in memory.

    Args:
        file: from `open_data_file`.
        split_long_lines: hand out a line in parts (with the same number) instead of refusing it when it is
            long.

    Attributes:
        start: where in the file that which was handed out last begins, in bytes.
    """

    def __init__(self, file: BinaryIO, split_long_lines: bool = False) -> None:
        self.file, self.split_long_lines = file, split_long_lines
        self.limit = 2**16 if split_long_lines else MAX_LINE_BYTES
        # What is read is hashed again, to notice a file that changes between the passes over it.
        self.start = position = file.tell()
        file.seek(0)
        self._digest = hashlib.sha256(file.read(position))

    def content_digest(self) -> str:
        """SHA-256 of what has been read, in hex."""
        return self._digest.hexdigest()

    def __iter__(self) -> Iterator[tuple[int, str | BadRecord, int]]:
        number, offset = 1, self.file.tell()
        while raw := self._read(self.limit):
            self.start = offset
            whole = raw.endswith(b"\n") or len(raw) < self.limit
            if not whole and self.split_long_lines:
                raw += self._rest_of_character(raw)
            elif not whole:
                offset += len(raw) + self._skip_line()
                yield number, BadRecord(f"the line is longer than {self.limit >> 20} MB"), offset
                number += 1
                continue
            yield number, _decode(raw, offset), offset + len(raw)
            offset += len(raw)
            number += raw.endswith(b"\n")

    def begins_with(self, mark: bytes) -> bool:
        """Whether `mark` (one byte) is the next thing in the file that is not white space; nothing is
        read."""
        position = self.file.tell()
        while (start := self.file.read(4096)) and not start.strip():
            pass
        self.file.seek(position)
        return start.lstrip().startswith(mark)

    def chunks(self) -> Iterator[bytes]:
        """What is left of the file, 64 kB at a time."""
        while raw := self.file.read(2**16):
            self._digest.update(raw)
            yield raw

    def _read(self, limit: int) -> bytes:
        raw = self.file.readline(limit)
        self._digest.update(raw)
        return raw

    def _skip_line(self) -> int:
        skipped = 0
        while raw := self._read(2**20):
            skipped += len(raw)
            if raw.endswith(b"\n"):
                break
        return skipped

    def _rest_of_character(self, raw: bytes) -> bytes:
        """What to read on so that a part ends neither inside a UTF-8 character nor between "\\r" and
        "\\n"."""
        rest = b""
        for _ in range(4):
            following = self.file.peek(1)[:1] if hasattr(self.file, "peek") else b""
            inside = following and (following[0] & 0xC0) == 0x80
            if not inside and not ((raw + rest).endswith(b"\r") and following == b"\n"):
                break
            rest += self._read(1)
        return rest


class ArrayReader:
    """Iterates over the items of a file that is one JSON array, as `LineReader` does over lines.

    An item's number is the line where it begins; only one item is in memory. Where an item ends is found by
    counting brackets outside of strings, which works on bytes, since the bytes of a longer UTF-8 character
    never look like a bracket. Whether an item is right JSON is for the caller to see: `[1 2, 3}]` has the
    items `1 2` and `3}`.

    Args:
        reader: of a file that `begins_with(b"[")`; its `start` is kept up to date.
    """

    # What matters inside of an item and between items, and how far a string goes (a backslash hides a quote).
    _INSIDE, _BETWEEN = re.compile(rb'["{}\[\]]'), re.compile(rb'["{}\[\],]')
    _STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)

    def __init__(self, reader: LineReader) -> None:
        self.reader, self._is_open = reader, False  # whether an item has begun a string or a bracket

    def __iter__(self) -> Iterator[tuple[int, str | BadRecord, int]]:
        line, offset, count, closed = 1, self.reader.file.tell(), 0, False
        for span, size, line_ends, mark in self._spans():
            text = span.strip(_SPACE)
            before = len(span) - len(span.lstrip(_SPACE))
            number, start = line + span.count(b"\n", 0, before), offset + before
            self.reader.start = start
            line, offset = line + line_ends, offset + size + len(mark)
            is_cut = mark == b"" and not closed
            if closed:
                if text or size > len(span):
                    yield number, BadRecord("there is text behind the end of the array"), offset
            elif size > len(span):
                yield number, BadRecord(f"the item is longer than {MAX_LINE_BYTES >> 20} MB"), offset
            elif text and is_cut and self._is_open:
                yield number, _cut_off(_decode(text, start)), offset
                return
            elif text:
                yield number, _decode(text, start), offset
            elif mark == b"," or (mark == b"]" and count > 1):
                place = "before a comma" if mark == b"," else "behind the last comma"
                yield number, BadRecord(f"malformed JSON: no item {place}"), offset
            if is_cut:
                yield line, BadRecord("the array's closing bracket is missing: the file is cut off"), offset
            count, closed = count + 1, closed or mark == b"]"

    def _spans(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        """All of the file cut at the array's own brackets and commas, as `(bytes, size, line ends in it, what
        follows)`; nothing follows the last. A span that is too long is left out."""
        parts, size, line_ends = [], 0, 0
        for piece, mark in self._pieces():
            size, line_ends = size + len(piece), line_ends + piece.count(b"\n")
            if size <= MAX_LINE_BYTES:
                parts.append(piece)
            elif size - len(piece) <= MAX_LINE_BYTES:
                # Only the space before the item is kept, which tells the line where it begins.
                head = b"".join([*parts, piece])
                parts = [head[: len(head) - len(head.lstrip(_SPACE))]]
            if mark is not None:
                yield b"".join(parts), size, line_ends, mark
                parts, size, line_ends = [], 0, 0

    def _pieces(self) -> Iterator[tuple[bytes, bytes | None]]:
        """The same in smaller pieces: None follows where a span goes on in the next piece."""
        depth, in_string, escaped, closed = -1, False, False, False
        for chunk in self.reader.chunks():
            begin = place = 0
            while place < len(chunk) and not closed:
                if in_string:
                    place, escaped = self._STRING.match(chunk, place + escaped).end(), False
                    if place < len(chunk):
                        in_string = escaped = chunk[place : place + 1] != b'"'  # else a last, lone backslash
                    place += 1
                    continue
                found = (self._INSIDE if depth else self._BETWEEN).search(chunk, place)
                if found is None:
                    break
                mark, place = found[0], found.end()
                is_own = mark == b"[" if depth < 0 else depth == 0 and mark in b",]"
                if is_own:
                    yield chunk[begin : found.start()], mark
                    begin, closed = place, mark == b"]"
                in_string = mark == b'"'
                depth += (mark in b"[{") - (mark in b"]}" and depth > 0)
            self._is_open = in_string or depth > 0
            yield chunk[begin:], None
        yield b"", b""


def record_texts(reader: LineReader, name: str) -> Iterator[tuple[int, str | BadRecord, int]]:
    """The texts of a file's records, as `LineReader` gives them: the lines of JSONL that are not blank, or
    the items of a JSON array.

    Args:
        name: what to call the file in messages.

    Raises:
        DataError: the file is laid out in another way, so that every line would be faulty.
    """
    if reader.begins_with(b"["):
        yield from ArrayReader(reader)
        return
    first = True
    for number, text, read in reader:
        if isinstance(text, str) and not text.strip():
            continue
        if first and isinstance(text, str) and text.strip() == "{":
            what = "a record is spread over several lines: write each on one line (JSONL), or all as an array"
            raise file_error(name, what, number)
        first = False
        yield number, text, read


def parse_record(text: str) -> dict[str, Any]:
    """`parse_object` of what `record_texts` gives, with other words for a last line that was cut off."""
    try:
        return parse_object(text)
    except BadRecord as error:
        is_cut = text.lstrip().startswith("{") and not text.endswith("\n") and not text.rstrip().endswith("}")
        raise BadRecord(f"the last line is cut off ({error})") if is_cut else error from None


def _cut_off(text: str | BadRecord) -> BadRecord:
    """The fault of an item that is not closed; where its JSON goes wrong tells which of the two it is."""
    try:
        why: object = text if isinstance(text, BadRecord) else parse_object(text)
    except BadRecord as error:
        why = error
    return BadRecord(f"the file ends inside of this item: cut off, or a quote or bracket is missing ({why})")


def _decode(raw: bytes, offset: int) -> str | BadRecord:
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"not UTF-8: byte 0x{raw[error.start]:02x} at byte {offset + error.start} of the file"
        return BadRecord(what + _encoding_hint(raw))
    return text[:-2] + "\n" if text.endswith("\r\n") else text


def _encoding_hint(raw: bytes) -> str:
    try:
        text = raw.decode("gbk")
    except UnicodeDecodeError:
        return ""
    chinese = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return " (it may be GBK: save it as UTF-8)" if chinese else ""
