"""Exercises of chapter 1: compression, incremental pair counts, and the mask of an assistant's words."""

from collections import Counter
from collections.abc import Callable

import torch

from minimind_edu.course.exercises.checking import Exercise, Mistake, Property

Pair = tuple[int, int]
Changes = dict[Pair, int]


def _integer(generator: torch.Generator, low: int, high: int) -> int:
    """A random integer from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


# ------------------------------------------------------------------------------------------ bytes_per_token


def bytes_per_token(texts: list[str], token_ids: list[list[int]]) -> float:
    size = sum(len(text.encode("utf-8")) for text in texts)
    return size / sum(len(ids) for ids in token_ids)


def _corpora(generator: torch.Generator) -> list[tuple]:
    letters = "abc défß 猫住北京🐈"

    def corpus(documents: int) -> tuple[list[str], list[list[int]]]:
        texts, token_ids = [], []
        for _ in range(documents):
            length = _integer(generator, 2, 30)
            text = "".join(letters[_integer(generator, 0, len(letters) - 1)] for _ in range(length)) + "猫"
            tokens = _integer(generator, 1, len(text.encode()) - 1)
            texts.append(text)
            # ids from a small range, so that some repeat
            token_ids.append([_integer(generator, 0, 5) for _ in range(tokens)])
        return texts, token_ids

    return [(["ab", "猫"], [[7], [1, 2, 3]]), *(corpus(documents) for documents in (1, 3, 8, 8))]


def _characters(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(map(len, texts)) / sum(map(len, token_ids))


def _inverse(texts: list[str], token_ids: list[list[int]]) -> float:
    return 1 / bytes_per_token(texts, token_ids)


def _mean_of_ratios(texts: list[str], token_ids: list[list[int]]) -> float:
    ratios = [len(text.encode()) / len(ids) for text, ids in zip(texts, token_ids, strict=True)]
    return sum(ratios) / len(ratios)


def _different_tokens(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode()) for text in texts) / len({id for ids in token_ids for id in ids})


def _whole_number(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode()) for text in texts) // sum(map(len, token_ids))


def _documents(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode()) for text in texts) / len(token_ids)


def _two_bytes_each(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode("utf-16-le")) for text in texts) / sum(map(len, token_ids))


def _sum_of_ids(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode()) for text in texts) / max(sum(map(sum, token_ids)), 1)


def _tokens_per_character(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(map(len, token_ids)) / sum(map(len, texts))


def _mean_of_character_ratios(texts: list[str], token_ids: list[list[int]]) -> float:
    ratios = [len(text) / len(ids) for text, ids in zip(texts, token_ids, strict=True)]
    return sum(ratios) / len(ratios)


def _sum_of_ratios(texts: list[str], token_ids: list[list[int]]) -> float:
    return sum(len(text.encode()) / len(ids) for text, ids in zip(texts, token_ids, strict=True))


def _bits(texts: list[str], token_ids: list[list[int]]) -> float:
    return 8 * bytes_per_token(texts, token_ids)


def _is_one_number(attempt: Callable, generator: torch.Generator) -> bool:
    return float(attempt(["ab", "c"], [[1], [2]])) == float(attempt(["ab", "c"], [[1], [2]]))


def _is_plain_ratio(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(["abcd"], [[1, 2]]) - 2.0) < 1e-6


def _counts_utf8(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(["猫"], [[1]]) - 3.0) < 1e-6


def _counts_all_documents(attempt: Callable, generator: torch.Generator) -> bool:
    one = attempt(["abcd", "ef"], [[1, 2], [3]])
    return abs(one - 2.0) < 1e-6 and abs(attempt(["abcd", "efgh"], [[1], [2, 3, 4]]) - 2.0) < 1e-6


# -------------------------------------------------------------------------------------------- count_changes


def count_changes(word: list[int], pair: Pair, new_id: int, count: int) -> Changes:
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
    ]
    for _ in range(8):
        word = [_integer(generator, 1, 3) for _ in range(_integer(generator, 6, 14))]
        at = _integer(generator, 0, len(word) - 2)
        cases.append((word, (word[at], word[at + 1]), 9, _integer(generator, 2, 6)))
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


def _handles_two_in_a_row(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 2, 1, 2], (1, 2), 9, 1) == {(1, 2): -2, (2, 1): -1, (9, 9): 1}


def _handles_runs(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([1, 1, 1], (1, 1), 9, 1) == {(1, 1): -2, (9, 1): 1}


def _leaves_other_words_alone(attempt: Callable, generator: torch.Generator) -> bool:
    return attempt([2, 1], (1, 2), 9, 3) == {} and attempt([5], (1, 2), 9, 3) == {}


# ------------------------------------------------------------------------------------------- assistant_mask


def assistant_mask(ids: list[int], header: list[int], end: int) -> list[bool]:
    mask, i = [False] * len(ids), 0
    while i < len(ids):
        if ids[i : i + len(header)] == header:
            start = i + len(header)
            if end not in ids[start:]:
                break  # a prompt: nothing has been said yet
            stop = ids.index(end, start)
            mask[start : stop + 1] = [True] * (stop + 1 - start)
            i = stop
        i += 1
    return mask


_BEGIN, _END = 1, 2


def _conversations(generator: torch.Generator) -> list[tuple]:
    def turn(header: list[int]) -> list[int]:
        return header + [_integer(generator, 10, 15) for _ in range(_integer(generator, 1, 5))] + [_END, 3]

    def conversation(turns: int, prompt: bool, header: list[int]) -> tuple[list[int], list[int], int]:
        user = [*header[:-1], header[-1] + 1]  # begins like the assistant's
        ids = [id for _ in range(turns) for id in turn(user) + turn(header)]
        return ids + turn(user) + header + ([12, 13] if prompt and turns % 2 else []) * prompt, header, _END

    cases = [([1, 5, 2, 1, 8, 6, 7, 2], [1, 8], 2), ([1, 5, 2, 3], [1, 8], 2)]
    for header in ([_BEGIN, 8], [_BEGIN, 7, 8, 3], [_BEGIN, 8, 3]):
        for turns in (1, 2, 3):
            ids, _, end = conversation(turns, prompt=False, header=header)
            cases.append((ids[: -len(header)], header, end))  # all turns complete
            cases.append(conversation(turns, prompt=True, header=header))
    return cases


def _spans(ids: list[int], header: list[int], end: int) -> list[Pair]:
    """(first place after the header, place of the end token) of each complete turn."""
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i:start] == header and end in ids[start:]:
            spans.append((start, ids.index(end, start)))
    return spans


def _fill(ids: list[int], spans: list[Pair]) -> list[bool]:
    return [any(start <= i < stop for start, stop in spans) for i in range(len(ids))]


def _without_end(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, _spans(ids, header, end))


def _with_header(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start - len(header), stop + 1) for start, stop in _spans(ids, header, end)])


def _late(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start + 1, stop + 1) for start, stop in _spans(ids, header, end)])


def _early(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start - 1, stop + 1) for start, stop in _spans(ids, header, end)])


def _too_far(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 2) for start, stop in _spans(ids, header, end)])


def _first_turn(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 1) for start, stop in _spans(ids, header, end)[:1]])


def _last_turn(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, stop + 1) for start, stop in _spans(ids, header, end)[-1:]])


def _to_the_last_end(ids: list[int], header: list[int], end: int) -> list:
    spans = _spans(ids, header, end)
    last = max((i for i, id in enumerate(ids) if id == end), default=-1)
    return _fill(ids, [(start, last + 1) for start, _ in spans[:1]])


def _to_the_close(ids: list[int], header: list[int], end: int) -> list:
    return _fill(ids, [(start, len(ids)) for start, _ in _spans(ids, header, end)[:1]])


def _open_prompt(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i:start] == header:
            spans.append((start, ids.index(end, start) + 1 if end in ids[start:] else len(ids)))
    return _fill(ids, spans)


def _any_turn(ids: list[int], header: list[int], end: int) -> list:
    """Looks at the first token of the header only, which every turn has."""
    spans = []
    for i in range(len(ids)):
        start = i + len(header)
        if ids[i] == header[0] and end in ids[start:]:
            spans.append((start, ids.index(end, start) + 1))
    return _fill(ids, spans)


def _last_of_header(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        if ids[i] == header[-1] and end in ids[i + 1 :]:
            spans.append((i + 1, ids.index(end, i + 1) + 1))
    return _fill(ids, spans)


def _from_the_header(ids: list[int], header: list[int], end: int) -> list:
    spans = []
    for i in range(len(ids)):
        if ids[i : i + len(header)] == header:
            spans.append((i, ids.index(end, i) + 1 if end in ids[i:] else len(ids)))
    return _fill(ids, spans)


def _inverted(ids: list[int], header: list[int], end: int) -> list:
    return [not learned for learned in assistant_mask(ids, header, end)]


def _shifted(ids: list[int], header: list[int], end: int) -> list:
    return [*assistant_mask(ids, header, end)[1:], False]


def _token_ids(ids: list[int], header: list[int], end: int) -> list:
    return [
        id if learned else -100 for id, learned in zip(ids, assistant_mask(ids, header, end), strict=True)
    ]


def _learned_ids(ids: list[int], header: list[int], end: int) -> list:
    return [id for id, learned in zip(ids, assistant_mask(ids, header, end), strict=True) if learned]


_EXAMPLE = ([1, 5, 2, 1, 8, 6, 7, 2, 3], [1, 8], 2)


def _has_the_length(attempt: Callable, generator: torch.Generator) -> bool:
    return len(attempt(*_EXAMPLE)) == len(_EXAMPLE[0])


def _is_boolean(attempt: Callable, generator: torch.Generator) -> bool:
    return {int(value) for value in attempt(*_EXAMPLE)} <= {0, 1}


def _skips_the_user(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt(*_EXAMPLE)[:3])


def _skips_the_header(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt(*_EXAMPLE)[3:5])


def _learns_the_words(attempt: Callable, generator: torch.Generator) -> bool:
    return all(attempt(*_EXAMPLE)[5:7])


def _learns_the_end(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt(*_EXAMPLE)
    return bool(given[7]) and not given[8]


def _finds_every_turn(attempt: Callable, generator: torch.Generator) -> bool:
    given = attempt([1, 8, 6, 2, 1, 5, 2, 1, 8, 7, 2], [1, 8], 2)
    return [bool(value) for value in given] == [False] * 2 + [True] * 2 + [False] * 5 + [True] * 2


def _leaves_prompts(attempt: Callable, generator: torch.Generator) -> bool:
    return not any(attempt([1, 5, 2, 1, 8, 6, 7], [1, 8], 2))


EXERCISES = (
    Exercise(
        name="ch01.bytes_per_token",
        solution=bytes_per_token,
        cases=_corpora,
        mistakes=(
            Mistake("this counts characters; a Chinese one has three bytes in UTF-8", _characters),
            Mistake("this is tokens per byte: the ratio is upside down", _inverse),
            Mistake(
                "this averages the documents' ratios, so a short document weighs as much as a long one; sum "
                "over all documents first, then divide",
                _mean_of_ratios,
            ),
            Mistake("this counts each token id once, however often it was used", _different_tokens),
            Mistake("the division drops the remainder", _whole_number),
            Mistake("this adds up the ids themselves; how many there are is what counts", _sum_of_ids),
            Mistake("this is tokens per character: upside down, and not in bytes", _tokens_per_character),
            Mistake(
                "this averages characters per token; count bytes, and sum over all documents before dividing",
                _mean_of_character_ratios,
            ),
            Mistake("this adds up the ratios of the documents; divide sum by sum instead", _sum_of_ratios),
            Mistake("this is bits per token, eight times as many", _bits),
            Mistake("this divides by the number of documents, not of tokens", _documents),
            Mistake("these are the bytes of UTF-16; the tokenizer works on UTF-8", _two_bytes_each),
        ),
        properties=(
            Property("the result should be one number for all documents together", _is_one_number),
            Property("four ASCII letters in two tokens should give 2.0", _is_plain_ratio),
            Property("one Chinese character in one token should give 3.0: count UTF-8 bytes", _counts_utf8),
            Property("bytes and tokens should each be summed over all documents", _counts_all_documents),
        ),
    ),
    Exercise(
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
        ),
        properties=(
            Property("the result should be a dict from pairs, tuples of two ids, to changes", _gives_pairs),
            Property(
                "in [1, 2, 3] with count 5, merging (1, 2) should change (1, 2) by -5", _removes_the_pair
            ),
            Property(
                "merging (1, 2) in [4, 1, 2, 3] should touch both neighbours, 4 and 3",
                _handles_the_neighbours,
            ),
            Property("two merges side by side should make the pair of two new tokens", _handles_two_in_a_row),
            Property("in [1, 1, 1] merging (1, 1) should leave one new token and one 1", _handles_runs),
            Property("a word without the pair should give an empty dict", _leaves_other_words_alone),
        ),
    ),
    Exercise(
        name="ch01.assistant_mask",
        solution=assistant_mask,
        cases=_conversations,
        mistakes=(
            Mistake("the end token is missing: without it a model never learns to stop", _without_end),
            Mistake("the header is marked too; the template writes it, not the model", _with_header),
            Mistake("the first token after the header is missing", _late),
            Mistake("the last token of the header is marked too", _early),
            Mistake("one token too many: the turn is over with its end token", _too_far),
            Mistake("only the first assistant turn is marked", _first_turn),
            Mistake("only the last assistant turn is marked", _last_turn),
            Mistake("this runs on to the last end token, over the user's turns between", _to_the_last_end),
            Mistake("this marks everything after the first header, the user's next words too", _to_the_close),
            Mistake("a turn without its end token is a prompt, and is not learned", _open_prompt),
            Mistake(
                "other turns are marked too: compare the whole header, not only its first token", _any_turn
            ),
            Mistake(
                "only the header's last token is looked at, which may stand elsewhere too", _last_of_header
            ),
            Mistake("the header is marked, and so is a turn without its end token", _from_the_header),
            Mistake("the mask is turned around: True is for what is learned", _inverted),
            Mistake(
                "the mask is one place too early; shifting for the next token is the loss's business",
                _shifted,
            ),
            Mistake("these are labels; return True or False for each token", _token_ids),
            Mistake("these are the learned tokens; return a mask over all of them", _learned_ids),
        ),
        properties=(
            Property("the mask should be as long as the ids", _has_the_length),
            Property("the mask should hold True and False only", _is_boolean),
            Property("the user's turn should not be marked", _skips_the_user),
            Property("the header should not be marked", _skips_the_header),
            Property("every token after the header should be marked, up to the end token", _learns_the_words),
            Property("the end token should be marked, and what follows it not", _learns_the_end),
            Property("every assistant turn should be marked, and nothing between them", _finds_every_turn),
            Property("a last turn without an end token should not be marked", _leaves_prompts),
        ),
    ),
)
