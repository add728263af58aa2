"""Rendering a chat template: from a list of messages to one text.

A template is a Jinja program that comes with a tokenizer, often from a stranger. It runs in Jinja's immutable
sandbox, with the settings and helpers that transformers gives it, so that both render the same text. The
sandbox keeps a template from Python's internals and from the files; it does not limit time or memory.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment, SecurityError

from minimind_edu.tokenizer.specials import TokenizerError

Message = Mapping[str, Any]

# ChatML, with the tokenizer's own begin and end tokens: by default <|im_start|> and <|im_end|>. Tools stand
# in the system message; reasoning and tool calls in the assistant's, in the tags it should write itself.
# `enable_thinking`, Qwen3's name, opens a block of thoughts or writes an empty one; by default neither.
DEFAULT_CHAT_TEMPLATE = """\
{%- if tools %}
    {{- bos_token + 'system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- 'You may call these tools, described by one JSON schema a line:\\n' }}
    {%- for tool in tools %}{{- tool | tojson + '\\n' }}{%- endfor %}
    {{- eos_token + '\\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if not (tools and loop.first and message.role == 'system') %}
        {{- bos_token + message.role + '\\n' }}
        {%- if message.reasoning_content %}
            {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' }}
        {%- endif %}
        {{- '' + (message.content or '') }}
        {%- for call in message.tool_calls or [] %}
            {%- set call = call.function or call %}
            {%- set values = call.arguments if call.arguments is string else call.arguments | tojson %}
            {{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + values + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- eos_token + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- bos_token + 'assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is not none %}
        {{- '<think>\\n' if enable_thinking else '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""


# Unicode sets these 32 aside for a program's own use; no text has them.
NONCHARACTERS = tuple(map(chr, range(0xFDD0, 0xFDF0)))


class _Environment(ImmutableSandboxedEnvironment):
    def unsafe_undefined(self, obj: object, attribute: str) -> jinja2.Undefined:
        # Jinja would print nothing for `''.__class__` and complain at the next step; an attempt is enough.
        raise SecurityError(f"access to attribute {attribute!r} of {type(obj).__name__!r} is unsafe")


class _GenerationTag(Extension):
    """`{% generation %}...{% endgeneration %}`, with which some templates frame answers, writes nothing."""

    tags = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes <, > and & for HTML, which no model has ever seen in a prompt.
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys)
    if ensure_ascii:  # but keep noncharacters: they are marks (see `chat`), which are still to be removed
        text = "".join(c if c.isascii() or c in NONCHARACTERS else json.dumps(c)[1:-1] for c in text)
    return text


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


@lru_cache(maxsize=32)
def _compile(template: str) -> jinja2.Template:
    environment = _Environment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.globals["dict"] = lambda *args, **kwargs: dict(*args, **kwargs)  # without the class's methods
    return environment.from_string(template)


def plain_data(value: object) -> Any:
    """A copy made of JSON's types only, so that a template is handed no object with other methods."""
    if value is None or isinstance(value, bool):
        return value
    for base in (str, int, float):
        if isinstance(value, base):
            return base.__str__(value) if base is str else base(value)  # a subclass loses its methods
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_data(item) for item in value]
    raise TokenizerError(f"a chat message may hold only JSON values, not {type(value).__name__}")


def check_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as plain data, each a dict with a role; TokenizerError otherwise."""
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Iterable):
        raise TokenizerError(f"messages must be a list of dicts, not {type(messages).__name__}")
    checked = []
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise TokenizerError(f"message {number} must be a dict with a string 'role'")
        message = plain_data(message)
        # The model's thinking has several names in the wild; templates may read either of the first two.
        names = ("reasoning_content", "thinking", "reasoning")
        reasoning = next((message[name] for name in names if message.get(name) is not None), None)
        if reasoning is not None:
            message = {"thinking": reasoning, **message, "reasoning_content": reasoning}
        checked.append(message)
    return checked


def render(template: str, messages: Sequence[Message], variables: Mapping[str, Any]) -> str:
    """The conversation as text, by a Jinja chat template.

    Args:
        template: the source of the template.
        messages: dicts with "role", "content" and whatever else the template reads.
        variables: what else the template may read (`tools`, `add_generation_prompt`, `bos_token`, ...).

    Raises:
        TokenizerError: a template with a syntax error, one that fails on these messages, calls
            `raise_exception`, or tries to leave the sandbox; or messages that are not a list of such dicts.
    """
    messages = check_messages(messages)
    variables = {name: plain_data(value) for name, value in variables.items()}
    # transformers always defines these
    defaults = {"tools": None, "documents": None, "add_generation_prompt": False}
    try:
        return _compile(template).render(defaults | variables | {"messages": messages})
    except jinja2.TemplateSyntaxError as error:
        raise TokenizerError(f"chat template, line {error.lineno}: {_one_line(error)}") from error
    except Exception as error:  # a template is a program: it can fail in any way a program can
        raise TokenizerError(f"chat template: {type(error).__name__}: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
