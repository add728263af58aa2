"""The tokenizer that everything else uses: a thin wrapper around the `tokenizers` library.

The library decides the ids; the wrapper adds what it leaves open: a text is plain text unless the caller says
otherwise, a conversation comes with its mask, and a faulty file is an error of one line.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from minimind_edu.tokenizer import chat, files
from minimind_edu.tokenizer.chat import ChatEncoding
from minimind_edu.tokenizer.files import token_text
from minimind_edu.tokenizer.specials import (
    ROLES,
    SPECIAL_TOKENS,
    TokenizerError,
    check_text,
    check_vocab_size,
    default_roles,
    special_token_flags,
)
from minimind_edu.tokenizer.template import DEFAULT_CHAT_TEMPLATE, Message, render
from minimind_edu.tokenizer.words import splitter

_Result = TypeVar("_Result")


class Tokenizer:
    """Text to token ids and back.

    Attributes:
        vocab_size: one more than the largest id: the number of rows an embedding needs.
        special_tokens: {token: id}, control tokens and the model's own (`<think>`, ...) alike.
        bos_token, eos_token, pad_token, unk_token: the tokens with a part to play; None where there are none.
        bos_token_id, eos_token_id, pad_token_id, unk_token_id: their ids.
        chat_template: the Jinja source, or None.
        config: what `tokenizer_config.json` holds.
    """

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    pad_token_id: int | None
    unk_token_id: int | None

    def __init__(
        self, library: tokenizers.Tokenizer, config: Mapping[str, Any], chat_template: str | None = None
    ):
        """Wrap the library's tokenizer; see `train_fast` and `load_tokenizer` for the usual ways to get one.

        Raises:
            TokenizerError: the config names a bos, eos, pad or unk token that the tokenizer does not have.
        """
        library.no_truncation()  # a file may carry these; `encode` gives the whole text, and nothing but it
        library.no_padding()
        self.library = library
        self.config = dict(config)
        self.chat_template = chat_template
        added = sorted(library.get_added_tokens_decoder().items())
        self.special_tokens: dict[str, int] = {token.content: id for id, token in added}
        self.control_tokens = frozenset(token.content for _, token in added if token.special)
        self.vocab_size = max(library.get_vocab(with_added_tokens=True).values(), default=-1) + 1

        for role in ROLES:
            token = token_text(self.config.get(role))
            if token is not None and token not in self.special_tokens:
                raise TokenizerError(f"{role} {token!r} is not among the special tokens")
            setattr(self, role, token)
            setattr(self, f"{role}_id", self.special_tokens.get(token))

    @cached_property
    def _plain(self) -> tokenizers.Tokenizer:
        """The same tokenizer without special tokens: for it every text is ordinary text."""
        spec = files.without_special_tokens(json.loads(self.library.to_str()))
        return tokenizers.Tokenizer.from_str(json.dumps(spec))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over all that decides the ids of a text or a conversation."""
        roles = [self.bos_token, self.eos_token, self.pad_token, self.unk_token]
        parts = [json.loads(self.library.to_str()), self.chat_template, roles]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Token ids of a text.

        Args:
            text: any string.
            special: whether a special token's name in the text stands for that token. By default it does
                not: `<|im_end|>` in a text is eight or so ordinary tokens, as a user may type it.

        Raises:
            TokenizerError: not a string, or a lone surrogate in it.
        """
        library = self.library if special else self._plain
        return self._guarded(lambda: library.encode(text, add_special_tokens=False).ids, [text])

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of many plain texts; the library works on them in parallel.

        Raises:
            TokenizerError: as `encode`; the message gives the number of the text, counted from 0.
        """
        if isinstance(texts, str):
            raise TokenizerError("encode_batch takes a list of texts, not one text")
        texts = list(texts)
        encode = self._plain.encode_batch_fast
        return self._guarded(lambda: [e.ids for e in encode(texts, add_special_tokens=False)], texts)

    def _guarded(self, encode: Callable[[], _Result], texts: list[str]) -> _Result:
        """`encode()`, with a clear error for a text that is none. The texts are looked at only on failure."""
        try:
            if all(isinstance(text, str) for text in texts):
                return encode()
        except (TypeError, UnicodeEncodeError):
            pass
        for number, text in enumerate(texts):
            where = f" (text {number} of the batch)" if len(texts) > 1 else ""
            check_text(text, where)
        return encode()

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids; bytes that are not UTF-8 become U+FFFD, ids beyond the vocabulary nothing.

        Args:
            skip_special_tokens: leave out control tokens; `<think>` and its like, the model's words, stay.
        """
        try:
            return self.library.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)
        except (OverflowError, TypeError, ValueError) as error:
            raise TokenizerError(f"token ids must be integers from 0 to 2**32 - 1 ({error})") from error

    def apply_chat_template(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> str:
        """The conversation as one text, as transformers renders it. For showing: to train, use `encode_chat`.

        Args:
            messages: dicts with "role" and "content", and what else the template reads.
            add_generation_prompt: end with the header of an assistant turn.
            tools: JSON schemas of functions.
            kwargs: switches of the template, such as `open_thinking=True`.

        Raises:
            TokenizerError: no template, a faulty one, or messages that it cannot render.
        """
        variables = {**kwargs, "add_generation_prompt": add_generation_prompt, "tools": tools}
        return render(self._template(), messages, self._template_names() | variables)

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ) -> ChatEncoding:
        """Ids of a conversation of T tokens, `.input_ids` (T,), and `.assistant_mask` (T,): what to learn.

        The mask is True on what follows an assistant header (`<|im_start|>assistant` and a newline), up to
        and with the end token, but for an empty block of thoughts, which is the prompt's (`thinking`).
        Contents are plain text: special tokens come from the template only, except that an assistant's
        content may hold those the model writes itself (`<think>`, `<tool_call>`, ...).

        Args and Raises: as `apply_chat_template`; and a TokenizerError where there is an assistant message
            but the template writes no assistant turn.
        """
        variables = {**kwargs, "add_generation_prompt": add_generation_prompt, "tools": tools}
        tokens = {token: (id, token in self.control_tokens) for token, id in self.special_tokens.items()}
        return chat.encode_chat(
            self._template(),
            messages,
            tokens,
            self.bos_token,
            self.eos_token,
            self._encode_with_ends,
            self._template_names(),
            variables,
        )

    def _encode_with_ends(self, text: str) -> tuple[list[int], list[int]]:
        encoding = self._guarded(lambda: self._plain.encode(text, add_special_tokens=False), [text])
        return encoding.ids, [end for _, end in encoding.offsets]

    def _template(self) -> str:
        if self.chat_template is None:
            raise TokenizerError("this tokenizer has no chat template")
        if self.bos_token is None or self.eos_token is None:
            raise TokenizerError("a chat needs a tokenizer with special tokens")
        return self.chat_template

    def _template_names(self) -> dict[str, str]:
        """The names under which a template finds special tokens: bos_token, eos_token, image_token, ..."""
        named = {key: token_text(value) for key, value in self.config.items() if key.endswith("_token")}
        named |= {role: getattr(self, role) for role in ROLES}
        return {key: token for key, token in named.items() if token in self.special_tokens}

    def save(self, dir: str | Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json`, which transformers' AutoTokenizer loads.

        Raises:
            TokenizerError: the folder cannot be written.
        """
        config = {**self.config, **{role: getattr(self, role) for role in ROLES}}
        files.write_folder(Path(dir), self.library, config, self.chat_template)


def byte_level_library(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    special_tokens: Mapping[str, bool],
    split_digits: bool = False,
) -> tokenizers.Tokenizer:
    """The library's byte-level BPE tokenizer with this vocabulary (in GPT-2's spelling) and these merges."""
    library = tokenizers.Tokenizer(models.BPE(vocab=dict(vocab), merges=list(merges)))
    library.pre_tokenizer = splitter(split_digits)
    library.decoder = decoders.ByteLevel()
    library.add_tokens(_added_tokens(special_tokens))
    return library


def _added_tokens(flags: Mapping[str, bool]) -> list[tokenizers.AddedToken]:
    return [
        tokenizers.AddedToken(token, special=control, normalized=False) for token, control in flags.items()
    ]


def train_fast(
    texts: Iterable[str],
    vocab_size: int,
    special_tokens: Iterable[str] | Mapping[str, bool] = SPECIAL_TOKENS,
    split_digits: bool = False,
    min_frequency: int = 0,
    chat_template: str | None = DEFAULT_CHAT_TEMPLATE,
    show_progress: bool = False,
) -> Tokenizer:
    """Learn a byte-level BPE tokenizer (Sennrich et al. 2016; bytes: Radford et al. 2019) with the library.

    Args:
        texts: documents; read once, so a generator over a large file is fine. One string is one document.
            Special tokens in them are ordinary text.
        vocab_size: special tokens, 256 bytes, and one more token for each merge. The texts may offer fewer
            merges; `Tokenizer.vocab_size` says what came of it.
        special_tokens: names, or {name: is it a control token}; they get the first ids.
        split_digits: see `splitter`.
        min_frequency: a pair that occurs fewer times is never merged.

    Raises:
        TokenizerError: vocab_size too small, faulty special tokens, or a text that is no string or not
            Unicode.
    """
    flags = special_token_flags(special_tokens)
    check_vocab_size(vocab_size, flags)
    library = byte_level_library({}, [], {}, split_digits)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=_added_tokens(flags),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),  # all 256 bytes, so that no text is unknown
        show_progress=show_progress,
    )
    library.train_from_iterator(_checked([texts] if isinstance(texts, str) else texts), trainer)
    # The trainer registers every special token as a control token; rebuilt, each one has its own flag.
    model = json.loads(library.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    library = byte_level_library(model["vocab"], merges, flags, split_digits)
    return Tokenizer(library, default_roles(flags), chat_template)


def _checked(texts: Iterable[str]) -> Iterator[str]:
    for number, text in enumerate(texts):
        check_text(text, f" (text {number})")
        yield text


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Load a tokenizer that this package or transformers saved, or BERT's WordPiece vocabulary.

    Args:
        path: a folder with `tokenizer.json` (and `tokenizer_config.json`), that `tokenizer.json` itself,
            or a `vocab.txt` with one WordPiece entry a line.

    A tokenizer without a chat template of its own gets DEFAULT_CHAT_TEMPLATE.

    Raises:
        TokenizerError: nothing there, a malformed file, or no begin or end token. One line, with the path.
    """
    path = Path(path)
    library, config, template = files.read(path)
    config["pad_token"] = config.get("pad_token") or config.get("eos_token")  # padding is masked anyway
    try:
        tokenizer = Tokenizer(library, config, template or DEFAULT_CHAT_TEMPLATE)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from error
    for role in ("bos_token", "eos_token"):
        if getattr(tokenizer, role) is None:
            raise TokenizerError(f"{path}: the tokenizer has no {role} (set it in tokenizer_config.json)")
    return tokenizer
