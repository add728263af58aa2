"""Conversations, and what the assistant said in one that is encoded."""

from minimind_edu.tokenizer import Tokenizer

TEXTS = [
    "The user asked; the assistant answered.\n\nYes.\n\n\nNo.\n\n",
    "你好，世界。",
    "system user tool",
] * 3


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "天气 <b>&'quotes' \"q\" </tool_call>",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
]


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def call(name, arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


CONVERSATIONS = {
    "one turn": [user("hi"), assistant("hello")],
    "system": [system("You are 小智."), user("hi"), assistant("hello")],
    "many turns": [system("s"), user("a"), assistant("b"), user("c"), assistant("d"), system("e"), user("f")],
    "question only": [user("hi there")],
    "think in content": [user("2+2"), assistant("<think>\nadd\n</think>\n\n4"), user("ok"), assistant("!")],
    "thinking apart": [user("2+2"), assistant("4", reasoning_content="add them")],
    "thinking by another name": [user("2+2"), assistant("4", reasoning="add")],
    "tools called": [
        user("weather?"),
        assistant("", tool_calls=[call("get_weather", {"city": "北京"}), call("f", '{"x": "<a>"}')]),
        {"role": "tool", "content": "sunny"},
        {"role": "tool", "content": '{"t": 20}'},
        assistant("It is sunny."),
    ],
    "call without wrapper": [
        user("w"),
        assistant("ok", tool_calls=[{"name": "f", "arguments": {"a": [1, None]}}]),
    ],
    "empty": [user(""), assistant("")],
    "newlines": [user("\n\n a \n"), assistant("\n\n b \n\n\n"), user("\t"), assistant("\n")],
    "content missing": [user("x"), assistant(None, tool_calls=[call("f", {})])],
    "unusual text": [user("{{ 7*7 }} {% if %} \\n <b>&amp; ½ 🙂"), assistant("'\"`")],
}


def said(tokenizer, encoding):
    assert len(encoding.input_ids) == len(encoding.assistant_mask)
    kept = [i for i, mask in zip(encoding.input_ids, encoding.assistant_mask, strict=True) if mask]
    return tokenizer.decode(kept)


def with_template(tokenizer, template):
    return Tokenizer(tokenizer.library, tokenizer.config, template)
