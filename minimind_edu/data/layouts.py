"""The layouts in which other tools keep conversations and preferences, converted to ours.

`convert` turns a record of any known layout into one of ours, before the record is checked: an SFT record has
`conversations`, a preference record `chosen` and `rejected`, all of them lists of messages with `role` and
`content`. Texts are taken over as they are; what is not certain is a fault and never a guess.

The layouts are those that LLaMA-Factory (data/README.md: Alpaca, ShareGPT and their preference forms), trl
("Dataset formats and types") and OpenAI (guides to supervised and preference fine-tuning) document. An Alpaca
`input` is set below its `instruction`, on a new line, as LLaMA-Factory does; the prompts that Stanford wrote
around the two are not added.
"""

import json
from collections.abc import Sequence
from typing import Any

from minimind_edu.data.math_layouts import is_math, math_to_rlvr, math_to_sft
from minimind_edu.data.validation import (
    TYPE_NAMES,
    BadRecord,
    check_conversation,
    check_message,
    check_record,
    check_text,
    json_list,
    missing_field,
    other_kind_hint,
    shorten,
)

_ASKED = '[{"role": "user", "content": "…"}]'
_ANSWERED = '[{"role": "assistant", "content": "…"}]'
_BOTH = _ASKED[:-1] + ", " + _ANSWERED[1:]

# What is known, by kind: (whose layout, a line of it).
LAYOUTS = {
    "pretrain": (("MiniMind", '{"text": "…"}'),),
    "sft": (
        ("MiniMind", '{"conversations": ' + _BOTH + "}"),
        ("ShareGPT", '{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}]}'),
        ("OpenAI", '{"messages": ' + _BOTH + "}"),
        ("Alpaca", '{"instruction": "…", "input": "", "output": "…"}'),
        ("pairs", '{"prompt": "…", "response": "…"}'),
        ("trl", '{"prompt": "…", "completion": "…"}'),
        ("GSM8K", '{"question": "…", "answer": "…\\n#### 72"}'),
    ),
    "dpo": (
        ("MiniMind", '{"chosen": ' + _BOTH + ', "rejected": […]}'),
        ("Alpaca", '{"instruction": "…", "input": "", "chosen": "…", "rejected": "…"}'),
        (
            "ShareGPT",
            '{"conversations": [{"from": "human", "value": "…"}], '
            '"chosen": {"from": "gpt", "value": "…"}, "rejected": {…}}',
        ),
        ("trl", '{"prompt": "…", "chosen": "…", "rejected": "…"}'),
        ("trl", '{"prompt": ' + _ASKED + ', "chosen": ' + _ANSWERED + ', "rejected": […]}'),
        (
            "OpenAI",
            '{"input": {"messages": ' + _ASKED + '}, "preferred_output": ' + _ANSWERED + ", "
            '"non_preferred_output": […]}',
        ),
    ),
    "rlvr": (
        ("MiniMind", '{"conversations": ' + _ASKED + ', "gt": "…"}'),
        ("GSM8K", '{"question": "…", "answer": "…\\n#### 72"}'),
    ),
}

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "function_call": "assistant",
    "observation": "tool",
    "tool": "tool",
}
_MEDIA = ("images", "image", "videos", "audios")
_UNKNOWN = "unknown layout"


def read_record(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The columns of a record of any known layout, in the types they are stored in.

    Raises:
        BadRecord: the layout is not known, or the record does not fit it.
    """
    return check_record(convert(record, kind), kind)


def convert(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """A record in our layout; one that is in our layout already is returned as it is, unchecked.

    Raises:
        BadRecord: the layout is not known, or the record does not fit it.
    """
    if kind == "sft":
        return _to_sft(record)
    if kind == "rlvr" and "conversations" not in record and is_math(record):
        return math_to_rlvr(record)
    return _to_dpo(record) if kind == "dpo" else record


def known_layouts(kind: str) -> str:
    """Lines that show every known layout of a kind, for an error message."""
    rows = (f"  {whose + ':':<10}{line}" for whose, line in LAYOUTS[kind])
    return "\n".join([f"Layouts known for {kind} data, one record each:", *rows])


def is_unknown_layout(fault: str) -> bool:
    """Whether a fault's message is one that `known_layouts` helps with."""
    return fault.startswith(_UNKNOWN)


# --- supervised fine-tuning ---


def _to_sft(record: dict[str, Any]) -> dict[str, Any]:
    given = _without_nulls(record)
    if "conversations" in given and _is_ours(given, ("conversations",)):
        return record
    name = next((name for name in ("conversations", "messages") if name in given), None)
    if name:
        _refuse_what_is_lost(given)
        messages = _messages(given[name], name)
        # Checked here too, where the names and the places are those of the file.
        check_conversation(messages, f"'{name}'", hint=other_kind_hint(given, "sft"))
        return {"conversations": _with_system(messages, given)}
    answers = [name for name in ("response", "completion") if name in given]
    if "instruction" in given and "output" in given:
        question, answer = "instruction", "output"
    elif "prompt" in given and answers:
        if len(answers) > 1:
            raise BadRecord("there is both a 'response' and a 'completion'")
        question, answer = "prompt", answers[0]
    elif is_math(given):
        return math_to_sft(given)
    else:
        raise _unknown(record, "sft")
    _refuse_what_is_lost(given)
    asked, said = _question(given, question), _answer(given[answer], answer)
    if said[0]["role"] != "assistant":
        raise BadRecord(f"'{answer}' begins with a {said[0]['role']} message, not with the assistant's")
    return {"conversations": _with_system(asked + said, given)}


def _is_ours(given: dict[str, Any], columns: Sequence[str]) -> bool:
    """Whether a record needs no conversion (whatever else may be wrong with it)."""
    if any(given.get(name) for name in ("system", "tools")):
        return False
    lists = [given[name] for name in columns]
    if not all(isinstance(messages, list) for messages in lists):
        return False
    return not any(_is_sharegpt(message) for messages in lists for message in messages)


def _is_sharegpt(message: Any) -> bool:
    return isinstance(message, dict) and "from" in message and "role" not in message


def _refuse_what_is_lost(given: dict[str, Any]) -> None:
    """Columns that say something about the record which a plain conversation would not."""
    for name in _MEDIA:
        if given.get(name):
            raise BadRecord(f"'{name}' is not empty, but only text can be learned from")
    for name in ("kto_tag", "label"):
        if given.get(name) is False:
            raise BadRecord(f"'{name}' is false: the answer is an example of a bad one")


# --- preferences ---


def _to_dpo(record: dict[str, Any]) -> dict[str, Any]:
    given = _without_nulls(record)
    names, context = ("chosen", "rejected"), given
    if "preferred_output" in given or "non_preferred_output" in given:
        names = ("preferred_output", "non_preferred_output")
        context = given.get("input")
        if not isinstance(context, dict):
            found = "missing" if context is None else TYPE_NAMES[type(context)]
            raise BadRecord(f"'input' is {found}, not an object with 'messages'")
        context = _without_nulls(context)
    missing = [name for name in names if name not in given]
    if len(missing) == 2:
        raise _unknown(record, "dpo")
    if missing:
        raise missing_field(record, missing[0], "dpo")
    _refuse_what_is_lost(given)
    chosen, rejected = (_conversation_with(context, given[name], name) for name in names)
    return {"chosen": chosen, "rejected": rejected}


def _conversation_with(given: dict[str, Any], value: Any, name: str) -> list[dict[str, Any]]:
    """The whole conversation that ends with one of the two answers."""
    said = _answer(value, name)
    if said[0]["role"] in ("system", "user"):  # it holds its own prompt
        _check_repeated(given.get("prompt"), said, name)
        return _with_system(said, given)
    source = next((s for s in ("conversations", "messages", "prompt", "instruction") if s in given), None)
    if source is None:
        how = f"is {TYPE_NAMES[type(value)]}" if not isinstance(value, list) else "begins with the assistant"
        raise BadRecord(
            f"'{name}' {how}, but there is no prompt beside it ('prompt', 'instruction', 'conversations')"
        )
    return _with_system(_question(given, source) + said, given)


def _check_repeated(prompt: Any, messages: list[dict[str, Any]], name: str) -> None:
    """A prompt beside a whole conversation must be the one in it, or one of the two is not meant."""
    if isinstance(prompt, str):
        same = any(m["role"] == "user" and m["content"].strip() == prompt.strip() for m in messages)
    elif isinstance(prompt, list):
        asked = _messages(prompt, "prompt")
        same = asked == messages[: len(asked)]
    else:
        same = prompt is None
    if not same:
        raise BadRecord(f"'{name}' is a whole conversation, but 'prompt' is not its beginning")


# --- their parts ---


def _question(given: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """All messages up to the last question, from the column `name`."""
    value = given[name]
    if isinstance(value, list) and name != "instruction":
        messages = _messages(value, name)
        check_conversation(messages, f"'{name}'", open_ended=True)
        if messages[-1]["role"] not in ("user", "tool"):
            raise BadRecord(f"'{name}' ends with the assistant's message, but an answer is to follow")
        return messages
    if name in ("conversations", "messages"):
        raise BadRecord(f"'{name}' is {TYPE_NAMES[type(value)]}, not a list of messages")
    texts = [check_text(value, f"'{name}'", may_be_empty=name == "instruction")]
    if name == "instruction":
        texts = [text for text in (*texts, _optional_text(given, "input")) if text.strip()]
        if not texts:
            raise BadRecord("'instruction' is empty")
    return [*_history(given), {"role": "user", "content": "\n".join(texts)}]


def _answer(value: Any, name: str) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return _messages(value, name)
    if isinstance(value, dict):
        message = _message(value, f"'{name}'")
        if message["role"] != "assistant":
            raise BadRecord(f"'{name}' is a {message['role']} message, not an assistant's")
        return [message]
    return [{"role": "assistant", "content": check_text(value, f"'{name}'")}]


def _history(given: dict[str, Any]) -> list[dict[str, Any]]:
    pairs = given.get("history") or []
    if not isinstance(pairs, list):
        raise BadRecord(f"'history' is {TYPE_NAMES[type(pairs)]}, not a list of pairs")
    messages = []
    for number, pair in enumerate(pairs, start=1):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadRecord(f"'history' item {number} is not a pair [question, answer]")
        for role, text in zip(("user", "assistant"), pair, strict=True):
            messages.append({"role": role, "content": check_text(text, f"'history' item {number}: {role}")})
    return messages


def _with_system(messages: list[dict[str, Any]], given: dict[str, Any]) -> list[dict[str, Any]]:
    """The messages with what the columns `system` and `tools` say, in their system message."""
    system, tools = _optional_text(given, "system"), json_list(given.get("tools"), "'tools'")
    if not system and tools is None:
        return messages
    has_own = messages[0]["role"] == "system"
    head, rest = (messages[0], messages[1:]) if has_own else ({"role": "system", "content": ""}, messages)
    if system and has_own and head["content"] != system:
        raise BadRecord("'system' is not the system message of the conversation")
    if tools and head.get("tools"):
        raise BadRecord("'tools' stands both beside and inside of the conversation")
    head = {**head, "content": system or head["content"]}
    return [{**head, "tools": tools} if tools else head, *rest]


def _messages(value: Any, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise BadRecord(f"'{name}' is {TYPE_NAMES[type(value)]}, not a list of messages")
    if not value:
        raise BadRecord(f"'{name}' is empty")
    if len(value) > 1 and _is_empty_system(value[0]):
        return [_message(one, f"'{name}' message {place}") for place, one in enumerate(value[1:], start=2)]
    return [_message(one, f"'{name}' message {place}") for place, one in enumerate(value, start=1)]


def _is_empty_system(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("tools"):
        return False
    return "system" in (message.get("role"), message.get("from")) and "" in (
        message.get("content"),
        message.get("value"),
    )


def _message(message: Any, name: str) -> dict[str, Any]:
    """One message of role and content, or of from and value, as role and content."""
    if isinstance(message, dict):
        message = _sharegpt(message, name) if _is_sharegpt(message) else _openai(message, name)
    check_message(message, name)
    return message


def _sharegpt(message: dict[str, Any], name: str) -> dict[str, Any]:
    who = message["from"]
    if not isinstance(who, str) or who not in SHAREGPT_ROLES:
        raise BadRecord(f"{name} is from the unknown {shorten(who)} (known: {', '.join(SHAREGPT_ROLES)})")
    if "value" not in message:
        raise BadRecord(f"{name} has no 'value'")
    value = check_text(message["value"], f"{name}: 'value'")
    if who == "function_call":
        return {"role": "assistant", "content": "", "tool_calls": _function_calls(value, name)}
    return {"role": SHAREGPT_ROLES[who], "content": value}


def _function_calls(text: str, name: str) -> list[dict[str, Any]]:
    """{"name": …, "arguments": …}, or a list of such, written as JSON."""
    try:
        calls = json.loads(text)
    except (ValueError, RecursionError):
        calls = None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(
        isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls
    ):
        raise BadRecord(f"{name}: 'value' is not a function call, JSON with 'name' and 'arguments'")
    return calls


def _openai(message: dict[str, Any], name: str) -> dict[str, Any]:
    changed = dict(message)
    if message.get("role") == "developer":  # the newer name
        changed["role"] = "system"
    if isinstance(message.get("content"), list):
        changed["content"] = "".join(_part(part, name) for part in message["content"])
    if message.get("role") == "assistant":
        if message.get("tool_calls") and changed.get("content") is None:
            changed["content"] = ""
        if message.get("weight") == 0:
            raise BadRecord(f"{name} has weight 0, but every answer is learned here")
        thoughts = message.get("thinking") or message.get("reasoning")
        if isinstance(thoughts, str) and not message.get("reasoning_content"):
            changed["reasoning_content"] = thoughts
    return changed


def _part(part: Any, name: str) -> str:
    if isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str):
        return part["text"]
    what = shorten(part.get("type")) if isinstance(part, dict) else TYPE_NAMES[type(part)]
    raise BadRecord(f"{name}: 'content' has a part that is {what}, not text")


# --- small things ---


def _without_nulls(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def _optional_text(given: dict[str, Any], name: str) -> str:
    text = check_text(given.get(name, ""), f"'{name}'", may_be_empty=True)
    return text if text.strip() else ""


def _unknown(record: dict[str, Any], kind: str) -> BadRecord:
    keys = record.keys()
    for name in ("conversations", "messages", "chosen", "rejected"):
        if name in keys and record[name] is None:
            return BadRecord(f"'{name}' is null")
    if other_kind_hint(record, kind):
        return missing_field(record, "chosen" if kind == "dpo" else "conversations", kind)
    hint = ""
    if {"role", "content"} <= keys or {"from", "value"} <= keys:
        hint = ": this is a single message, and a record holds a list of them"
    elif kind == "sft" and "instruction" in keys:
        hint = ": no 'output' beside the 'instruction'"
    elif kind == "sft" and "prompt" in keys:
        hint = ": no 'response' or 'completion' beside the 'prompt'"
    found = ", ".join(shorten(key) for key in list(record)[:5]) or "none"
    return BadRecord(f"{_UNKNOWN} (found: {found}){hint}")
