"""Samples of files: which lines, how many, how they are written, and in how little memory."""

import json
import os
import random
import subprocess
import sys
import tracemalloc
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from minimind_edu.data import selection
from minimind_edu.data.errors import DataError
from minimind_edu.data.near_duplicates import estimated_similarity, signature
from minimind_edu.data.sampling import SampleConfig, sample
from minimind_edu.data.strata import length_stratum, script_stratum, text_of

anywhere = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def draw(tmp_path):
    """Write a file, draw from it; returns the report and the lines written."""

    def write_and_draw(content, name="data.jsonl", **options):
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(line + "\n" for line in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        out = tmp_path / f"out{path.suffix}"
        report = sample(SampleConfig(str(path), str(out), **{"overwrite": 1, **options}))
        written = out.read_bytes()
        assert len(written) == report.total.bytes_written
        assert written.count(b"\n") == report.total.lines_written and written.endswith(b"\n")
        assert not [left for left in os.listdir(tmp_path) if left.startswith(".")]  # nothing is left behind
        return report, [line + "\n" for line in written.decode().split("\n")[:-1]]

    return write_and_draw


def records(count, seed=0, longest=60):
    """Different records of different lengths, some Chinese, as lines without newline."""
    dice = random.Random(seed)
    lines = []
    for number in range(count):
        alphabet = dice.choice(["abcd ", "你好世界", "где"])
        text = f"{number} " + "".join(dice.choices(alphabet, k=dice.randint(0, longest)))
        lines.append(json.dumps({"text": text}, ensure_ascii=dice.random() < 0.5))
    return lines


def in_key_order(lines, seed):
    """What the package promises: one random number for each line, in the file's order; the smallest first."""
    generator = random.Random(seed)
    return [line for _, _, line in sorted((generator.random(), n, line) for n, line in enumerate(lines))]


def size(line):
    return len(line.encode()) + 1


# --- which lines: against sorting all keys in memory ---


@anywhere
@given(
    st.integers(1, 60),
    st.integers(0, 5),
    st.integers(0, 10**6),
    st.integers(1, 6_000),
    st.sampled_from([1, 2, 7, 2**16]),
)
def test_the_sample_is_the_longest_run_of_smallest_keys_that_fits(
    draw, monkeypatch, n, data, seed, target, b
):
    monkeypatch.setattr(selection, "BUCKETS", b)
    lines = records(n, data)
    expected, room = [], target
    for line in in_key_order(lines, seed):
        if size(line) > target:
            continue  # could be in no sample
        if size(line) > room:
            break
        expected.append(line)
        room -= size(line)
    if not expected:
        with pytest.raises(DataError, match="no line fits into"):
            draw(lines, target_mb=target / 1e6, seed=seed)
        return
    report, written = draw(lines, target_mb=(target + 0.5) / 1e6, seed=seed)
    assert report.target == target >= report.total.bytes_written
    assert written == [line + "\n" for line in lines if line in expected]  # in the file's order


@anywhere
@given(st.integers(1, 60), st.integers(1, 70), st.integers(0, 10**6), st.sampled_from([1, 3, 2**16]))
def test_the_count_is_exact(draw, monkeypatch, n, count, seed, buckets):
    monkeypatch.setattr(selection, "BUCKETS", buckets)
    lines = records(n)
    report, written = draw(lines, count=count, seed=seed)
    expected = in_key_order(lines, seed)[:count]
    assert written == [line + "\n" for line in lines if line in expected]
    assert report.total.lines_written == min(count, n)
    assert any("has only" in note for note in report.notes) == (count > n)


def test_every_line_is_equally_likely(draw):
    lines, rounds, count = records(24, longest=200), 700, 6
    drawn = Counter(line for seed in range(rounds) for line in draw(lines, count=count, seed=seed)[1])
    # The sum of squares has the chi-square distribution of 23 degrees of freedom: 4 and 65 are each exceeded
    # less than once in 100,000 times.
    share = count / len(lines)
    variance = rounds * share * (1 - share) * len(lines) / (len(lines) - 1)
    chi_square = sum((drawn[line + "\n"] - rounds * share) ** 2 for line in lines) / variance
    assert 4 < chi_square < 65


def test_pairs_of_lines_are_equally_likely(draw):
    lines, rounds = [json.dumps({"text": f"{n:03}"}) for n in range(8)], 800
    target = 3 * size(lines[0])
    drawn = Counter(tuple(draw(lines, target_mb=target / 1e6, seed=seed)[1]) for seed in range(rounds))
    # 56 sets of three lines, each equally likely; 55 degrees of freedom.
    expected = rounds / 56
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values())
    chi_square += (56 - len(drawn)) * expected
    assert 20 < chi_square < 110


def test_the_same_bytes_again_and_another_sample_for_another_seed(draw):
    lines = records(200)
    for options in ({"count": 20}, {"target_mb": 0.002, "stratify": "language", "near_duplicates": 0.9}):
        samples = [draw(lines, seed=seed, **options)[1] for seed in (1, 1, 2, 0)]
        assert samples[0] == samples[1]
        assert samples[0] != samples[2] != samples[3] != samples[0]


def test_a_sample_is_pinned(draw):
    """Other releases of Python, and of this package, must draw the same lines."""
    lines = [json.dumps({"text": f"line {n}"}) for n in range(1_000)]
    numbers = [int(json.loads(line)["text"].split()[1]) for line in draw(lines, count=8)[1]]
    assert numbers == [19, 124, 290, 368, 394, 427, 481, 684]


# --- how lines are written ---


def test_lines_stay_as_they_are(draw):
    odd = b'{"text" : "a"}  \r\n\n   \n\t{"b":"\\u4f60\xe4\xbd\xa0"}\n{"text":"last"}'
    report, written = draw(odd, count=9)
    assert (
        "".join(written).encode() == b'{"text" : "a"}  \r\n\t{"b":"\\u4f60\xe4\xbd\xa0"}\n{"text":"last"}\n'
    )
    assert report.total.lines_read == 3
    assert draw(b"\xef\xbb\xbf" + odd, count=9)[1] == written  # the mark belongs to the file, not to a line
    text = "one\n\n  two  \r\n\u2028three\rstill three"
    report, written = draw(text, "data.txt", count=9)
    assert "".join(written) == "one\n  two  \r\n\u2028three\rstill three\n"


def test_a_final_newline_counts(draw):
    assert draw('{"a": 1}', target_mb=9e-6)[0].total.bytes_written == 9
    with pytest.raises(DataError, match=r"no line fits into 8 bytes \(the shortest has 9\)"):
        draw('{"a": 1}', target_mb=8e-6)


# --- how much ---


def test_a_target_of_several_buckets_is_filled_up_to_the_next_line(draw):
    lines = records(3_000)
    for seed in range(5):
        report, written = draw(lines, target_mb=0.05, seed=seed)
        assert 50_000 - max(map(size, lines)) < report.total.bytes_written <= 50_000
        assert report.notes == ()


def test_the_ratio_to_another_file(draw, tmp_path):
    other = tmp_path / "data.jsonl.d"
    other.mkdir()
    (other / "pretrain.txt").write_bytes(b"x" * 400_000)
    config = SampleConfig(str(tmp_path / "d.jsonl"), str(tmp_path / "o.jsonl"), ratio=0.01)
    (tmp_path / "d.jsonl").write_text("\n".join(records(500)))
    report = sample(replace(config, ratio_to=str(other / "pretrain.txt")))
    assert report.target == 4_000 and 3_800 < report.total.bytes_written <= 4_000 and report.in_bytes
    with pytest.raises(DataError, match="none.txt:1: no such file"):
        sample(replace(config, ratio_to=str(other / "none.txt"), overwrite=1))


def test_more_than_there_is(draw):
    lines = records(50)
    report, written = draw(lines, target_mb=1)
    assert written == [line + "\n" for line in lines]
    total = sum(map(size, lines))
    assert report.notes == (
        f"the file has only {total:,} of the 1,000,000 bytes asked for: all of it was taken",
    )
    assert draw(lines, count=51)[0].notes == (
        "the file has only 50 of the 51 lines asked for: all of it was taken",
    )
    assert draw(lines, count=50)[0].notes == draw(lines, target_mb=(total + 0.5) / 1e6)[0].notes == ()


def test_lines_longer_than_the_target(draw):
    lines = [*records(20), json.dumps({"text": "x" * 5_000})]
    report, written = draw(lines, target_mb=0.0005)
    assert 0 < report.total.bytes_written <= 500 and report.total.lines_read == 21
    assert report.notes == ("1 lines are longer than the whole sample may be and were left out",)


# --- strata ---


def strata_of(lines, function):
    return Counter(function(text_of(json.loads(line))) for line in lines)


@pytest.mark.parametrize("name, function", [("length", length_stratum), ("language", script_stratum)])
def test_proportional_and_equal_shares_of_lines(draw, name, function):
    lines = records(900, longest=300)
    there = strata_of(lines, function)
    report, written = draw(lines, count=300, stratify=name)
    taken = strata_of(written, function)
    assert len(written) == 300 and len(there) > 2
    assert all(abs(taken[key] - there[key] / 3) < 1 for key in there)
    assert {key: part.lines_written for key, part in report.strata.items() if part.lines_written} == taken
    assert {key: part.lines_read for key, part in report.strata.items()} == there

    report, written = draw(lines, count=300, stratify=name, shares="equal")
    taken = strata_of(written, function)
    assert len(written) == 300
    full = [key for key in there if taken[key] < there[key]]  # the others gave all they have
    assert full and max(taken[key] for key in full) - min(taken[key] for key in full) <= 1
    assert all(taken[key] == there[key] <= taken[full[0]] + 1 for key in there if key not in full)


@pytest.mark.parametrize("shares", ["proportional", "equal"])
@pytest.mark.parametrize("name", ["length", "language"])
def test_shares_of_bytes(draw, name, shares):
    lines = records(3_000, longest=300)
    report, written = draw(lines, target_mb=0.1, stratify=name, shares=shares)
    longest = max(map(size, lines))
    assert 100_000 - longest < report.total.bytes_written <= 100_000
    parts = report.strata.values()
    if shares == "proportional":
        for part in parts:
            expected = 100_000 * part.bytes_read / report.total.bytes_read
            assert abs(part.bytes_written - expected) < len(parts) * longest
    else:
        full = [part.bytes_written for part in parts if part.bytes_written < part.bytes_read]
        assert len(full) > 1 and max(full) - min(full) < (len(parts) + 1) * longest
        assert all(
            part.bytes_written < max(full) + longest
            for part in parts
            if part.bytes_written == part.bytes_read
        )


@anywhere
@given(st.integers(1, 40), st.integers(1, 3_000), st.integers(0, 99), st.sampled_from([1, 4, 2**16]))
def test_each_stratum_is_a_run_of_its_smallest_keys(draw, monkeypatch, n, target, seed, buckets):
    monkeypatch.setattr(selection, "BUCKETS", buckets)
    lines = [line for line in records(n, seed) if size(line) <= target]
    if not lines:
        return
    for shares in ("proportional", "equal"):
        options = {"stratify": "language", "shares": shares, "seed": seed}
        report, written = draw(lines, target_mb=(target + 0.5) / 1e6, **options)
        assert 0 < report.total.bytes_written <= target
        nexts = []  # the line that each stratum would have taken next
        for stratum in report.strata:
            inside = [
                line
                for line in in_key_order(lines, seed)
                if script_stratum(text_of(json.loads(line))) == stratum
            ]
            taken = [line + "\n" in written for line in inside]
            assert taken == sorted(taken, reverse=True)
            nexts += [size(line) for line, is_in in zip(inside, taken, strict=True) if not is_in][:1]
        # What is left would not even hold the largest of them.
        assert target - report.total.bytes_written < max(nexts, default=10**9)


def test_the_report_in_words(draw):
    lines = records(300)
    report, _ = draw(lines, count=40, stratify="language")
    words = str(report)
    assert [line.split()[0] for line in words.splitlines()[1:5]] == ["chinese", "latin", "other", "total"]
    assert words.splitlines()[-1] == f"written to {report.out_path}" and "lines written" in words
    report, _ = draw(lines, count=40, stratify="length")
    starts = [int(name.split()[0]) for name in report.strata]
    assert starts == sorted(starts) and len(starts) > 2
    assert [line.split()[0] for line in str(draw(lines, count=3)[0]).splitlines()[1:2]] == ["all"]


# --- near-duplicates ---


def sentences(count, seed, copies=0.5):
    """Texts of which a part are altered copies of earlier ones, and how many originals there are."""
    dice = random.Random(seed)
    texts, originals = [], 0
    for number in range(count):
        if texts and dice.random() < copies:
            text = dice.choice(texts[-30:])
            place = dice.randrange(len(text))
            texts.append(text[:place] + dice.choice("XYZ") + text[place + 1 :])
        else:
            texts.append(f"{number} " + "".join(dice.choices("abcdefghijklmnop ", k=300)))
            originals += 1
    return [json.dumps({"text": text}) for text in texts], originals


@pytest.mark.parametrize("buckets", [1, 5, 2**16])
def test_no_two_lines_of_the_sample_are_near_duplicates(draw, monkeypatch, buckets):
    monkeypatch.setattr(selection, "BUCKETS", buckets)
    lines, originals = sentences(400, 0)
    report, written = draw(lines, count=originals // 2, near_duplicates=0.8)
    assert len(written) == originals // 2 and report.duplicates > 0  # full in spite of them
    signed = [signature(json.loads(line)["text"]) for line in written]
    pairs = [estimated_similarity(a, b) for n, a in enumerate(signed) for b in signed[n + 1 :]]
    assert max(pairs) < 0.8
    # The whole file: only repeats are left out, so that what is left out has a twin that stayed.
    report, written = draw(lines, count=400, near_duplicates=0.8)
    assert report.duplicates == 400 - len(written) > 100
    assert originals * 0.95 <= len(written) and "usable" in report.notes[0]
    signed = [signature(json.loads(line)["text"]) for line in written]
    for line in set(lines) - {line.strip() for line in written}:
        one = signature(json.loads(line)["text"])
        assert max(estimated_similarity(one, other) for other in signed) >= 0.8


@pytest.mark.parametrize("shares", ["proportional", "equal"])
def test_what_repeats_and_faults_leave_of_a_stratum_goes_to_the_others(draw, shares):
    latin, _ = sentences(300, 0, copies=0)
    chinese = [json.dumps({"id": n, "text": "汉字" * 40}, ensure_ascii=False) for n in range(300)]
    lines = [line for pair in zip(latin, chinese, strict=True) for line in pair]
    options = {"stratify": "language", "shares": shares, "near_duplicates": 0.9}
    report, _ = draw(lines, target_mb=0.02, **options)
    assert report.strata["chinese"].lines_written == 1 and report.duplicates == 299
    assert 20_000 - max(map(size, lines)) < report.total.bytes_written <= 20_000
    everything, _ = draw(lines, target_mb=1, **options)
    total = sum(map(size, lines))
    assert everything.notes[0] == (
        f"the file has only {total:,} of the 1,000,000 bytes asked for: "
        f"{everything.total.bytes_written:,} of them were usable and were taken"
    )


def test_equal_texts_count_once_however_they_are_written(draw):
    lines = ['{"text": "\\u4f60\\u597d, world"}', '{"text":"你好, world"}', '{"text": "another"}']
    assert len(draw(lines, count=3, near_duplicates=1)[1]) == 2
    assert len(draw(lines, count=3)[1]) == 3
    # Without any text, the line itself is compared.
    lines = ['{"n": 1, "text": ""}', '{"n": 2, "text": ""}', '{"n": 2, "text": ""}']
    assert len(draw(lines, count=3, near_duplicates=1)[1]) == 2
    assert draw("same\nother\nsame\n", "data.txt", count=3, near_duplicates=0.9)[1] == ["same\n", "other\n"]


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
        ("data.json", '[{"a": 1}, {"a": 2}]', "data.json:1: the file is one JSON array"),
        ("data.json", '\n[\n{"a": 1}\n]\n', "data.json:2: the file is one JSON array"),
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
def test_noise_raises_nothing_else(draw, content, suffix, stratify, repeats):
    options = {"stratify": "language" if stratify else "none", "near_duplicates": 0.5 * repeats}
    for choice in ("stop", "skip"):
        try:
            report, written = draw(content, f"data.{suffix}", count=5, on_bad_record=choice, **options)
        except DataError as error:
            assert f"data.{suffix}" in str(error)
        else:
            assert "".join(written).encode().rstrip(b"\n") in content or len(written) > 1


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


@pytest.mark.parametrize("how_much", [{"count": 60}, {"target_mb": 0.01}, {"ratio": 0.2, "ratio_to": "self"}])
@pytest.mark.parametrize("stratify", ["none", "length", "language"])
@pytest.mark.parametrize("shares", ["proportional", "equal"])
@pytest.mark.parametrize("near_duplicates", [0, 0.8])
@pytest.mark.parametrize("on_bad_record", ["stop", "skip"])
def test_all_options_together(draw, tmp_path, how_much, stratify, shares, near_duplicates, on_bad_record):
    lines, _ = sentences(200, 3, copies=0.3)
    if on_bad_record == "skip":
        lines[::10] = ["{"] + ["bad"] * 19
        lines[0] = "{}"
    if "ratio_to" in how_much:
        how_much = {**how_much, "ratio_to": str(tmp_path / "data.jsonl")}
    options = {**how_much, "stratify": stratify, "shares": shares, "near_duplicates": near_duplicates}
    report, written = draw(lines, on_bad_record=on_bad_record, **options)
    assert (report.faults > 0) == (on_bad_record == "skip") and (report.duplicates > 0) == (
        near_duplicates > 0
    )
    longest = max(map(size, lines))
    amount = report.total.bytes_written if report.in_bytes else len(written)
    assert report.target - (longest if report.in_bytes else 1) < amount <= report.target
    places = [lines.index(line.strip()) for line in written]
    assert places == sorted(places)


# --- memory ---

WITHOUT_TORCH = """
import sys
from minimind_edu.data.sampling import SampleConfig, sample
sample(SampleConfig(out_path=sys.argv[1], count=50, stratify="language", near_duplicates=0.8))
heavy = {"torch", "datasets", "pandas", "pyarrow", "transformers", "matplotlib", "huggingface_hub"}
sys.stdout.write(repr(heavy & set(sys.modules)))
"""


def test_neither_torch_nor_datasets_is_loaded(tmp_path):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(tmp_path / "out.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "set()"
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 50  # of the embedded world


@pytest.mark.parametrize(
    "options",
    [{}, {"stratify": "language"}, {"near_duplicates": 0.8}, {"stratify": "length", "shares": "equal"}],
    ids=str,
)
def test_memory_does_not_grow_with_the_file(tmp_path, options):
    line = json.dumps({"text": "some words and 一些汉字 again and again. " * 50}, ensure_ascii=False)
    lengths = [60, 400, 1_000, 1_900]
    peaks = []
    for megabytes in (5, 20):
        path, written, number = tmp_path / f"{megabytes}.jsonl", 0, 0
        with path.open("wb") as file:
            while written < megabytes * 10**6:
                text = f"{number} {random.Random(number).random()} {line[: lengths[number % 4]]}"
                written += file.write(json.dumps({"text": text}).encode() + b"\n")
                number += 1
        config = SampleConfig(str(path), str(tmp_path / "out.jsonl"), target_mb=0.2, overwrite=1, **options)
        tracemalloc.start()
        sample(config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] + 50_000 and peaks[1] < 20e6


def test_progress_reaches_the_end_of_each_pass(tmp_path):
    path, seen = tmp_path / "data.txt", []
    path.write_text("line\n" * 25_000)
    sample(SampleConfig(str(path), str(tmp_path / "out.txt"), count=10), lambda *done: seen.append(done))
    assert seen == [(50_000, 125_000), (100_000, 125_000), (125_000, 125_000)] * 2


# --- real files ---


def test_a_real_text(shared, tmp_path):
    path = shared / "data" / "text" / "tang300.txt"
    report = sample(SampleConfig(str(path), str(tmp_path / "o.txt"), target_mb=0.01, stratify="language"))
    lines = set(path.read_bytes().splitlines(keepends=True))
    written = (tmp_path / "o.txt").read_bytes().splitlines(keepends=True)
    assert set(written) <= lines and 9_000 < report.total.bytes_written <= 10_000
    assert report.strata["chinese"].bytes_written > 0.8 * report.total.bytes_written


def test_real_conversations(shared, tmp_path):
    path = shared / "data" / "minimind_format" / "sft_demo.jsonl"
    report = sample(SampleConfig(str(path), str(tmp_path / "o.jsonl"), count=20, near_duplicates=0.8))
    lines = path.read_text().splitlines()
    written = (tmp_path / "o.jsonl").read_text().splitlines()
    assert len(written) == len(set(written)) == 20 and set(written) <= set(lines)
    assert report.total.lines_read == len(lines) == 100


def test_real_questions_by_length(shared, tmp_path):
    path = shared / "data" / "math" / "gsm8k_train.jsonl"
    config = SampleConfig(str(path), str(tmp_path / "o.jsonl"), target_mb=0.3, stratify="length")
    report = sample(config)
    assert 299_000 < report.total.bytes_written <= 300_000 and len(report.strata) > 3
    for part in report.strata.values():
        expected = 300_000 * part.bytes_read / report.total.bytes_read
        assert abs(part.bytes_written - expected) < 8_000


def test_a_real_array_is_refused(shared, tmp_path):
    path = shared / "data" / "sft" / "alpaca_zh_demo.json"
    with pytest.raises(DataError, match="is one JSON array"):
        sample(SampleConfig(str(path), str(tmp_path / "o.json"), count=20))
