"""Records: what loads, the cache, and the split."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_records import A, S, T, U, refusal, texts

from minimind_edu.data import records
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import Records, chat_of, load_records, train_val_split

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
