"""The lines of a file with a random key each, as often as they are needed."""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from minimind_edu.data.cache import Progress
from minimind_edu.data.errors import file_error
from minimind_edu.data.reading import TEXT_SUFFIXES, LineReader
from minimind_edu.data.strata import text_of
from minimind_edu.data.validation import BadRecord, parse_object

PROGRESS_LINES = 10_000  # lines between two reports of progress


class Line(NamedTuple):
    """One line that is not blank.

    Attributes:
        key: its random number in [0, 1).
        number: from 1.
        text: as `LineReader` gives it.
        start: its first byte in the file.
        size: bytes to write, with the newline that the last line of a file may lack.
    """

    key: float
    number: int
    text: str | BadRecord
    start: int
    size: int


class LineSource:
    """The lines of an open file, as often as they are needed, with the same keys each time.

    Args:
        file: from `open_data_file`.
        name: what to call it in messages; its ending tells JSONL and plain text apart.
        progress: called with (bytes read, bytes in all) during each pass.
    """

    def __init__(self, file: BinaryIO, name: str, seed: int, progress: Progress | None = None) -> None:
        self.file, self.name, self.seed, self.progress = file, name, seed, progress
        self.is_plain_text = Path(name).suffix.lower() in TEXT_SUFFIXES
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
        draw, size, start, first = random.Random(self.seed).random, self._state[0], self._start, True
        for number, text, end in LineReader(self.file):
            is_good = isinstance(text, str)
            if not (is_good and text.isspace()):
                if first and is_good and not self.is_plain_text:
                    _refuse_other_layouts(text.strip(), self.name, number)
                first = False
                newline = is_good and not text.endswith("\n")
                yield Line(draw(), number, text, start, end - start + newline)
            start = end
            if self.progress and not number % PROGRESS_LINES:
                self.progress(end, size)
        if self.progress:
            self.progress(size, size)
        self.refuse_changes()

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
            return text_of(parse_object(line.text))
        except BadRecord as error:
            return _name_cut_off(error, line.text)

    def copy(self, start: int, size: int) -> bytes:
        """The bytes of a line, ending with a newline."""
        if self.file.tell() != start:
            self.file.seek(start)
        raw = self.file.read(size)
        return raw if raw.endswith(b"\n") else raw + b"\n"


def _refuse_other_layouts(line: str, name: str, number: int) -> None:
    """JSON in one array, or spread over lines, would give a fault on each line; say it once instead."""
    if line.startswith("["):
        what = "the file is one JSON array: write one object a line first, for example with jq -c '.[]'"
        raise file_error(name, what, number)
    if line == "{":
        what = "a record is spread over several lines: write each on one line (JSONL), for example with jq -c"
        raise file_error(name, what, number)


def _name_cut_off(error: BadRecord, text: str) -> BadRecord:
    """Other words for a last line of which only the first part is there."""
    is_cut = text.lstrip().startswith("{") and not text.endswith("\n") and not text.rstrip().endswith("}")
    return BadRecord(f"the last line is cut off ({error})") if is_cut else error
