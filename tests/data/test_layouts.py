"""Layouts of other tools: converted without loss, or refused in words that help."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_edu.config import ModelConfig
from minimind_edu.data.errors import DataError
from minimind_edu.data.layouts import LAYOUTS, SHAREGPT_ROLES, convert, known_layouts
from minimind_edu.data.records import Records, chat_of, load_records
from minimind_edu.data.validation import BadRecord
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import packed_rows, save_model
from minimind_edu.stages.sft import SFTConfig, sft
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import evaluate_loss

U, A, B = (
    {"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
)
S, T = {"role": "system", "content": "s"}, {"role": "tool", "content": "4"}
HUMAN, GPT, WORSE = (
    {"from": "human", "value": "q"},
    {"from": "gpt", "value": "a"},
    {"from": "gpt", "value": "b"},
)
CALL = {"name": "add", "arguments": {"a": 1, "b": "二"}}
TOOL = {"name": "add", "description": "adds", "parameters": {"type": "object"}}


@pytest.fixture
def load(tmp_path):
    """Write text, bytes or objects (as an array, or a line each) to a file and load it."""

    def write_and_load(content, kind="sft", name="data.json", **options):
        if isinstance(content, list):
            lines = [json.dumps(item, ensure_ascii=False) for item in content]
            content = "\n".join(lines) if name.endswith("l") else "[\n" + ",\n".join(lines) + "\n]\n"
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_records(tmp_path / name, kind, cache_dir=tmp_path / "cache", **options)

    return write_and_load


def refusal(load, *args, **options):
    with pytest.raises(DataError) as caught:
        load(*args, **options)
    return str(caught.value)


# --- each layout, once ---

SYSTEM_AND_TOOLS = {"system": "s", "tools": json.dumps([TOOL])}
HEAD = {**S, "tools": json.dumps([TOOL])}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
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
    for stored in (load([record])[0], Records.from_list([record], "sft")[0]):
        assert cleaned(stored["conversations"]) == cleaned(expected)


@pytest.mark.parametrize("record, prompt", DPO, ids=lambda value: str(value)[:60])
def test_dpo_layouts(load, record, prompt):
    before = copy.deepcopy(record)
    expected = {"chosen": [*prompt, A], "rejected": [*prompt, B]}
    assert convert(record, "dpo") == expected and record == before
    assert load([record], "dpo")[0] == expected


def test_records_of_ours_are_left_alone():
    for kind, record in (("sft", {"conversations": [U, A], "extra": 1}), ("pretrain", {"text": "x"}),
                         ("rlvr", {"conversations": [U], "gt": 1})):  # fmt: skip
        assert convert(record, kind) is record


def test_layouts_may_be_mixed_line_by_line(load):
    mixed, expected = zip(*SFT, strict=True)
    for name in ("mixed.jsonl", "mixed.json"):
        loaded = load(list(mixed), name=name)
        assert [cleaned(one["conversations"]) for one in loaded] == [cleaned(one) for one in expected]


def test_tools_reach_the_chat_template(load):
    messages, tools = chat_of(load([SFT[7][0]])[0]["conversations"])
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


# --- what is nearly a layout ---

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


# --- files of other projects ---

ALPACA = {"sft/instruction-data.json": 1_100, "sft/identity.json": 91, "sft/alpaca_zh_demo.json": 1_000}
ALPACA_PAIRS, SHAREGPT_PAIRS = (
    "preference/instruction-data-with-preference.json",
    "preference/dpo_zh_demo.json",
)
TIES = 6  # pairs of the first file whose answers are the same


@pytest.fixture
def real(shared, tmp_path):
    """Load a file of the samples; returns what the file holds and what was made of it."""

    def load_real(name, kind, **options):
        path = shared / "data" / name
        if not path.is_file():
            pytest.skip(f"{path} is not on this machine")
        return json.loads(path.read_bytes()), load_records(path, kind, cache_dir=tmp_path, **options)

    return load_real


def asked_of(item):
    return item["instruction"] + ("\n" + item["input"] if item["input"] else "")


@pytest.mark.parametrize("name, count", ALPACA.items())
def test_real_alpaca_files(real, name, count):
    items, loaded = real(name, "sft")
    assert len(items) == len(loaded) == count and loaded.dropped == 0
    for item, record in zip(items, loaded, strict=True):
        user, assistant = record["conversations"]
        assert user == {"role": "user", "content": asked_of(item)}
        assert assistant == {"role": "assistant", "content": item["output"]}


def test_a_real_file_of_alpaca_preferences(real):
    items, loaded = real(ALPACA_PAIRS, "dpo", on_bad_record="skip")
    different = [item for item in items if item["chosen"] != item["rejected"]]
    assert len(items) == 1_100 and len(different) == len(loaded) == 1_100 - TIES and loaded.dropped == TIES
    assert all("identical: there is nothing to prefer" in fault.what for fault in loaded.faults)
    for item, record in zip(different, loaded, strict=True):
        for side in ("chosen", "rejected"):
            asked = {"role": "user", "content": asked_of(item)}
            assert record[side] == [asked, {"role": "assistant", "content": item[side]}]
    assert len(real(ALPACA_PAIRS, "sft")[1]) == 1_100, "its outputs can be imitated, too"


def test_a_real_file_of_sharegpt_preferences(real):
    items, loaded = real(SHAREGPT_PAIRS, "dpo")
    assert len(items) == len(loaded) == 300 and loaded.dropped == 0
    for item, record in zip(items, loaded, strict=True):
        said = [message["value"] for message in item["conversations"]]
        for side in ("chosen", "rejected"):
            assert [message["content"] for message in record[side]] == [*said, item[side]["value"]]
            assert [message["role"] for message in record[side]][-2:] == ["user", "assistant"]
            assert (record[side][0]["role"] == "system") == (item["conversations"][0]["from"] == "system")
    assert sum(record["chosen"][0]["role"] == "system" for record in loaded) == 64


@pytest.mark.parametrize(
    "name, kind", [*((name, "sft") for name in ALPACA), (SHAREGPT_PAIRS, "dpo"), (ALPACA_PAIRS, "dpo")]
)
def test_the_mask_of_converted_files_audited_by_decoding(real, name, kind):
    """What is supervised is the answer with its end token, and nothing else."""
    _, loaded = real(name, kind, on_bad_record="skip")
    sides = ("conversations",) if kind == "sft" else ("chosen", "rejected")
    chats = [record[side] for record in loaded for side in sides]
    tokenizer = train_fast([message["content"] for chat in chats[:400] for message in chat], 1_000)
    for chat in chats:
        encoded = tokenizer.encode_chat(chat)
        supervised = [i for i, bit in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if bit]
        said = [message["content"] for message in chat if message["role"] == "assistant"]
        assert tokenizer.decode(supervised) == "".join(text + tokenizer.eos_token for text in said)
        assert supervised.count(tokenizer.eos_token_id) == len(said) == 1


def test_training_on_a_real_alpaca_file(real, shared, tmp_path):
    """From the file as it is to a lower loss on the records held back, for three seeds."""
    name = "sft/instruction-data.json"
    _, loaded = real(name, "sft")
    tokenizer = train_fast([m["content"] for record in loaded for m in record["conversations"]], 600)
    for seed in range(3):
        torch.manual_seed(seed)
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, num_key_value_heads=1, **shape))
        save_model(model, tokenizer, tmp_path / f"base{seed}")
        config = SFTConfig(
            data_path=str(shared / "data" / name), from_weight=str(tmp_path / f"base{seed}"), seed=seed,
            out_dir=str(tmp_path / f"run{seed}"), cache_dir=str(tmp_path), max_seq_len=128, batch_size=8,
            val_fraction=0.1, epochs=1, max_steps=60, learning_rate=1e-2, device="cpu", dtype="float32",
        )  # fmt: skip
        held_out = packed_rows(config, "sft", loaded, tokenizer, show=False).validation
        before = evaluate_loss(model, causal_lm_loss, held_out, 8)
        after = sft(config, progress=False).fit.validation_loss
        assert after < 0.8 * before, (seed, before, after)
