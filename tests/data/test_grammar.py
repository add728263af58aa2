"""The probabilistic grammar: drawing, parsing back, and probabilities that add up."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from minimind_edu.data.world.grammar import Pick, Sequential, Shuffled, Weighted, derivations, draw, pattern

LEAVES = st.sampled_from(["a", "b", "ab", "c", ""])
GRAMMARS = st.recursive(
    LEAVES,
    lambda node: st.one_of(
        st.lists(node, min_size=1, max_size=3).map(tuple).map(Pick),
        st.lists(st.tuples(node, st.floats(0.05, 3)), min_size=1, max_size=3).map(
            lambda pairs: Weighted(tuple(n for n, _ in pairs), tuple(w for _, w in pairs))
        ),
        st.lists(node, max_size=3).map(tuple).map(Sequential),
        st.builds(Shuffled, st.lists(node, max_size=3).map(tuple), st.sampled_from(["", "-"])),
    ),
    max_leaves=7,
)
# Two ways to write "aa", so that what finds a single derivation can be seen to find two.
AMBIGUOUS = Sequential((Pick(("a", "aa")), Pick(("a", ""))))


def all_draws(node) -> list[tuple[str, float]]:
    """Every (text, probability) of a grammar: not computed as ``draw`` and ``derivations`` do."""
    match node:
        case str():
            return [(node, 1.0)]
        case Pick(options):
            return [(text, p / len(options)) for option in options for text, p in all_draws(option)]
        case Weighted(options, weights):
            shares = [weight / sum(weights) for weight in weights]
            return [
                (t, p * s) for option, s in zip(options, shares, strict=True) for t, p in all_draws(option)
            ]
        case Sequential(parts):
            return _joined(parts, "")
        case Shuffled(parts, joiner):
            orders = list(itertools.permutations(parts))
            return [(text, p / len(orders)) for order in orders for text, p in _joined(order, joiner)]


def _joined(parts, joiner):
    choices = itertools.product(*(all_draws(part) for part in parts))
    return [(joiner.join(t for t, _ in choice), math.prod(p for _, p in choice)) for choice in choices]


@settings(max_examples=150, deadline=None)
@given(GRAMMARS)
def test_probabilities_of_all_texts_sum_to_one(grammar):
    draws = all_draws(grammar)
    assume(len(draws) <= 400)
    texts = {text for text, _ in draws}
    assert sum(math.exp(logp) for text in texts for logp in derivations(grammar, text)) == pytest.approx(1)
    for text in texts:
        expected = sorted(math.log(p) for other, p in draws if other == text)
        assert sorted(derivations(grammar, text)) == pytest.approx(expected, abs=1e-9)
    for other in ("x", "ab" * 40, "-"):
        assert other in texts or derivations(grammar, other) == []


@settings(max_examples=150, deadline=None)
@given(GRAMMARS, st.integers(0, 10**6))
def test_a_draw_is_one_of_the_derivations_of_its_text(grammar, seed):
    assume(len(all_draws(grammar)) <= 400)
    text, logp = draw(grammar, random.Random(seed))
    assert min(abs(logp - other) for other in derivations(grammar, text)) < 1e-9
    assert draw(grammar, random.Random(seed)) == (text, logp)


def test_an_ambiguous_grammar_shows_all_its_derivations():
    assert derivations(AMBIGUOUS, "aa") == pytest.approx([math.log(1 / 4)] * 2)
    assert derivations(AMBIGUOUS, "a") == pytest.approx([math.log(1 / 4)])
    assert derivations(AMBIGUOUS, "aaa") == pytest.approx([math.log(1 / 4)])
    assert len(derivations(Shuffled(("a", "a"), " "), "a a")) == 2
    # One draw of the text is then only a part of its probability.
    assert draw(Weighted(("a", Pick(("a", "a"))), (1.0, 3.0)), random.Random(0))[1] < math.log(0.5)


@pytest.mark.parametrize(
    "grammar",
    [
        Weighted(("x", Pick(("y", "z", "w"))), (3.0, 1.0)),
        Weighted(("a", "b", "c", "d", "e"), (0.5, 2.0, 0.1, 4.0, 1.0)),
        Shuffled(("1", "2", Pick(("3", "4"))), "+"),
        pattern("{who} {does} it{end}", who=Pick(("I", "you")), does="do", end=Weighted((".", "!"), (9, 1))),
    ],
)
def test_texts_come_as_often_as_their_probability_says(grammar):
    rng, count = random.Random(1), 20_000
    seen = Counter(draw(grammar, rng)[0] for _ in range(count))
    expected = dict(all_draws(grammar))
    assert set(seen) == set(expected)
    for text, probability in expected.items():
        spread = math.sqrt(probability * (1 - probability) / count)
        assert abs(seen[text] / count - probability) < 4.5 * spread


def test_the_same_seed_writes_the_same_text_on_every_python():
    grammar = Sequential((Shuffled(tuple("abcdef"), " "), Pick(tuple(map(str, range(50)))), AMBIGUOUS))
    texts = [draw(grammar, random.Random(f"golden/{number}"))[0] for number in range(4)]
    assert texts == ["d a e f c b3aa", "a c d b e f2a", "b c a f d e13aa", "b a d e f c37a"]


def test_pattern_fills_slots_and_refuses_a_missing_one():
    assert pattern("{a} and {b}.", a="x", b="y") == Sequential(("x", " and ", "y", "."))
    assert pattern("no slots") == Sequential(("no slots",))
    with pytest.raises(KeyError, match="b"):
        pattern("{a}{b}", a="x")


def test_what_is_no_node_is_refused():
    with pytest.raises(TypeError, match="not a grammar node: 3"):
        draw(3, random.Random(0))
