"""Which texts nearly repeat an earlier one, found without comparing each with each.

Two texts are alike as far as they share shingles, here runs of 5 characters: the Jaccard similarity of the
two sets of shingles is the size of their intersection over that of their union. A MinHash (Broder, 1997, "On
the resemblance and containment of documents") puts the shingles in a random order and keeps the first; two
texts have the same first shingle with a probability equal to their similarity. 128 such orders estimate it
with a standard error of at most 0.045. Only 8 bits of each minimum are kept (Li & König, 2010, "b-Bit Minwise
Hashing"): different minima then agree by chance once in 256 times, which the estimate subtracts.

To find candidates, the signature is cut into bands (locality-sensitive hashing; Leskovec, Rajaraman & Ullman,
"Mining of Massive Datasets", chapter 3): texts that agree in a whole band are compared, on all 128 values.
"""

import itertools
import random

import numpy as np

SHINGLE = 5  # characters
HASHES = 128  # values in a signature
MIN_RECALL = 0.995  # part of the pairs exactly as similar as the threshold that the bands must find
PIECE = 1024  # shingles hashed at a time: the table of their hashes (512 kB) then stays in the cache
MAX_CHAIN = 64  # candidates followed one by one in a band, before all signatures are compared instead
CHANCE = 1 / 256  # probability that two different minima agree in the 8 bits kept

# Odd multipliers make x -> a x + b (mod 2^32) a permutation of the hashes of shingles. Python promises that
# this generator's numbers stay the same, NumPy does not.
_random = random.Random(5)
_A, _B = np.array([[int(_random.random() * 2**32)] for _ in range(2 * HASHES)], np.uint32).reshape(2, -1, 1)
_A |= np.uint32(1)
_MIX_1, _MIX_2 = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)  # MurmurHash3's finaliser
_BASE = np.uint64(0x9E3779B97F4A7C15)


def signature(text: str) -> np.ndarray:
    """The MinHash signature (128,) of a text, uint8. Memory does not grow with the length of the text."""
    minima = np.full(HASHES, 2**32 - 1, np.uint32)
    for start in range(0, max(len(text) - SHINGLE + 1, 1), PIECE):
        hashes = _shingle_hashes(text[start : start + PIECE + SHINGLE - 1])
        np.minimum(minima, (_A * hashes + _B).min(axis=1), out=minima)
    # A minimum is a small number, so its high bits say little: mix before 8 bits are kept.
    return ((minima * np.uint32(0x9E3779B1)) >> np.uint32(24)).astype(np.uint8)


def _shingle_hashes(text: str) -> np.ndarray:
    """Hashes (n,) of the shingles of a text, uint32; a text shorter than a shingle is one shingle."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if len(codes) < SHINGLE:
        codes = np.pad(codes, (0, SHINGLE - len(codes)), constant_values=2**32)  # no character
    count = len(codes) - SHINGLE + 1
    hashes = codes[:count]
    for place in range(1, SHINGLE):
        hashes = hashes * _BASE + codes[place : place + count]
    hashes = (hashes ^ (hashes >> np.uint64(33))) * _MIX_1
    hashes = (hashes ^ (hashes >> np.uint64(33))) * _MIX_2
    return (hashes >> np.uint64(32)).astype(np.uint32)


def estimated_similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The Jaccard similarity of signatures (..., 128), estimated from the part of their values that agree."""
    agree = (one == other).mean(axis=-1)
    return (agree - CHANCE) / (1 - CHANCE)


def rows_per_band(threshold: float) -> int:
    """How many values a band has: as many as keep the recall at the threshold above ``MIN_RECALL``.

    Texts of similarity s agree in a band of r values with probability s^r, so of 128 // r bands at least one
    agrees with probability 1 - (1 - s^r)^(128 // r). Longer bands give fewer candidates to compare in vain.
    """
    fitting = [
        rows
        for rows in range(1, HASHES + 1)
        if 1 - (1 - threshold**rows) ** (HASHES // rows) >= MIN_RECALL or rows == 1
    ]
    return fitting[-1]


class NearDuplicates:
    """Texts taken so far, and whether a new one nearly repeats one of them.

    Memory grows with the number of texts kept, not with their length: 128 bytes for a signature and 8 for
    each of its bands, at a threshold of 0.8 about 300 bytes (up to twice that, since the tables grow by
    doubling).

    Args:
        threshold: estimated similarity from which a text counts as a repeat, above 0 and up to 1.
    """

    def __init__(self, threshold: float) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"near_duplicates must be above 0 and at most 1, not {threshold}")
        # How many of the 128 values must agree.
        agreeing = threshold * (1 - CHANCE) + CHANCE
        self.needed = int(np.ceil(agreeing * HASHES - 1e-9))
        self.rows = rows_per_band(threshold)
        self.bands = HASHES // self.rows
        self.count = 0
        self._salts = np.arange(self.bands, dtype=np.uint64) * _MIX_2 + _BASE
        self._resize(1024)

    def __len__(self) -> int:
        return self.count

    @property
    def nbytes(self) -> int:
        """Bytes of memory in use."""
        return self._signatures.nbytes + self._heads.nbytes + self._next.nbytes

    def find(self, signature: np.ndarray) -> int | None:
        """The number (from 0, in the order of ``add``) of a kept text that this one repeats, or None."""
        band = np.arange(self.bands)
        chain = self._heads[band, self._slots(signature)]
        for step in itertools.count():
            band, chain = band[chain >= 0], chain[chain >= 0]
            if not len(chain):
                return None
            if step == MAX_CHAIN:  # so many texts share a band that comparing with all at once is faster
                return self._compare(self._signatures[: self.count], signature)
            found = self._compare(self._signatures[chain], signature)
            if found is not None:
                return int(chain[found])
            chain = self._next[chain, band]

    def add(self, signature: np.ndarray) -> None:
        """Keep a text."""
        if self.count == len(self._signatures):
            self._resize(2 * self.count)
        band, slots = np.arange(self.bands), self._slots(signature)
        self._signatures[self.count] = signature
        self._next[self.count] = self._heads[band, slots]
        self._heads[band, slots] = self.count
        self.count += 1

    def _compare(self, signatures: np.ndarray, signature: np.ndarray) -> int | None:
        agree = np.count_nonzero(signatures == signature, axis=1)
        best = int(agree.argmax())
        return best if agree[best] >= self.needed else None

    def _slots(self, signatures: np.ndarray, bands: slice = slice(None)) -> np.ndarray:
        """Where the bands of signatures (..., 128) begin their chains: (..., bands)."""
        whole = signatures[..., : self.bands * self.rows]
        values = whole.reshape(*whole.shape[:-1], self.bands, self.rows)[..., bands, :].astype(np.uint64)
        key = self._salts[bands]
        for row in range(self.rows):
            key = (key ^ values[..., row]) * _MIX_1
            key = key ^ (key >> np.uint64(32))
        return (key & np.uint64(self._heads.shape[1] - 1)).astype(np.int64)

    def _resize(self, capacity: int) -> None:
        """Make room, and chain all anew, since each slot then has half as many texts."""
        signatures = np.zeros((capacity, HASHES), np.uint8)
        if self.count:
            signatures[: self.count] = self._signatures
        self._signatures = signatures
        self._heads = np.full((self.bands, capacity), -1, np.int32)
        self._next = np.full((capacity, self.bands), -1, np.int32)
        for band in range(self.bands) if self.count else ():
            slots = self._slots(signatures[: self.count], slice(band, band + 1))[:, 0]
            # Sorted by slot, and within a slot by number: each text's chain goes on with the one before it.
            order = np.argsort(slots, kind="stable")
            same = slots[order[1:]] == slots[order[:-1]]
            self._next[order[1:][same], band] = order[:-1][same]
            self._heads[band, slots[order]] = order  # the last of a slot remains
