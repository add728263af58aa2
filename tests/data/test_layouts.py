"""Layouts of other tools are converted without loss."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layout_records import CALL, CALLED, GPT, HEAD, HUMAN, SYSTEM_AND_TOOLS, TOOL, WORSE, B
from small_records import A, S, T, U

from minimind_edu.data.layouts import convert
from minimind_edu.data.records import Records, chat_of

SFT = [
    ({"conversations": [S, U, A]}, [S, U, A]),
    ({"conversations": [U, A], "system": "s"}, [S, U, A]),
    ({"conversations": [S, U, A], "system": "s"}, [S, U, A]),
    ({"conversations": [HUMAN, GPT], "system": "", "tools": "[]", "id": 7}, [U, A]),
    ({"conversations": [{"from": "system", "value": "s"}, HUMAN, GPT, HUMAN, WORSE]}, [S, U, A, U, B]),
    ({"conversations": [{"from": "system", "value": ""}, HUMAN, GPT]}, [U, A]),
    ({"conversations": [{"from": "user", "value": "q"}, {"from": "chatgpt", "value": "a"}]}, [U, A]),
    (
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": json.dumps(CALL)},
                {"from": "observation", "value": "4"},
                GPT,
            ],
            **SYSTEM_AND_TOOLS,
        },
        [HEAD, U, CALLED, T, A],
    ),
    (
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": json.dumps([CALL, CALL])},
                {"from": "tool", "value": "4"},
                GPT,
            ],
            "tools": [TOOL],
        },
        [{**HEAD, "content": ""}, U, {**CALLED, "tool_calls": [CALL, CALL]}, T, A],
    ),
    ({"messages": [S, U, A], "prompt": "q"}, [S, U, A]),
    ({"messages": [HUMAN, GPT]}, [U, A]),
    ({"messages": [{**S, "role": "developer"}, U, {**A, "weight": 1, "refusal": None}]}, [S, U, A]),
    ({"messages": [{**U, "content": [{"type": "text", "text": "q"}]}, A]}, [U, A]),
    ({"messages": [U, {**A, "thinking": "hm"}]}, [U, {**A, "reasoning_content": "hm"}]),
    (
        {
            "messages": [
                U,
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {**T, "tool_call_id": "x"},
                A,
            ],
            "tools": [TOOL],
        },
        [{**HEAD, "content": ""}, U, CALLED, T, A],
    ),
    ({"instruction": "q", "output": "a"}, [U, A]),
    ({"instruction": "q", "input": None, "output": "a", "system": "", "history": []}, [U, A]),
    ({"instruction": "q", "input": " ", "output": "a", "history": None, "text": "q a"}, [U, A]),
    ({"instruction": "q", "input": "x\n", "output": "a"}, [{**U, "content": "q\nx\n"}, A]),
    ({"instruction": "", "input": "q", "output": "a"}, [U, A]),
    ({"instruction": "q", "output": "a", "system": "s", "history": [["q", "b"]]}, [S, U, B, U, A]),
    ({"prompt": "q", "response": "a"}, [U, A]),
    ({"prompt": "q", "completion": "a", "system": "s", "messages": None, "label": True}, [S, U, A]),
    ({"prompt": [S, U], "completion": [A]}, [S, U, A]),
    ({"prompt": [U], "completion": "a"}, [U, A]),
]
DPO = [
    ({"chosen": [S, U, A], "rejected": [S, U, B]}, [S, U]),
    ({"chosen": [HUMAN, GPT], "rejected": [HUMAN, WORSE]}, [U]),
    ({"prompt": "q", "chosen": [U, A], "rejected": [U, B], "messages": [U, A], "score_chosen": 7}, [U]),
    ({"prompt": [S, U], "chosen": [S, U, A], "rejected": [S, U, B]}, [S, U]),
    ({"instruction": "q", "input": "", "output": "a", "chosen": "a", "rejected": "b"}, [U]),
    (
        {"instruction": "q", "input": "x", "chosen": "a", "rejected": "b", "system": "s"},
        [S, {**U, "content": "q\nx"}],
    ),
    ({"instruction": "q", "chosen": "a", "rejected": "b", "history": [["q", "b"]]}, [U, B, U]),
    ({"conversations": [HUMAN], "chosen": GPT, "rejected": WORSE}, [U]),
    ({"conversations": [{"from": "system", "value": "s"}, HUMAN], "chosen": GPT, "rejected": WORSE}, [S, U]),
    ({"conversations": [HUMAN, WORSE, HUMAN], "chosen": GPT, "rejected": WORSE, "system": "s"}, [S, U, B, U]),
    ({"messages": [U], "chosen": A, "rejected": B}, [U]),
    ({"prompt": "q", "chosen": "a", "rejected": "b"}, [U]),
    ({"prompt": [S, U], "chosen": [A], "rejected": [B]}, [S, U]),
    ({"prompt": "q", "chosen": [A], "rejected": [B]}, [U]),
    (
        {"input": {"messages": [S, U], "tools": []}, "preferred_output": [A], "non_preferred_output": [B]},
        [S, U],
    ),
]


def cleaned(messages):
    """Messages with JSON in the strings that hold JSON."""
    kept = []
    for message in messages:
        message = {name: value for name, value in message.items() if value is not None}
        for name in ("tools", "tool_calls"):
            if isinstance(message.get(name), str):
                message[name] = json.loads(message[name])
        kept.append(
            {
                name: message[name]
                for name in message
                if name not in ("tool_call_id", "weight", "refusal", "thinking")
            }
        )
    return kept


@pytest.mark.parametrize("record, expected", SFT, ids=lambda value: str(value)[:60])
def test_sft_layouts(load, record, expected):
    before = copy.deepcopy(record)
    assert cleaned(convert(record, "sft")["conversations"]) == cleaned(expected)
    assert record == before, "the record given is not changed"
    for stored in (load([record], "sft", "data.json")[0], Records.from_list([record], "sft")[0]):
        assert cleaned(stored["conversations"]) == cleaned(expected)


@pytest.mark.parametrize("record, prompt", DPO, ids=lambda value: str(value)[:60])
def test_dpo_layouts(load, record, prompt):
    before = copy.deepcopy(record)
    expected = {"chosen": [*prompt, A], "rejected": [*prompt, B]}
    assert convert(record, "dpo") == expected and record == before
    assert load([record], "dpo", "data.json")[0] == expected


def test_records_of_ours_are_left_alone():
    for kind, record in (("sft", {"conversations": [U, A], "extra": 1}), ("pretrain", {"text": "x"}),
                         ("rlvr", {"conversations": [U], "gt": 1})):  # fmt: skip
        assert convert(record, kind) is record


def test_layouts_may_be_mixed_line_by_line(load):
    mixed, expected = zip(*SFT, strict=True)
    for name in ("mixed.jsonl", "mixed.json"):
        loaded = load(list(mixed), "sft", name)
        assert [cleaned(one["conversations"]) for one in loaded] == [cleaned(one) for one in expected]


def test_tools_reach_the_chat_template(load):
    messages, tools = chat_of(load([SFT[7][0]], "sft")[0]["conversations"])
    assert tools == [TOOL] and messages == [S, U, CALLED, T, A]


# --- any conversation, written in each layout, comes back ---

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).filter(
    str.strip
)
turns = st.lists(st.tuples(text, text), min_size=1, max_size=3)
systems = st.none() | text


def conversation(system, pairs):
    head = [{"role": "system", "content": system}] if system else []
    roles = ("user", "assistant")
    return head + [
        {"role": role, "content": said} for pair in pairs for role, said in zip(roles, pair, strict=True)
    ]


def as_sharegpt(messages):
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


def written_sft(system, pairs):
    """A conversation in every layout that can hold it."""
    whole = conversation(system, pairs)
    (asked, said), history = pairs[-1], [list(pair) for pair in pairs[:-1]]
    columns = {"system": system, "history": history}
    yield {"conversations": whole}
    yield {"conversations": as_sharegpt(whole)}
    yield {"conversations": as_sharegpt(conversation(None, pairs)), "system": system}
    yield {"messages": whole}
    yield {"messages": [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in whole]}
    yield {"instruction": asked, "input": "", "output": said, **columns}
    first, newline, rest = asked.partition("\n")
    if newline and first.strip() and rest.strip():
        yield {"instruction": first, "input": rest, "output": said, **columns}
    yield {"prompt": asked, "response": said, **columns}
    yield {"prompt": asked, "completion": said, **columns}
    yield {"prompt": whole[:-1], "completion": whole[-1:]}


@settings(max_examples=100, deadline=None)
@given(systems, turns)
def test_any_conversation_comes_back(system, pairs):
    for record in written_sft(system, pairs):
        record = json.loads(json.dumps(record))
        assert convert(record, "sft") == {"conversations": conversation(system, pairs)}, record
        assert Records.from_list([record], "sft")[0] == {"conversations": conversation(system, pairs)}


@settings(max_examples=100, deadline=None)
@given(systems, turns, text)
def test_any_preference_comes_back(system, pairs, other):
    good, bad = conversation(system, pairs), conversation(system, [*pairs[:-1], (pairs[-1][0], other)])
    prompt, asked, said = good[:-1], pairs[-1][0], pairs[-1][1]
    columns = {"system": system, "history": [list(pair) for pair in pairs[:-1]]}
    gpt, worse = as_sharegpt([good[-1], bad[-1]])
    for record in (
        {"chosen": good, "rejected": bad},
        {"chosen": as_sharegpt(good), "rejected": as_sharegpt(bad)},
        {"prompt": asked, "chosen": good, "rejected": bad},
        {"prompt": prompt, "chosen": good[-1:], "rejected": bad[-1:]},
        {"prompt": asked, "chosen": said, "rejected": other, **columns},
        {"instruction": asked, "input": "", "chosen": said, "rejected": other, **columns},
        {"conversations": as_sharegpt(prompt), "chosen": gpt, "rejected": worse},
        {"messages": prompt, "chosen": good[-1], "rejected": bad[-1]},
        {"input": {"messages": prompt}, "preferred_output": good[-1:], "non_preferred_output": bad[-1:]},
    ):
        assert convert(record, "dpo") == {"chosen": good, "rejected": bad}, record
