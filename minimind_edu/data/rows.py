"""A data file to rows of the table: records from JSONL or a JSON array, pieces from plain text."""

import os
from collections.abc import Iterator
from typing import Any

from minimind_edu.data.errors import file_error
from minimind_edu.data.layouts import read_record
from minimind_edu.data.published import SCHEME, download
from minimind_edu.data.reading import LineReader, open_data_file, parse_record, record_texts
from minimind_edu.data.validation import BadRecord

PIECE_CHARACTERS = 256  # a piece of text ends at the first line end from here on …
MAX_PIECE_CHARACTERS = 4096  # … or is cut here, in texts without line ends

# Line number, a checked row or what is wrong with it, bytes read so far.
Row = tuple[int, dict[str, Any] | BadRecord, int]


def record_rows(reader: LineReader, name: str, kind: str) -> Iterator[Row]:
    """One row for each line of JSONL (blank lines are passed over), or for each item of a JSON array.

    Raises:
        DataError: the file is laid out in another way, so that every line would be faulty.
    """
    for number, text, read in record_texts(reader, name):
        if isinstance(text, BadRecord):
            yield number, text, read
            continue
        try:
            yield number, read_record(parse_record(text), kind), read
        except BadRecord as error:
            yield number, error, read


def raw_records(path: str | os.PathLike) -> Iterator[dict[str, Any]]:
    """The records of a file of JSONL or of a JSON array, with all columns and unchecked, one at a time.

    Raises:
        DataError: the file cannot be read, or a record is no JSON object.
    """
    name = os.fspath(path)
    with open_data_file(download(name) if name.startswith(SCHEME) else name, name) as file:
        for number, text, _ in record_texts(LineReader(file), name):
            try:
                if isinstance(text, BadRecord):
                    raise text
                yield parse_record(text)
            except BadRecord as error:
                raise file_error(name, str(error), number) from None


def text_rows(reader: LineReader) -> Iterator[Row]:
    """Cut a text into pieces whose concatenation is the text again, without the blank lines at its start.

    A piece ends at the end of a line where it can, because tokens that span a line end are rare: the pieces
    then encode to nearly the same ids as the whole.
    """
    ready, waiting, continues = "", "", False  # a finished piece waits too: a short rest may join it
    line, read = 1, 0
    for line, text, read in reader:
        if isinstance(text, str) and "\0" in text:
            text = BadRecord("a NUL character: is this plain text?")
        if isinstance(text, BadRecord):
            yield line, text, read
            continue
        if not waiting and not ready and not text.strip():
            continue  # so that a file of white space has no pieces
        waiting += text
        while len(waiting) >= MAX_PIECE_CHARACTERS or (
            len(waiting) >= PIECE_CHARACTERS and waiting[-1] == "\n"
        ):
            if ready:
                yield line, {"text": ready, "continues": continues}, read
                continues = True
            ready, waiting = waiting[:MAX_PIECE_CHARACTERS], waiting[MAX_PIECE_CHARACTERS:]
    if ready and len(waiting) >= PIECE_CHARACTERS:
        yield line, {"text": ready, "continues": continues}, read
        ready, continues = "", True
    if ready or waiting:
        yield line, {"text": ready + waiting, "continues": continues}, read
