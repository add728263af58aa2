"""A random sample of a data file, of a chosen size, in constant memory.

A file of gigabytes is read in passes, a line at a time (see ``selection.py``). Neither torch nor the library
``datasets`` is imported, so that this works on a small machine, on which the sample may be all that fits.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from minimind_edu.data.cache import Progress
from minimind_edu.data.errors import DataError, Fault, faults_error
from minimind_edu.data.near_duplicates import NearDuplicates
from minimind_edu.data.published import SCHEME, download
from minimind_edu.data.reading import RECORD_SUFFIXES, TEXT_SUFFIXES, open_data_file
from minimind_edu.data.selection import LineSource, Selection
from minimind_edu.data.strata import length_stratum, script_stratum
from minimind_edu.data.world.files import default_file

MB = 10**6
CHOICES = {
    "stratify": ("none", "length", "language"),
    "shares": ("proportional", "equal"),
    "on_bad_record": ("stop", "skip"),
}
STRATA = {"none": None, "length": length_stratum, "language": script_stratum}


@dataclass
class SampleConfig:
    """Write a random sample of the lines of a file: give its size as target_mb, as count, or as ratio.

    Args:
        data_path: a .jsonl or .json with one record a line or all in one array, a .txt whose lines are
            records, or hf://owner/dataset/file; empty means the sft.jsonl of the embedded world.
        out_path: the file to write, a line for each record; it ends like the one that is read.
        target_mb: the most to write, in MB of 1,000,000 bytes; 0 means that another option gives the size.
        count: how many lines to write; 0 means that another option gives the size.
        ratio: size as a multiple of that of ratio_to, such as 0.001; 0 means that another option gives it.
        ratio_to: the file that ratio refers to, for example the pretraining data.
        seed: the same seed and file give the same sample, another seed gives another.
        stratify: draw from strata of the same length (powers of two, in characters) or language, told by
            script (at least half of the letters Chinese, more than half Latin, or other).
        shares: of the strata in the sample, as in the file or all equal; what a small stratum lacks goes to
            the others.
        near_duplicates: leave out lines whose text repeats one already taken: the Jaccard similarity of their
            runs of 5 characters from which they do, for example 0.8; 0 keeps all. Memory then grows with the
            sample, by 300 to 600 bytes a line (at 0.8).
        on_bad_record: stop at lines with faults, or skip and count them.
        overwrite: 1 replaces out_path if it exists.
    """

    data_path: str = ""
    out_path: str = "out/sample.jsonl"
    target_mb: float = 0.0
    count: int = 0
    ratio: float = 0.0
    ratio_to: str = ""
    seed: int = 42
    stratify: Literal["none", "length", "language"] = "none"
    shares: Literal["proportional", "equal"] = "proportional"
    near_duplicates: float = 0.0
    on_bad_record: Literal["stop", "skip"] = "stop"
    overwrite: int = 0

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        for name in ("target_mb", "count", "ratio"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, not {getattr(self, name)}")
        given = [name for name in ("target_mb", "count", "ratio") if getattr(self, name)]
        if len(given) != 1:
            found = f"not {' and '.join(given)} together" if given else "none is given"
            raise ValueError(
                "say in one way how large the sample is to be: "
                f"target_mb, count, or ratio with ratio_to ({found})"
            )
        if bool(self.ratio) != bool(self.ratio_to):
            raise ValueError(
                "ratio and ratio_to go together: the size is ratio times that of the file ratio_to"
            )
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be {' or '.join(known)}, not {getattr(self, name)!r}")
        if self.near_duplicates and not 0 < self.near_duplicates <= 1:
            raise ValueError(
                f"near_duplicates is a similarity, from 0 (off) to 1, not {self.near_duplicates}"
            )
        if not 0 <= self.seed < 2**63:  # Python's generator would take -1 for 1
            raise ValueError(f"seed must be from 0 to 2^63 - 1, not {self.seed}")
        if self.overwrite not in (0, 1):
            raise ValueError(f"overwrite must be 0 or 1, not {self.overwrite}")


@dataclass(frozen=True)
class StratumReport:
    """Lines of one stratum, and their bytes: read (without blank lines), and written."""

    lines_read: int
    bytes_read: int
    lines_written: int
    bytes_written: int


@dataclass(frozen=True)
class SampleReport:
    """What was written, and what was not. ``str`` gives a table for people.

    Attributes:
        target: the most to write, in bytes; in lines, if `count` was given (`in_bytes` tells).
        strata: by name; a single one, "all", where none were asked for. Faulty lines that were noticed before
            they had a stratum are in none.
        duplicates: lines left out as near-duplicates.
        faults: faulty lines that were drawn and skipped; `first_faults`: the first ten.
        notes: what the user should know.
    """

    data_path: str
    out_path: Path
    target: int
    in_bytes: bool
    strata: dict[str, StratumReport]
    duplicates: int
    faults: int
    first_faults: tuple[Fault, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> StratumReport:
        """All strata together."""
        parts = self.strata.values()
        return StratumReport(
            sum(part.lines_read for part in parts),
            sum(part.bytes_read for part in parts),
            sum(part.lines_written for part in parts),
            sum(part.bytes_written for part in parts),
        )

    def __str__(self) -> str:
        rows = [*self.strata.items(), ("total", self.total)] if len(self.strata) > 1 else self.strata.items()
        lines = [f"{'':<28}{'lines read':>13}{'MB':>11}{'lines written':>16}{'MB':>11}"]
        lines += [
            f"{name:<28}{row.lines_read:>13,}{row.bytes_read / MB:>11,.3f}"
            f"{row.lines_written:>16,}{row.bytes_written / MB:>11,.3f}"
            for name, row in rows
        ]
        return "\n".join([*lines, *self.notes, f"written to {self.out_path}"])


def sample(config: SampleConfig, progress: Progress | None = None) -> SampleReport:
    """Write a random sample of the lines of a file, in the file's order.

    Lines are taken in the order of random keys up to the first that would exceed the target, so that each is
    equally likely; long ones are a little less likely to be the last. They are written byte for byte as they
    were, and the items of a JSON array as lines, without their indentation. Of lines that nearly repeat each
    other, the one met first stays. The file appears under its name only when it is complete.

    Args:
        progress: called with (bytes read, bytes in all), during each pass over the file.

    Raises:
        DataError: the file is missing, empty, not data, or has faults (each as `path:line: what is wrong`);
            not even one line fits; the sample cannot be written.
        ValueError: a setting makes no sense.
    """
    config.validate()
    name = config.data_path or str(default_file("sft.jsonl"))
    path = download(name) if name.startswith(SCHEME) else name
    out = Path(config.out_path)
    with open_data_file(path, name) as file:
        _check_out_path(config, path, name)
        target, in_bytes = _target(config)
        source = LineSource(file, name, config.seed, progress)
        repeats = NearDuplicates(config.near_duplicates) if config.near_duplicates else None
        with (
            _replacing(out) as written,
            Selection(
                source,
                target,
                in_bytes,
                STRATA[config.stratify],
                config.shares == "equal",
                repeats,
                config.on_bad_record == "skip",
                out.parent,
            ) as selection,
        ):
            selection.run()
            _refuse_nothing(selection)
            for start, length in selection.places():
                written.write(source.copy(start, length))
            source.refuse_changes()
    return _report(config, name, selection)


def _target(config: SampleConfig) -> tuple[int, bool]:
    """The most to write, and whether that is in bytes (rather than in lines)."""
    if config.count:
        return config.count, False
    if config.target_mb:
        return int(config.target_mb * MB), True
    with open_data_file(config.ratio_to) as file:
        return int(config.ratio * os.fstat(file.fileno()).st_size), True


def _check_out_path(config: SampleConfig, path: str, name: str) -> None:
    """Refuse what would destroy something, or would be read as something else than it is."""
    out = Path(config.out_path)
    if not config.out_path or "\0" in config.out_path:
        raise ValueError(f"out_path is {config.out_path!r}: name the file to write")
    if out.is_dir():
        raise DataError(f"{out}: is a folder: name the file to write in it")
    kinds = RECORD_SUFFIXES if Path(path).suffix.lower() in RECORD_SUFFIXES else TEXT_SUFFIXES
    if out.suffix.lower() not in kinds:
        raise ValueError(f"out_path must end in {' or '.join(kinds)}, like {name}, not {out.name}")
    for setting, other in (("data_path", path), ("ratio_to", config.ratio_to)):
        if other and os.path.exists(other) and out.exists() and os.path.samefile(out, other):
            raise ValueError(f"out_path is the same file as {setting} ({out}): choose another name")
    if out.exists() and not config.overwrite:
        raise DataError(f"{out}: exists already (--overwrite 1 replaces it)")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and is gone when it does not."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(beside, "wb") as file:
            yield file
        os.replace(beside, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _refuse_nothing(selection: Selection) -> None:
    if any(stratum.lines_written for stratum in selection.strata.values()):
        return
    name = selection.source.name
    is_used_up = all(stratum.removed == stratum.amount for stratum in selection.strata.values())
    if selection.fault_count and is_used_up:
        raise faults_error(f"{name}: no usable record", selection.faults, selection.fault_count)
    raise DataError(
        f"{name}: no line fits into {selection.target:,} bytes (the shortest has {selection.smallest:,}): "
        "ask for a larger sample"
    )


def _report(config: SampleConfig, name: str, selection: Selection) -> SampleReport:
    strata = {
        stratum_name: StratumReport(
            stratum.lines_read, stratum.bytes_read, stratum.lines_written, stratum.bytes_written
        )
        for stratum_name, stratum in sorted(selection.strata.items(), key=_order)
    }
    return SampleReport(
        name,
        Path(config.out_path),
        selection.target,
        selection.in_bytes,
        strata,
        selection.duplicates,
        selection.fault_count,
        tuple(selection.faults),
        tuple(_notes(selection)),
    )


def _order(item: tuple[str, object]) -> tuple[int, str]:
    """Lengths by their number, which is the first word; names by the alphabet."""
    first = item[0].split()[0]
    return (int(first) if first.isdigit() else 0, item[0])


def _notes(selection: Selection) -> Iterator[str]:
    strata = selection.strata.values()
    amount, taken = sum(s.amount for s in strata), sum(s.taken for s in strata)
    removed = sum(s.removed for s in strata)
    unit = "bytes" if selection.in_bytes else "lines"
    if taken + removed == amount and taken < selection.target:
        kept = "all of it was taken" if not removed else f"{taken:,} of them were usable and were taken"
        yield f"the file has only {amount:,} of the {selection.target:,} {unit} asked for: {kept}"
    if selection.duplicates:
        yield f"{selection.duplicates:,} lines repeat another one and were left out"
    if selection.fault_count:
        yield f"{selection.fault_count:,} faulty lines were skipped; the first: {selection.faults[0]}"
    if selection.too_long:
        yield f"{selection.too_long:,} lines are longer than the whole sample may be and were left out"
