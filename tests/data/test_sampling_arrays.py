"""Samples of a JSON array: those of the same records as JSONL, written as lines."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_lines import anywhere, json_values, records

from minimind_edu.data import selection
from minimind_edu.data.errors import DataError
from minimind_edu.data.records import load_records
from minimind_edu.data.rows import raw_records
from minimind_edu.data.sampling import SampleConfig, sample

objects = st.lists(st.dictionaries(st.text(max_size=3), json_values, max_size=3), min_size=1, max_size=20)


@anywhere
@given(objects, st.sampled_from([None, 0, 3]), st.sampled_from(["\n", "\r\n", " \r"]), st.integers(1, 20),
       st.integers(0, 99), st.booleans(), st.sampled_from(["none", "length"]))  # fmt: skip
def test_the_sample_of_an_array_is_that_of_its_lines(
    draw, items, indent, line_end, count, seed, ascii_only, stratify
):
    """To the byte, whatever the indentation that `json.dumps` gives the array; a target in bytes too."""
    lines = [json.dumps(item, ensure_ascii=ascii_only) for item in items]
    whole = json.dumps(items, ensure_ascii=ascii_only, indent=indent).replace("\n", line_end)
    total = sum(len(line.encode()) + 1 for line in lines)
    for how_much in ({"count": count}, {"target_mb": (max(total * count // 20, 3) + 0.5) / 1e6}):
        options = {**how_much, "seed": seed, "stratify": stratify}
        found = []
        for content, name in ((lines, "data.jsonl"), (whole, "data.json")):
            try:
                report, written = draw(content, name, **options)
                found.append((written, report.strata, report.notes))
            except DataError as error:
                found.append(str(error).partition(": ")[2])
        assert found[0] == found[1]


def test_an_item_keeps_its_bytes_but_for_the_line_ends_between_its_parts(draw):
    odd = (
        '\ufeff\n [{"a" : 1.50}\t,\r\n\r\n{"b":\n\t"\\u4f60 ,\\n好" , \n  "c":[1, 2\r,3]\n\n},{} ,{\n}\n]  \n'
    )
    written = draw(odd, "data.json", count=9)[1]
    assert written == ['{"a" : 1.50}\n', '{"b":"\\u4f60 ,\\n好" , "c":[1, 2,3]}\n', "{}\n", "{}\n"]


@pytest.mark.parametrize(
    "options", [{}, {"stratify": "language", "shares": "equal"}, {"near_duplicates": 0.8}]
)
def test_several_passes_over_an_array(draw, monkeypatch, options):
    monkeypatch.setattr(selection, "BUCKETS", 5)
    lines = [*records(150), *records(50)]
    array = json.dumps([json.loads(line) for line in lines], indent=2, ensure_ascii=False)
    again = "".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in lines)
    for size in ({"count": 90}, {"target_mb": 0.003}):
        found = [
            draw(content, name, **size, **options)
            for content, name in ((array, "a.json"), (again, "b.jsonl"))
        ]
        assert found[0][1] == found[1][1] and 0 < len(found[0][1]) < 200
        assert found[0][0].strata == found[1][0].strata and found[0][0].duplicates == found[1][0].duplicates


@pytest.mark.parametrize(
    ("content", "line", "what", "left"),
    [
        ('[{"a": 1},\n{"a": NaN},\n{"a": 3}]', 2, "NaN is not a JSON value", [1, 3]),
        ('[{"a": 1},\n\n5, {"a": 3}]', 3, "expected an object", [1, 3]),
        ('[{"a": 1},\n{"a": 1\n2}]', 2, "malformed JSON: expecting ',' delimiter (line 2 of the record", [1]),
        ('[{"a": 1},\n{"a": 2},\n]', 3, "no item behind the last comma", [1, 2]),
        ('[{"a": 1},\n{"a": 2}\n', 3, "closing bracket is missing: the file is cut off", [1, 2]),
        ('[{"a": 1},\n{"a": 2', 2, "the file ends inside of this item", [1]),
        ('[{"a": 1}]\n{"a": 2}', 2, "there is text behind the end of the array", [1]),
        (b'[{"a": 1},\n{"a": "caf\xe9"}]', 2, "not UTF-8: byte 0xe9 at byte 21", [1]),
    ],
)
@pytest.mark.parametrize("stratify", ["none", "language"])
def test_faults_of_items(draw, content, line, what, left, stratify):
    with pytest.raises(DataError) as caught:
        draw(content, "data.json", count=9, stratify=stratify)
    assert f"data.json:{line}: " in str(caught.value) and what in str(caught.value)
    report, written = draw(content, "data.json", count=9, stratify=stratify, on_bad_record="skip")
    assert written == [f'{{"a": {n}}}\n' for n in left] and report.faults >= 1


def test_progress_reaches_the_end_of_an_array(tmp_path):
    path, seen = tmp_path / "data.json", []
    path.write_text(json.dumps([{"a": 1}] * 25_000))
    sample(SampleConfig(str(path), str(tmp_path / "out.json"), count=10), lambda *done: seen.append(done))
    ends = [(100_000, 250_000), (200_000, 250_000), (250_000, 250_000)]
    assert seen == ends * 2 == [(done, path.stat().st_size) for done, _ in seen]


def test_a_real_array(shared, tmp_path):
    path, out = shared / "data" / "sft" / "alpaca_zh_demo.json", tmp_path / "out.json"
    report = sample(SampleConfig(str(path), str(out), count=200))
    there, drawn = list(raw_records(path)), [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    places = []
    for record in drawn:  # in the file's order
        places.append(there.index(record, places[-1] + 1 if places else 0))
    assert len(places) == 200 and report.total.lines_read == 1_000
    before, after = (load_records(one, "sft", cache_dir=tmp_path) for one in (path, out))
    assert list(after) == [before[place] for place in places]
