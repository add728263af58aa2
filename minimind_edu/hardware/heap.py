"""What an allocator needs to hold a sequence of tensors: more than the tensors, since holes remain.

Both allocators here take the smallest free block that is large enough, cut off what is too much, and join
free neighbours. `Heap` is glibc's malloc, which PyTorch uses on a CPU under Linux; `CudaCache` is PyTorch's
own allocator for GPUs (c10/cuda/CUDACachingAllocator.cpp).
"""

import bisect
from collections.abc import Iterable

PAGE, KB, MB = 4096, 1 << 10, 1 << 20


class Blocks:
    """Stretches of addresses, used and free, with best fit and joining of free neighbours."""

    def __init__(self) -> None:
        self.free: list[tuple[int, int]] = []  # (size, start), sorted
        self.size_at: dict[int, int] = {}  # free, by start
        self.start_of: dict[int, int] = {}  # free, by end

    def take(self, size: int, least_rest: int) -> tuple[int, int] | None:
        """Start and size of a block of at least `size` bytes; a rest of `least_rest` bytes stays free."""
        place = bisect.bisect_left(self.free, (size, -1))
        if place == len(self.free):
            return None
        found, start = self.free[place]
        self._forget(found, start)
        if found - size >= least_rest:
            self._remember(found - size, start + size)
            return start, size
        return start, found

    def give(self, start: int, size: int, walls: frozenset[int] | set[int] = frozenset()) -> tuple[int, int]:
        """Free a block; returns the free block that it is part of now. No joining across `walls`."""
        end = start + size
        if end in self.size_at and end not in walls:
            after = self.size_at[end]
            self._forget(after, end)
            size += after
        if start in self.start_of and start not in walls:
            before = self.start_of[start]
            self._forget(start - before, before)
            size, start = size + start - before, before
        self._remember(size, start)
        return start, size

    def remove(self, start: int, size: int) -> None:
        """Take a free block out altogether."""
        self._forget(size, start)

    def _remember(self, size: int, start: int) -> None:
        bisect.insort(self.free, (size, start))
        self.size_at[start], self.start_of[start + size] = size, start

    def _forget(self, size: int, start: int) -> None:
        del self.free[bisect.bisect_left(self.free, (size, start))]
        del self.size_at[start], self.start_of[start + size]


# Sizes in bytes of the objects that PyTorch makes beside a tensor's memory, their headers included. They come
# from a trace of all calls of malloc during a training step; how many of which there are at a time is only
# roughly known, so three mixtures are played and their mean is taken.
# (with a tensor, during an operation, with an operation that has a backward)
OBJECTS = (
    ((112, 192), (48, 48, 32, 64), (320, 112, 64, 48)),
    ((48, 112, 192, 32), (48, 32, 64, 48), (416,)),
    ((112, 192, 48), (32, 64, 80), (320, 112)),
)


class Heap:
    """glibc's malloc (2.26 or newer) with one growing heap.

    Large blocks alone would leave few holes. But every tensor has small objects beside it, which glibc keeps
    for reuse when they are freed (in its "tcache", and in "fast bins") instead of joining them with their
    neighbours. They end up between large blocks, and a tensor that asks for the size of the hole beside one
    no longer fits into it. That costs 5 to 50% of what tensors need.

    Args:
        keeps: as after `training.memory.keep_freed_memory`: everything comes from the heap and stays there.
            Otherwise large blocks are mappings of their own, which go back to the system, and so does the
            free end of the heap.
        objects: one of `OBJECTS`.
    """

    LARGEST_THRESHOLD = 32 * MB  # of glibc's growing threshold for mappings, on 64 bits
    LEAST, ALIGNMENT = 32, 64  # bytes of a chunk, and of a tensor's address
    CACHED, CACHED_EACH, FAST = 1040, 7, 128  # the tcache: largest chunk, chunks of a size; largest fast one
    LARGE = 65536  # freeing as much joins the fast ones with their neighbours

    def __init__(self, keeps: bool = True, objects: tuple[tuple[int, ...], ...] = OBJECTS[0]) -> None:
        self.keeps, (self.beside, self.passing, self.of_node) = keeps, objects
        self.blocks = Blocks()
        self.top = self.touched = self.mapped = self.peak = 0
        self.threshold, self.trim = 128 * KB, 128 * KB
        self.cached: dict[int, list[tuple[int, int]]] = {}
        self.fast: dict[int, list[tuple[int, int]]] = {}
        self.used: dict[int, list[tuple[int, int]]] = {}  # by number: (start, size); start -1: a mapping

    def play(self, events: Iterable[tuple[int, int]]) -> int:
        """Allocate and free as `Tape.events` say; returns the most bytes resident."""
        for number, size in events:
            if not size:
                for start, length in self.used.pop(number):
                    self._release(start, length)
            elif number < 0:
                self.used[number] = [self._object(one) for one in self.of_node]
            else:
                passing = [self._object(one) for one in self.passing]
                first = self._object(self.beside[0])
                tensor = self._tensor(size)
                self.used[number] = [first, tensor, *(self._object(one) for one in self.beside[1:])]
                for start, length in passing:
                    self._release(start, length)
                self.peak = max(self.peak, self.touched + self.mapped)
        return self.peak

    def _object(self, size: int) -> tuple[int, int]:
        for bins in (self.cached, self.fast):
            if bins.get(size):
                return bins[size].pop()
        return self._chunk(size)

    def _tensor(self, size: int) -> tuple[int, int]:
        """An aligned chunk: more is asked for, and what is too much in front and behind is freed."""
        size = -(-(size + 8) // 16) * 16
        asked = size + self.ALIGNMENT + self.LEAST
        if not self.keeps and asked >= self.threshold and not self._fits(asked):
            pages = -(-asked // PAGE) * PAGE
            self.mapped += pages
            return -1, pages
        if asked > 1024:
            self._join_fast()
        start, length = self._chunk(asked)
        before = -(start + 16) % self.ALIGNMENT
        if before:
            before += self.ALIGNMENT if before < self.LEAST else 0
            self._release(start, before)
            start, length = start + before, length - before
        if length - size >= self.LEAST:
            self._release(start + size, length - size)
            length = size
        return start, length

    def _fits(self, size: int) -> bool:
        return bool(self.blocks.free) and self.blocks.free[-1][0] >= size

    def _chunk(self, size: int) -> tuple[int, int]:
        found = self.blocks.take(size, self.LEAST)
        if found is None:
            found = (self.top, size)
            self.top += size
            self.touched = max(self.touched, self.top)
        return found

    def _release(self, start: int, size: int) -> None:
        if start < 0:
            self.mapped -= size
            if self.threshold < size <= self.LARGEST_THRESHOLD:
                self.threshold, self.trim = size, 2 * size
        elif size <= self.CACHED and len(self.cached.setdefault(size, [])) < self.CACHED_EACH:
            self.cached[size].append((start, size))
        elif size <= self.FAST:
            self.fast.setdefault(size, []).append((start, size))
        else:
            self._join(start, size)
            if size > self.LARGE:
                self._join_fast()

    def _join_fast(self) -> None:
        for chunks in self.fast.values():
            for start, size in chunks:
                self._join(start, size)
        self.fast.clear()

    def _join(self, start: int, size: int) -> None:
        start, size = self.blocks.give(start, size)
        if start + size == self.top:  # the end of the heap is free: it is the heap's top again
            self.blocks.remove(start, size)
            self.top = start
            if not self.keeps and self.touched - start > self.trim:
                self.touched = start


def heap_bytes(events: Iterable[tuple[int, int]], keeps: bool = True) -> int:
    """The most bytes that a `Heap` needs for `events`: the mean over `OBJECTS`."""
    events = list(events)
    return sum(Heap(keeps, objects).play(events) for objects in OBJECTS) // len(OBJECTS)


class CudaCache:
    """PyTorch's caching allocator, without its last resort of emptying the cache.

    Sizes are multiples of 512 bytes. Requests up to 1 MiB share blocks of 2 MiB; below 10 MiB they share
    blocks of 20 MiB; larger ones get blocks of their own, in multiples of 2 MiB.

    Attributes:
        reserved: bytes taken from the device, which is what other programs see.
        allocated, peak: bytes in use, and the most of them (`torch.cuda.max_memory_allocated`).
    """

    def __init__(self) -> None:
        self.pools = {True: Blocks(), False: Blocks()}  # small, large
        self.walls: set[int] = set()
        self.reserved = self.allocated = self.peak = 0
        self.used: dict[int, tuple[bool, int, int]] = {}

    def play(self, events: Iterable[tuple[int, int]]) -> int:
        """Allocate and free as `Tape.events` say; returns the most bytes reserved."""
        for number, size in events:
            if number < 0:  # an object of the CPU's
                continue
            if size:
                self._allocate(number, -(-size // 512) * 512)
            else:
                small, start, size = self.used.pop(number)
                self.allocated -= size
                self.pools[small].give(start, size, self.walls)
        return self.reserved

    def _allocate(self, number: int, size: int) -> None:
        small = size <= MB
        least_rest = 512 if small else MB + 1
        found = self.pools[small].take(size, least_rest)
        if found is None:
            block = 2 * MB if small else 20 * MB if size < 10 * MB else -(-size // (2 * MB)) * 2 * MB
            start, self.reserved = self.reserved, self.reserved + block
            self.walls.add(start)
            self.pools[small].give(start, block, self.walls | {start + block})
            found = self.pools[small].take(size, least_rest)
        start, taken = found
        self.used[number] = (small, start, taken)
        self.allocated += taken
        self.peak = max(self.peak, self.allocated)
