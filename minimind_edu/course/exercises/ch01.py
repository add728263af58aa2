"""Exercises of chapter 1: compression, incremental counts, and what is learned."""

from collections.abc import Callable

import torch

from minimind_edu.course.exercises.ch01_counts import COUNT_CHANGES, random_integer
from minimind_edu.course.exercises.ch01_mask import ASSISTANT_MASK
from minimind_edu.course.exercises.checking import Exercise, Mistake, Property


def bytes_per_token(texts: list[str], token_ids: list[list[int]]) -> float:
    """UTF-8 bytes of all texts over the number of all their token ids."""
    size = sum(len(text.encode("utf-8")) for text in texts)
    return size / sum(len(ids) for ids in token_ids)


def _corpora(generator: torch.Generator) -> list[tuple]:
    letters = "abc défß 猫住北京🐈"

    def corpus(documents: int) -> tuple[list[str], list[list[int]]]:
        texts, token_ids = [], []
        for _ in range(documents):
            length = random_integer(generator, 2, 30)
            text = (
                "".join(letters[random_integer(generator, 0, len(letters) - 1)] for _ in range(length)) + "猫"
            )
            tokens = random_integer(generator, 1, len(text.encode()) - 1)
            texts.append(text)
            # ids from a small range, so that some repeat
            token_ids.append([random_integer(generator, 0, 5) for _ in range(tokens)])
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


def _counts_two_bytes(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(["é"], [[1]]) - 2.0) < 1e-6


def _counts_spaces(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt([" a "], [[1]]) - 3.0) < 1e-6


def _adds_nothing(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(["a", "b"], [[1], [2]]) - 1.0) < 1e-6


def _does_not_round(attempt: Callable, generator: torch.Generator) -> bool:
    return abs(attempt(["abcdefg"], [[1, 2, 3]]) - 7 / 3) < 1e-6


def _counts_all_documents(attempt: Callable, generator: torch.Generator) -> bool:
    one = attempt(["abcd", "ef"], [[1, 2], [3]])
    return abs(one - 2.0) < 1e-6 and abs(attempt(["abcd", "efgh"], [[1], [2, 3, 4]]) - 2.0) < 1e-6


_BYTES_PER_TOKEN = Exercise(
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
        Property(
            "é in one token should give 2.0: UTF-8 has characters of two bytes as well", _counts_two_bytes
        ),
        Property("spaces are bytes like all others", _counts_spaces),
        Property("nothing stands between documents: two of one letter have two bytes", _adds_nothing),
        Property("the ratio should not be rounded", _does_not_round),
        Property("bytes and tokens should each be summed over all documents", _counts_all_documents),
    ),
)

EXERCISES = (_BYTES_PER_TOKEN, COUNT_CHANGES, ASSISTANT_MASK)
