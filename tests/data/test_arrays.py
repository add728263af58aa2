"""JSON arrays: read item by item, in every form, with the place of every fault."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_lines import json_values

from minimind_edu.config import ModelConfig
from minimind_edu.data import reading
from minimind_edu.data.errors import DataError
from minimind_edu.data.reading import ArrayReader, LineReader, open_data_file
from minimind_edu.data.records import load_records
from minimind_edu.data.rows import raw_records
from minimind_edu.evaluation import perplexity
from minimind_edu.model.transformer import MiniMind
from minimind_edu.tokenizer import train_fast

RECORDS = [{"text": f'{n} "quoted" \\ [{{,}}] 汉\n'} for n in range(5)]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 65_536])
@pytest.mark.parametrize("form", ["minified", "indented", "crlf", "bom", "spaces", "ascii"])
def test_arrays_in_every_form(load, monkeypatch, chunk, form):
    """Whatever the white space, and wherever the reading happens to pause."""
    whole = json.dumps(RECORDS, ensure_ascii=form == "ascii", indent=None if form == "minified" else 2)
    if form == "crlf":
        whole = whole.replace("\n", "\r\n") + "\r\n"
    whole = {"bom": "\ufeff" + whole, "spaces": " \n\t\r\n" + whole + " \n\n"}.get(form, whole)
    chunks = LineReader.chunks

    def in_small_chunks(reader):
        for piece in chunks(reader):
            yield from (piece[start : start + chunk] for start in range(0, len(piece), chunk))

    monkeypatch.setattr(LineReader, "chunks", in_small_chunks)
    for name in ("a.json", "a.jsonl"):
        assert list(load(whole, "pretrain", name)) == RECORDS


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3), max_size=6),
       st.sampled_from([None, 0, 3]), st.booleans())  # fmt: skip
def test_any_array_comes_back(tmp_path, items, indent, ascii_only):
    path = tmp_path / "any.json"
    path.write_text(json.dumps(items, indent=indent, ensure_ascii=ascii_only), "utf-8", "surrogatepass")
    assert list(raw_records(path)) == items


def array_faults(load, content, kind="pretrain"):
    """(line, what) of every fault, and the texts that are left when they are skipped."""
    with pytest.raises(DataError) as caught:
        load(content, kind, "data.json")
    try:
        kept = [record["text"] for record in load(content, kind, "data.json", on_bad_record="skip")]
    except DataError:
        kept = []
    return [(fault.line, fault.what) for fault in caught.value.faults], kept


@pytest.mark.parametrize(
    "content, line, what, kept",
    [
        ('[\n{"text": "a"},\n5,\n{"text": "b"}]', 3, "expected an object {…}, found a number", "ab"),
        ('[{"text": "a"}, ["text", "x"],\n\n "b", null]', 1, "found a list", "a"),
        ('[{"text": "a"},\n {"text": NaN}]', 2, "NaN is not a JSON value", "a"),
        ('[{"text": "a"},\n {"text": "b", "text": "c"}]', 2, "the key 'text' appears twice", "a"),
        (
            '[\n{"text": "a"},\n\n{\n"text": b\n},\n{"text": "c"}]',
            4,
            "expecting value (line 2 of the record, column 9)",
            "ac",
        ),
        ('[\n{"text": "a"},\n{"text": ""},\n{"text": "c"}]', 3, "'text' is empty", "ac"),
        ('[{"text": "a"}\n{"text": "b"}]', 1, "malformed JSON: extra data (line 2 of the record", ""),
        ('[{"text": "a"},\n]', 2, "malformed JSON: no item behind the last comma", "a"),
        ('[{"text": "a"},\n,\n{"text": "b"}]', 2, "malformed JSON: no item before a comma", "ab"),
        ('[{"text": "a"}],\n{"text": "b"}', 1, "there is text behind the end of the array", "a"),
        ('[{"text": "a"}]\n\n[{"text": "b"}]', 3, "there is text behind the end of the array", "a"),
        ('[{"text": "a"},\n{"text": "b"}\n', 3, "closing bracket is missing: the file is cut off", "ab"),
        ('[{"text": "a"},\n', 2, "closing bracket is missing: the file is cut off", "a"),
        ('[{"text": "a"},\n{"text": "b', 2, "the file ends inside of this item: cut off, or a quote", "a"),
        ('[{"text": "a"},\n{"text": "b",\n{"text": "c"}]', 2, "line 2 of the record, column 1", "a"),
        ('[{"text": "a"},\n{"text": "b},\n{"text": "c"}]', 2, "the file ends inside of this item", "a"),
        ('[{"text": "a"}},\n{"text": "b"}]', 1, "malformed JSON: extra data", "b"),
        ('[{"text": "a"},\n{"text": "b"},\n{"text": [}, {"text": "c"}]', 3, "malformed JSON", "ab"),
        (
            b'[{"text": "a"},\n{"text": "caf\xe9"},\n{"text": "b"}]',
            2,
            "not UTF-8: byte 0xe9 at byte 29 of the file",
            "ab",
        ),
        ('[{"text": "a"},\n{"text": "中文编码"}]'.encode("gbk"), 2, "it may be GBK", "a"),
        ("[", 1, "closing bracket is missing", ""),
        ('["a", "b"]', 1, "expected an object {…}, found a string", ""),
        (
            '[{"text": "a"}, {"text": "x", "n": ' + "[" * 100_000 + "]" * 100_000 + "}]",
            1,
            "nested too deeply",
            "a",
        ),
    ],
)
def test_faults_of_an_array(load, content, line, what, kept):
    faults, left = array_faults(load, content)
    assert faults[0][0] == line and what in faults[0][1] and len(faults[0][1]) < 300, faults
    assert left == list(kept)


def test_line_numbers_of_a_real_shape(load):
    """Each record's fault is at the line of its opening brace."""
    lines = json.dumps([{"instruction": "q", "input": "x\ny", "output": ""}] * 4, indent=4)
    faults, _ = array_faults(load, "\ufeff\n" + lines, "sft")
    assert faults == [(3 + 5 * n, "'output' is empty") for n in range(4)]


def test_an_item_that_is_too_long(load, monkeypatch):
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 2**20)
    content = '[{"text": "a"},\n{"text": "' + "x\\n" * 2**20 + '"},\n\n{"text": ""}, {"text": "b"}]'
    faults, left = array_faults(load, content)
    assert faults == [(2, "the item is longer than 1 MB"), (4, "'text' is empty")] and left == ["a", "b"]


def test_one_item_at_a_time_is_in_memory(tmp_path):
    path = tmp_path / "big.json"
    with path.open("w") as file:
        file.write("[" + ", ".join(['{"text": "%s"}' % ("x" * 10_000)] * 3_000) + "]")
    with open_data_file(path) as file:
        tracemalloc.start()
        count = sum(1 for _ in ArrayReader(LineReader(file)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert count == 3_000 and peak < 2**20 < path.stat().st_size / 25


def test_the_file_is_read_whole_and_left_as_it_is(load, tmp_path):
    content = json.dumps([{"instruction": "q", "output": "a"}], indent=1).encode()
    load(content, "sft", "data.json")
    assert (tmp_path / "data.json").read_bytes() == content
    with open_data_file(tmp_path / "data.json") as file:
        reader = LineReader(file)
        assert len(list(ArrayReader(reader))) == 1
        assert reader.content_digest() == reading.content_digest(file)


def test_a_changed_array_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "data.json"
    path.write_text('[{"text": "x"}]')
    chunks = LineReader.chunks

    def change_first(reader):
        path.write_text('[{"text": "y"}]')
        return chunks(reader)

    monkeypatch.setattr(LineReader, "chunks", change_first)
    with pytest.raises(DataError, match="changed while it was read"):
        load_records(path, "pretrain", cache_dir=tmp_path / "cache")


def test_progress_in_an_array(load, tmp_path):
    seen = []
    records = [{"text": "x" * 40}] * 2_500
    load(records, name="data.json", progress=lambda done, total: seen.append((done, total)))
    size = (tmp_path / "data.json").stat().st_size
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1][1] == size
    assert size - 4 <= seen[-1][0] <= size


def test_the_evaluation_reads_arrays(load, tmp_path):
    records = [{"text": f"one and {n}", "log_probability": -3.0} for n in range(4)]
    tokenizer = train_fast([record["text"] for record in records], 300)
    load(records, "pretrain", "a.json"), load(records, "pretrain", "a.jsonl")
    model = MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1))
    results = [
        perplexity(model, tokenizer, tmp_path / f"a.{end}", 32, 4, tmp_path) for end in ("json", "jsonl")
    ]
    assert results[0] == results[1] and results[0].floor == pytest.approx(12 / results[0].tokens)
