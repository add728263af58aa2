"""Layouts of other tools: what is nearly one is refused in words that help."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_records import GPT, HEAD, HUMAN, TOOL, WORSE, B
from small_records import A, S, U, refusal

from minimind_edu.data.layouts import LAYOUTS, SHAREGPT_ROLES, convert, known_layouts
from minimind_edu.data.validation import BadRecord

FAULTS = [
    ("sft", {"question": "q", "answer": "a"}, "unknown layout (found: 'question', 'answer')"),
    ("sft", {}, "unknown layout (found: none)"),
    ("sft", U, "this is a single message, and a record holds a list of them"),
    ("sft", HUMAN, "this is a single message"),
    ("sft", {"instruction": "q"}, "no 'output' beside the 'instruction'"),
    ("sft", {"instruction": "q", "output": None}, "no 'output' beside the 'instruction'"),
    ("sft", {"prompt": "q"}, "no 'response' or 'completion' beside the 'prompt'"),
    ("sft", {"conversations": None}, "'conversations' is null"),
    ("sft", {"prompt": "q", "chosen": "a", "rejected": "b"}, "looks like dpo data; use minimind-edu dpo"),
    ("sft", {"conversations": [HUMAN], "chosen": GPT, "rejected": WORSE}, "looks like dpo data"),
    ("sft", {"prompt": "q", "response": "a", "completion": "b"}, "both a 'response' and a 'completion'"),
    ("sft", {"instruction": "q", "output": ""}, "'output' is empty"),
    ("sft", {"instruction": "q", "output": " \n"}, "'output' is only white space"),
    ("sft", {"instruction": "q", "output": ["a"]}, "'output' begins with"),
    ("sft", {"instruction": "q", "output": 5}, "'output' is a number, not a string"),
    ("sft", {"instruction": ["q"], "output": "a"}, "'instruction' is a list, not a string"),
    ("sft", {"instruction": "", "input": "", "output": "a"}, "'instruction' is empty"),
    ("sft", {"instruction": "q", "input": ["x"], "output": "a"}, "'input' is a list, not a string"),
    ("sft", {"instruction": "q", "output": "a", "system": 1}, "'system' is a number"),
    (
        "sft",
        {"instruction": "q", "output": "a", "history": "x"},
        "'history' is a string, not a list of pairs",
    ),
    ("sft", {"instruction": "q", "output": "a", "history": [["x"]]}, "'history' item 1 is not a pair"),
    (
        "sft",
        {"instruction": "q", "output": "a", "history": [["x", ""]]},
        "'history' item 1: assistant is empty",
    ),
    ("sft", {"instruction": "q", "output": "a\0"}, "'output' contains a NUL"),
    ("sft", {"instruction": "q", "output": "a", "kto_tag": False}, "'kto_tag' is false"),
    ("sft", {"prompt": "q", "completion": "a", "label": False}, "'label' is false"),
    ("sft", {"instruction": "q", "output": "a", "images": ["x.png"]}, "'images' is not empty, but only text"),
    ("sft", {"prompt": "", "response": "a"}, "'prompt' is empty"),
    ("sft", {"prompt": [U, A], "completion": [A]}, "'prompt' ends with the assistant's message"),
    ("sft", {"prompt": [U], "completion": [U, A]}, "'completion' begins with a user message"),
    ("sft", {"prompt": [U], "completion": []}, "'completion' is empty"),
    ("sft", {"messages": "q"}, "'messages' is a string, not a list of messages"),
    ("sft", {"messages": []}, "'messages' is empty"),
    ("sft", {"messages": [U, "a"]}, "'messages' message 2 is a string, not an object"),
    ("sft", {"messages": [U, U, A]}, "'messages' messages 1 and 2 are both from the user"),
    ("sft", {"messages": [S, U]}, "'messages' has no assistant message"),
    (
        "sft",
        {"messages": [U, {**A, "role": "bot"}]},
        "'messages' message 2 has the unknown role 'bot': write",
    ),
    ("sft", {"messages": [U, {**A, "weight": 0}]}, "'messages' message 2 has weight 0"),
    (
        "sft",
        {"messages": [{**U, "content": [{"type": "image_url"}]}, A]},
        "has a part that is 'image_url', not text",
    ),
    (
        "sft",
        {"conversations": [HUMAN, {"from": "robot", "value": "a"}]},
        "message 2 is from the unknown 'robot' (known",
    ),
    ("sft", {"conversations": [HUMAN, {"from": ["gpt"], "value": "a"}]}, "from the unknown ['gpt']"),
    ("sft", {"conversations": [HUMAN, {"from": "gpt", "content": "a"}]}, "message 2 has no 'value'"),
    ("sft", {"conversations": [HUMAN, {"from": "gpt", "value": ""}]}, "message 2: 'value' is empty"),
    ("sft", {"conversations": [HUMAN, {"from": "gpt", "value": None}]}, "message 2: 'value' is null"),
    (
        "sft",
        {"conversations": [HUMAN, {"from": "gpt", "value": {"a": 1}}]},
        "'value' is an object, not a string",
    ),
    ("sft", {"conversations": [GPT, HUMAN, GPT]}, "'conversations' begins with the assistant"),
    ("sft", {"conversations": [HUMAN, GPT, GPT]}, "messages 2 and 3 are both from the assistant"),
    (
        "sft",
        {"conversations": [HUMAN, {"from": "function_call", "value": "add(1)"}, GPT]},
        "is not a function call",
    ),
    (
        "sft",
        {"conversations": [HUMAN, {"from": "function_call", "value": "{}"}, GPT]},
        "is not a function call",
    ),
    (
        "sft",
        {"conversations": [HUMAN, {"from": "function_call", "value": "[]"}, GPT]},
        "is not a function call",
    ),
    ("sft", {"conversations": [HUMAN, GPT], "tools": "x"}, "'tools' is not valid JSON"),
    ("sft", {"conversations": [HUMAN, GPT], "tools": {"name": "add"}}, "'tools' is not a list of objects"),
    ("sft", {"conversations": [S, U, A], "system": "other"}, "'system' is not the system message of the"),
    ("sft", {"conversations": [HEAD, U, A], "tools": [TOOL]}, "'tools' stands both beside and inside"),
    (
        "dpo",
        {"question": "q", "chosen": "a", "rejected": "b"},
        "'chosen' is a string, but there is no prompt beside",
    ),
    (
        "dpo",
        {"chosen": [A], "rejected": [B]},
        "'chosen' begins with the assistant, but there is no prompt beside",
    ),
    ("dpo", {"chosen": A, "rejected": B}, "'chosen' is an object, but there is no prompt"),
    ("dpo", {"good": "a", "bad": "b"}, "unknown layout (found: 'good', 'bad')"),
    ("dpo", {"instruction": "q", "output": "a"}, "this looks like sft data; use minimind-edu sft"),
    ("dpo", {"prompt": "q", "chosen": "a"}, "no field 'rejected' (found: 'prompt', 'chosen')"),
    ("dpo", {"prompt": "q", "chosen": "a", "rejected": ""}, "'rejected' is empty"),
    ("dpo", {"prompt": "q", "chosen": "a", "rejected": "a"}, "identical"),
    ("dpo", {"prompt": "q", "chosen": 1, "rejected": "a"}, "'chosen' is a number, not a string"),
    (
        "dpo",
        {"prompt": "z", "chosen": [U, A], "rejected": [U, B]},
        "'chosen' is a whole conversation, but 'prompt'",
    ),
    ("dpo", {"prompt": [U, A], "chosen": "a", "rejected": "b"}, "'prompt' ends with the assistant's message"),
    ("dpo", {"conversations": [HUMAN], "chosen": HUMAN, "rejected": GPT}, "'chosen' is a user message, not"),
    (
        "dpo",
        {"conversations": "q", "chosen": GPT, "rejected": WORSE},
        "'conversations' is a string, not a list",
    ),
    ("dpo", {"preferred_output": [A], "non_preferred_output": [B]}, "'input' is missing, not an object"),
    ("dpo", {"input": {"messages": [U]}, "preferred_output": [A]}, "no field 'non_preferred_output'"),
    ("pretrain", {"instruction": "q", "output": "a"}, "use minimind-edu sft"),
    ("pretrain", {"content": "x"}, "no field 'text' (found: 'content')"),
]


@pytest.mark.parametrize("kind, record, what", FAULTS, ids=lambda value: str(value)[:50])
def test_what_is_nearly_a_layout(load, kind, record, what):
    if record.get("output") == ["a"]:
        what = "'output' message 1 is a string, not an object"
    good = {"sft": {"messages": [U, A]}, "dpo": {"prompt": "q", "chosen": "a", "rejected": "b"}}
    good = good.get(kind, {"text": "x"})
    for name in ("a.json", "a.jsonl"):
        message = refusal(load, [good, record, good], kind, name)
        line = 3 if name == "a.json" else 2
        fault = message.split("\n")[1]
        assert f"{name}:{line}: " in fault and what in fault and len(fault) < 300, message
        assert ("unknown layout" in fault) == (known_layouts(kind) in message)
        kept = load([good, record, good], kind, name, on_bad_record="skip")
        assert len(kept) == 2 and kept.dropped == 1


def test_the_known_layouts_shown_are_those_that_work(load):
    """Each line of the message, with its dots filled in, is a record that loads."""
    for kind in ("pretrain", "sft", "dpo", "rlvr"):
        shown = known_layouts(kind).split("\n")[1:]
        assert len(shown) == len(LAYOUTS[kind]) >= 1
        for line, (whose, example) in zip(shown, LAYOUTS[kind], strict=True):
            assert whose in line and example in line and len(line) < 200
            example = example.replace("{…}", '{"from": "gpt", "value": "…"}')
            as_list = '[{"role": "assistant", "content": "…"}]'
            if kind == "dpo" and '"prompt"' not in example and '"input": {' not in example:
                as_list = '[{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]'
            head, _, tail = example.replace("[…]", as_list).rpartition("…")  # another answer in the last one
            assert len(load(head + "other" + tail, kind, "shown.jsonl")) == 1
    message = refusal(load, [{"question": "q", "answer": "a"}] * 30, "sft", "a.jsonl")
    assert (
        "no usable record" in message and message.count("unknown layout") == 10 and "and 20 more" in message
    )
    assert message.endswith(known_layouts("sft")) and len(message.split("\n")) == 12 + 1 + len(LAYOUTS["sft"])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["", "human", "gpt", "user", "assistant", "{}"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "conversations messages instruction input output prompt response completion chosen rejected "
                "system tools history from value role content text preferred_output non_preferred_output "
                "tool_calls weight".split()
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=16,
)


@settings(max_examples=400, deadline=None)
@given(json_values, st.sampled_from(["sft", "dpo"]))
def test_any_record_is_converted_or_refused(value, kind):
    try:
        convert(value if isinstance(value, dict) else {"conversations": value}, kind)
    except BadRecord as error:
        assert 0 < len(str(error)) < 300 and "\n" not in str(error)


def test_every_name_of_a_speaker_is_known():
    assert set(SHAREGPT_ROLES.values()) == {"user", "assistant", "system", "tool"}
