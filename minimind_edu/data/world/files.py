"""The world's files on disk: built in one pass, the same bytes on every machine."""

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from minimind_edu.data.cache import cached_folder
from minimind_edu.data.errors import DataError
from minimind_edu.data.world.stages import FILES
from minimind_edu.data.world.world import SmallWorld

DEFAULT_DOCUMENTS = 30_000
WORLD_VERSION = 1  # raise it when the same settings give other bytes: caches hold the old ones
# Beside the package in a checkout; absent where only the package was installed.
COMMITTED = Path(__file__).resolve().parents[3] / "datasets"


def build_files(
    folder: str | Path,
    world: SmallWorld,
    documents: int = DEFAULT_DOCUMENTS,
    names: tuple[str, ...] = tuple(FILES),
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, int]:
    """Write the world's JSONL files into ``folder``, one record at a time.

    Args:
        documents: how many pretraining documents.
        names: which of ``FILES``.
        progress: called with (file name, records written) after every record.

    Returns:
        File name -> number of records.

    Raises:
        DataError: the folder cannot be written.
        ValueError: fewer than 1 document.
    """
    if documents < 1:
        raise ValueError(f"documents must be 1 or more, not {documents}")
    counts = {}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name in names:
            beside, count = Path(folder) / f".{name}.{os.getpid()}.tmp", 0
            try:
                # newline: the same bytes on Windows too.
                with beside.open("w", encoding="utf-8", newline="\n") as file:
                    for count, record in enumerate(FILES[name](world, documents), start=1):
                        file.write(json.dumps(record, ensure_ascii=False) + "\n")
                        if progress:
                            progress(name, count)
                os.replace(beside, Path(folder) / name)
            finally:
                with contextlib.suppress(OSError):
                    beside.unlink(missing_ok=True)
            counts[name] = count
    except OSError as error:
        raise DataError(f"{folder}: cannot write the world's files here ({error.strerror})") from None
    return counts


def default_file(name: str, cache_dir: str | Path | None = None) -> Path:
    """The path of one of the default world's files: the committed one, or one built into the cache.

    Raises:
        ValueError: the world has no such file.
    """
    if name not in FILES:
        raise ValueError(f"the world has no file {name!r}; it has {', '.join(FILES)}")
    if (COMMITTED / name).is_file():
        return COMMITTED / name
    key = f"world-{WORLD_VERSION}-{DEFAULT_DOCUMENTS}-{Path(name).stem}"
    folder, _ = cached_folder(cache_dir, key, lambda path: build_files(path, SmallWorld(), names=(name,)))
    return folder / name
