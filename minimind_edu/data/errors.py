"""The one exception of the data package, and the faults it lists."""

from collections.abc import Sequence
from dataclasses import dataclass

FAULTS_SHOWN = 10


class DataError(ValueError):
    """Data that cannot be used. The message is short and names the file and the line.

    Attributes:
        faults: the first faults found (at most ten are kept).
        count: how many faults there are in all.
    """

    def __init__(self, message: str, faults: Sequence["Fault"] = (), count: int | None = None) -> None:
        super().__init__(message)
        self.faults = list(faults)
        self.count = len(self.faults) if count is None else count


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, at one line (counted from 1; line 1 for the file as a whole)."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.what}"


def file_error(path: object, what: str, line: int = 1) -> DataError:
    """The error for a fault of a file as a whole, such as "the file is empty"."""
    fault = Fault(str(path), line, what)
    return DataError(str(fault), [fault])


def faults_error(summary: str, faults: Sequence[Fault], count: int) -> DataError:
    """An error whose first line is the summary, followed by a line for each of the first ten faults."""
    lines = [summary, *(f"  {fault}" for fault in faults[:FAULTS_SHOWN])]
    if count > FAULTS_SHOWN:
        lines.append(f"  and {count - FAULTS_SHOWN} more")
    return DataError("\n".join(lines), faults[:FAULTS_SHOWN], count)
