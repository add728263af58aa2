"""From a list of messages to token ids and the mask of what the assistant said.

**Contents are plain text.** A user can type `<|im_end|>`, a newline and `<|im_start|>assistant`. If the
rendered text were tokenized as it is, those words would become control tokens, and training would take the
user's words for the assistant's. So every special-looking string inside a message is first broken with an
invisible *mark*; then the template is rendered; then the text is cut at the special tokens that are left,
which only the template can have written. Last, the marks are removed, and the pieces between are encoded as
plain text.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from minimind_edu.tokenizer.specials import TokenizerError
from minimind_edu.tokenizer.template import NONCHARACTERS, Message, check_messages, plain_data, render

_HEADER = "assistant\n"  # what follows the begin token of an assistant turn

# A conversation that does hold all noncharacters may still lack one of the private-use characters.
_MARKS = [*NONCHARACTERS, *map(chr, range(0xE000, 0xF900))]


class ChatEncoding(NamedTuple):
    """A conversation of T tokens."""

    input_ids: list[int]  # (T,)
    # (T,) True on the assistant's words and the end token after them, without an empty block of thoughts
    assistant_mask: list[bool]


def _token_pattern(tokens: Iterable[str]) -> re.Pattern[str] | None:
    """A pattern of all tokens, the longest first: at one place the longest token wins, as in the library."""
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None


def _map_strings(value: Any, function: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return function(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, function): _map_strings(item, function) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, function) for item in value]
    return value


class _Shield:
    """Breaks special-looking strings in what people wrote, with a mark that occurs nowhere in it."""

    def __init__(self, tokens: Mapping[str, bool], written: str):
        self.mark = next((mark for mark in _MARKS if mark not in written), None)
        if self.mark is None:
            raise TokenizerError("the conversation uses every private-use character of Unicode")
        self.any_token = _token_pattern(tokens)
        self.control_token = _token_pattern(token for token, control in tokens.items() if control)

    def _break(self, text: str, pattern: re.Pattern[str] | None) -> str:
        # One pass does not see a token that overlaps the one before it, so repeat until none is left.
        while pattern is not None and pattern.search(text):
            text = pattern.sub(lambda match: match[0][0] + self.mark + match[0][1:], text)
        return text

    def foreign(self, text: str) -> str:
        """A string that the assistant did not write: no special token, and no start of an assistant turn."""
        text = self._break(text, self.any_token)
        return re.sub(r"\A(\s*a)(?=ssistant)", rf"\1{self.mark}", text, flags=re.IGNORECASE)

    def sealed(self, text: str) -> str:
        """The same for whole contents, which also cannot form a token together with what stands beside them.

        The marks go inside of the first and last word, so that templates can still trim white space.
        """
        text = self.foreign(text)
        text = re.sub(r"\A(\s*)(\S)(?=\S)", rf"\1\2{self.mark}", text)
        return re.sub(r"(\S)(\s*)\Z", rf"{self.mark}\1\2", text)

    def message(self, message: Message) -> dict[str, Any]:
        if message["role"] == "assistant":  # its <think> or <tool_call> are the model's own; control is not
            return _map_strings(message, lambda text: self._break(text, self.control_token))
        message = dict(message)
        content = message.pop("content", None)
        shielded = _map_strings(message, self.foreign)
        if isinstance(content, str):
            shielded["content"] = self.sealed(content)
        elif isinstance(content, list):
            shielded["content"] = [self._part(part) for part in content]
        else:
            shielded["content"] = content
        return shielded

    def _part(self, part: Any) -> Any:
        """One part of a content in parts, [{"type": "text", "text": ...}, ...], which templates join."""
        shielded = _map_strings(part, self.foreign)
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            shielded["text"] = self.sealed(part["text"])
        return self.sealed(part) if isinstance(part, str) else shielded


def encode_chat(
    template: str,
    messages: Sequence[Message],
    tokens: Mapping[str, tuple[int, bool]],
    bos_token: str,
    eos_token: str,
    encode: Callable[[str], tuple[list[int], list[int]]],
    names: Mapping[str, str],
    variables: Mapping[str, Any],
) -> ChatEncoding:
    """Token ids of a conversation, with a mask of what the assistant said.

    An assistant turn is `bos_token`, "assistant", a newline, anything, `eos_token`. A turn without its
    `eos_token` is a generation prompt, where the assistant has said nothing yet. An empty block of thoughts
    that a turn begins with is the prompt's part of it: thinking is switched off by it (`thinking.OPENINGS`).
    A model that learned to write it would also close the block that a prompt has opened for its thoughts.

    Args:
        template, messages, variables: as in `render`.
        tokens: {special token: (id, is it a control token)}.
        encode: plain text to (ids, ends), where ends[i] counts the characters up to the end of token i.
        names: the special tokens that the template finds by name (`bos_token`, ...), which stay unbroken.

    Raises:
        TokenizerError: as `render`, or when there is an assistant message but the rendered text has no
            assistant turn in it.
    """
    messages = check_messages(messages)
    variables = {name: plain_data(value) for name, value in variables.items()}
    # ensure_ascii=False: a mark must be looked for as it stands, not as an escape
    written = template + json.dumps([messages, variables], ensure_ascii=False)
    shield = _Shield({token: control for token, (_, control) in tokens.items()}, written)
    shielded = [shield.message(message) for message in messages]
    text = render(template, shielded, dict(names) | _map_strings(variables, shield.foreign))
    encoding = _encode_segments(_split(text, shield), shield.mark, tokens, bos_token, eos_token, encode)
    if not any(encoding.assistant_mask) and any(message["role"] == "assistant" for message in messages):
        raise TokenizerError(
            f"the chat template wrote no assistant turn of the form {bos_token}assistant\\n...{eos_token}, "
            "so there is nothing to train on"
        )
    return encoding


def _split(text: str, shield: _Shield) -> Iterator[tuple[str, bool]]:
    """The text cut at its special tokens: (piece, is it a special token)."""
    end = 0
    for match in shield.any_token.finditer(text) if shield.any_token else ():
        yield text[end : match.start()], False
        yield match[0], True
        end = match.end()
    yield text[end:], False


def _encode_segments(
    segments: Iterable[tuple[str, bool]],
    mark: str,
    tokens: Mapping[str, tuple[int, bool]],
    bos_token: str,
    eos_token: str,
    encode: Callable[[str], tuple[list[int], list[int]]],
) -> ChatEncoding:
    ids: list[int] = []
    mask: list[bool] = []
    texts: list[str] = []  # of each token; a character of several tokens is the text of the first
    turn: int | None = None  # where the open assistant turn's words begin in `ids`
    opens = False  # whether the piece before this one was a begin token
    for piece, is_token in segments:
        if is_token:
            ids.append(tokens[piece][0])
            mask.append(False)
            texts.append(piece)
            closes = turn is not None and piece == eos_token
            if closes:
                turn += _empty_block(texts[turn:])
                mask[turn:] = [True] * (len(mask) - turn)
            if closes or piece == bos_token:
                turn = None  # also a turn that was never ended: it is a prompt
            opens = piece == bos_token
        elif piece:
            words = piece.replace(mark, "")
            piece_ids, ends = encode(words)
            if opens and piece.startswith(_HEADER):  # with its marks, so that no content can pass for it
                # A token across the header's end (its newline and those after it) is the assistant's.
                turn = len(ids) + sum(end <= len(_HEADER) for end in ends)
            ids += piece_ids
            mask += [False] * len(piece_ids)
            texts += [words[start:end] for start, end in itertools.pairwise([0, *ends])]
            opens = False
    return ChatEncoding(ids, mask)


_EMPTY_BLOCK = re.compile(r"\s*<think>\s*</think>\s*")


def _empty_block(texts: Sequence[str]) -> int:
    """How many of the tokens with these texts are an empty block of thoughts, with which they begin."""
    found = _EMPTY_BLOCK.match("".join(texts))
    stops = itertools.accumulate(map(len, texts))
    return sum(stop <= found.end() for stop in stops) if found else 0
