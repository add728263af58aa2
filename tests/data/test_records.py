"""Records: what loads, what is refused, and in which words."""

import gzip
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minimind_edu.data import reading, records, rows
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import Records, chat_of, load_records, train_val_split

U, A = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
S, T = {"role": "system", "content": "s"}, {"role": "tool", "content": "4"}


@pytest.fixture
def load(tmp_path):
    """Write bytes, text or objects to a file and load it."""

    def write_and_load(content, kind="pretrain", name="data.jsonl", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_records(path, kind, cache_dir=tmp_path / "cache", **options)

    return write_and_load


def refusal(load, *args, **options):
    with pytest.raises(DataError) as caught:
        load(*args, **options)
    return str(caught.value)


def texts(loaded):
    return [record["text"] for record in loaded]


# --- what loads ---


def test_real_samples_load(shared, tmp_path):
    folder = shared / "data" / "minimind_format"
    expected = {
        ("pretrain_data", "pretrain"): 2,
        ("pretrain_demo", "pretrain"): 300,
        ("tokenizer_data", "pretrain"): 3,
        ("sft_data", "sft"): 2,
        ("sft_demo", "sft"): 100,
        ("lora_data", "sft"): 2,
        ("r1_data", "sft"): 2,
        ("dpo_data", "dpo"): 2,
    }
    for (name, kind), count in expected.items():
        loaded = load_records(folder / f"{name}.jsonl", kind, cache_dir=tmp_path)
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(loaded) == count and list(loaded) == [json.loads(line) for line in lines if line.strip()]
        assert not loaded.is_stream and loaded.dropped == 0


def test_tolerated_layouts(load):
    good = [{"text": "eins"}, {"text": "二"}]
    lines = [json.dumps(record, ensure_ascii=False) for record in good]
    for number, content in enumerate(
        [
            "\n".join(lines),  # no line end at the end
            "\r\n".join(lines) + "\r\n",
            "\ufeff" + "\n".join(lines),
            "\n \n\n" + "\n\t\n".join(lines) + "\n\n\n",
            "  " + " \n  ".join(lines) + "  \n",
        ]
    ):
        assert list(load(content, name=f"{number}.jsonl")) == good
        assert list(load(content, name=f"{number}.JSON")) == good


def test_unknown_columns_are_ignored_whatever_their_types(load):
    extras = [{"id": 1}, {"id": "two"}, {"id": [3, {"x": None}]}, {"id": None, "source": {"a": 1e300}}, {}]
    loaded = load([{"text": f"t{n}", **extra} for n, extra in enumerate(extras)])
    assert list(loaded) == [{"text": f"t{n}"} for n in range(5)]
    message = {**U, "weight": 3, "name": ["x"]}
    assert load([{"conversations": [message, A]}], "sft")[0] == {"conversations": [U, A]}


def test_newer_message_fields(load):
    call = {"name": "add", "arguments": {"a": 1}}
    conversation = [
        {"role": "system", "content": "", "tools": json.dumps([call])},
        U,
        {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [call]},
        T,
        T,
        {"role": "assistant", "content": "四", "reasoning_content": "", "tool_calls": ""},
        U,
        {"role": "assistant", "tool_calls": json.dumps([call])},
        T,
        A,
    ]
    stored = load([{"conversations": conversation}], "sft")[0]["conversations"]
    messages, tools = chat_of(stored)
    assert tools == [call]
    assert messages[0] == {"role": "system", "content": ""}
    assert messages[2] == {
        "role": "assistant",
        "content": "",
        "reasoning_content": "hm",
        "tool_calls": [call],
    }
    assert messages[5] == {"role": "assistant", "content": "四"}
    assert messages[7] == {"role": "assistant", "content": "", "tool_calls": [call]}


def test_verifiable_answers_are_stored_as_text(load):
    answers = ["4", 4, 4.5, ["a", 1], -3, []]
    loaded = load([{"conversations": [U], "gt": gt} for gt in answers], "rlvr")
    assert [record["gt"] for record in loaded] == ["4", "4", "4.5", '["a", 1]', "-3", "[]"]
    for ending in ([], [A], [{**A, "content": ""}], [{"role": "assistant", "content": None}]):
        kept = load([{"conversations": [S, U, *ending], "gt": 1}], "rlvr")[0]["conversations"]
        assert kept == ([S, U, A] if ending == [A] else [S, U])


def test_prompts_of_a_preference_pair_may_differ(load):
    pair = {"chosen": [U, A], "rejected": [{**U, "content": "other"}, A]}
    assert load([pair], "dpo")[0] == pair


def test_several_files_in_their_order(load, tmp_path):
    load([{"text": "a"}], name="a.jsonl")
    load([{"text": "b"}], name="b.jsonl")
    both = load_records([tmp_path / "b.jsonl", str(tmp_path / "a.jsonl")], "pretrain", cache_dir=tmp_path)
    assert texts(both) == ["b", "a"]
    with pytest.raises(DataError, match="no data file"):
        load_records([], "pretrain", cache_dir=tmp_path)


json_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(json_text, min_size=1, max_size=20), st.booleans())
def test_any_text_comes_back(load, contents, ascii_only):
    lines = "".join(json.dumps({"text": text}, ensure_ascii=ascii_only) + "\n" for text in contents)
    assert texts(load(lines)) == contents


# --- plain text ---


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.sampled_from(["字", "ab ", "\n", "x\r\n", "é\n", "\r"]), st.integers(1, 3000)),
        max_size=8,
    )
)
def test_pieces_of_a_text_are_the_text(load, runs):
    text = "begin" + "".join(unit * count for unit, count in runs)
    loaded = load(text, name="a.txt")
    pieces = texts(loaded)
    assert loaded.is_stream and "".join(pieces) == text.replace("\r\n", "\n")
    assert all(len(piece) <= 4096 + 256 for piece in pieces)
    assert all(len(piece) >= 256 for piece in pieces) or len(pieces) == 1
    columns = next(loaded.batches(10_000))
    assert columns["continues"] == [False] + [True] * (len(pieces) - 1)


def test_text_pieces_end_at_line_ends(load):
    text = "".join(f"line {n}\n" for n in range(1_000))
    pieces = texts(load("\ufeff" + text, name="a.md"))
    assert "".join(pieces) == text and all(piece.endswith("\n") for piece in pieces)
    assert all(256 <= len(piece) < 600 for piece in pieces)


def test_long_lines_of_text_with_wide_characters(load, monkeypatch):
    text = "a" + "汉" * 50_000 + "\r\n" + "😀" * 40_000
    assert "".join(texts(load(text, name="a.txt"))) == text.replace("\r\n", "\n")


def test_plain_text_is_pretraining_data_only(load):
    assert "plain text is pretraining data" in refusal(load, "hello", "sft", name="a.txt")


# --- faults of a record ---

LINE_FAULTS = [
    ("pretrain", "{'text': 'x'}", "malformed JSON: expecting property name"),
    ("pretrain", '{"text": "x"} {"text": "y"}', "malformed JSON: extra data (column 15)"),
    ("pretrain", '{"text": "x",}', "malformed JSON"),
    ("pretrain", '{"text": "tab\there"}', "malformed JSON: invalid control character"),
    ("pretrain", "hello", "malformed JSON: expecting value (column 1)"),
    ("pretrain", '["text", "x"]', "expected an object {…}, found a list"),
    ("pretrain", '"text"', "found a string"),
    ("pretrain", "42", "found a number"),
    ("pretrain", "null", "found null"),
    ("pretrain", "true", "found a true/false value"),
    ("pretrain", "NaN", "NaN is not a JSON value"),
    ("pretrain", '{"text": "x", "score": NaN}', "NaN is not a JSON value"),
    ("pretrain", '{"text": "x", "score": -Infinity}', "-Infinity is not a JSON value"),
    ("pretrain", '{"text": "x", "text": "y"}', "'text' appears twice"),
    ("pretrain", '{"text": "x", "meta": {"a": 1, "a": 1}}', "'a' appears twice"),
    ("pretrain", '{"text": "\\ud800"}', "half of a surrogate pair"),
    ("pretrain", '{"text": "a\\udc00b"}', "\\udc00"),
    ("pretrain", '{"text": "a\\u0000b"}', "NUL character"),
    ("pretrain", '{"text": "x", "deep": ' + "[" * 200_000 + "]" * 200_000 + "}", "nested too deeply"),
    ("pretrain", '{"text": "x", "n": ' + "9" * 5_000 + "}", "thousands of digits"),
    ("pretrain", b'{"text": "caf\xe9"}', "not UTF-8: byte 0xe9 at byte 35 of the file"),
    ("pretrain", '{"text": "中文编码"}'.encode("gbk"), "it may be GBK"),
    ("pretrain", "{}", "no field 'text' (found: none)"),
    ("pretrain", '{"Text": "x"}', "no field 'text' (found: 'Text')"),
    ("pretrain", '{"text": null}', "'text' is null"),
    ("pretrain", '{"text": 5}', "'text' is a number, not a string"),
    ("pretrain", '{"text": ["x"]}', "'text' is a list"),
    ("pretrain", '{"text": ""}', "'text' is empty"),
    ("pretrain", '{"text": " \\n\\t\\u3000"}', "only white space"),
    ("pretrain", {"conversations": [U, A]}, "this looks like sft data; use minimind-edu sft"),
    ("pretrain", {"chosen": [U, A], "rejected": [U, A]}, "this looks like dpo data; use minimind-edu dpo"),
    (
        "pretrain",
        {"instruction": "x", "output": "y"},
        "no field 'text' (found: 'instruction', 'output'): this",
    ),
    ("sft", {"text": "x"}, "no field 'conversations' (found: 'text'): this looks like pretrain data; use"),
    ("sft", {"conversations": [U], "gt": "4"}, "this looks like rlvr data; use minimind-edu grpo"),
    ("sft", {"conversations": "hi"}, "'conversations' is a string, not a list of messages"),
    ("sft", {"conversations": U}, "is an object, not a list"),
    ("sft", {"conversations": []}, "'conversations' is empty"),
    ("sft", {"conversations": [U, "a"]}, "message 2 is a string, not an object"),
    ("sft", {"conversations": [U, None]}, "message 2 is null"),
    ("sft", {"conversations": [{"content": "q"}, A]}, "message 1 has no 'role'"),
    ("sft", {"conversations": [{"role": "user"}, A]}, "message 1 has no 'content'"),
    ("sft", {"conversations": [{"from": "human", "value": "q"}]}, "no assistant message"),
    ("rlvr", {"conversations": [{"from": "human", "value": "q"}], "gt": 1}, "this is the ShareGPT format"),
    ("sft", {"conversations": [{**U, "role": "human"}, A]}, "unknown role 'human': write 'user'"),
    ("sft", {"conversations": [{**U, "role": "User"}, A]}, "unknown role 'User' (known: system"),
    ("sft", {"conversations": [{**U, "role": 5}, A]}, "unknown role 5"),
    ("sft", {"conversations": [{**U, "role": ["user"]}, A]}, "unknown role ['user']"),
    ("sft", {"conversations": [{**U, "role": ""}, A]}, "unknown role ''"),
    ("sft", {"conversations": [{**U, "content": None}, A]}, "'content' is null"),
    ("sft", {"conversations": [{**U, "content": ["q"]}, A]}, "'content' is a list, not a string"),
    ("sft", {"conversations": [{**U, "content": " "}, A]}, "'content' is only white space"),
    ("sft", {"conversations": [U, {**A, "content": ""}]}, "'content' is empty"),
    ("sft", {"conversations": [U, {**A, "content": "", "tool_calls": []}]}, "'content' is empty"),
    ("sft", {"conversations": [U, {**A, "tool_calls": "not json"}]}, "'tool_calls' is not valid JSON"),
    ("sft", {"conversations": [U, {**A, "tool_calls": {"a": 1}}]}, "'tool_calls' is not a list of objects"),
    ("sft", {"conversations": [{**S, "tools": "[1]"}, U, A]}, "'tools' is not a list of objects"),
    ("sft", {"conversations": [U, {**A, "reasoning_content": 7}]}, "'reasoning_content' is a number"),
    ("sft", {"conversations": [U]}, "no assistant message"),
    ("sft", {"conversations": [S]}, "only a system message"),
    ("sft", {"conversations": [A]}, "begins with the assistant"),
    ("sft", {"conversations": [S, A, U, A]}, "begins with the assistant"),
    ("sft", {"conversations": [U, U, A]}, "messages 1 and 2 are both from the user"),
    ("sft", {"conversations": [U, A, A]}, "messages 2 and 3 are both from the assistant"),
    ("sft", {"conversations": [U, S, A]}, "message 2 is a system message"),
    ("sft", {"conversations": [S, S, U, A]}, "message 2 is a system message"),
    ("sft", {"conversations": [U, A, U]}, "ends with a user message"),
    ("sft", {"conversations": [U, A, T]}, "ends with a tool message"),
    ("sft", {"conversations": [U, T, A]}, "nothing called a tool"),
    ("dpo", {"chosen": [U, A]}, "no field 'rejected'"),
    ("dpo", {"rejected": [U, A]}, "no field 'chosen'"),
    ("dpo", {"chosen": [U, A], "rejected": [U]}, "'rejected' has no assistant message"),
    ("dpo", {"chosen": [U, A, U], "rejected": [U, A]}, "'chosen' ends with a user message"),
    ("dpo", {"chosen": [U, A], "rejected": [U, A]}, "identical"),
    ("dpo", {"chosen": "good", "rejected": "bad"}, "'chosen' is a string"),
    ("rlvr", {"conversations": [U]}, "no field 'gt'"),
    ("rlvr", {"conversations": [U], "gt": {"a": 1}}, "'gt' is an object"),
    ("rlvr", {"conversations": [U], "gt": True}, "'gt' is a true/false value"),
    ("rlvr", {"conversations": [U], "gt": ""}, "'gt' is empty"),
    ("rlvr", '{"conversations": [{"role": "user", "content": "q"}], "gt": 1e999}', "too large"),
    ("rlvr", {"conversations": [{**A, "content": ""}], "gt": 1}, "'content' is empty"),
]
GOOD = {
    "pretrain": {"text": "good text"},
    "sft": {"conversations": [U, A]},
    "dpo": {"chosen": [U, A], "rejected": [U, {**A, "content": "b"}]},
    "rlvr": {"conversations": [U], "gt": "4"},
}


@pytest.mark.parametrize("kind, line, what", LINE_FAULTS, ids=lambda value: str(value)[:40])
def test_faults_of_a_record(load, kind, line, what):
    good = json.dumps(GOOD[kind]).encode()
    line = json.dumps(line, ensure_ascii=False) if isinstance(line, dict) else line
    line = line.encode() if isinstance(line, str) else line
    content = b"\n".join([good[:-1] + b"}", line, good, b""])
    message = refusal(load, content, kind)
    summary, fault, *layouts = message.split("\n")
    assert bool(layouts) == (": unknown layout" in fault), "shown where they help"
    assert "1 faulty record" in summary and "data.jsonl:2: " in fault and what in fault, message
    assert len(fault) < 300
    kept = load(content, kind, on_bad_record="skip")
    assert len(kept) == 2 and kept.dropped == 1 and kept.faults[0].line == 2 and what in kept.faults[0].what
    assert "no usable record" in refusal(load, line, kind, on_bad_record="skip") or line.startswith(b"[")


def test_a_cut_last_line_is_named_as_such(load):
    message = refusal(load, '{"text": "a"}\n{"text": "b')
    assert ":2: the last line is cut off (malformed JSON: unterminated string" in message


def test_ten_faults_and_how_many_more(load, tmp_path):
    content = [{"text": "" if n % 2 else "good"} for n in range(60)]
    with pytest.raises(DataError) as caught:
        load(content)
    lines = str(caught.value).split("\n")
    assert "30 faulty records" in lines[0] and lines[-1] == "  and 20 more" and len(lines) == 12
    assert [f":{n}: " in line for n, line in zip(range(2, 21, 2), lines[1:11], strict=True)] == [True] * 10
    assert caught.value.count == 30 and len(caught.value.faults) == 10
    # The faults are remembered with the records: stop, skip, and stop again, from the cache.
    kept = load(content, on_bad_record="skip")
    assert len(kept) == 30 and kept.dropped == 30 and len(kept.faults) == 10
    assert refusal(load, content) == str(caught.value)
    # Over several files they are counted together, under each file's own name.
    load([{"text": "fine"}], name="fine.jsonl")
    paths = [tmp_path / "fine.jsonl", tmp_path / "data.jsonl"]
    both = load_records(paths, "pretrain", on_bad_record="skip", cache_dir=tmp_path)
    assert len(both) == 31 and both.dropped == 30


def test_a_line_that_is_too_long(load, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 2**20)
    content = '{"text": "' + "x" * (3 * 2**20) + '"}\n{"text": "after"}\n'
    assert ":1: the line is longer than 1 MB" in refusal(load, content)
    assert texts(load(content, on_bad_record="skip")) == ["after"]


def test_faulty_lines_of_a_text(load):
    content = b"good\nbad \xff\ngood\n\x00\n"
    message = refusal(load, content, name="a.txt")
    assert "a.txt:2: not UTF-8: byte 0xff at byte 9" in message and "a.txt:4: a NUL character" in message
    assert texts(load(content, name="a.txt", on_bad_record="skip")) == ["good\ngood\n"]


# --- faults of a file ---


@pytest.mark.parametrize(
    "name, content, what",
    [
        ("a.jsonl", b"", "a.jsonl:1: the file is empty"),
        ("a.txt", b"", "a.txt:1: the file is empty"),
        ("a.jsonl", b"\xef\xbb\xbf", "the file is empty"),
        ("a.jsonl", b"\n \n\r\n\t\n", "a.jsonl:1: the file is empty"),
        ("a.txt", b"\n \n" * 5_000, "a.txt:1: the file is empty"),
        ("a.jsonl", gzip.compress(b'{"text": "x"}'), "is compressed (gzip): unpack it first"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}'), "is compressed (gzip)"),
        ("a.zip", b"PK\x03\x04rest", "is compressed (zip)"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfdrest", "is compressed (zstd)"),
        ("a.parquet", b"PAR1rest", "is a Parquet file"),
        ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "is a web page"),
        ("a.jsonl", '{"text": "x"}'.encode("utf-16"), "is UTF-16, not UTF-8"),
        ("a.txt", "hello world".encode("utf-16-le"), "is UTF-16 or UTF-32"),
        ("a.txt", "hello world".encode("utf-16-be"), "is UTF-16 or UTF-32"),
        ("a.jsonl", '{"text": "x"}'.encode("utf-32"), "is UTF-32, not UTF-8"),
        ("a.csv", b"text\nhello\n", "unknown file type '.csv'; known are .jsonl, .json, .txt, .md"),
        ("data", b"hello", "unknown file type '(no extension)'"),
        ("a.json", b"[ \n ]\n", "a.json:1: the file is empty"),
        ("a.json", b'{\n  "text": "x"\n}\n', "spread over several lines"),
    ],
)
def test_faults_of_a_file_stop_always(load, name, content, what):
    for choice in ("stop", "skip"):
        message = refusal(load, content, name=name, on_bad_record=choice)
        assert what in message and "\n" not in message and len(message) < 400


def test_things_that_are_no_files(tmp_path):
    def message(path):
        with pytest.raises(DataError) as caught:
            load_records(path, "pretrain", cache_dir=tmp_path / "cache")
        return str(caught.value)

    assert message(tmp_path / "none.jsonl").endswith("none.jsonl:1: no such file")
    assert "is a folder" in message(tmp_path)
    assert "no valid file name" in message("a\0b.jsonl")
    assert ":1: " in message("x" * 5_000 + ".jsonl")
    assert "no such file" in message("")
    (tmp_path / "plain").write_text("x")
    assert "cannot be read" in message(tmp_path / "plain" / "a.jsonl")
    (tmp_path / "loop.jsonl").symlink_to(tmp_path / "loop.jsonl")
    assert ":1: " in message(tmp_path / "loop.jsonl")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jsonl")
        assert "is not a regular file" in message(tmp_path / "pipe.jsonl")
        assert "is not a regular file" in message("/dev/null")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything"
)
def test_no_permission(load, tmp_path):
    (tmp_path / "data.jsonl").write_text('{"text": "x"}')
    (tmp_path / "data.jsonl").chmod(0)
    with pytest.raises(DataError, match="no permission"):
        load_records(tmp_path / "data.jsonl", "pretrain", cache_dir=tmp_path / "cache")


def test_a_file_that_changes_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "data.jsonl"
    path.write_text('{"text": "x"}\n' * 10)

    def append_first(reader, name, kind):
        with open(path, "a") as file:
            file.write('{"text": "y"}\n')
        yield from rows.record_rows(reader, name, kind)

    monkeypatch.setattr(records, "record_rows", append_first)
    with pytest.raises(DataError, match="changed while it was read"):
        load_records(path, "pretrain", cache_dir=tmp_path)
    monkeypatch.undo()
    assert len(load_records(path, "pretrain", cache_dir=tmp_path)) == 11


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=300),
    st.sampled_from(["pretrain", "sft", "dpo", "rlvr"]),
    st.sampled_from(["jsonl", "txt"]),
)
def test_noise_never_raises_anything_else(load, content, kind, suffix):
    for choice in ("stop", "skip"):
        try:
            assert len(load(content, kind, name=f"a.{suffix}", on_bad_record=choice)) > 0
        except DataError as error:
            assert f"a.{suffix}" in str(error)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["", "user", "assistant", "x"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from("text conversations chosen rejected gt role content tools tool_calls".split()),
            inner,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(json_values, st.sampled_from(["pretrain", "sft", "dpo", "rlvr"]))
def test_any_json_is_loaded_or_refused(load, value, kind):
    try:
        load(json.dumps(value) + "\n", kind)
    except DataError as error:
        assert "data.jsonl:1: " in str(error)


# --- the cache ---


def test_a_second_call_does_not_parse_again(load, tmp_path, monkeypatch):
    first = load([{"text": "a"}, {"text": "b"}])
    (tmp_path / "data.jsonl").rename(tmp_path / "moved.jsonl")
    monkeypatch.setattr(records, "record_rows", None)
    again = load_records(tmp_path / "moved.jsonl", "pretrain", cache_dir=tmp_path / "cache")
    assert texts(again) == ["a", "b"] and again.fingerprint == first.fingerprint


def test_the_content_decides(load):
    assert texts(load([{"text": "a"}])) == ["a"]
    assert texts(load([{"text": "b"}])) == ["b"]
    same = '{"text": "a"}\n'
    assert load(same).fingerprint != load(same, name="a.txt").fingerprint


def test_records_lie_on_the_disk(load):
    loaded = load([{"text": "x" * 1_000}] * 3_000)
    assert loaded.dataset.cache_files and len(loaded) == 3_000
    assert sum(len(batch["text"]) for batch in loaded.batches(700)) == 3_000


def test_progress_reaches_the_end(load, tmp_path):
    seen = []
    load([{"text": "x"}] * 2_500, progress=lambda done, total: seen.append((done, total)))
    size = (tmp_path / "data.jsonl").stat().st_size
    assert seen[-1] == (size, size) and len(seen) == 3


def test_arguments_are_checked(tmp_path):
    with pytest.raises(ValueError, match="kind is 'lora'"):
        load_records(tmp_path, "lora")
    with pytest.raises(ValueError, match="on_bad_record"):
        load_records(tmp_path, "sft", on_bad_record="ignore")


# --- records in memory, and the split ---


def test_records_from_a_list():
    made = Records.from_list([{"text": "a"}, {"text": "b"}], "pretrain")
    assert texts(made) == ["a", "b"] and made[-1] == {"text": "b"}
    assert made.fingerprint == Records.from_list([{"text": "a"}, {"text": "b"}], "pretrain").fingerprint
    with pytest.raises(DataError, match="record:1: 'text' is empty"):
        Records.from_list([{"text": "a"}, {"text": ""}], "pretrain")
    with pytest.raises(DataError, match="no records"):
        Records.from_list([], "sft")
    with pytest.raises(IndexError):
        made[2]


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 200), st.floats(0.001, 0.999), st.integers(0, 9))
def test_split_of_documents(count, fraction, seed):
    whole = Records.from_list([{"text": str(n)} for n in range(count)], "pretrain")
    train, validation = train_val_split(whole, fraction, seed)
    assert len(train) and len(validation)
    assert sorted(map(int, texts(train) + texts(validation))) == list(range(count))
    again = train_val_split(whole, fraction, seed)
    assert texts(again[1]) == texts(validation) and again[1].fingerprint == validation.fingerprint
    assert train.fingerprint != validation.fingerprint
    assert [train.number(n) for n in range(len(train))] == [int(text) for text in texts(train)]


def test_split_is_random_and_capped():
    whole = Records.from_list([{"text": str(n)} for n in range(5_000)], "pretrain")
    train, validation = train_val_split(whole, 0.5)
    assert (len(train), len(validation)) == (3_000, 2_000)
    assert texts(validation) != [str(n) for n in range(3_000, 5_000)]
    assert texts(train_val_split(whole, 0.5, seed=1)[1]) != texts(validation)
    with pytest.raises(DataError, match="too small"):
        train_val_split(Records.from_list([{"text": "a"}], "pretrain"))
    with pytest.raises(ValueError, match="fraction"):
        train_val_split(whole, 1.0)


def test_split_of_a_stream_is_its_tail(load):
    text = "".join(f"line {n} of the text\n" for n in range(2_000))
    whole = load(text, name="a.txt")
    train, validation = train_val_split(whole, 0.1)
    assert "".join(texts(train)) + "".join(texts(validation)) == text
    assert 0.08 < len("".join(texts(validation))) / len(text) < 0.12
    with pytest.raises(DataError, match="too small"):
        train_val_split(load("short", name="b.txt"))


# --- published data sets ---


class HubStandIn(BaseHTTPRequestHandler):
    """Answers for one file as the Hugging Face hub does."""

    body = b'{"text": "from afar"}\n'

    def do_HEAD(self):
        self.do_GET(send_body=False)

    def do_GET(self, send_body=True):
        found = self.path.split("?")[0] == "/datasets/owner/name/resolve/main/folder/data.jsonl"
        self.send_response(200 if found else 404)
        self.send_header("ETag", '"0123456789"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.body) if found else 0))
        self.end_headers()
        if found and send_body:
            self.wfile.write(self.body)

    def log_message(self, *args):
        pass


LOAD_PUBLISHED = """
import sys
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records
try:
    loaded = load_records(sys.argv[1], "pretrain", cache_dir=sys.argv[2])
    sys.stdout.write(repr(list(loaded)))
except DataError as error:
    sys.stdout.write("DataError " + str(error))
"""


def load_published(url, tmp_path, endpoint):
    # In a process of its own, because the library reads its settings when it is imported.
    settings = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "hub"),
        "NO_PROXY": "127.0.0.1",
        "HF_HUB_OFFLINE": "0",
    }
    command = [sys.executable, "-c", LOAD_PUBLISHED, url, str(tmp_path / "cache")]
    done = subprocess.run(
        command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_published_files_are_downloaded(tmp_path):
    server = HTTPServer(("127.0.0.1", 0), HubStandIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        url = "hf://owner/name/folder/data.jsonl"
        assert load_published(url, tmp_path, endpoint) == "[{'text': 'from afar'}]"
        missing = load_published("hf://owner/name/none.jsonl", tmp_path, endpoint)
    finally:
        server.shutdown()
        server.server_close()
    assert (
        missing.startswith("DataError hf://owner/name/none.jsonl:1: cannot be downloaded")
        and "\n" not in missing
    )


def test_incomplete_names_of_published_files(tmp_path):
    for url in ("hf://owner/name", "hf://", "hf://owner//file.jsonl"):
        with pytest.raises(DataError, match="expected hf://owner/name/file"):
            load_records(url, "pretrain", cache_dir=tmp_path)
