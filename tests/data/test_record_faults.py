"""Records: what is refused, and in which words."""

import gzip
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_records import A, S, T, U, refusal, texts

from minimind_edu.data import reading, records, rows
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records

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
        ("a.jsonl", gzip.compress(b'{"text": "x"}', mtime=0), "is compressed (gzip): unpack it first"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}', mtime=0), "is compressed (gzip)"),
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
