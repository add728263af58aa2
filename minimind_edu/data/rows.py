"""Lines of a data file to rows of the table: records from JSONL, pieces from plain text."""

import json
from collections.abc import Iterator
from typing import Any

from minimind_edu.data.errors import file_error
from minimind_edu.data.reading import LineReader
from minimind_edu.data.validation import BadRecord, check_record, parse_object

PIECE_CHARACTERS = 256  # a piece of text ends at the first line end from here on …
MAX_PIECE_CHARACTERS = 4096  # … or is cut here, in texts without line ends

# Line number, a checked row or what is wrong with it, bytes read so far.
Row = tuple[int, dict[str, Any] | BadRecord, int]


def record_rows(reader: LineReader, name: str, kind: str) -> Iterator[Row]:
    """One row for each line of JSONL; blank lines are passed over.

    Raises:
        DataError: the file is laid out in another way, so that every line would be faulty.
    """
    first = True
    for number, text, read in reader:
        if isinstance(text, str) and not text.strip():
            continue
        if first and isinstance(text, str):
            _refuse_other_layouts(text.strip(), name, number)
        first = False
        if isinstance(text, BadRecord):
            yield number, text, read
            continue
        try:
            yield number, check_record(parse_object(text), kind), read
        except BadRecord as error:
            is_cut = (
                text.lstrip().startswith("{") and not text.endswith("\n") and not text.rstrip().endswith("}")
            )
            what = f"the last line is cut off ({error})" if is_cut else str(error)
            yield number, BadRecord(what), read


def _refuse_other_layouts(line: str, name: str, number: int) -> None:
    """JSON in one array, or spread over lines, would give a fault on each line; say it once instead."""
    if line == "{":
        raise file_error(
            name, "a record is spread over several lines: write each on one line (JSONL)", number
        )
    if not line.startswith("["):
        return
    try:
        items = json.loads(line)
    except (ValueError, RecursionError):
        items = None
    if items is None or any(isinstance(item, dict) for item in items):
        what = "the file is one JSON array: write one object a line instead, for example with jq -c '.[]'"
        raise file_error(name, what, number)


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
