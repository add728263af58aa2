"""Samples of files: faulty lines and files, places to write to, and settings that make no sense."""

import os
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from random_lines import anywhere, in_key_order, records

from minimind_edu.data import selection
from minimind_edu.data.errors import DataError
from minimind_edu.data.sampling import SampleConfig, sample

# --- faults ---


@pytest.mark.parametrize("options", [{}, {"stratify": "length"}, {"near_duplicates": 0.8}])
def test_faulty_lines_stop_or_are_skipped(draw, options):
    lines = records(30)
    lines[3], lines[7], lines[11] = "{bad", "[1]", '{"a": NaN}'
    with pytest.raises(DataError) as caught:
        draw(lines, count=30, **options)
    message = str(caught.value).split("\n")
    assert "3 faulty records (--on_bad_record skip leaves them out)" in message[0]
    assert [f"data.jsonl:{n}: " in line for n, line in zip((4, 8, 12), message[1:], strict=True)] == [
        True
    ] * 3
    report, written = draw(lines, count=30, on_bad_record="skip", **options)
    assert len(written) == 27 and report.faults == 3 and len(report.first_faults) == 3
    assert any("3 faulty lines were skipped; the first: " in note for note in report.notes)


@anywhere
@given(st.integers(1, 30), st.integers(0, 99), st.integers(1, 30), st.sampled_from([1, 3, 2**16]))
def test_a_sample_is_full_in_spite_of_faults(draw, monkeypatch, n, seed, count, buckets):
    monkeypatch.setattr(selection, "BUCKETS", buckets)
    dice = random.Random(seed)
    lines = [line if dice.random() < 0.5 else f"{line[:-1]} bad" for line in records(n)]
    good = [line for line in in_key_order(lines, seed) if not line.endswith("bad")]
    if not good:
        with pytest.raises(DataError, match="no usable record"):
            draw(lines, count=count, seed=seed, on_bad_record="skip")
        return
    report, written = draw(lines, count=count, seed=seed, on_bad_record="skip")
    assert written == [line + "\n" for line in lines if line in good[:count]]
    if count < n and report.faults == 0:
        draw(lines, count=count, seed=seed)  # faults that are not drawn do not stop


def test_other_faults_of_lines(draw, monkeypatch):
    def faults(content, name="data.jsonl"):
        with pytest.raises(DataError) as caught:
            draw(content, name, count=10)
        return str(caught.value)

    assert ":2: the last line is cut off (malformed JSON" in faults('{"a": "b"}\n{"a": "b')
    assert ":2: not UTF-8: byte 0xff at byte 9 of the file" in faults(b'{"a": 1}\n\xff\n')
    assert ":2: a NUL character" in faults("a\n\0\n", "data.txt")
    monkeypatch.setattr("minimind_edu.data.reading.MAX_LINE_BYTES", 2**20)
    long = '{"a": 1}\n"' + "x" * 2**21 + '"\n{"b": 2}\n'
    assert ":2: the line is longer than 1 MB" in faults(long)
    assert draw(long, count=3, on_bad_record="skip")[1] == ['{"a": 1}\n', '{"b": 2}\n']


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("data.jsonl", "", "data.jsonl:1: the file is empty"),
        ("data.jsonl", "\n \n\r\n", "data.jsonl:1: the file is empty"),
        ("data.txt", "\n\n", "data.txt:1: the file is empty"),
        ("data.json", " [ \n]\n", "data.json:1: the file is empty"),
        ("data.json", '{\n"a": 1\n}\n', "spread over several lines"),
        ("data.csv", "a,b\n", "unknown file type '.csv'"),
        ("data.jsonl", b"\x1f\x8b1234", "is compressed (gzip)"),
    ],
)
def test_faults_of_a_file(draw, tmp_path, name, content, what):
    for choice in ("stop", "skip"):
        with pytest.raises(DataError) as caught:
            draw(content, name, count=1, on_bad_record=choice)
        assert what in str(caught.value) and "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == [name]


@anywhere
@given(st.binary(max_size=200), st.sampled_from(["jsonl", "txt"]), st.booleans(), st.booleans())
@example(b"{}", "jsonl", True, True)
@example(b'{"\\ud800": "\\ud800"}', "jsonl", True, True)
@example(b'[{"\\ud800":\r\n1\n,"2":3}]', "jsonl", False, False)
def test_noise_raises_nothing_else(draw, content, suffix, stratify, repeats):
    options = {"stratify": "language" if stratify else "none", "near_duplicates": 0.5 * repeats}
    for choice in ("stop", "skip"):
        try:
            report, written = draw(content, f"data.{suffix}", count=5, on_bad_record=choice, **options)
        except DataError as error:
            assert f"data.{suffix}" in str(error)
        else:
            # The white space between the parts of an array's item may be gone.
            one = "".join(written).encode().translate(None, b" \t\r\n")
            assert one in content.translate(None, b" \t\r\n") or len(written) > 1


def test_a_file_that_changes_meanwhile(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(records(100)))

    def change(done, total):
        with path.open("a") as file:
            file.write("\n{}")

    with pytest.raises(DataError, match="data.jsonl:1: changed while it was read"):
        sample(SampleConfig(str(path), str(tmp_path / "out.jsonl"), count=5), change)
    assert os.listdir(tmp_path) == ["data.jsonl"]


# --- where to ---


def test_nothing_is_destroyed(tmp_path):
    path, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join(records(10)))
    (tmp_path / "link.jsonl").symlink_to(path)
    before = path.read_bytes()
    for same in (path, tmp_path / "link.jsonl", tmp_path / "." / "data.jsonl"):
        with pytest.raises(ValueError, match="out_path is the same file as data_path"):
            sample(SampleConfig(str(path), str(same), count=1, overwrite=1))
    with pytest.raises(ValueError, match="out_path is the same file as ratio_to"):
        out.write_text("kept")
        sample(SampleConfig(str(path), str(out), ratio=0.1, ratio_to=str(out), overwrite=1))
    with pytest.raises(DataError, match=r"exists already \(--overwrite 1 replaces it\)"):
        sample(SampleConfig(str(path), str(out), count=1))
    with pytest.raises(DataError, match="data.jsonl: .*no line fits|no line fits"):
        sample(SampleConfig(str(path), str(out), target_mb=2e-6, overwrite=1))
    assert path.read_bytes() == before and out.read_text() == "kept"
    sample(SampleConfig(str(path), str(out), count=10, overwrite=1))
    assert out.read_bytes() == before + b"\n"


@pytest.mark.parametrize("wrong", ["{not json", None])
def test_an_interrupted_run_leaves_no_half_file(tmp_path, monkeypatch, wrong):
    path, out = tmp_path / "data.jsonl", tmp_path / "out.jsonl"
    path.write_text("\n".join([*records(500), *([wrong] if wrong else [])]))
    if not wrong:  # in the midst of writing

        def copy(source, start, size, original=selection.LineSource.copy):
            if start > 5_000:
                raise KeyboardInterrupt
            return original(source, start, size)

        monkeypatch.setattr(selection.LineSource, "copy", copy)
    with pytest.raises(DataError if wrong else KeyboardInterrupt):
        sample(SampleConfig(str(path), str(out), count=501))
    assert os.listdir(tmp_path) == ["data.jsonl"]


def test_places_that_cannot_be_written(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n")
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.jsonl").mkdir()

    def message(out, **options):
        with pytest.raises(ValueError) as caught:
            sample(SampleConfig(str(path), str(out), count=1, **options))
        return str(caught.value)

    assert "cannot be written" in message(tmp_path / "file" / "out.jsonl")
    assert "is a folder: name the file to write in it" in message(tmp_path / "folder.jsonl", overwrite=1)
    assert "must end in .jsonl or .json, like" in message(tmp_path / "out.txt")
    assert "name the file to write" in message("")
    assert "name the file to write" in message("a\0.jsonl")
    new = tmp_path / "new" / "deep" / "out.jsonl"
    sample(SampleConfig(str(path), str(new), count=1))
    assert new.read_text() == "{}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk(tmp_path, monkeypatch):
    path = tmp_path / "data.jsonl"
    path.write_text("{}\n")
    full = open("/dev/full", "wb")  # noqa: SIM115
    monkeypatch.setattr("builtins.open", lambda p, *a, o=open: full if str(p).endswith(".tmp") else o(p, *a))
    with pytest.raises(DataError, match="out.jsonl: cannot be written .No space left"):
        sample(SampleConfig(str(path), str(tmp_path / "out.jsonl"), count=1))
    assert os.listdir(tmp_path) == ["data.jsonl"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write everywhere"
)
def test_a_folder_without_permission(tmp_path):
    (tmp_path / "data.jsonl").write_text("{}\n")
    (tmp_path / "locked").mkdir(0o500)
    with pytest.raises(DataError, match="cannot be written"):
        sample(SampleConfig(str(tmp_path / "data.jsonl"), str(tmp_path / "locked" / "o.jsonl"), count=1))


# --- settings ---


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, "target_mb, count, or ratio with ratio_to (none is given)"),
        ({"target_mb": 1, "count": 1}, "(not target_mb and count together)"),
        ({"count": 1, "ratio": 1, "ratio_to": "x"}, "(not count and ratio together)"),
        ({"ratio": 1}, "ratio and ratio_to go together"),
        ({"count": 1, "ratio_to": "x"}, "ratio and ratio_to go together"),
        ({"target_mb": -1}, "target_mb must be 0 or more, not -1"),
        ({"target_mb": float("nan")}, "target_mb must be 0 or more, not nan"),
        ({"target_mb": float("inf")}, "target_mb must be 0 or more, not inf"),
        ({"count": -1}, "count must be 0 or more"),
        ({"count": 1, "stratify": "words"}, "stratify must be none or length or language, not 'words'"),
        ({"count": 1, "shares": "x"}, "shares must be proportional or equal"),
        ({"count": 1, "on_bad_record": "x"}, "on_bad_record must be stop or skip"),
        ({"count": 1, "near_duplicates": 1.5}, "near_duplicates is a similarity, from 0 (off) to 1, not 1.5"),
        ({"count": 1, "near_duplicates": float("nan")}, "near_duplicates is a similarity"),
        ({"count": 1, "seed": -1}, "seed must be from 0"),
        ({"count": 1, "overwrite": 2}, "overwrite must be 0 or 1"),
    ],
)
def test_settings_that_make_no_sense(tmp_path, options, what):
    with pytest.raises(ValueError) as caught:
        sample(SampleConfig(str(tmp_path / "none.jsonl"), str(tmp_path / "out.jsonl"), **options))
    assert what in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path, what in ((tmp_path / "none.jsonl", "none.jsonl:1: no such file"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=what):
            sample(SampleConfig(str(path), str(tmp_path / "out.jsonl"), count=1))
