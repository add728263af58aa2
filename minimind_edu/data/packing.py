"""Documents into rows of equal length, with no padding to speak of.

Padding every document to `max_seq_len` spends most of the work on nothing. Packing lays several whole
documents end to end in a row instead; `document_ids` tells the model's attention where one ends, so that
documents do not see each other and a packed document gives the same loss as one alone.

Which documents share a row is bin packing, and hard to solve exactly; taking the largest document that still
fits comes close (best-fit decreasing; Johnson et al., 1974, and for language models Ding et al., 2024, "Fewer
Truncations Improve Language Modeling").
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from minimind_edu.data.errors import DataError
from minimind_edu.data.tokenized import TokenizedDocuments

IGNORE_INDEX = -100  # a label that the loss skips
POOL_SIZE = 20_000  # pieces packed together: large enough for tight rows, small enough to stay shuffled


@dataclass(frozen=True)
class Pieces:
    """Parts of documents that fit into a row; all arrays have shape (P,)."""

    document: np.ndarray  # int32: which document
    start: np.ndarray  # int64: the piece's first token, counted from the document's
    length: np.ndarray  # int32

    def __len__(self) -> int:
        return len(self.length)

    def take(self, index: np.ndarray) -> "Pieces":
        """The pieces at `index` (n,), in that order."""
        return Pieces(self.document[index], self.start[index], self.length[index])


def cut_documents(docs: TokenizedDocuments, max_seq_len: int) -> Pieces:
    """Documents as pieces of at most `max_seq_len` tokens.

    A long pretraining document becomes chunks that overlap by one token: the last token of a chunk is the
    first of the next, predicted in the one and context in the other, so each token is predicted exactly once.
    A long chat is cut at its end, and left out where no supervised token remains: a batch of only such chats
    would have no mean.
    """
    lengths = docs.lengths
    if docs.first_targets is not None:
        kept = np.flatnonzero((docs.first_targets > 0) & (docs.first_targets < max_seq_len))
        cut = np.minimum(lengths[kept], max_seq_len)
        return Pieces(kept.astype(np.int32), np.zeros(len(kept), np.int64), cut.astype(np.int32))
    # n tokens hold n - 1 targets, and a chunk of T tokens predicts T - 1 of them.
    counts = -(-np.maximum(lengths - 1, 0) // (max_seq_len - 1))
    document = np.repeat(np.arange(len(lengths)), counts)
    chunk = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    start = chunk * (max_seq_len - 1)
    length = np.minimum(max_seq_len, lengths[document] - start)
    return Pieces(document.astype(np.int32), start.astype(np.int64), length.astype(np.int32))


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Pack items into rows: each row takes, again and again, the longest item that still fits.

    >>> best_fit([5, 4, 3, 3], capacity=8)  # 5 + 3, then 4 + 3
    [[0, 3], [1, 2]]
    """
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]
    for item, length in enumerate(lengths):
        waiting[length].append(item)
    # Bit n is set while items of length n wait. The longest that fits is then the highest bit up to the free
    # space, which Python's integers find at once.
    available = sum(1 << length for length, items in enumerate(waiting) if items)
    rows = []
    while available:
        row, space = [], capacity
        while fitting := available & ((2 << space) - 1):
            length = fitting.bit_length() - 1
            row.append(waiting[length].pop())
            if not waiting[length]:
                available ^= 1 << length
            space -= length
        rows.append(row)
    return rows


def pack_rows(
    lengths: np.ndarray, capacity: int, rng: np.random.Generator, pool_size: int = POOL_SIZE
) -> tuple[np.ndarray, np.ndarray]:
    """Pack pieces (P,) pool by pool, in shuffled order.

    Returns:
        order: (P,) piece numbers in the order of their places.
        offsets: (rows + 1,) row r holds `order[offsets[r]:offsets[r + 1]]`.
    """
    shuffled = rng.permutation(len(lengths))
    order, sizes, unfinished = [], [], np.empty(0, np.int64)
    for begin in range(0, len(shuffled), pool_size):
        pool = np.concatenate([unfinished, shuffled[begin : begin + pool_size]])
        rows = best_fit(lengths[pool].tolist(), capacity)
        # The last row has what was left over; unless it is the very last, the next pool can fill it better.
        is_last_pool = begin + pool_size >= len(shuffled)
        unfinished = pool[:0] if is_last_pool else pool[rows.pop()]
        order.append(pool[[item for row in rows for item in row]] if rows else pool[:0])
        sizes.extend(len(row) for row in rows)
    return np.concatenate(order), np.cumsum([0, *sizes])


class RowDataset(torch.utils.data.Dataset):
    """Rows of pieces as a map-style dataset; what packed and padded rows have in common.

    `dataset[row]` is a dictionary of int64 tensors of shape (max_seq_len,):

    - `input_ids`: tokens, then the pad token.
    - `labels`: the id of the token at the same place (the model shifts them), -100 where it is not to be
      predicted: the first token of every piece, what the loss mask leaves out, and padding.
    - `document_ids`: 0, 1, 2, … for the pieces of the row, -1 for padding.

    Attributes:
        padding_share: part of all places that is padding.
        fill_share: part of all places that repeats the beginning of a document which is complete elsewhere.
        dropped: documents left out because nothing in them can be learned; `truncated`: chats cut at their
            end.
        epoch: the epoch whose order the rows have now.
    """

    def __init__(self, docs: TokenizedDocuments, max_seq_len: int, seed: int = 0) -> None:
        if max_seq_len < 2:
            raise ValueError(
                f"max_seq_len is {max_seq_len}: a row needs two tokens, one to predict the other from"
            )
        self.docs, self.max_seq_len, self.seed = docs, max_seq_len, seed
        self.pieces = cut_documents(docs, max_seq_len)
        if len(self.pieces) == 0:
            raise DataError(
                f"none of {len(docs)} documents has a token to learn within max_seq_len={max_seq_len}"
            )
        self.dropped = len(docs) - len(np.unique(self.pieces.document))
        is_cut = docs.lengths[self.pieces.document] > max_seq_len
        self.truncated = 0 if docs.mask is None else int(is_cut.sum())
        self._order, self._offsets = self._layout(np.random.default_rng([seed]))
        self.set_epoch(0)

    def _layout(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Piece numbers by place, and where each row begins among them."""
        raise NotImplementedError

    def _fill(self, rows: Pieces, offsets: np.ndarray, rng: np.random.Generator) -> tuple[Pieces, np.ndarray]:
        return rows, offsets

    def set_epoch(self, epoch: int) -> None:
        """Draw the rows of an epoch: the same seed and epoch give the same rows on any machine.

        The pattern of lengths stays, so the number of rows does too (a schedule can count on it); the
        documents trade places with others of their length, and the rows come in another order.
        """
        self.epoch = epoch
        rng = np.random.default_rng([self.seed, epoch + 1])
        swap = _shuffle_within_lengths(self.pieces.length, rng)
        rows = self.pieces.take(swap[self._order])
        placed = int(rows.length.sum())
        self._rows, self._row_offsets = self._fill(rows, self._offsets, rng)
        self._row_order = rng.permutation(len(self._row_offsets) - 1)
        places = len(self) * self.max_seq_len
        used = int(self._rows.length.sum())
        self.fill_share, self.padding_share = (used - placed) / places, (places - used) / places

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        input_ids = np.full(self.max_seq_len, self.docs.pad_token_id, dtype=np.int64)
        labels = np.full(self.max_seq_len, IGNORE_INDEX, dtype=np.int64)
        document_ids = np.full(self.max_seq_len, -1, dtype=np.int64)
        end = 0
        for number, piece in enumerate(self._pieces_of(row)):
            source = self.docs.offsets[self._rows.document[piece]] + self._rows.start[piece]
            begin, end = end, end + int(self._rows.length[piece])
            ids = self.docs.tokens[source : source + end - begin]
            input_ids[begin:end] = ids
            document_ids[begin:end] = number
            labels[begin:end] = ids
            if self.docs.mask is not None:
                labels[begin:end][self.docs.mask[source : source + end - begin] == 0] = IGNORE_INDEX
            labels[begin] = IGNORE_INDEX  # nothing comes before it in its document
        arrays = {"input_ids": input_ids, "labels": labels, "document_ids": document_ids}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def record_ids(self, row: int) -> list[int]:
        """Numbers of the records in a row, to name the text behind a bad batch."""
        return self.docs.record_numbers[self._rows.document[list(self._pieces_of(row))]].tolist()

    def _pieces_of(self, row: int) -> range:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row = self._row_order[row]
        return range(self._row_offsets[row], self._row_offsets[row + 1])


class PackedDataset(RowDataset):
    """Several documents in a row, chosen by best fit.

    Args:
        docs: what `tokenize` returned.
        max_seq_len: tokens in a row.
        seed: decides the order of everything.
        fill: True (training) fills what a row has left with the beginning of another document, so that no
            place is wasted; the document is complete in another row, so none loses its beginning. False
            (validation) pads, so that each token is predicted exactly once.

    Raises:
        DataError: no document has anything to learn.
    """

    def __init__(self, docs: TokenizedDocuments, max_seq_len: int, seed: int = 0, fill: bool = True) -> None:
        self.fill = fill
        super().__init__(docs, max_seq_len, seed)

    def _layout(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return pack_rows(self.pieces.length, self.max_seq_len, rng)

    def _fill(self, rows: Pieces, offsets: np.ndarray, rng: np.random.Generator) -> tuple[Pieces, np.ndarray]:
        if not self.fill:
            return rows, offsets
        gaps = self.max_seq_len - np.add.reduceat(rows.length, offsets[:-1])
        row_of_fill, fillers = self._choose_fillers(rows.document, offsets, gaps, rng)
        # One table of both, the fillers behind what their row already has (a stable sort keeps that order).
        row_of_piece = np.concatenate([np.repeat(np.arange(len(gaps)), np.diff(offsets)), row_of_fill])
        order = np.argsort(row_of_piece, kind="stable")
        both = zip(vars(rows).values(), vars(fillers).values(), strict=True)
        table = Pieces(*(np.concatenate(pair) for pair in both)).take(order)
        counts = np.bincount(row_of_piece, minlength=len(gaps))
        return table, np.concatenate([[0], np.cumsum(counts)])

    def _choose_fillers(
        self, documents: np.ndarray, offsets: np.ndarray, gaps: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, Pieces]:
        """For each gap a random document that is at least as long, cut to the gap, and not yet in that row.

        Where every document is shorter than the gap, whole documents go in until it is closed; where a corpus
        is too small to offer another one, a document repeats.
        """
        beginnings = np.flatnonzero(self.pieces.start == 0)
        beginnings = beginnings[np.argsort(self.pieces.length[beginnings], kind="stable")]
        lengths = self.pieces.length[beginnings].tolist()
        names = self.pieces.document[beginnings].tolist()
        filled_rows, filler_names, filler_lengths = [], [], []
        for row in np.flatnonzero(gaps).tolist():
            gap = int(gaps[row])
            in_row = set(documents[offsets[row] : offsets[row + 1]].tolist())
            while gap > 0:
                long_enough = bisect_left(lengths, gap) % len(lengths)  # none: all of them are candidates
                pick = int(rng.integers(long_enough, len(lengths)))
                # At most len(in_row) steps lead to a document that the row does not have, if there is one.
                for step in range(len(in_row) + 1):
                    candidate = long_enough + (pick - long_enough + step) % (len(lengths) - long_enough)
                    if names[candidate] not in in_row:
                        pick = candidate
                        break
                length = min(gap, lengths[pick])
                in_row.add(names[pick])
                filled_rows.append(row)
                filler_names.append(names[pick])
                filler_lengths.append(length)
                gap -= length
        zeros = np.zeros(len(filled_rows), np.int64)
        fillers = Pieces(np.array(filler_names, np.int32), zeros, np.array(filler_lengths, np.int32))
        return np.array(filled_rows, np.int64), fillers


class PaddedDataset(RowDataset):
    """Every document (or chunk of one) in a row of its own, padded: what packing is compared with."""

    def _layout(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return np.arange(len(self.pieces)), np.arange(len(self.pieces) + 1)


def collate(rows: Sequence[dict[str, torch.Tensor]], trim_padding: bool = False) -> dict[str, torch.Tensor]:
    """Stack rows (T,) into a batch of (B, T); with `trim_padding`, T shrinks to the batch's longest row."""
    batch = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    if trim_padding:
        longest = int((batch["document_ids"] >= 0).sum(dim=1).max())
        batch = {name: tensor[:, :longest] for name, tensor in batch.items()}
    return batch


def _shuffle_within_lengths(lengths: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random permutation (P,) that moves every item to the place of one with the same length."""
    shuffled = rng.permutation(len(lengths))
    swap = np.empty(len(lengths), np.int64)
    swap[np.argsort(lengths, kind="stable")] = shuffled[np.argsort(lengths[shuffled], kind="stable")]
    return swap
