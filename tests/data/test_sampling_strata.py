"""Samples of files in strata, and without near-duplicates."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_lines import anywhere, in_key_order, records, sentences, size

from minimind_edu.data import selection
from minimind_edu.data.near_duplicates import estimated_similarity, signature
from minimind_edu.data.strata import length_stratum, script_stratum, text_of

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
