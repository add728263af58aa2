"""The two allocators on sequences whose outcome can be worked out by hand."""

import random

from minimind_edu.hardware.heap import MB, Blocks, CudaCache, Heap, heap_bytes


def test_blocks_take_the_smallest_that_fits_and_join_neighbours():
    blocks = Blocks()
    blocks.give(0, 100)
    blocks.give(200, 50)
    assert blocks.take(40, least_rest=32) == (200, 50)  # the rest of 10 is too small to stay free
    assert blocks.take(40, least_rest=32) == (0, 40)
    assert blocks.free == [(60, 40)]
    blocks.give(0, 40)
    assert blocks.free == [(100, 0)]
    blocks.give(100, 100)
    assert blocks.give(200, 50) == (0, 250) and len(blocks.free) == 1


def test_joining_stops_at_a_wall():
    blocks = Blocks()
    blocks.give(0, 100)
    assert blocks.give(100, 50, walls={100}) == (100, 50)


def events(seed: int) -> list[tuple[int, int]]:
    rng, alive, found = random.Random(seed), [], []
    for number in range(1, 400):
        found.append((number, rng.choice([200, 5_000, 70_000, 300_000])))
        alive.append(number)
        while alive and rng.random() < 0.45:
            found.append((alive.pop(rng.randrange(len(alive))), 0))
    return found


def most_live(found: list[tuple[int, int]]) -> int:
    sizes, total, peak = {}, 0, 0
    for number, size in found:
        total += size - sizes.pop(number, 0)
        sizes |= {number: size} if size else {}
        peak = max(peak, total)
    return peak


def test_no_block_overlaps_another_in_a_heap():
    heap = Heap()
    for number, size in events(0):
        heap.play([(number, size)])
        used = sorted(chunk for chunks in heap.used.values() for chunk in chunks)
        for (start, length), (following, _) in zip(used, used[1:], strict=False):
            assert start + length <= following
    assert heap.peak >= most_live(events(0))


def test_a_heap_needs_more_than_its_blocks_but_not_twice_as_much():
    for seed in range(5):
        found = events(seed)
        assert most_live(found) < heap_bytes(found) < 2 * most_live(found)


def test_mappings_go_back_to_the_system():
    found = [(1, 40 * MB), (1, 0), (2, 30 * MB), (2, 0), (3, 40 * MB)]
    given_back = Heap(keeps=False)
    assert given_back.play(found) < 41 * MB and given_back.mapped >= 40 * MB
    # Kept, the hole of 40 MiB is too small for 40 MiB: an aligned chunk asks for more than it gets.
    assert Heap(keeps=True).play(found) > 80 * MB


def test_a_gpus_cache_reserves_in_blocks():
    cache = CudaCache()
    assert cache.play([(1, 1000)]) == 2 * MB and cache.allocated == 1024
    assert cache.play([(2, 3 * MB)]) == 22 * MB  # shares 20 MiB
    assert cache.play([(3, 3 * MB)]) == 22 * MB
    assert cache.play([(4, 15 * MB)]) == 38 * MB  # 16 MiB of its own, for the shared ones have 14 left
    assert cache.play([(4, 0), (5, 16 * MB)]) == 38 * MB
    assert cache.play([(-1, 1), (-1, 0)]) == 38 * MB


def test_a_gpus_blocks_never_overlap():
    cache = CudaCache()
    for number, size in events(1):
        cache.play([(number, size)])
        for pool in (True, False):
            used = sorted((start, size) for small, start, size in cache.used.values() if small == pool)
            for (start, length), (following, _) in zip(used, used[1:], strict=False):
                assert start + length <= following
    assert cache.allocated <= cache.peak <= cache.reserved
