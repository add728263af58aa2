"""MinHash signatures against exact Jaccard similarities, and the search for repeats against comparing all."""

import random
import tracemalloc

import numpy as np
import pytest

from minimind_edu.data import near_duplicates
from minimind_edu.data.near_duplicates import (
    HASHES,
    MIN_RECALL,
    NearDuplicates,
    estimated_similarity,
    rows_per_band,
    signature,
)

ALPHABETS = ("abcdefghij klmnop", "".join(map(chr, range(0x4E00, 0x4E80))), "aé😀\ud800" + "xyz,. ")


def jaccard(one, other):
    """Exactly, from the sets themselves."""
    sets = [{text[n : n + 5] for n in range(max(len(text) - 4, 1))} for text in (one, other)]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def random_text(dice, length):
    return "".join(dice.choices(dice.choice(ALPHABETS), k=length))


def altered(dice, text, edits):
    """The text with characters replaced, put in or left out at random places."""
    letters = list(text)
    for _ in range(edits):
        place = dice.randrange(len(letters))
        letters[place] = dice.choice([dice.choice("QWERTZ"), letters[place] + "Q", ""])
    return "".join(letters)


def pairs(seed, count=400):
    """(text, altered copy, exact similarity), from nearly equal to quite different."""
    dice = random.Random(seed)
    for _ in range(count):
        text = random_text(dice, dice.randint(150, 700))
        copy = altered(dice, text, int(len(text) * dice.random() ** 2 / 2))
        yield text, copy, jaccard(text, copy)


@pytest.mark.parametrize("seed", range(3))
def test_estimates_are_right_on_average_and_have_the_promised_error(seed):
    made = list(pairs(seed))
    exact = np.array([similarity for *_, similarity in made])
    estimates = [estimated_similarity(signature(one), signature(other)) for one, other, _ in made]
    error = np.array(estimates) - exact
    assert np.histogram(exact, 5, (0, 1))[0].min() > 5  # all similarities are there
    # Independent errors of the deviation that 128 trials have; four deviations of their mean.
    deviation = np.sqrt(exact * (1 - exact) / HASHES)
    assert abs(error.mean()) < 4 * deviation.mean() / len(made) ** 0.5 + 0.002
    assert 0.85 < (error**2).sum() ** 0.5 / (deviation**2).sum() ** 0.5 < 1.2


def test_signatures_of_different_texts_hardly_agree():
    dice = random.Random(0)
    signed = [signature("".join(dice.choices(ALPHABETS[1], k=300))) for _ in range(60)]
    found = [estimated_similarity(one, other) for n, one in enumerate(signed) for other in signed[n + 1 :]]
    assert abs(np.mean(found)) < 0.002 and max(found) < 0.1
    # All values of a byte occur about equally often.
    assert np.histogram(np.concatenate(signed), 16, (0, 256))[0].min() > 0.7 * 60 * HASHES / 16


@pytest.mark.parametrize("threshold", [0.7, 0.8])
@pytest.mark.parametrize("seed", range(3))
def test_near_copies_are_found_among_many(seed, threshold):
    made = list(pairs(seed, 600))
    kept = NearDuplicates(threshold)
    for text, *_ in made:
        kept.add(signature(text))
    high, low = 0, 0
    for number, (_, copy, similarity) in enumerate(made):
        found = kept.find(signature(copy))
        if similarity >= 0.9:
            high += 1
            assert found == number
        elif similarity <= 0.5:
            low += 1
            assert found is None or jaccard(made[found][0], copy) > 0.5
    assert high > 50 and low > 50


@pytest.mark.parametrize("seed", range(3))
def test_the_bands_find_what_comparing_all_signatures_finds(seed):
    kept, all_signatures, missed, hits = NearDuplicates(0.8), [], 0, 0
    for text, copy, _ in pairs(seed, 700):
        for signed in map(signature, (text, copy)):
            found = kept.find(signed)
            agree = max((int((other == signed).sum()) for other in all_signatures), default=0)
            assert found is None or (all_signatures[found] == signed).sum() >= kept.needed
            hits += agree >= kept.needed
            missed += found is None and agree >= kept.needed
            if found is None:
                kept.add(signed)
                all_signatures.append(signed)
    assert hits > 100 and missed <= hits * (1 - MIN_RECALL) + 2
    assert len(kept) == len(all_signatures)


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8, 0.9, 0.97, 1.0])
def test_every_text_is_found_again_after_the_tables_have_grown(threshold):
    dice = random.Random(0)
    signed = [np.array(dice.choices(range(256), k=HASHES), np.uint8) for _ in range(2_500)]
    kept = NearDuplicates(threshold)
    for one in signed:
        kept.add(one)
    assert [kept.find(one) for one in signed[::7]] == list(range(0, 2_500, 7))
    assert kept.find(np.array(dice.choices(range(256), k=HASHES), np.uint8)) is None


def test_texts_that_share_a_band_but_are_not_alike(monkeypatch):
    # A thousand texts agree in the first half of the signature: the chains of its bands hold all of them.
    dice = np.random.default_rng(0)
    signed = dice.integers(0, 256, (1_000, HASHES)).astype(np.uint8)
    signed[:, : HASHES // 2] = signed[0, : HASHES // 2]
    answers = []
    for limit in (0, 3, near_duplicates.MAX_CHAIN, 10_000):
        monkeypatch.setattr(near_duplicates, "MAX_CHAIN", limit)
        kept = NearDuplicates(0.8)
        for one in signed:
            assert kept.find(one) is None
            kept.add(one)
        answers.append([kept.find(one) for one in signed[:50]])
    assert answers == [list(range(50))] * 4


def test_bands_are_as_long_as_the_recall_allows():
    for threshold in np.linspace(0.3, 1, 15):
        rows = rows_per_band(threshold)
        assert 1 - (1 - threshold**rows) ** (HASHES // rows) >= MIN_RECALL
    assert rows_per_band(1) == HASHES and rows_per_band(0.01) == 1
    assert (rows_per_band(0.5), rows_per_band(0.8), rows_per_band(0.9)) == (3, 6, 9)


def test_a_signature_is_pinned():
    """Other releases of Python and NumPy must find the same repeats."""
    assert signature("from bytes to a small chat model").tolist()[:8] == [
        50,
        235,
        110,
        201,
        159,
        240,
        154,
        197,
    ]


def test_short_and_odd_texts():
    texts = [
        "",
        "a",
        "b",
        "ab",
        "ba",
        "abcd",
        "abcde",
        "abcdf",
        "你好",
        "你 好",
        "\0",
        "\0\0",
        "\ud800",
        "😀",
    ]
    kept = NearDuplicates(0.8)
    for text in texts:
        assert kept.find(signature(text)) is None, text
        kept.add(signature(text))
    assert [kept.find(signature(text)) for text in texts] == list(range(len(texts)))


def test_a_text_is_hashed_piece_by_piece(monkeypatch):
    text = random_text(random.Random(0), 5_000)
    whole = signature(text)
    for piece in (1, 7, 4_995, 4_996, 4_997, 100_000):
        monkeypatch.setattr(near_duplicates, "PIECE", piece)
        assert (signature(text) == whole).all(), piece


def test_every_character_counts():
    for length in (1, 4, 5, 6, 9):
        text = "abcdefghi"[:length]
        for place in range(length):
            other = text[:place] + "X" + text[place + 1 :]
            assert (signature(other) != signature(text)).any()


def test_memory_does_not_grow_with_the_text():
    peaks = []
    for length in (20_000, 400_000):
        text = "ab,cd" * (length // 5)
        tracemalloc.start()
        signature(text)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 4e6


def test_bytes_for_each_text_kept():
    kept = NearDuplicates(0.8)
    dice = np.random.default_rng(0)
    for one in dice.integers(0, 256, (5_000, HASHES)).astype(np.uint8):
        kept.add(one)
        if len(kept) in (1_024, 2_048, 4_096):  # full tables
            assert kept.nbytes / len(kept) == HASHES + 8 * kept.bands == 296
    assert kept.nbytes / len(kept) < 2 * 296


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan")])
def test_a_threshold_that_is_no_similarity(threshold):
    with pytest.raises(ValueError, match="near_duplicates must be above 0"):
        NearDuplicates(threshold)
