"""Byte-level byte-pair encoding, written to be read. Chapter 1 derives it.

Training (Sennrich et al. 2016, "Neural machine translation of rare words with subword units"): start from
single bytes; again and again, make the most frequent pair of neighbours one new token. Encoding: start from
bytes and apply the same merges, earliest learned first. Bytes rather than characters (Radford et al. 2019,
GPT-2), so that 256 tokens cover every text in every script, and nothing is ever unknown.

`train_fast` does the same with the `tokenizers` library: same merges, same order, same ids.
"""

import heapq
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import pre_tokenizers

from minimind_edu.tokenizer import files
from minimind_edu.tokenizer.fast import Tokenizer, byte_level_library
from minimind_edu.tokenizer.merges import Pair, learn_merges
from minimind_edu.tokenizer.specials import (
    SPECIAL_TOKENS,
    TokenizerError,
    check_text,
    check_vocab_size,
    default_roles,
    special_token_flags,
)
from minimind_edu.tokenizer.template import DEFAULT_CHAT_TEMPLATE
from minimind_edu.tokenizer.words import BYTE_TO_CHAR, spell, splitter, unspell, word_splitter

# Options of the library's BPE that change ids and that this tokenizer does not have.
_UNUSUAL_OPTIONS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "byte_fallback",
    "ignore_merges",
)


class BPETokenizer:
    """Text to token ids and back, by merges.

    Attributes:
        vocab: {token in GPT-2's spelling: id}, special tokens among them.
        merges: pairs of tokens, in the order they were learned.
        special_tokens: {token: id}.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        special_tokens: Iterable[str] | Mapping[str, bool] = (),
        split_digits: bool = False,
        chat_template: str | None = DEFAULT_CHAT_TEMPLATE,
        config: Mapping[str, Any] | None = None,
    ):
        self.vocab = dict(vocab)
        self.merges = [(left, right) for left, right in merges]
        self.split_digits = split_digits
        self.chat_template = chat_template
        self._flags = special_token_flags(special_tokens)
        self.special_tokens = {token: self.vocab[token] for token in self._flags}
        self.config = default_roles(self._flags) if config is None else dict(config)

        self._names = {id: token for token, id in self.vocab.items()}
        self._split = word_splitter(split_digits)
        self._cache: dict[str, list[int]] = {}
        # {pair of ids: (rank, id of the merged token)}. A merge that spells a special token is left out:
        # ordinary text must not become one.
        self._merge_table = {
            (self.vocab[left], self.vocab[right]): (rank, self.vocab[left + right])
            for rank, (left, right) in enumerate(self.merges)
            if self._flags.keys().isdisjoint((left, right, left + right))
        }

    @property
    def vocab_size(self) -> int:
        """The number of rows an embedding needs: one more than the largest id."""
        return max(self.vocab.values()) + 1

    @classmethod
    def train(
        cls,
        texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] | Mapping[str, bool] = SPECIAL_TOKENS,
        split_digits: bool = False,
        tie_break: str = "first",
        min_frequency: int = 0,
        chat_template: str | None = DEFAULT_CHAT_TEMPLATE,
    ) -> "BPETokenizer":
        """Learn a tokenizer from texts: `tokenizer = BPETokenizer.train(texts, 2000)`.

        Args:
            texts: documents, or one document as a string. Special tokens in them are ordinary text.
            vocab_size: special tokens, 256 bytes, and one more token for each merge. The texts may offer
                fewer merges; `vocab_size` of the result says what came of it.
            special_tokens: names, or {name: is it a control token}; they get the first ids.
            split_digits: see `word_splitter`.
            tie_break: which of equally frequent pairs is merged first. "first": the one with the smaller
                ids, that is, whose left token is older, as in the library. "greatest_bytes": the one whose
                tokens, as byte strings, come last in the alphabet.
            min_frequency: a pair that occurs fewer times is never merged.

        Raises:
            TokenizerError: vocab_size too small, faulty special tokens, an unknown tie_break, or a text that
                is no string or not Unicode.
        """
        flags = special_token_flags(special_tokens)
        check_vocab_size(vocab_size, flags)
        split, word_counts = word_splitter(split_digits), Counter()
        for number, text in enumerate([texts] if isinstance(texts, str) else texts):
            check_text(text, f" (text {number})")
            word_counts.update(split(text))
        spelled = {spell(word): count for word, count in word_counts.items()}
        vocab = {token: id for id, token in enumerate([*flags, *sorted(BYTE_TO_CHAR)])}
        merges = learn_merges(spelled, vocab, vocab_size, min_frequency, tie_break)
        return cls(vocab, merges, flags, split_digits, chat_template)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text; with `special`, special tokens in it become their ids instead of plain text.

        Raises:
            TokenizerError: not a string, or a lone surrogate in it.
        """
        check_text(text)
        if not special or not self.special_tokens:
            return self._encode_plain(text)
        longest_first = sorted(self.special_tokens, key=len, reverse=True)
        pieces = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        ids = []  # re.split with a group gives text, token, text, token, ..., text
        for number, piece in enumerate(pieces):
            ids += [self.special_tokens[piece]] if number % 2 else self._encode_plain(piece)
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        ids = []
        for word in self._split(text):
            known = self._cache.get(word)
            if known is None:
                known = self._encode_word(word)
                if len(self._cache) < 100_000 and len(word) < 100:
                    self._cache[word] = known
            ids += known
        return ids

    def _encode_word(self, word: str) -> list[int]:
        """Merge the pair that was learned earliest (of several, the leftmost), until no pair can be merged.

        A heap of candidates and links between neighbours keep a word of n bytes at O(n log n). A candidate
        whose ids are no longer neighbours has been overtaken by another merge, and is passed over.
        """
        ids: list[int | None] = [self.vocab[char] for char in spell(word)]
        after = list(range(1, len(ids) + 1))  # position of the next token
        before = list(range(-1, len(ids) - 1))  # and of the one before
        heap: list[tuple[int, int, Pair]] = []

        def offer(left: int, right: int) -> None:
            if left >= 0 and right < len(ids) and (ids[left], ids[right]) in self._merge_table:
                pair = (ids[left], ids[right])
                heapq.heappush(heap, (self._merge_table[pair][0], left, pair))

        for left in range(len(ids) - 1):
            offer(left, left + 1)
        while heap:
            _, left, pair = heapq.heappop(heap)
            right = after[left]
            if right >= len(ids) or (ids[left], ids[right]) != pair:
                continue
            ids[left], ids[right] = self._merge_table[pair][1], None
            after[left] = after[right]
            if after[left] < len(ids):
                before[after[left]] = left
            offer(before[left], left)
            offer(left, after[left])
        return [id for id in ids if id is not None]

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids. Bytes that are not UTF-8 become U+FFFD, ids beyond the vocabulary nothing.

        Args:
            skip_special_tokens: leave out control tokens.
        """
        tokens = [self._names[id] for id in ids if id in self._names]
        if skip_special_tokens:
            tokens = [token for token in tokens if not self._flags.get(token, False)]
        return b"".join(map(unspell, tokens)).decode("utf-8", errors="replace")

    def to_fast(self) -> Tokenizer:
        """The same tokenizer, run by the library."""
        library = byte_level_library(self.vocab, self.merges, self._flags, self.split_digits)
        return Tokenizer(library, self.config, self.chat_template)

    def save(self, dir: str | Path) -> None:
        """Write the folder that `load`, `load_tokenizer` and transformers' AutoTokenizer read."""
        self.to_fast().save(dir)

    @classmethod
    def load(cls, dir: str | Path) -> "BPETokenizer":
        """Load a byte-level BPE tokenizer from a folder or a `tokenizer.json`.

        Raises:
            TokenizerError: no such file, a malformed one, or a tokenizer of another kind.
        """
        library, config, template = files.read(Path(dir))
        spec = json.loads(library.to_str())
        model = spec["model"]
        kinds = {_kind(splitter(digits)): digits for digits in (False, True)}
        split_digits = kinds.get(_kind(library.pre_tokenizer))
        unusual = spec["normalizer"] or any(model.get(option) for option in _UNUSUAL_OPTIONS)
        unusual = unusual or not all(char in model["vocab"] for char in BYTE_TO_CHAR)
        if model["type"] != "BPE" or split_digits is None or unusual:
            raise TokenizerError(f"{dir}: not a byte-level BPE tokenizer with GPT-2's words")
        flags = {token["content"]: token["special"] for token in spec["added_tokens"]}
        vocab = model["vocab"] | {token["content"]: token["id"] for token in spec["added_tokens"]}
        return cls(vocab, model["merges"], flags, split_digits, template, config)


def _kind(pre_tokenizer: pre_tokenizers.PreTokenizer | None) -> str:
    """A pre-tokenizer as a string to compare (without `trim_offsets`, which changes no ids)."""
    return repr(pre_tokenizer).replace("trim_offsets=True", "").replace("trim_offsets=False", "")
