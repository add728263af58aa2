"""The second exercise of chapter 1: how a merge changes the counts of pairs."""

from collections import Counter
from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

Pair = tuple[int, int]
Changes = dict[Pair, int]


def random_integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def count_changes(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    """{pair: change of its count} when `pair` becomes `new_id` in a word that occurs `count` times."""
    merged, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == tuple(pair):
            merged.append(new_id)
            i += 2
        else:
            merged.append(word[i])
            i += 1
    changes = Counter()
    for old in zip(word, word[1:], strict=False):
        changes[old] -= count
    for new in zip(merged, merged[1:], strict=False):
        changes[new] += count
    return {pair: change for pair, change in changes.items() if change != 0}


def _words(generator: torch.Generator) -> list[tuple]:
    cases = [
        ([1, 2, 3], (1, 2), 9, 5),
        ([1, 1, 1], (1, 1), 9, 2),
        ([3, 1, 1, 1, 1, 2], (1, 1), 9, 3),
        ([4, 1, 2, 3, 4, 4, 1], (1, 2), 9, 3),  # (4, 1) at the end stays
        ([1, 2, 1, 2, 1, 2], (1, 2), 9, 4),
        ([3, 2, 1, 3], (1, 2), 9, 4),  # only the reverse is there: no change
        ([5], (1, 2), 9, 3),  # no pair at all
    ]
    for _ in range(8):
        word = [random_integer(generator, 1, 3) for _ in range(random_integer(generator, 6, 14))]
        at = random_integer(generator, 0, len(word) - 2)
        cases.append((word, (word[at], word[at + 1]), 9, random_integer(generator, 2, 6)))
    return cases


def _merged(word: list[int], pair: Pair, new_id: int, from_right: bool = False) -> list[int]:
    if from_right:
        return _merged(word[::-1], pair[::-1], new_id)[::-1]
    merged, i = [], 0
    while i < len(word):
        found = tuple(word[i : i + 2]) == tuple(pair)
        merged.append(new_id if found else word[i])
        i += 2 if found else 1
    return merged


def _difference(before: list[int], after: list[int], count: int = 1, keep_zeros: bool = False) -> Changes:
    changes = Counter()
    for old in zip(before, before[1:], strict=False):
        changes[old] -= count
    for new in zip(after, after[1:], strict=False):
        changes[new] += count
    return {pair: change for pair, change in changes.items() if keep_zeros or change}


def _once(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return _difference(word, _merged(word, pair, new_id))


def _zeros(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return _difference(word, _merged(word, pair, new_id), count, keep_zeros=True)


def _backwards(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return _difference(_merged(word, pair, new_id), word, count)


def _gains(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    changes = _difference(word, _merged(word, pair, new_id), count)
    return {pair: change for pair, change in changes.items() if change > 0}


def _losses(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    changes = _difference(word, _merged(word, pair, new_id), count)
    return {pair: change for pair, change in changes.items() if change < 0}


def _no_neighbours(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    changes = _difference(word, _merged(word, pair, new_id), count)
    return {other: change for other, change in changes.items() if other == pair or new_id in other}


def _from_the_right(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return _difference(word, _merged(word, pair, new_id, from_right=True), count)


def _first_only(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    places = [i for i in range(len(word) - 1) if (word[i], word[i + 1]) == tuple(pair)]
    after = word[: places[0]] + [new_id] + word[places[0] + 2 :] if places else word
    return _difference(word, after, count)


def _overlapping(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    after, i = [], 0
    while i < len(word):
        if tuple(word[i : i + 2]) == tuple(pair):
            after.append(new_id)
            i += 1 if tuple(word[i + 1 : i + 3]) == tuple(pair) else 2
        else:
            after.append(word[i])
            i += 1
    return _difference(word, after, count)


def _as_sets(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    after = _merged(word, pair, new_id)
    old, new = set(zip(word, word[1:], strict=False)), set(zip(after, after[1:], strict=False))
    return {p: count * ((p in new) - (p in old)) for p in old | new if (p in new) != (p in old)}


def _new_counts(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    after = _merged(word, pair, new_id)
    return {p: count * n for p, n in Counter(zip(after, after[1:], strict=False)).items()}


def _old_counts(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return {p: count * n for p, n in Counter(zip(word, word[1:], strict=False)).items()}


def _reversed_pair(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return count_changes(word, pair[::-1], new_id, count)


def _pair_only(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    return {pair: -count * list(zip(word, word[1:], strict=False)).count(tuple(pair))}


def _nothing_found(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    """A slice of a list compared with a tuple; the chapter's `merge`, given a list, does the same."""
    return {}


def _overwritten(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    changes = dict.fromkeys(zip(word, word[1:], strict=False), -count)
    after = _merged(word, pair, new_id)
    for new in zip(after, after[1:], strict=False):
        changes[new] = changes.get(new, 0) + count
    return {pair: change for pair, change in changes.items() if change}


def _second_kept(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    found = [tuple(word[i : i + 2]) == tuple(pair) for i in range(len(word))]
    return _difference(word, [new_id if here else id for id, here in zip(word, found, strict=True)], count)


def _one_by_one(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    """Each occurrence with its old neighbours, also where a neighbour is merged itself."""
    changes, i = Counter(), 0
    while i < len(word) - 1:
        if (word[i], word[i + 1]) == tuple(pair):
            changes[tuple(pair)] -= count
            if i > 0:
                changes[word[i - 1], word[i]] -= count
                changes[word[i - 1], new_id] += count
            if i + 2 < len(word):
                changes[word[i + 1], word[i + 2]] -= count
                changes[new_id, word[i + 2]] += count
            i += 1
        i += 1
    return {pair: change for pair, change in changes.items() if change}


def _either_order(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
    merged, i = [], 0
    while i < len(word):
        found = len(word[i : i + 2]) == 2 and sorted(word[i : i + 2]) == sorted(pair)
        merged.append(new_id if found else word[i])
        i += 2 if found else 1
    return _difference(word, merged, count)


def _merged_word(word: list[int], pair: Pair, new_id: int, count: int) -> list[int]:
    return _merged(word, pair, new_id)


def _gives_pairs(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 2, 3], (1, 2), 9, 5)
    return isinstance(given, dict) and all(isinstance(key, tuple) and len(key) == 2 for key in given)


def _removes_the_pair(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 2, 3], (1, 2), 9, 5).get((1, 2)) == -5


def _handles_the_neighbours(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([4, 1, 2, 3], (1, 2), 9, 1)
    return given == {(4, 1): -1, (1, 2): -1, (2, 3): -1, (4, 9): 1, (9, 3): 1}


def _knows_the_beginning(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 2, 3], (1, 2), 9, 1) == {(1, 2): -1, (2, 3): -1, (9, 3): 1}


def _knows_the_end(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([3, 1, 2], (1, 2), 9, 1) == {(3, 1): -1, (1, 2): -1, (3, 9): 1}


def _handles_two_in_a_row(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 2, 1, 2], (1, 2), 9, 1) == {(1, 2): -2, (2, 1): -1, (9, 9): 1}


def _handles_runs(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 1, 1], (1, 1), 9, 1) == {(1, 1): -2, (9, 1): 1}


def _leaves_other_words_alone(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([2, 1], (1, 2), 9, 3) == {} and attempt([5], (1, 2), 9, 3) == {}


COUNT_CHANGES = Exercise(
    name="ch01.count_changes",
    solution=count_changes,
    cases=_words,
    mistakes=(
        Mistake("this counts the word once, although it occurs `count` times", _once),
        Mistake("pairs whose count does not change should be left out, not kept with 0", _zeros),
        Mistake("the signs are turned around: pairs that vanish count negative", _backwards),
        Mistake("only the gains are here; pairs that vanish have to be taken out as well", _gains),
        Mistake("only the losses are here; the new token makes pairs with its neighbours", _losses),
        Mistake(
            "the old neighbours are forgotten: their pairs with the merged tokens vanish too",
            _no_neighbours,
        ),
        Mistake(
            "runs such as 1 1 1 are merged from the right here; merges go from the left", _from_the_right
        ),
        Mistake("only the first occurrence in the word is merged", _first_only),
        Mistake("occurrences overlap here: after a merge, go on behind both of its tokens", _overlapping),
        Mistake("a pair that occurs twice in the word counts as one here", _as_sets),
        Mistake("these are the new counts; the change is the new counts minus the old ones", _new_counts),
        Mistake("these are the word's pairs before the merge; how do they change?", _old_counts),
        Mistake("the pair is looked for back to front", _reversed_pair),
        Mistake("only the merged pair itself is here; its neighbours' pairs change too", _pair_only),
        Mistake("this is the merged word; return how the pair counts change", _merged_word),
        Mistake(
            "the pair is never found: a slice of a list is a list, and equals no tuple (the chapter's "
            "`merge` wants a tuple as word)",
            _nothing_found,
        ),
        Mistake("a pair that occurs twice is taken out once: write -= count, not = -count", _overwritten),
        Mistake("the second token of the pair is still there after the merge", _second_kept),
        Mistake(
            "where two merges stand side by side, this counts each with the other's old tokens",
            _one_by_one,
        ),
        Mistake("the order in the pair counts: (2, 1) is not (1, 2)", _either_order),
    ),
    properties=(
        Property("the result should be a dict from pairs, tuples of two ids, to changes", _gives_pairs),
        Property("in [1, 2, 3] with count 5, merging (1, 2) should change (1, 2) by -5", _removes_the_pair),
        Property(
            "merging (1, 2) in [4, 1, 2, 3] should touch both neighbours, 4 and 3",
            _handles_the_neighbours,
        ),
        Property(
            "at the beginning of a word nothing stands on the left (word[-1] is the last id)",
            _knows_the_beginning,
        ),
        Property("a pair at the very end of a word should be merged too", _knows_the_end),
        Property("two merges side by side should make the pair of two new tokens", _handles_two_in_a_row),
        Property("in [1, 1, 1] merging (1, 1) should leave one new token and one 1", _handles_runs),
        Property("a word without the pair should give an empty dict", _leaves_other_words_alone),
    ),
)
