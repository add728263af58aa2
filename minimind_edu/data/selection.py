"""A random choice among the lines of a file that is too large for the memory.

Every line has a key, a random number that depends on the seed and on its place among the lines. The lines
with the smallest keys are a random sample without replacement, in which each line is equally likely. Sorting
the keys would need all of them in memory, so they are counted in buckets instead. One pass counts; then the
buckets below a certain one are known to fit as a whole, and only within that one lines must be put in order.
A second pass takes them. Where faulty or repeated lines leave the sample short, another pass goes on with the
next buckets.
"""

import heapq
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO, NamedTuple

import numpy as np

from minimind_edu.data.errors import FAULTS_SHOWN, Fault, faults_error, file_error
from minimind_edu.data.lines import Line, LineSource
from minimind_edu.data.near_duplicates import NearDuplicates, signature
from minimind_edu.data.strata import share
from minimind_edu.data.validation import BadRecord

BUCKETS = 2**16  # of the keys; a histogram of them is 512 kB


class _Candidate(NamedTuple):
    """A line of a bucket that may not fit as a whole, without its text."""

    key: float
    number: int
    start: int
    length: int
    size: int
    signature: np.ndarray | None
    fault: BadRecord | None


@dataclass
class Stratum:
    """Lines of one kind: how many there are, and how many were taken. Amounts are in bytes or in lines,
    whichever the target is in."""

    lines_read: int = 0
    bytes_read: int = 0
    lines_written: int = 0
    bytes_written: int = 0
    amount: int = 0  # of all lines that may be taken
    taken: int = 0
    removed: int = 0  # faulty lines and repeats
    smallest: int = 2**63
    histogram: array = field(default_factory=lambda: array("q", bytes(8 * BUCKETS)))
    reached: int = 0  # buckets below this one have been seen
    whole_until: int = 0  # in the next pass: buckets below this one fit as a whole …
    scan_until: int = 0  # … and those from there up to this one are candidates
    waiting: list[_Candidate] = field(default_factory=list)  # seen, not decided; the next one last

    def plan(self, room: int) -> bool:
        """Choose the buckets for the next pass; False if nothing can come of one."""
        self.scan_until = self.whole_until = self.reached
        if self.waiting or self.reached == BUCKETS or room < self.smallest:
            return False
        sums = np.cumsum(np.frombuffer(self.histogram, np.int64)[self.reached :])
        self.whole_until = self.reached + int(np.searchsorted(sums, room, side="right"))
        self.scan_until = min(self.whole_until + 1, BUCKETS)
        return True


class Selection:
    """Chooses lines up to a target.

    Args:
        target: the most to take, in bytes or in lines.
        in_bytes: which of the two.
        stratum_of: names the stratum of a text; None for a single stratum.
        equal: strata get equal shares of the target, rather than shares in proportion to their amounts.
        repeats: finds texts that repeat one already taken; None to take all.
        skip_faults: leave faulty lines out and count them, rather than raise.
        folder: for temporary files with the places of the lines taken (16 bytes each).

    Attributes:
        strata: by name, the smallest first; filled by `run`.
        duplicates, fault_count, too_long: lines left out as repeats, as faulty, and because they are larger
            than the whole target. A faulty line is only noticed if it is drawn, or if strata need its text.
    """

    def __init__(
        self,
        source: LineSource,
        target: int,
        in_bytes: bool,
        stratum_of: Callable[[str], str] | None = None,
        equal: bool = False,
        repeats: NearDuplicates | None = None,
        skip_faults: bool = False,
        folder: str | Path | None = None,
    ) -> None:
        self.source, self.target, self.in_bytes = source, target, in_bytes
        self.stratum_of, self.equal, self.repeats = stratum_of, equal, repeats
        self.skip_faults, self.folder = skip_faults, folder
        self.strata: dict[str, Stratum] = {}
        self.faults: list[Fault] = []
        self.fault_count = self.duplicates = self.too_long = 0
        self.smallest = 2**63  # bytes of the smallest line
        self._files = ExitStack()
        self._places: list[BinaryIO] = []  # of lines taken, one file for each pass
        self._late: list[tuple[int, int]] = []  # the same, of candidates

    def __enter__(self) -> "Selection":
        return self

    def __exit__(self, *_: object) -> None:
        self._files.close()

    def run(self) -> None:
        """Choose.

        Raises:
            DataError: faulty lines, unless they are to be skipped; an empty file.
        """
        self._count()
        while True:
            self._stop_at_faults()
            waits, carried = False, 0
            for stratum, limit in zip(self.strata.values(), self._limits(), strict=True):
                room = self._take_waiting(stratum, limit - stratum.taken + carried)
                # What a stratum cannot use, because its next line is too large, goes to the next stratum.
                goes_on = stratum.plan(room)
                waits, carried = waits or goes_on, 0 if goes_on else room
            if not waits:
                return self._stop_at_faults()
            self._take_range()

    def places(self) -> Iterator[tuple[int, int]]:
        """Start and length of every line taken, in the order of the file."""
        return heapq.merge(*map(_read_places, self._places), sorted(self._late))

    def _limits(self) -> list[int]:
        strata = self.strata.values()
        weights = [1 if self.equal else stratum.amount for stratum in strata]
        taken, most = [s.taken for s in strata], [s.amount - s.removed for s in strata]
        return share(self.target, weights, taken, most)

    def _stop_at_faults(self) -> None:
        if self.fault_count and not self.skip_faults:
            found = "1 faulty record" if self.fault_count == 1 else f"{self.fault_count} faulty records"
            summary = f"{self.source.name}: {found} (--on_bad_record skip leaves them out)"
            raise faults_error(summary, sorted(self.faults, key=lambda fault: fault.line), self.fault_count)

    def _count(self) -> None:
        """The first pass: how much there is, by stratum and bucket."""
        for line in self.source.lines():
            stratum = self._stratum(line, count=True)
            if stratum is None:
                continue
            stratum.lines_read += 1
            stratum.bytes_read += line.size
            self.smallest = min(self.smallest, line.size)
            if self.in_bytes and line.size > self.target:
                self.too_long += 1
                continue
            amount = self._amount(line)
            stratum.amount += amount
            stratum.smallest = min(stratum.smallest, amount)
            stratum.histogram[int(line.key * BUCKETS)] += amount
        if not self.strata and not self.fault_count:
            raise file_error(self.source.name, "the file is empty")
        # The largest comes last, since it can best use what the others leave.
        self.strata = dict(sorted(self.strata.items(), key=lambda item: (item[1].amount, item[0])))

    def _stratum(self, line: Line, count: bool) -> Stratum | None:
        """The stratum of a line; None for a faulty line, where strata need its text."""
        name = "all"
        if self.stratum_of is not None:
            text = self.source.text(line)
            if isinstance(text, BadRecord):
                if count:
                    self._fault(line.number, text)
                return None
            name = self.stratum_of(text)
        if name not in self.strata:
            self.strata[name] = Stratum()
        return self.strata[name]

    def _amount(self, line: Line | _Candidate) -> int:
        return line.size if self.in_bytes else 1

    def _fault(self, number: int, what: BadRecord) -> None:
        self.fault_count += 1
        if len(self.faults) < FAULTS_SHOWN:
            self.faults.append(Fault(self.source.name, number, str(what)))

    def _take_range(self) -> None:
        """A pass that takes the buckets planned, and collects the candidates of the bucket after them."""
        planned = [s for s in self.strata.values() if s.reached < s.scan_until]
        first, last = min(s.reached for s in planned), max(s.scan_until for s in planned)
        file = self._files.enter_context(TemporaryFile(dir=self.folder))  # noqa: SIM115
        self._places.append(file)
        places = array("Q")
        for line in self.source.lines():
            bucket = int(line.key * BUCKETS)
            if not first <= bucket < last or (self.in_bytes and line.size > self.target):
                continue
            stratum = self._stratum(line, count=False)
            if stratum is None or not stratum.reached <= bucket < stratum.scan_until:
                continue
            text, fault, signed = self.source.text(line), None, None
            if isinstance(text, BadRecord):
                fault = text
            elif self.repeats is not None:
                signed = signature(text or line.text)  # a record without any text is compared as it is
            candidate = _Candidate(line.key, line.number, line.start, line.length, line.size, signed, fault)
            if bucket >= stratum.whole_until:
                stratum.waiting.append(candidate)
            elif self._is_usable(stratum, candidate):
                self._take(stratum, candidate)
                places.extend((line.start, line.length))
                if len(places) >= 2**14:
                    places.tofile(file)
                    places = array("Q")
        places.tofile(file)
        for stratum in planned:
            stratum.reached = stratum.scan_until
            stratum.waiting.sort(reverse=True)

    def _take_waiting(self, stratum: Stratum, room: int) -> int:
        """Take candidates by their keys, up to the first that does not fit. Returns the room left."""
        while stratum.waiting:
            candidate = stratum.waiting[-1]
            if self._is_usable(stratum, candidate):
                if self._amount(candidate) > room:
                    break
                room -= self._amount(candidate)
                self._take(stratum, candidate)
                self._late.append((candidate.start, candidate.length))
            stratum.waiting.pop()
        return room

    def _is_usable(self, stratum: Stratum, candidate: _Candidate) -> bool:
        if candidate.fault is not None:
            self._fault(candidate.number, candidate.fault)
        elif candidate.signature is not None and self.repeats.find(candidate.signature) is not None:
            self.duplicates += 1
        else:
            return True
        stratum.removed += self._amount(candidate)
        return False

    def _take(self, stratum: Stratum, candidate: _Candidate) -> None:
        stratum.taken += self._amount(candidate)
        stratum.lines_written += 1
        stratum.bytes_written += candidate.size
        if candidate.signature is not None:
            self.repeats.add(candidate.signature)


def _read_places(file: BinaryIO) -> Iterator[tuple[int, int]]:
    file.seek(0)
    while block := file.read(2**16):
        numbers = iter(array("Q", block))
        yield from zip(numbers, numbers, strict=True)
