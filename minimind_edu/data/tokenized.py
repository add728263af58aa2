"""Text to token ids, once: flat arrays on the disk, read through memory maps.

All documents lie end to end in one array of tokens; `offsets` says where each begins. A corpus of a billion
tokens is then a file of two gigabytes of which only the touched pages enter memory, and a second run starts
at once.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from minimind_edu.data.cache import Progress, cached_folder
from minimind_edu.data.errors import DataError

FORMAT_VERSIONS = {"pretrain": 1, "sft": 2}  # raise one where the arrays of its kind change
BATCH_SIZE = 1_000  # records encoded at a time: enough to keep the tokenizer's threads busy


class TokenizedDocuments:
    """Documents as token ids: `len(docs)`, `docs[i] -> (ids, mask)`, `docs.lengths`, `docs.num_tokens`.

    Args:
        tokens: (total,) ids of all documents, end to end.
        offsets: (N + 1,) document i is `tokens[offsets[i]:offsets[i + 1]]`.
        mask: (total,) 1 where a token is supervised; None where every token is (pretraining).
        first_targets: (N,) position in its document of the first supervised token that can be predicted (so
            never position 0), 0 if there is none; None where `mask` is None.
        record_numbers: (N,) the number of the record that a document came from.
        pad_token_id: id that fills unused places.
        folder: where the arrays lie, so that a copy in another process maps the files anew.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        offsets: np.ndarray,
        mask: np.ndarray | None,
        first_targets: np.ndarray | None,
        record_numbers: np.ndarray,
        pad_token_id: int = 0,
        folder: Path | None = None,
    ) -> None:
        self.tokens, self.offsets, self.mask = tokens, offsets, mask
        self.first_targets, self.record_numbers = first_targets, record_numbers
        self.pad_token_id, self.folder = pad_token_id, folder

    @classmethod
    def from_lists(
        cls,
        documents: Sequence[Sequence[int]],
        masks: Sequence[Sequence[bool]] | None = None,
        pad_token_id: int = 0,
    ) -> "TokenizedDocuments":
        """Documents held in memory, for toy examples and tests."""
        tokens = np.array([token for ids in documents for token in ids], dtype=np.uint32)
        offsets = np.cumsum([0, *(len(ids) for ids in documents)], dtype=np.int64)
        numbers = np.arange(len(documents), dtype=np.int64)
        if masks is None:
            return cls(tokens, offsets, None, None, numbers, pad_token_id)
        flat_mask = np.array([bit for mask in masks for bit in mask], dtype=np.uint8)
        if len(flat_mask) != len(tokens):
            raise ValueError("masks must have the lengths of the documents")
        first = np.array([first_target(mask) for mask in masks], dtype=np.int64)
        return cls(tokens, offsets, flat_mask, first, numbers, pad_token_id)

    @classmethod
    def open(cls, folder: Path, pad_token_id: int) -> "TokenizedDocuments":
        """Map the arrays that `tokenize` wrote into `folder`."""
        supervised = (folder / "mask.npy").exists()
        return cls(
            _map(folder / "tokens.npy"),
            _map(folder / "offsets.npy"),
            _map(folder / "mask.npy") if supervised else None,
            _map(folder / "first_targets.npy") if supervised else None,
            _map(folder / "record_numbers.npy"),
            pad_token_id,
            folder,
        )

    def __reduce__(self) -> tuple:
        # Pickling a memory map copies the whole file; data-loader processes should map it themselves instead.
        if self.folder is not None:
            return TokenizedDocuments.open, (self.folder, self.pad_token_id)
        arrays = (self.tokens, self.offsets, self.mask, self.first_targets, self.record_numbers)
        return TokenizedDocuments, (*arrays, self.pad_token_id)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The token ids (L,) of a document and its loss mask (L,), or None where all tokens are
        supervised."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"document {index} of {len(self)}")
        index %= len(self)
        piece = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.tokens[piece], None if self.mask is None else self.mask[piece]

    @property
    def lengths(self) -> np.ndarray:
        """(N,) number of tokens of each document."""
        return np.diff(self.offsets)

    @property
    def num_tokens(self) -> int:
        """Number of tokens of all documents together."""
        return int(self.offsets[-1])


def tokenize(
    records: Any,
    tokenizer: Any,
    kind: str,
    cache_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> TokenizedDocuments:
    """Encode records into the cache, or find them there.

    A pretraining document is `[bos] + ids + [eos]`; a plain-text stream is one document. A chat is what
    `tokenizer.encode_chat` gives, supervised on the assistant's tokens. Memory stays bounded by one batch of
    records.

    Args:
        records: what `load_records` returned, or a part of it.
        tokenizer: has `encode_batch`, `encode_chat`, the special ids, `vocab_size` and `fingerprint`.
        kind: "pretrain" or "sft".
        cache_dir: folder of the cache; None for the default.
        progress: called with (records done, records in all).

    Raises:
        DataError: no records, or the cache cannot be written.
        ValueError: a `kind` that is not tokenized ahead of time, or not that of the records.
    """
    if kind not in ("pretrain", "sft"):
        raise ValueError(f"kind is {kind!r}: only 'pretrain' and 'sft' records are tokenized ahead of time")
    if records.kind != kind:
        raise ValueError(f"these are {records.kind} records: they cannot be tokenized as {kind}")
    if len(records) == 0:
        raise DataError("there are no records to tokenize")
    parts = (str(FORMAT_VERSIONS[kind]), kind, records.fingerprint, tokenizer.fingerprint)
    key = "tokens-" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def build(folder: Path) -> dict:
        encode = _encode_pretrain if kind == "pretrain" else _encode_sft
        documents = encode(records, tokenizer, progress or (lambda done, total: None))
        return write_documents(folder, documents, tokenizer.vocab_size, supervised=kind == "sft")

    folder, _ = cached_folder(cache_dir, key, build)
    return TokenizedDocuments.open(folder, tokenizer.pad_token_id)


# A part of a document on its way to the disk: ids, loss mask or None, record number, "a document begins
# here".
Part = tuple[list[int], list[bool] | None, int, bool]


def _encode_pretrain(records: Any, tokenizer: Any, progress: Progress) -> Iterator[Part]:
    done = 0
    for batch in records.batches(BATCH_SIZE):
        for ids, continues in zip(tokenizer.encode_batch(batch["text"]), batch["continues"], strict=True):
            begins = done == 0 or not continues
            if begins and done > 0:
                yield [tokenizer.eos_token_id], None, 0, False
            yield [tokenizer.bos_token_id, *ids] if begins else ids, None, records.number(done), begins
            done += 1
        progress(done, len(records))
    yield [tokenizer.eos_token_id], None, 0, False


def _encode_sft(records: Any, tokenizer: Any, progress: Progress) -> Iterator[Part]:
    for done, (messages, tools) in enumerate(records.chats(), start=1):
        chat = tokenizer.encode_chat(messages, tools=tools)
        yield chat.input_ids, chat.assistant_mask, records.number(done - 1), True
        if done % BATCH_SIZE == 0 or done == len(records):
            progress(done, len(records))


def write_documents(folder: Path, parts: Iterator[Part], vocab_size: int, supervised: bool) -> dict:
    """Write documents, part by part, as the arrays that `TokenizedDocuments.open` maps; returns counts."""
    token_type = "<u2" if vocab_size <= 2**16 else "<u4"
    tokens = _NpyWriter(folder / "tokens.npy", token_type)
    mask_out = _NpyWriter(folder / "mask.npy", "|u1") if supervised else None
    starts = _NpyWriter(folder / "offsets.npy", "<i8")
    numbers = _NpyWriter(folder / "record_numbers.npy", "<i8")
    firsts = _NpyWriter(folder / "first_targets.npy", "<i8") if supervised else None
    for ids, mask, number, begins in parts:
        if begins:
            starts.append([tokens.count])
            numbers.append([number])
        tokens.append(ids)
        if mask_out is not None and firsts is not None:
            mask_out.append(mask)
            firsts.append([first_target(mask)])
    starts.append([tokens.count])
    for writer in (tokens, mask_out, starts, numbers, firsts):
        if writer is not None:
            writer.close()
    return {"documents": numbers.count, "tokens": tokens.count}


def first_target(mask: Sequence[bool]) -> int:
    """Position of the first supervised token after the first token, which nothing predicts; 0 if there is
    none."""
    return next((position for position, bit in enumerate(mask) if bit and position > 0), 0)


class _NpyWriter:
    """Writes a one-dimensional .npy file whose length is known only at the end.

    NumPy leaves room in the header for a longer shape, so the header can be written again over the first one.
    """

    def __init__(self, path: Path, dtype: str) -> None:
        self.dtype, self.count = np.dtype(dtype), 0
        self._file = open(path, "w+b")  # noqa: SIM115 (closed by close())
        self._write_header()
        self._header_size = self._file.tell()
        self._waiting: list = []

    def append(self, values: Sequence[int]) -> None:
        self._waiting.extend(values)
        self.count += len(values)
        if len(self._waiting) > 1 << 16:
            self._drain()

    def close(self) -> None:
        self._drain()
        self._file.seek(0)
        self._write_header()
        if self._file.tell() != self._header_size:
            raise RuntimeError("the .npy header has outgrown its room")
        self._file.close()

    def _drain(self) -> None:
        self._file.write(np.asarray(self._waiting, dtype=self.dtype).tobytes())
        self._waiting = []

    def _write_header(self) -> None:
        shape = {"descr": self.dtype.str, "fortran_order": False, "shape": (self.count,)}
        np.lib.format.write_array_header_1_0(self._file, shape)


def _map(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
