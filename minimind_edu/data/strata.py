"""Strata of a sample: by length or by script, and how a target is shared among them."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

# Chinese characters (Han ideographs): the main block, extension A, compatibility, extensions B to I.
HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
LATIN_END = 0x24F  # letters up to here are Latin: ASCII, Latin-1, Latin Extended-A and -B
_NO_LETTER, _CHINESE, _LATIN, _OTHER = range(4)


def text_of(record: dict[str, Any]) -> str:
    """All strings of a record but the roles of its messages, one a line: what a reader would call its text.

    The rule fits every layout: it gives the text of a pretraining record, the contents of a conversation,
    both answers of a preference pair. Keys and numbers do not count, and an escape counts as the one
    character that it stands for.
    """
    return "\n".join(_strings(record))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        roles = ("role", "from") if "value" in value else ("role",)  # ShareGPT: {"from": …, "value": …}
        for key, item in value.items():
            if key not in roles:
                yield from _strings(item)


def length_stratum(text: str) -> str:
    """The power of two up to which a text has characters: ``"64 to 127 characters"``."""
    if len(text) < 2:
        return f"{len(text)} character" + ("" if text else "s")
    power = 1 << (len(text).bit_length() - 1)
    return f"{power} to {2 * power - 1} characters"


def script_stratum(text: str) -> str:
    """The script of a text, by its letters; digits, punctuation and the like do not count.

    ``"chinese"``: at least half of the letters are Chinese characters (a Japanese text may count as Chinese
    where most of it is kanji). ``"latin"``: more than half are Latin letters, whichever the language.
    ``"other"``: everything else, such as Cyrillic, an even mixture, or no letter at all.
    """
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else "other"
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    letters = np.bincount(_classes()[np.minimum(codes, HAN[-1][1] + 1)], minlength=4)
    total = letters[_CHINESE:].sum()
    if total and 2 * letters[_CHINESE] >= total:
        return "chinese"
    return "latin" if 2 * letters[_LATIN] > total else "other"


@functools.cache
def _classes() -> np.ndarray:
    """The class of every character up to the last Chinese one, and of one beyond."""
    letters = [chr(code).isalpha() for code in range(HAN[-1][1] + 1)]
    classes = np.where([*letters, False], _OTHER, _NO_LETTER).astype(np.uint8)
    for first, last in HAN:
        classes[first : last + 1] = _CHINESE
    latin = classes[: LATIN_END + 1]
    latin[latin == _OTHER] = _LATIN
    return classes


def share(target: int, weights: Sequence[int], least: Sequence[int], most: Sequence[int]) -> list[int]:
    """Divide a target in proportion to weights, where each part has a least and a most.

    What one part cannot take goes to the others, in proportion again. The sum is the target exactly (or all
    that the parts can take, if that is less).

    >>> share(100, weights=[1, 1, 2], least=[0, 0, 0], most=[10, 90, 90])
    [10, 30, 60]

    Args:
        least: whole numbers with a sum of at most the target.
        most: whole numbers, none below its least.
    """
    target = min(target, sum(most))

    def parts(level: float) -> list[int]:
        return [
            min(max(int(level * weight), low), high)
            for weight, low, high in zip(weights, least, most, strict=True)
        ]

    # The level at which the parts, rounded down, just do not exceed the target.
    low, high = 0.0, 1.0 + max((m / w for m, w in zip(most, weights, strict=True) if w), default=0.0)
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(parts(middle)) <= target else (low, middle)
    result = parts(low)
    # Rounding left less than one for each part; the largest remainders get it.
    by_remainder = sorted(range(len(result)), key=lambda n: result[n] - low * weights[n])
    while (rest := target - sum(result)) > 0:
        open_parts = [n for n in by_remainder if result[n] < most[n]]
        for n in open_parts[:rest]:
            result[n] += 1
    return result
