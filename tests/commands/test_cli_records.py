"""The command line: malformed data."""

import json

import pytest
from small_files import SENTENCES, TINY, A, U, write_lines

LONE = b'{"text": "\\ud83d"}'
PRETRAIN_FAULTS = [
    (b"", 1), (b"\n\n \n", 1), (b"{}", 1), (b"[]", 1), (b"7", 1), (b'"text"', 1), (b"null", 1),
    (b"{'text': 'a'}", 1), (b'{"text": "a"', 1), (b'{"text": "a",}', 1), (b'{"text": "a"} {"text": "b"}', 1),
    (b'{"text": NaN}', 1), (b'{"text": null}', 1), (b'{"text": ""}', 1), (b'{"text": " \\n\\t"}', 1),
    (b'{"text": 3}', 1), (b'{"text": ["a"]}', 1), (b'{"Text": "a"}', 1), (b'{"text": "a", "text": "b"}', 1),
    (b'{"text": "\xff\xfe"}', 1), (LONE, 1), (b'{"text": "a\\u0000b"}', 1), (b'{"text": "a\tb"}', 1),
    (b"\x1f\x8b\x08\x00broken", 1), ('{"text": "a"}'.encode("utf-16"), 1), (b"PK\x03\x04", 1),
    (b"[" * 100_000, 1), (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", 1),
    (b'{"text": "fine"}\n{"text": "cut', 2), (b'{"text": "fine"}\n\n\n{"text": 1}', 4),
    (b'{"conversations": []}', 1),
]  # fmt: skip
GOOD_CHAT = json.dumps({"conversations": [U, A]}).encode()
SFT_FAULTS = [
    {}, {"text": "a"}, {"conversations": None}, {"conversations": []}, {"conversations": "hi"},
    {"conversations": [3]}, {"conversations": [{}]}, {"conversations": [U]}, {"conversations": [A]},
    {"conversations": [A, U]}, {"conversations": [U, U, A]}, {"conversations": [U, A, A]},
    {"conversations": [U, {"role": "assistant"}]},
    {"conversations": [U, {"role": "assistant", "content": ""}]},
    {"conversations": [U, {"role": "assistant", "content": None}]}, {"conversations": [{"role": "king"}, A]},
    {"conversations": [U, {"role": 7, "content": "x"}]},
    {"conversations": [U, {"from": "king", "value": "x"}]},
    {"conversations": [{"role": "system", "content": "s"}]}, {"conversations": [U, A, {"role": "system"}]},
    {"messages": [U]}, {"instruction": "a", "output": ""}, {"chosen": [U, A], "rejected": [U, A]},
    {"conversations": [U, A], "gt": 3, "x": None} | {"conversations": [U]},
]  # fmt: skip


@pytest.mark.parametrize(("content", "line"), PRETRAIN_FAULTS, ids=range(len(PRETRAIN_FAULTS)))
def test_malformed_pretraining_files(run, tmp_path, content, line):
    path, out_dir = tmp_path / "bad file.jsonl", tmp_path / "run"
    path.write_bytes(content)
    code, out, errors = run("pretrain", *TINY, f"--data_path={path}", f"--out_dir={out_dir}")
    assert code == 2 and out == "" and "Traceback" not in errors
    assert (
        f"{path}:{line}: " in errors
        and len(errors.splitlines()) <= 2
        and len(errors) < 500 + 2 * len(str(path))
    )
    assert not out_dir.exists()


@pytest.mark.parametrize("record", SFT_FAULTS, ids=range(len(SFT_FAULTS)))
def test_malformed_chats(run, trained, tmp_path, record):
    path, out_dir = tmp_path / "chats.jsonl", tmp_path / "run"
    path.write_bytes(GOOD_CHAT + b"\n" + json.dumps(record).encode() + b"\n" + GOOD_CHAT)
    code, out, errors = run("sft", f"--from_weight={trained}", f"--data_path={path}", f"--out_dir={out_dir}")
    assert code == 2 and out == "" and "Traceback" not in errors
    known = errors.count("\n  ") - 1 if "unknown layout" in errors else 0
    assert f"{path}:2: " in errors and len(errors.splitlines()) == 2 + (known and known + 1)
    assert not out_dir.exists() and (known >= 5) == (record == {})


def test_the_first_ten_faults_are_listed(run, tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", [{"text": 1}] * 25)
    code, _, errors = run("pretrain", f"--data_path={path}", f"--out_dir={tmp_path / 'run'}")
    lines = errors.splitlines()
    assert code == 2 and len(lines) == 12 and "25 faulty records" in lines[0] and "15 more" in lines[-1]
    assert [f":{number}:" in line for number, line in enumerate(lines[1:11], start=1)] == [True] * 10


def test_bad_records_can_be_skipped(run, tmp_path):
    """The result is that of a file without them, and the count is reported."""
    good = [{"text": text} for text in SENTENCES]
    clean = write_lines(tmp_path / "clean.jsonl", good)
    dirty = write_lines(
        tmp_path / "dirty.jsonl", [{"text": ""}, *good[:9], {"txt": "a"}, *good[9:], {"text": 5}]
    )
    for path, name in ((clean, "a"), (dirty, "b")):
        words = [
            "pretrain",
            *TINY,
            f"--data_path={path}",
            f"--out_dir={tmp_path / name}",
            "--on_bad_record=skip",
        ]
        code, out, _ = run(*words)
        assert code == 0 and ("note: 3 faulty records were skipped" in out) == (name == "b")
    assert f"{dirty}:1: " in out
    weights = [(tmp_path / name / "model" / "model.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


def test_only_bad_records(run, tmp_path):
    path = write_lines(tmp_path / "bad.jsonl", [{"text": ""}] * 3)
    code, _, errors = run(
        "pretrain", f"--data_path={path}", f"--out_dir={tmp_path / 'x'}", "--on_bad_record=skip"
    )
    assert code == 2 and "no usable record" in errors and f"{path}:1:" in errors


def test_too_little_to_hold_anything_back(refused, tmp_path):
    path = write_lines(tmp_path / "one.jsonl", [{"text": "alone"}])
    assert "too small" in refused("pretrain", *TINY, f"--data_path={path}", f"--out_dir={tmp_path / 'x'}")


def test_nothing_to_learn_within_the_length(refused, trained, tmp_path):
    chat = {"conversations": [U | {"content": "long " * 200}, A]}
    path = write_lines(tmp_path / "long.jsonl", [chat] * 4)
    words = ["sft", f"--from_weight={trained}", f"--data_path={path}", "--max_seq_len=16"]
    assert "max_seq_len=16" in refused(*words, f"--out_dir={tmp_path / 'x'}")
