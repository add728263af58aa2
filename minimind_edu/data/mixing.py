"""Two sets of rows in one: mostly one's own, and between them a share of another's ("replay").

A model that is fine-tuned forgets what it no longer sees. Mixing some of its pretraining documents back into
the rows is the oldest remedy (Robins, 1995, "Catastrophic Forgetting, Rehearsal and Pseudorehearsal").
Chapter 5 measures what it does.
"""

from typing import Protocol

import numpy as np
import torch


class Rows(Protocol):
    """What is asked of a set of rows; ``RowDataset`` of ``data.packing`` is one."""

    def __len__(self) -> int: ...
    def __getitem__(self, row: int) -> dict[str, torch.Tensor]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def record_ids(self, row: int) -> list[int]: ...


class MixedDataset(torch.utils.data.Dataset):
    """All rows of ``main`` each epoch, and among them rows of ``replay``, as evenly spread as can be.

    An epoch has ``len(main) + replayed`` rows; ``replayed`` is the whole number nearest to the share. Where
    both have filled rows of one length (``PackedDataset``), a share of the rows is a share of the tokens
    read. It is not the same share of the labels: in a chat only the answers are labelled, in a document all.

    The replayed rows go on from epoch to epoch until every row of ``replay`` was seen once; then it begins
    anew in another order. Rows and order follow from the seed and the epoch alone, so a run that was stopped
    goes on with the same rows.

    Args:
        main: rows that every epoch has in full.
        replay: rows of which every epoch takes some.
        share: part of an epoch's rows that come from ``replay``, above 0 and below 1.
        seed: decides the order of ``replay``.
        first_record: what ``record_ids`` adds to numbers of ``replay``, so that they are told apart: the
            number of records that ``main`` was made from.

    Attributes:
        replayed: rows of ``replay`` in an epoch.

    Raises:
        ValueError: a share outside (0, 1), no rows, or a share that rounds to no row at all.
    """

    def __init__(self, main: Rows, replay: Rows, share: float, seed: int = 0, first_record: int = 0) -> None:
        if not 0 < share < 1:
            raise ValueError(f"share is {share}: it must lie between 0 and 1")
        if not len(main) or not len(replay):
            raise ValueError("there are no rows to mix: both sets need at least one")
        self.main, self.replay, self.seed, self.first_record = main, replay, seed, first_record
        self.replayed = round(len(main) * share / (1 - share))
        if self.replayed == 0:
            raise ValueError(f"a share of {share} of {len(main)} rows is less than one row: mix in more")
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Put the rows into an epoch's order."""
        self.main.set_epoch(epoch)
        size = len(self.replay)
        places = np.arange(epoch * self.replayed, (epoch + 1) * self.replayed)
        rounds = {number: self._round(number) for number in np.unique(places // size).tolist()}
        self._replayed_rows = [int(rounds[place // size][place % size]) for place in places.tolist()]

    def __len__(self) -> int:
        return len(self.main) + self.replayed

    def __getitem__(self, row: int) -> dict[str, torch.Tensor]:
        rows, number = self._find(row)
        return rows[number]

    def record_ids(self, row: int) -> list[int]:
        """Numbers of the records in a row; those of ``replay`` count on from ``first_record``."""
        rows, number = self._find(row)
        first = self.first_record if rows is self.replay else 0
        return [first + record for record in rows.record_ids(number)]

    def is_replayed(self, row: int) -> bool:
        """Whether a row comes from ``replay``."""
        return self._find(row)[0] is self.replay

    def _round(self, number: int) -> np.ndarray:
        """The order (N,) in which the N rows of ``replay`` are gone through for the n-th time."""
        return np.random.default_rng([self.seed, number]).permutation(len(self.replay))

    def _find(self, row: int) -> tuple[Rows, int]:
        """Which of the two a row comes from, and its number there."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        # Of the first r rows, the whole part of r * replayed / all are replayed: nothing spreads them better.
        before, after = (number * self.replayed // len(self) for number in (row, row + 1))
        return (self.replay, self._replayed_rows[before]) if after > before else (self.main, row - before)
