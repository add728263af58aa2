"""How a text is cut into words before any merging, and how its bytes are spelled.

Both are GPT-2's (Radford et al. 2019), which most byte-level tokenizers since have kept.
"""

from collections.abc import Callable

import tokenizers
from tokenizers import pre_tokenizers

# English endings; letters, numbers or other signs, each with the space before it; and white space, of which
# the last space before a word is left to that word. No merge crosses the edge of a word.
GPT2_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_spelling() -> list[str]:
    """A printable character for each of the 256 bytes, so that vocabulary files hold no control characters.

    Printable Latin-1 stands for itself; the 68 others take U+0100 onwards, in order (a space becomes Ġ).
    """
    ranges = ("!~", "¡¬", "®ÿ")
    printable = {byte for first, last in ranges for byte in range(ord(first), ord(last) + 1)}
    others = (chr(256 + n) for n in range(256 - len(printable)))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]


BYTE_TO_CHAR = byte_spelling()
CHAR_TO_BYTE = {char: byte for byte, char in enumerate(BYTE_TO_CHAR)}


def spell(text: str) -> str:
    """The UTF-8 bytes of a text in GPT-2's spelling: "é " becomes "Ã©Ġ"."""
    return "".join([BYTE_TO_CHAR[byte] for byte in text.encode("utf-8")])


def unspell(token: str) -> bytes:
    """The bytes of a vocabulary entry. One that is no spelling, as some special tokens, stands for itself."""
    if all(char in CHAR_TO_BYTE for char in token):
        return bytes(CHAR_TO_BYTE[char] for char in token)
    return token.encode("utf-8")


def word_splitter(split_digits: bool = False) -> Callable[[str], list[str]]:
    r"""A function from a text to its words, which joined give the text again.

    The library's regular expressions do the matching. Python's `re` has no \p{L}, and `unicodedata` has
    another Unicode version in each version of Python, so the newest characters would be cut differently.

    Args:
        split_digits: first cut out every single digit, so that numbers are never merged.
    """
    pattern = pre_tokenizers.Split(tokenizers.Regex(GPT2_PATTERN), behavior="isolated")
    digits = [pre_tokenizers.Digits(individual_digits=True)] if split_digits else []
    steps = pre_tokenizers.Sequence([*digits, pattern])
    return lambda text: [word for word, _ in steps.pre_tokenize_str(text)]


def splitter(split_digits: bool = False) -> pre_tokenizers.PreTokenizer:
    """The same cuts, and the spelling of the bytes, as the library's pre-tokenizer.

    Args:
        split_digits: every digit is a piece of its own, so that 2024 is four tokens in any context.
    """
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if not split_digits:
        return byte_level
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
