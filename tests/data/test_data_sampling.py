"""Samples of files: which lines, how they are written, and how many."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_lines import anywhere, in_key_order, records, sentences, size

from minimind_edu.data import selection
from minimind_edu.data.errors import DataError
from minimind_edu.data.sampling import SampleConfig, sample

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
