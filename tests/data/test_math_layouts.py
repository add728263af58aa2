"""GSM8K's layout: calculator marks go, thoughts and the number behind #### stay."""

import json
import re

import pytest

from minimind_edu.data.errors import DataError
from minimind_edu.data.layouts import read_record
from minimind_edu.data.math_layouts import plain_number
from minimind_edu.data.records import load_records
from minimind_edu.data.validation import BadRecord

ANSWER = "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nIn all 48+24 = <<48+24=72>>72 clips.\n#### 72"
RECORD = {"question": "How many clips?", "answer": ANSWER}


def test_a_record_as_conversation_and_as_prompt():
    asked = {"role": "user", "content": "How many clips?"}
    chat = read_record(RECORD, "sft")["conversations"]
    assert [{name: message[name] for name in ("role", "content")} for message in chat] == [
        asked,
        {
            "role": "assistant",
            "content": "<think>\nNatalia sold 48/2 = 24 clips in May.\nIn all 48+24 = 72 clips.\n</think>\n"
            "<answer>\n72\n</answer>",
        },
    ]
    prompt = read_record(RECORD, "rlvr")
    assert prompt["gt"] == "72" and len(prompt["conversations"]) == 1
    assert prompt["conversations"][0]["content"] == "How many clips?"
    # `solution` and other columns are ignored, null ones too.
    assert read_record({**RECORD, "id": 7, "messages": None}, "sft") == read_record(RECORD, "sft")


def test_our_own_layout_comes_first():
    own = {"conversations": [{"role": "user", "content": "x"}], "gt": "1", **RECORD}
    assert read_record(own, "rlvr")["gt"] == "1"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("72", "72"), ("1,080", "1080"), ("109,200,000", "109200000"), ("-7", "-7"), ("$18", "18"),
        ("5.00", "5"), ("+4", "4"), ("007", "7"), ("0", "0"), ("-0", "0"), (" 3 ", "3"), ("5.", "5"),
        ("1,08", None), ("10,80", None), ("5.5", None), ("1/2", None), ("", None), ("7 apples", None),
        ("７", None),
        ("1e3", None), ("1,0800", None), ("--7", None),
    ],
)  # fmt: skip
def test_numbers_are_written_in_one_way(text, number):
    assert plain_number(text) == number


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"answer": "It is 72."}, "unknown layout"),
        ({"answer": "x\n#### 72\nand more"}, "####"),
        ({"answer": "x #### 72"}, "####"),
        ({"answer": "x\n#### many"}, "many"),
        ({"answer": "x\n####"}, "not a whole number"),
        ({"answer": "#### 72"}, "thoughts"),
        ({"answer": "<answer>5</answer>\n#### 72"}, "tag"),
        ({"answer": 72}, "unknown layout"),
        ({"question": " "}, "'question' is only white space"),
        ({"question": ["a"]}, "'question' is a list"),
    ],
)
def test_what_is_not_certain_is_refused(change, part):
    with pytest.raises(BadRecord, match=re.escape(part)):
        read_record(RECORD | change, "sft")


def test_prompts_need_no_thoughts():
    assert read_record({"question": "x", "answer": "#### 5"}, "rlvr")["gt"] == "5"
    with pytest.raises(BadRecord, match="conversations"):
        read_record({"question": "x", "answer": "5"}, "rlvr")


def test_the_layout_is_named_where_another_is_unknown(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"sentence": "x"}) + "\n")
    with pytest.raises(DataError, match="GSM8K"):
        load_records(path, "sft", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["gsm8k_train", "gsm8k_test"])
def test_real_problems(shared, tmp_path, name):
    path = shared / "data" / "math" / f"{name}.jsonl"
    raw = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    chats = load_records(path, "sft", cache_dir=tmp_path)
    prompts = load_records(path, "rlvr", cache_dir=tmp_path)
    assert len(chats) == len(prompts) == len(raw) > 1000 and not chats.dropped and not prompts.dropped
    for record, chat, prompt in zip(raw, chats, prompts, strict=True):
        question, answer = (message["content"] for message in chat["conversations"])
        assert question == record["question"] == prompt["conversations"][0]["content"]
        assert int(prompt["gt"]) == int(record["answer"].split("####")[1].replace(",", ""))
        assert answer.endswith(f"\n</think>\n<answer>\n{prompt['gt']}\n</answer>")
        assert "<<" not in answer and "####" not in answer and answer.count("<answer>") == 1
