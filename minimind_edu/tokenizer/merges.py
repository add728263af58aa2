"""Learning the merges of byte-pair encoding, with counts that are kept up to date. Chapter 1 derives it."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping

from minimind_edu.tokenizer.specials import TokenizerError
from minimind_edu.tokenizer.words import unspell

Pair = tuple[int, int]


def learn_merges(
    word_counts: Mapping[str, int],
    vocab: dict[str, int],
    vocab_size: int,
    min_frequency: int = 0,
    tie_break: str = "first",
) -> list[tuple[str, str]]:
    """Learn merges until the vocabulary is full, or no pair is left that is frequent enough.

    The naive way counts all pairs again after every merge. Here counts are kept: a merge changes only the
    words that contain the pair, and `words_with` knows them. A heap hands out the most frequent pair; counts
    in it may be out of date (too high), which is noticed when they come up, and put right.

    Args:
        word_counts: {word in GPT-2's spelling: how often it occurs}.
        vocab: {token: id} to begin with, ids 0, 1, 2, ...; **new tokens are added to it**.
        min_frequency: a pair that occurs fewer times is never merged.
        tie_break: which of equally frequent pairs goes first; see `BPETokenizer.train`.
    """
    names = list(vocab)
    rank = _tie_rank(names, tie_break)
    words = [[vocab[char] for char in word] for word in word_counts]
    counts = list(word_counts.values())

    pair_counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for index, word in enumerate(words):
        for pair in zip(word, word[1:], strict=False):
            pair_counts[pair] += counts[index]
            words_with[pair].add(index)

    heap = [(-count, rank(pair), pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    merges = []
    while heap and len(vocab) < vocab_size:
        minus_count, tie, pair = heapq.heappop(heap)
        count = pair_counts[pair]
        if count != -minus_count:  # out of date
            if count > 0:
                heapq.heappush(heap, (-count, tie, pair))
            continue
        if count < max(min_frequency, 1):
            break
        name = names[pair[0]] + names[pair[1]]
        new_id = vocab.setdefault(name, len(names))  # two ways to spell a token share its id
        if new_id == len(names):
            names.append(name)
        merges.append((names[pair[0]], names[pair[1]]))

        grown = set()  # pairs that now occur more often: those with the new token
        for index in words_with.pop(pair):
            before, after = words[index], _merge(words[index], pair, new_id)
            for old in zip(before, before[1:], strict=False):
                pair_counts[old] -= counts[index]
            for new in zip(after, after[1:], strict=False):
                pair_counts[new] += counts[index]
                if new_id in new:
                    words_with[new].add(index)
                    grown.add(new)
            words[index] = after
        for new in grown:
            heapq.heappush(heap, (-pair_counts[new], rank(new), new))
    return merges


def _merge(word: list[int], pair: Pair, new_id: int) -> list[int]:
    """The word with each occurrence of the pair, from the left, replaced by the new id: [a a a] -> [A a]."""
    merged, i = [], 0
    while i < len(word):
        if i + 1 < len(word) and word[i] == pair[0] and word[i + 1] == pair[1]:
            merged.append(new_id)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    return merged


def _tie_rank(names: list[str], tie_break: str) -> Callable[[Pair], tuple]:
    """A key for pairs; of equally frequent ones the smallest key goes first."""
    if tie_break == "first":
        return lambda pair: pair
    if tie_break == "greatest_bytes":
        return lambda pair: (_descending(names[pair[0]]), _descending(names[pair[1]]))
    raise TokenizerError(f"tie_break must be 'first' or 'greatest_bytes', not {tie_break!r}")


def _descending(token: str) -> tuple[int, ...]:
    """A key that sorts byte strings from greatest to least; the 1 puts a prefix after its continuations."""
    return (*(-byte for byte in unspell(token)), 1)
