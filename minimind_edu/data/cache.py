"""A cache of folders that are either complete or absent.

A folder is built under another name, flushed to the disk, and renamed. The rename is atomic, so that a
process killed in the middle leaves only a folder that nobody looks at, and the next builder removes it. A
lock makes a second process wait for the first instead of doing the same work.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from minimind_edu.data.errors import DataError

Progress = Callable[[int, int], None]  # called with (done, total)

MANIFEST = "manifest.json"


def default_cache_dir() -> Path:
    """`$MINIMIND_EDU_CACHE`, or the folder `minimind_edu` in the user's cache folder."""
    if chosen := os.environ.get("MINIMIND_EDU_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "minimind_edu"


def cached_folder(cache_dir: str | Path | None, key: str, build: Callable[[Path], dict]) -> tuple[Path, dict]:
    """Return the complete folder for `key` and what its builder said about it.

    Args:
        cache_dir: where the cache lives; None for the default place.
        key: names the contents. The same key must always mean the same contents.
        build: writes the files into the (empty) folder it is given, and returns facts to keep with them, as a
            dictionary that JSON can hold.

    Raises:
        DataError: the cache folder cannot be written (no permission, a full disk).
    """
    root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
    folder = root / key
    try:
        if (facts := _read_complete(folder)) is not None:
            return folder, facts
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            # Another process may have finished while this one waited for the lock.
            if (facts := _read_complete(folder)) is None:
                facts = _build(root, folder, build)
    except OSError as error:
        raise DataError(
            f"{root}: cannot use this folder as cache ({error.strerror or error}); "
            "free some space or name another folder with MINIMIND_EDU_CACHE"
        ) from error
    return folder, facts


def _build(root: Path, folder: Path, build: Callable[[Path], dict]) -> dict:
    unfinished = root / f"{folder.name}.building"
    shutil.rmtree(unfinished, ignore_errors=True)  # what a killed process left; the lock is ours
    unfinished.mkdir()
    try:
        facts = build(unfinished)
        sizes = {path.name: path.stat().st_size for path in sorted(unfinished.iterdir())}
        (unfinished / MANIFEST).write_text(json.dumps({"sizes": sizes, "facts": facts}), encoding="utf-8")
        for path in unfinished.iterdir():
            _flush(path)
        _flush(unfinished)
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one, if any
        os.rename(unfinished, folder)
        _flush(root)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return facts


def _read_complete(folder: Path) -> dict | None:
    """The facts of a complete folder; None where it is absent or a file has lost its size (a damaged
    disk)."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, size in manifest["sizes"].items():
            if (folder / name).stat().st_size != size:
                return None
        return manifest["facts"]
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError):
        return None


def _flush(path: Path) -> None:
    """Wait until the disk has the file (or, for a folder, the names in it)."""
    if path.is_dir() and os.name == "nt":
        return  # Windows cannot open folders, and its renames need no flush
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
