"""The lines of a file, or the items of its JSON array, with a random key each, as often as needed."""

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from minimind_edu.data.cache import Progress
from minimind_edu.data.errors import file_error
from minimind_edu.data.reading import TEXT_SUFFIXES, LineReader, parse_record, record_texts
from minimind_edu.data.strata import text_of
from minimind_edu.data.validation import BadRecord

PROGRESS_LINES = 10_000  # lines between two reports of progress
# White space with a line end in it, and the comma before it: what indentation adds to JSON.
_LINE_END = re.compile(rb"(,?)[ \t]*[\r\n][ \t\r\n]*")


class Line(NamedTuple):
    """One line that is not blank, or one item of an array.

    Attributes:
        key: its random number in [0, 1).
        number: of the line, from 1; of the line where an item begins.
        text: as `record_texts` gives it.
        start: its first byte in the file.
        length: its bytes in the file.
        size: bytes to write, with the newline that an item and the last line of a file lack.
    """

    key: float
    number: int
    text: str | BadRecord
    start: int
    length: int
    size: int


class LineSource:
    """The lines of an open file, as often as they are needed, with the same keys each time.

    Args:
        file: from `open_data_file`.
        name: what to call it in messages; its ending tells records (JSONL or one array) and plain text apart.
        progress: called with (bytes read, bytes in all) during each pass.
    """

    def __init__(self, file: BinaryIO, name: str, seed: int, progress: Progress | None = None) -> None:
        self.file, self.name, self.seed, self.progress = file, name, seed, progress
        self.is_plain_text = Path(name).suffix.lower() in TEXT_SUFFIXES
        self.is_array = not self.is_plain_text and LineReader(file).begins_with(b"[")
        self._start = file.tell()
        self._state = self._file_state()

    def _file_state(self) -> tuple[int, int]:
        status = os.fstat(self.file.fileno())
        return status.st_size, status.st_mtime_ns

    def lines(self) -> Iterator[Line]:
        """One pass over the file.

        Raises:
            DataError: it changed since the first pass, or is no JSONL.
        """
        self.file.seek(self._start)
        draw, whole, reader = random.Random(self.seed).random, self._state[0], LineReader(self.file)
        texts = reader if self.is_plain_text else record_texts(reader, self.name)
        for count, (number, text, end) in enumerate(texts, 1):
            if isinstance(text, BadRecord) or not text.isspace():
                yield Line(draw(), number, text, reader.start, *self._sizes(text, end - reader.start))
            if self.progress and not count % PROGRESS_LINES:
                self.progress(end, whole)
        if self.progress:
            self.progress(whole, whole)
        self.refuse_changes()

    def _sizes(self, text: str | BadRecord, read: int) -> tuple[int, int]:
        """Bytes of a line in the file and to write, where `read` bytes were read from its start on."""
        if isinstance(text, BadRecord):
            return read, read + self.is_array
        if not self.is_array:
            return read, read + (not text.endswith("\n"))
        raw = text.encode()
        return len(raw), len(_on_one_line(raw)) + 1

    def refuse_changes(self) -> None:
        """Raise DataError if the file changed since it was opened."""
        if self._file_state() != self._state:
            raise file_error(self.name, "changed while it was read")

    def text(self, line: Line) -> str | BadRecord:
        """The text of a line's record, or what is wrong with it."""
        if isinstance(line.text, BadRecord):
            return line.text
        if self.is_plain_text:
            nul = "\0" in line.text
            return BadRecord("a NUL character: is this plain text?") if nul else line.text.removesuffix("\n")
        try:
            return text_of(parse_record(line.text))
        except BadRecord as error:
            return error

    def copy(self, start: int, length: int) -> bytes:
        """The bytes of a line, ending with a newline; those of an item of an array, made into a line."""
        if self.file.tell() != start:
            self.file.seek(start)
        raw = self.file.read(length)
        raw = _on_one_line(raw) if self.is_array else raw
        return raw if raw.endswith(b"\n") else raw + b"\n"


def _on_one_line(item: bytes) -> bytes:
    """An item without the line ends and the indentation between its parts. (The strings of JSON have none: a
    line end in one is written as an escape.)"""
    if b"\n" not in item and b"\r" not in item:
        return item
    return _LINE_END.sub(lambda found: b", " if found[1] else b"", item)
