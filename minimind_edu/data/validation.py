"""What a record must look like, and short words for what is wrong with one.

`parse_object` turns a line into an object, `check_record` turns an object of our layout into the columns
that its kind keeps (`layouts` converts the others before). Both raise `BadRecord`; the message says what is
wrong and nothing about where, since only the reader knows that.
"""

import json
import math
from typing import Any

KINDS = ("pretrain", "sft", "dpo", "rlvr")
ROLES = ("system", "user", "assistant", "tool")
COMMANDS = {"pretrain": "pretrain", "sft": "sft", "dpo": "dpo", "rlvr": "grpo"}
# Each of these sets of fields makes an SFT record in one of the known layouts (see `layouts`).
SFT_FIELDS = (
    {"conversations"},
    {"messages"},
    {"instruction", "output"},
    {"prompt", "response"},
    {"prompt", "completion"},
)
TYPE_NAMES = {
    dict: "an object",
    list: "a list",
    str: "a string",
    bool: "a true/false value",
    int: "a number",
    float: "a number",
    type(None): "null",
}
# Role names of other formats, with what to write instead.
FOREIGN_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


class BadRecord(ValueError):
    """A record that cannot be used."""


def parse_object(line: str) -> dict[str, Any]:
    """One line of JSONL, or one item of an array, as a dictionary.

    Stricter than `json.loads` where that lets unusable data through: NaN and Infinity are not JSON, and of
    two equal keys one would be lost without a word.
    """
    try:
        value = json.loads(line, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        where = f"column {error.colno}"
        if "\n" in line.strip():  # an item of an array
            where = f"line {error.lineno} of the record, {where}"
        raise BadRecord(f"malformed JSON: {error.msg.lower()} ({where})") from None
    except RecursionError:
        raise BadRecord("JSON nested too deeply") from None
    except BadRecord:
        raise
    except ValueError:  # Python refuses to convert integers of more than 4,300 digits
        raise BadRecord("a number with thousands of digits") from None
    if not isinstance(value, dict):
        raise BadRecord(f"expected an object {{…}}, found {TYPE_NAMES[type(value)]}")
    return value


def _refuse_constant(name: str) -> None:
    raise BadRecord(f"malformed JSON: {name} is not a JSON value")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise BadRecord(f"the key {shorten(twice)} appears twice in one object")
    return record


def check_record(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The columns of a valid record, in the types they are stored in; unknown columns are left out.

    Raises:
        BadRecord: a field is missing, has the wrong type or makes no sense.
    """
    if kind == "pretrain":
        return {"text": check_text(_field(record, "text", kind), "'text'"), "continues": False}
    if kind == "dpo":
        chosen = check_conversation(_field(record, "chosen", kind), "'chosen'")
        rejected = check_conversation(_field(record, "rejected", kind), "'rejected'")
        if chosen == rejected:
            raise BadRecord("'chosen' and 'rejected' are identical: there is nothing to prefer")
        return {"chosen": chosen, "rejected": rejected}
    conversation = _field(record, "conversations", kind)
    if kind == "rlvr":
        checked = check_conversation(conversation, "'conversations'", open_ended=True)
        return {"conversations": checked, "gt": _ground_truth(_field(record, "gt", kind))}
    hint = other_kind_hint(record, "sft")
    return {"conversations": check_conversation(conversation, "'conversations'", hint=hint)}


def _field(record: dict[str, Any], name: str, kind: str) -> Any:
    if name in record and record[name] is not None:
        return record[name]
    raise missing_field(record, name, kind)


def missing_field(record: dict[str, Any], name: str, kind: str) -> BadRecord:
    """The fault of a record that lacks a field."""
    if name in record:
        return BadRecord(f"{name!r} is null")
    found = ", ".join(shorten(key) for key in list(record)[:5]) or "none"
    return BadRecord(f"no field {name!r} (found: {found}){other_kind_hint(record, kind)}")


def other_kind_hint(record: dict[str, Any], kind: str) -> str:
    """Say which kind of data a record belongs to, where it plainly is another one."""
    keys = record.keys()
    if {"chosen", "rejected"} <= keys or "preferred_output" in keys:
        looks_like = "dpo"
    elif "conversations" in keys and "gt" in keys:
        looks_like = "rlvr"
    elif any(fields <= keys for fields in SFT_FIELDS):
        looks_like = "sft"
    elif "text" in keys:
        looks_like = "pretrain"
    else:
        return ""
    if looks_like == kind:
        return ""
    return f": this looks like {looks_like} data; use minimind-edu {COMMANDS[looks_like]}"


def check_conversation(
    messages: Any, name: str, open_ended: bool = False, hint: str = ""
) -> list[dict[str, str | None]]:
    """Messages in an order that a chat template can render and a model can learn from.

    Args:
        messages: list of {"role", "content"}, and in newer files "reasoning_content", "tool_calls" and
            "tools".
        name: what to call the list in a message.
        open_ended: the model is to answer, so a last user message, or an empty assistant message after it
            (left out of the result), is right.
        hint: added to the complaint about the end of the conversation.
    """
    if not isinstance(messages, list):
        raise BadRecord(f"{name} is {TYPE_NAMES[type(messages)]}, not a list of messages")
    if not messages:
        raise BadRecord(f"{name} is empty")
    if open_ended and len(messages) > 1 and _is_empty_answer(messages[-1]):
        messages = messages[:-1]
    checked = [check_message(message, f"{name} message {place}") for place, message in enumerate(messages, 1)]
    roles = [message["role"] for message in checked]
    _check_order(roles, name)
    if not open_ended and "assistant" not in roles:
        raise BadRecord(f"{name} has no assistant message: there is nothing to learn{hint}")
    if roles[-1] != "assistant" and not (open_ended and roles[-1] in ("user", "tool")):
        raise BadRecord(f"{name} ends with a {roles[-1]} message, not with an assistant's{hint}")
    return checked


def _is_empty_answer(message: Any) -> bool:
    if not isinstance(message, dict) or message.get("role") != "assistant" or message.get("tool_calls"):
        return False
    content = message.get("content")
    return content is None or (isinstance(content, str) and not content.strip())


def _check_order(roles: list[str], name: str) -> None:
    if "system" in roles[1:]:
        place = roles.index("system", 1) + 1
        raise BadRecord(f"{name} message {place} is a system message, but only the first may be one")
    dialogue = roles[1:] if roles[0] == "system" else roles
    if not dialogue:
        raise BadRecord(f"{name} has only a system message")
    if dialogue[0] != "user":
        raise BadRecord(f"{name} begins with the {dialogue[0]}, not with the user")
    for place, (before, role) in enumerate(zip(roles, roles[1:], strict=False), start=2):
        if role == before and role in ("user", "assistant"):
            raise BadRecord(f"{name} messages {place - 1} and {place} are both from the {role}")
        if role == "tool" and before not in ("assistant", "tool"):
            raise BadRecord(f"{name} message {place} is a tool's answer, but nothing called a tool")


def check_message(message: Any, name: str) -> dict[str, str | None]:
    """One message with the fields that are kept, None where it has none; `name` is what to call it."""
    if not isinstance(message, dict):
        raise BadRecord(f"{name} is {TYPE_NAMES[type(message)]}, not an object")
    role = message.get("role")
    if role is None:
        hint = ": this is the ShareGPT format; rename 'from' to 'role' and 'value' to 'content'"
        raise BadRecord(f"{name} has no 'role'{hint if 'from' in message and 'value' in message else ''}")
    if not isinstance(role, str) or role not in ROLES:
        instead = FOREIGN_ROLES.get(role) if isinstance(role, str) else None
        hint = f": write {instead!r}" if instead else f" (known: {', '.join(ROLES)})"
        raise BadRecord(f"{name} has the unknown role {shorten(role)}{hint}")
    tool_calls = tools = reasoning = None
    if role == "assistant":
        tool_calls = json_list(message.get("tool_calls"), f"{name}: 'tool_calls'")
        reasoning = message.get("reasoning_content")
    elif role == "system":
        tools = json_list(message.get("tools"), f"{name}: 'tools'")
    content = message.get("content")
    if content is None and "content" not in message and not tool_calls:
        raise BadRecord(f"{name} has no 'content'")
    if content is None and tool_calls:
        content = ""
    return {
        "role": role,
        "content": check_text(content, f"{name}: 'content'", may_be_empty=bool(tool_calls or tools)),
        "reasoning_content": check_text(reasoning, f"{name}: 'reasoning_content'") if reasoning else None,
        "tool_calls": tool_calls,
        "tools": tools,
    }


def json_list(value: Any, name: str) -> str | None:
    """Tool descriptions come as lists or as JSON inside a string; stored as JSON, None where there are
    none."""
    if isinstance(value, str):
        if not value.strip():
            return None
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise BadRecord(f"{name} is not valid JSON") from None
    if value is None or value == []:
        return None
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise BadRecord(f"{name} is not a list of objects")
    return check_text(json.dumps(value, ensure_ascii=False), name)


def _ground_truth(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float | list):
        raise BadRecord(f"'gt' is {TYPE_NAMES[type(value)]}, not a string, a number or a list")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRecord("'gt' is a number too large for a float")
    if isinstance(value, str):
        return check_text(value, "'gt'")
    return check_text(json.dumps(value, ensure_ascii=False), "'gt'")


def check_text(value: Any, name: str, may_be_empty: bool = False) -> str:
    """A string that can be stored and learned from; BadRecord otherwise."""
    if not isinstance(value, str):
        raise BadRecord(f"{name} is {TYPE_NAMES[type(value)]}, not a string")
    if not may_be_empty and not value.strip():
        raise BadRecord(f"{name} is empty" if not value else f"{name} is only white space")
    if "\0" in value:
        raise BadRecord(f"{name} contains a NUL character")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        lone = ord(value[error.start])
        raise BadRecord(f"{name} contains \\u{lone:04x}, half of a surrogate pair") from None
    return value


def shorten(value: Any, limit: int = 40) -> str:
    """A printable form of something from a file, short enough for a message."""
    shown = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
