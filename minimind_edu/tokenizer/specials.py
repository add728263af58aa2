"""The special tokens of a tokenizer: which there are, and which play a part.

Two kinds of special token exist. *Control* tokens frame a conversation (`<|im_start|>`, `<|im_end|>`, ...):
only a chat template may write them. The others (`<think>`, `<tool_call>`, ...) are written by the model
itself as part of its answer, so `decode(skip_special_tokens=True)` keeps them.
"""

from collections.abc import Iterable, Mapping


class TokenizerError(ValueError):
    """A text, file or setting that a tokenizer cannot work with. The message is one line."""


_CONTROL = (
    "<|endoftext|> <|im_start|> <|im_end|> <|object_ref_start|> <|object_ref_end|> <|box_start|> <|box_end|> "
    "<|quad_start|> <|quad_end|> <|vision_start|> <|vision_end|> <|vision_pad|> <|image_pad|> <|video_pad|> "
    "<|audio_start|> <|audio_end|> <|audio_pad|> "
    "<tts_pad> <tts_text_bos> <tts_text_eod> <tts_text_bos_single>"
).split()
_WRITTEN_BY_THE_MODEL = (
    "<tool_call> </tool_call> <tool_response> </tool_response> <think> </think> <|buffer1|> <|buffer2|> "
    "<|buffer3|> <|buffer4|> <|buffer5|> <|buffer6|> <|buffer7|> <|buffer8|> <|buffer9|>"
).split()

SPECIAL_TOKENS: dict[str, bool] = {
    **dict.fromkeys(_CONTROL, True),
    **dict.fromkeys(_WRITTEN_BY_THE_MODEL, False),
}
"""MiniMind-3's 36 special tokens in the order of their ids; the value says whether it is a control token."""

# For a tokenizer that does not say which token begins and ends a turn: known names, most telling first.
_KNOWN_NAMES = {
    "bos_token": ("<|im_start|>", "<s>", "[CLS]", "<|begin_of_text|>", "<|endoftext|>"),
    "eos_token": ("<|im_end|>", "</s>", "[SEP]", "<|end_of_text|>", "<|endoftext|>"),
    "pad_token": ("<|endoftext|>", "<pad>", "[PAD]", "<unk>"),
    "unk_token": ("<|endoftext|>", "<unk>", "[UNK]"),
}
ROLES = tuple(_KNOWN_NAMES)


def special_token_flags(tokens: Iterable[str] | Mapping[str, bool]) -> dict[str, bool]:
    """{token: is it a control token}, from such a mapping or from plain strings.

    A plain string counts as a control token, unless it is one of the default tokens that are not.

    Raises:
        TokenizerError: a token that is empty, not a string, given twice, or only one character long
            (it would shadow one of the 256 byte tokens).
    """
    if isinstance(tokens, str):
        raise TokenizerError(f"special_tokens must be a list of strings, not the one string {tokens!r}")
    if isinstance(tokens, Mapping):
        flags = {token: bool(control) for token, control in tokens.items()}
    else:
        listed = list(tokens)
        flags = {token: SPECIAL_TOKENS.get(token, True) for token in listed}
        if len(flags) < len(listed):
            raise TokenizerError("special_tokens holds the same token twice")
    for token in flags:
        if not isinstance(token, str) or len(token) < 2:
            raise TokenizerError(f"a special token must be a string of two or more characters, not {token!r}")
    return flags


def known_roles(tokens: Iterable[str]) -> dict[str, str | None]:
    """Which token is bos, eos, pad and unk, by the names in common use; None where no name is known."""
    tokens = set(tokens)
    return {role: next((n for n in names if n in tokens), None) for role, names in _KNOWN_NAMES.items()}


def default_roles(tokens: Iterable[str]) -> dict[str, str | None]:
    """The same for a new tokenizer, whose first special token takes the roles that are left, as GPT-2's
    `<|endoftext|>` does all of them. None where there is no special token at all.
    """
    tokens = list(tokens)
    return {role: name or next(iter(tokens), None) for role, name in known_roles(tokens).items()}


def check_text(text: object, where: str = "") -> None:
    """Raise TokenizerError unless this is a string that UTF-8 can hold."""
    if not isinstance(text, str):
        raise TokenizerError(f"a text must be a string, not {type(text).__name__}{where}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        code = f"U+{ord(text[error.start]):04X}"
        message = f"character {error.start} is the lone surrogate {code}, which is not Unicode text{where}"
        raise TokenizerError(message) from error


def check_vocab_size(vocab_size: int, special_tokens: Mapping[str, bool]) -> None:
    """Raise TokenizerError unless the vocabulary has room for every byte and special token."""
    least = 256 + len(special_tokens)
    if vocab_size < least:
        raise TokenizerError(
            f"vocab_size {vocab_size} is too small: 256 bytes and {len(special_tokens)} special tokens "
            f"need at least {least}"
        )
