"""Strata: what counts as text, which stratum it is in, and how a target is shared."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from minimind_edu.data.strata import length_stratum, script_stratum, share, text_of


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ({"text": "a b"}, "a b"),
        ({"text": "a", "id": 7, "ok": True, "none": None}, "a"),
        (
            {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]},
            "q\nr",
        ),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "r"}]}, "q\nr"),
        ({"chosen": [{"role": "user", "content": "c"}], "rejected": [{"content": "d", "role": "x"}]}, "c\nd"),
        ({"from": "a letter"}, "a letter"),
        ({}, ""),
        ({"text": ""}, ""),
        ({"a": [[["x"]], {"b": {"c": "y"}}]}, "x\ny"),
    ],
)
def test_the_text_of_a_record(record, text):
    assert text_of(record) == text


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello, world", "latin"),
        ("café naïve Łódź", "latin"),
        ("你好，世界", "chinese"),
        ("你好 ab", "chinese"),  # half
        ("你好 abc", "latin"),
        ("你 привет", "other"),
        ("привет", "other"),
        ("привет hello abc", "latin"),
        ("привет hello", "other"),
        ("日本語です", "chinese"),
        ("これは日本語です", "other"),
        ("12 + 34 = 46", "other"),
        ("１２。，！", "other"),
        ("×÷×÷ª", "latin"),  # the two signs are no letters, the ordinal indicator is one
        ("", "other"),
        ("𠀀𪜀", "chinese"),  # beyond the 16-bit characters
        ("𝒳𝒴", "other"),
        ("\ud800", "other"),
        ("\U0010ffff你", "chinese"),
    ],
)
def test_scripts(text, script):
    assert script_stratum(text) == script


def by_hand(text):
    letters = [character for character in text if character.isalpha()]
    blocks = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF))
    chinese = sum(any(a <= ord(c) <= b for a, b in blocks) for c in letters)
    latin = sum(ord(c) < 0x250 for c in letters)
    if letters and chinese >= len(letters) / 2:
        return "chinese"
    return "latin" if latin > len(letters) / 2 else "other"


@given(st.text(st.sampled_from("aZé9 ,你好世𠀀яあ가😀\n")))
def test_scripts_against_counting_one_by_one(text):
    assert script_stratum(text) == by_hand(text)


def test_lengths():
    named = [(0, "0 characters"), (1, "1 character"), (2, "2 to 3"), (3, "2 to 3"), (4, "4 to 7")]
    named += [(63, "32 to 63"), (64, "64 to 127"), (127, "64 to 127"), (128, "128 to 255")]
    assert [length_stratum("你" * n).removesuffix(" characters") for n, _ in named[2:]] == [
        name for _, name in named[2:]
    ]
    assert [length_stratum("x" * n) for n in (0, 1)] == ["0 characters", "1 character"]


@given(st.lists(st.integers(0, 300), min_size=2, max_size=2))
def test_texts_of_one_length_stratum_differ_by_less_than_a_factor_of_two(lengths):
    short, long = sorted(lengths)
    same = length_stratum("x" * short) == length_stratum("x" * long)
    assert same == (short.bit_length() == long.bit_length())


def test_shares_by_hand():
    assert share(100, [1, 1, 2], [0, 0, 0], [10, 90, 90]) == [10, 30, 60]
    assert share(10, [1, 1, 1], [0, 0, 0], [9, 9, 9]) in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    assert share(100, [1, 1], [0, 0], [30, 40]) == [30, 40]
    assert share(100, [1, 1], [70, 0], [90, 90]) == [70, 30]
    assert share(0, [5, 5], [0, 0], [5, 5]) == [0, 0]
    assert share(7, [3], [0], [9]) == [7]
    assert share(10**9, [10**12, 10**12 // 3], [0, 0], [10**12, 10**12 // 3]) == [750_000_000, 250_000_000]


parts = st.tuples(st.integers(1, 10**6), st.integers(0, 1_000), st.integers(0, 10_000))


@given(st.lists(parts, min_size=1, max_size=8), st.integers(0, 60_000))
@example([(1, 0, 0)], 5)
def test_shares_are_whole_within_bounds_and_proportional(made, extra):
    weights, least = [weight for weight, *_ in made], [low for _, low, _ in made]
    most = [low + more for _, low, more in made]
    target = sum(least) + extra
    result = share(target, weights, least, most)
    assert sum(result) == min(target, sum(most))
    assert all(low <= part <= high for low, part, high in zip(least, result, most, strict=True))
    # Of two parts, the one with less for its weight has all it can take, or the other only its least.
    for n, one in enumerate(result):
        for m, other in enumerate(result):
            if (one + 1) / weights[n] < (other - 1) / weights[m]:
                assert one == most[n] or other == least[m]


@given(st.lists(parts, min_size=1, max_size=6), st.integers(0, 30_000), st.randoms())
def test_no_share_falls_below_what_was_taken_when_others_turn_out_smaller(made, target, dice):
    weights, most = [weight for weight, *_ in made], [more for *_, more in made]
    taken = [0] * len(made)
    for _ in range(4):
        limits = share(target, weights, taken, most)
        assert all(limit >= part for limit, part in zip(limits, taken, strict=True))
        taken = [dice.randint(part, limit) for part, limit in zip(taken, limits, strict=True)]
        most = [dice.randint(part, high) for part, high in zip(taken, most, strict=True)]
    assert sum(taken) <= target
