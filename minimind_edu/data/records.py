"""Training records: read once, checked, and kept in a memory-mapped Arrow table.

`load_records` reads a file record by record, brings each into our layout, checks it, and writes the good
ones to an Arrow file in the cache, keyed by the file's content. The table is then mapped into memory rather
than read, so that a file of gigabytes costs megabytes, and a second call has only to hash the file.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets.arrow_writer import ArrowWriter

import datasets
from minimind_edu.data.cache import Progress, cached_folder
from minimind_edu.data.errors import FAULTS_SHOWN, DataError, Fault, faults_error, file_error
from minimind_edu.data.layouts import is_unknown_layout, known_layouts, read_record
from minimind_edu.data.published import SCHEME, download
from minimind_edu.data.reading import RECORD_SUFFIXES, LineReader, content_digest, open_data_file
from minimind_edu.data.rows import Row, record_rows, text_rows
from minimind_edu.data.validation import KINDS, BadRecord

FORMAT_VERSION = 3  # raise it when a file may come to other records: caches hold the old ones
BATCH_ROWS, BATCH_BYTES = 1_000, 16 * 2**20  # rows are written when either is reached

_TEXT = datasets.Value("large_string")  # 64-bit offsets: a batch may exceed 2 GB
_MESSAGE_FIELDS = ("role", "content", "reasoning_content", "tool_calls", "tools")
_MESSAGES = datasets.List(dict.fromkeys(_MESSAGE_FIELDS, _TEXT))
FEATURES = {
    # `continues`: this text goes on where the one before it ended (pieces of a plain-text stream).
    "pretrain": datasets.Features({"text": _TEXT, "continues": datasets.Value("bool")}),
    "sft": datasets.Features({"conversations": _MESSAGES}),
    "dpo": datasets.Features({"chosen": _MESSAGES, "rejected": _MESSAGES}),
    "rlvr": datasets.Features({"conversations": _MESSAGES, "gt": _TEXT}),
}


class Records:
    """Checked records of one kind: `len(records)`, `records[i]`, iteration.

    Attributes:
        dataset: the `datasets.Dataset` underneath.
        kind: "pretrain", "sft", "dpo" or "rlvr".
        is_stream: the records are consecutive pieces of plain text rather than documents of their own.
        fingerprint: identifies the content (not the path), for caches built from it.
        dropped: how many faulty records were skipped; `faults`: the first ten of them.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        kind: str,
        fingerprint: str,
        is_stream: bool = False,
        faults: Sequence[Fault] = (),
        dropped: int = 0,
        numbers: np.ndarray | None = None,
    ) -> None:
        self.dataset, self.kind, self.fingerprint, self.is_stream = dataset, kind, fingerprint, is_stream
        self.faults, self.dropped, self._numbers = list(faults), dropped, numbers

    @classmethod
    def from_list(cls, records: Iterable[dict[str, Any]], kind: str) -> "Records":
        """Check records that are in memory already.

        Raises:
            DataError: a record is faulty (named by its number, from 0), or there is none.
        """
        _check_kind(kind)
        rows, faults = [], []
        for number, record in enumerate(records):
            try:
                rows.append(read_record(record, kind))
            except BadRecord as error:
                faults.append(Fault("record", number, str(error)))
        if faults:
            raise faults_error(f"{len(faults)} faulty records", faults, len(faults))
        if not rows:
            raise DataError("there are no records")
        table = pa.Table.from_pylist(rows, schema=FEATURES[kind].arrow_schema)
        return cls(datasets.Dataset(table), kind, _digest(kind, json.dumps(rows)))

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return _clean(self.dataset[index % len(self)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return map(_clean, self.dataset)

    def batches(self, size: int) -> Iterator[dict[str, list]]:
        """Columns of `size` consecutive records at a time (fewer in the last batch)."""
        return self.dataset.iter(batch_size=size)

    def chats(self) -> Iterator[tuple[list[dict[str, Any]], list[dict] | None]]:
        """The conversation of every record, as `(messages, tools)` for a chat template."""
        return (chat_of(record["conversations"]) for record in self)

    def number(self, index: int) -> int:
        """The place of record `index` among the records as loaded, before any selection."""
        return index if self._numbers is None else int(self._numbers[index])

    def select(self, indices: np.ndarray) -> "Records":
        """The records at `indices` (n,), in that order."""
        numbers = indices if self._numbers is None else self._numbers[indices]
        chosen = hashlib.sha256(np.asarray(indices, "<i8").tobytes()).hexdigest()
        fingerprint = _digest(self.fingerprint, chosen)
        dataset = self.dataset.select(indices)
        return Records(dataset, self.kind, fingerprint, self.is_stream, self.faults, self.dropped, numbers)


def chat_of(messages: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict] | None]:
    """Stored messages as a chat template wants them: `(messages, tools)`, with tools and calls as objects."""
    chat, tools = [], None
    for message in messages:
        message = _without_nulls(message)
        if "tools" in message:
            tools = json.loads(message.pop("tools"))
        if "tool_calls" in message:
            message["tool_calls"] = json.loads(message["tool_calls"])
        chat.append(message)
    return chat, tools


def load_records(
    path: str | os.PathLike | Sequence[str | os.PathLike],
    kind: str,
    on_bad_record: str = "stop",
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> Records:
    """Read one or more files of records.

    Args:
        path: `.jsonl` or `.json` with one object a line or as one array, `.txt` or `.md` as one stream of
            pretraining text, or `hf://owner/name/file` for a file of a published data set. A list is read in
            its order. Each record may have any of the layouts that `layouts` knows.
        kind: "pretrain", "sft", "dpo" or "rlvr".
        on_bad_record: "stop" raises with the first ten faults; "skip" leaves faulty records out and counts
            them in `dropped`. Faults of a file as a whole always stop.
        cache_dir: folder of the cache; None for the default.
        progress: called with (bytes read, bytes in all) for each file.

    Raises:
        DataError: faulty or no records. Each fault is one line, `path:line: what is wrong`.
        ValueError: an unknown `kind` or `on_bad_record`.
    """
    _check_kind(kind)
    if on_bad_record not in ("stop", "skip"):
        raise ValueError(f"on_bad_record is {on_bad_record!r}: it must be 'stop' or 'skip'")
    paths = [path] if isinstance(path, str | os.PathLike) else list(path)
    if not paths:
        raise DataError("no data file is named")
    parts = [_load_file(one, kind, cache_dir, progress) for one in paths]
    faults = [fault for part in parts for fault in part.faults]
    count = sum(part.dropped for part in parts)
    names = ", ".join(os.fspath(one) for one in paths[:3]) + (", …" if len(paths) > 3 else "")
    usable = sum(len(part) for part in parts)
    if count and on_bad_record == "stop":
        found = "1 faulty record" if count == 1 else f"{count} faulty records"
        remedy = " (--on_bad_record skip leaves them out)" if usable else ", no usable record"
        raise _refusal(f"{names}: {found}{remedy}", faults, count, kind)
    if not usable:
        raise _refusal(f"{names}: no usable record", faults, count, kind)
    if len(parts) == 1:
        return parts[0]
    # Empty tables have nothing to add, and their is_stream says nothing about the rest.
    whole = datasets.concatenate_datasets([part.dataset for part in parts if len(part)])
    fingerprint = _digest(*(part.fingerprint for part in parts))
    is_stream = any(part.is_stream for part in parts)
    return Records(whole, kind, fingerprint, is_stream, faults[:FAULTS_SHOWN], count)


def _refusal(summary: str, faults: Sequence[Fault], count: int, kind: str) -> DataError:
    """The error that lists the faults; with the known layouts where one of them is an unknown layout."""
    error = faults_error(summary, faults, count)
    if not any(is_unknown_layout(fault.what) for fault in error.faults):
        return error
    return DataError(f"{error}\n{known_layouts(kind)}", error.faults, count)


def train_val_split(
    records: Records, fraction: float = 0.05, seed: int = 0, max_validation: int = 2_000
) -> tuple[Records, Records]:
    """Hold records back for validation: the end of a stream, a random choice among documents.

    Neighbouring pieces of one text would give each other away, so a stream is cut once. Validation is capped,
    since 2,000 records estimate a loss well and a share of a large corpus would take minutes.

    Raises:
        DataError: fewer than two records.
        ValueError: a fraction outside (0, 1).
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}: it must lie between 0 and 1")
    if len(records) < 2:
        what = "a text of less than about 500 characters" if records.is_stream else "a single record"
        raise DataError(f"{what} is too small to hold back a part for validation: give more data")
    held_back = min(max(1, round(len(records) * fraction)), max_validation, len(records) - 1)
    order = np.arange(len(records))
    if not records.is_stream:
        order = np.random.default_rng(seed).permutation(len(records))
    # Sorted: reading a table in its own order is much faster.
    return records.select(np.sort(order[:-held_back])), records.select(np.sort(order[-held_back:]))


def _load_file(
    path: str | os.PathLike, kind: str, cache_dir: str | Path | None, progress: Progress | None
) -> Records:
    name = os.fspath(path)
    local = download(name) if name.startswith(SCHEME) else name
    is_stream = Path(name).suffix.lower() not in RECORD_SUFFIXES
    with open_data_file(local, name) as file:
        if is_stream and kind != "pretrain":
            raise file_error(name, f"plain text is pretraining data; {kind} records come as .jsonl")
        digest = content_digest(file)
        fingerprint = _digest(str(FORMAT_VERSION), kind, "stream" if is_stream else "records", digest)

        def build(folder: Path) -> dict:
            reader = LineReader(file, split_long_lines=is_stream)
            size = os.fstat(file.fileno()).st_size
            rows = text_rows(reader) if is_stream else record_rows(reader, name, kind)
            facts = _write_table(folder, rows, kind, lambda done: progress and progress(done, size))
            if reader.content_digest() != digest:
                raise file_error(name, "the file changed while it was read: wait until it is complete")
            if not facts["rows"] and not facts["dropped"]:
                raise file_error(name, "the file is empty (there is no record in it)")
            return facts

        folder, facts = cached_folder(cache_dir, f"records-{fingerprint[:32]}", build)
    dataset = datasets.Dataset.from_file(str(folder / "records.arrow"))
    faults = [Fault(name, line, what) for line, what in facts["faults"]]
    return Records(dataset, kind, fingerprint, is_stream, faults, facts["dropped"])


def _write_table(folder: Path, rows: Iterator[Row], kind: str, report: Callable[[int], Any]) -> dict:
    """Write the good rows to `records.arrow`; return their number and the faults of the others."""
    schema = FEATURES[kind].arrow_schema
    written, waiting_bytes, dropped, last_read = 0, 0, 0, 0
    waiting: list[dict] = []
    faults: list[tuple[int, str]] = []
    with ArrowWriter(features=FEATURES[kind], path=str(folder / "records.arrow")) as writer:
        for number, row, read in rows:
            if isinstance(row, BadRecord):
                dropped += 1
                if len(faults) < FAULTS_SHOWN:
                    faults.append((number, str(row)))
            else:
                waiting.append(row)
            waiting_bytes, last_read = waiting_bytes + read - last_read, read
            if len(waiting) >= BATCH_ROWS or waiting_bytes >= BATCH_BYTES:
                writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
                written, waiting, waiting_bytes = written + len(waiting), [], 0
                report(read)
        writer.write_table(pa.Table.from_pylist(waiting, schema=schema))
        writer.finalize()
    report(last_read)
    return {"rows": written + len(waiting), "dropped": dropped, "faults": faults}


def _clean(record: dict[str, Any]) -> dict[str, Any]:
    """A record as its file has it: without the nulls and the bookkeeping that the table adds."""
    record.pop("continues", None)
    for name in ("conversations", "chosen", "rejected"):
        if name in record:
            record[name] = [_without_nulls(message) for message in record[name]]
    return record


def _without_nulls(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if value is not None}


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: known are {', '.join(KINDS)}")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
