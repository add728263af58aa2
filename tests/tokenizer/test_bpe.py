"""BPETokenizer against the tokenizers library: same merges, same ids, same text."""

import json
import random
import time
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minimind_edu.tokenizer import SPECIAL_TOKENS, BPETokenizer, TokenizerError, load_tokenizer, train_fast
from minimind_edu.tokenizer.words import BYTE_TO_CHAR, spell, splitter, unspell, word_splitter

MIXED = [
    "The cat sat on the mat. The cat's hat, isn't it? It's 1234 or 12345!",
    "你好，世界。床前明月光，疑是地上霜。举头望明月，低头思故乡。你好你好。",
    "🙂🙃🙂 naïve café  déjà\tvu\n\n  x = 10 ** 2024  # ٣٤٥ ½ ² Ⅻ",
    "",
]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


def learned(fast):
    model = json.loads(fast.library.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


@pytest.fixture(scope="module", params=[False, True], ids=["numbers", "digits"])
def pair(request):
    """The two tokenizers, trained on the same texts."""
    split_digits = request.param
    return (
        BPETokenizer.train(MIXED, 480, split_digits=split_digits),
        train_fast(MIXED, 480, split_digits=split_digits),
    )


def test_worked_example():
    tokenizer = BPETokenizer.train(["low low low lower lowest"], 256 + 4, special_tokens=[])
    assert tokenizer.merges == [("l", "o"), ("lo", "w"), ("Ġ", "low"), ("Ġlow", "e")]
    # five times each, and Ġ low four times, Ġlow e twice; ids follow the 256 bytes
    assert tokenizer.encode("low lower") == [257, 259, tokenizer.vocab["r"]]
    assert tokenizer.decode([257, 259]) == "low lowe"


def test_byte_spelling_is_gpt2s():
    assert len(set(BYTE_TO_CHAR)) == 256
    assert (spell(" é\n"), BYTE_TO_CHAR[0], BYTE_TO_CHAR[255]) == ("ĠÃ©Ċ", "Ā", "ÿ")
    assert all(unspell(spell(chr(code))) == chr(code).encode() for code in range(0x3000))


@pytest.mark.parametrize("split_digits", [False, True])
def test_words_are_the_librarys_for_every_code_point(split_digits):
    words, library = word_splitter(split_digits), splitter(split_digits)
    for start in range(0, 0x110000, 0x1000):
        characters = [chr(code) for code in range(start, start + 0x1000) if not 0xD800 <= code < 0xE000]
        text = "".join(f"a{char} {char}1{char}\n" for char in characters[:: 1 if start < 0x20000 else 16])
        assert [spell(word) for word in words(text)] == [word for word, _ in library.pre_tokenize_str(text)]


@settings(max_examples=150, deadline=None)
@given(
    texts=st.one_of(
        st.lists(st.text("ab", max_size=40), max_size=8),
        st.lists(st.text("abc \n", max_size=40), max_size=8),
        st.lists(st.text("你好吗 的", max_size=30), max_size=8),
        st.lists(st.text("🙂🙃12 3é'st", max_size=30), max_size=8),
        st.lists(TEXT, max_size=6),
    ),
    room=st.integers(0, 60),
    split_digits=st.booleans(),
    min_frequency=st.integers(0, 3),
    special=st.sampled_from([[], ["<s>"], ["ab", "<x>"], ["abc"], list(SPECIAL_TOKENS)]),
    sample=TEXT,
    numbers=st.lists(st.integers(0, 400), max_size=30),
)
def test_learns_and_encodes_like_the_library(
    texts, room, split_digits, min_frequency, special, sample, numbers
):
    size = 256 + len(special) + room
    ours = BPETokenizer.train(texts, size, special, split_digits, min_frequency=min_frequency)
    fast = train_fast(texts, size, special, split_digits, min_frequency)
    assert (ours.vocab, ours.merges) == learned(fast)
    assert ours.vocab_size == fast.vocab_size
    for text in [sample, *texts]:
        assert ours.encode(text) == fast.encode(text)
        assert ours.decode(ours.encode(text)) == text
        assert ours.encode(text + "<s>ab", special=True) == fast.encode(text + "<s>ab", special=True)
    for skip in (False, True):
        assert ours.decode(numbers, skip) == fast.decode(numbers, skip)


@settings(max_examples=300, deadline=None)
@given(text=TEXT)
def test_any_unicode_gives_the_librarys_ids(pair, text):
    ours, fast = pair
    assert ours.encode(text) == fast.encode(text)
    assert fast.decode(fast.encode(text)) == text


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 500), max_size=40), skip=st.booleans())
def test_any_ids_give_the_librarys_text(pair, ids, skip):
    ours, fast = pair
    assert ours.decode(ids, skip) == fast.decode(ids, skip)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\u0301",  # a combining mark alone
        "\u2003\u00a0\u3000 x\u200b\u2028y\x85z\x1c",  # white space, and what only looks like it
        "\x00\x01\x7f\ufeff\ufffe\ufdd0\U0010ffff\U000e0001",
        "²³¼Ⅻ٣१〇一",
        "\u0378\U0003fffd",  # unassigned
        "don't DON'T 'll'llll ''s",
        "\r\n\r\n  \t\n x",
        "👩‍👩‍👧‍👦🏳️‍🌈🇨🇳",
        "<|im_start|>assistant\n<think>",
    ],
)
def test_odd_texts(pair, text):
    ours, fast = pair
    assert ours.encode(text) == fast.encode(text)
    assert ours.decode(ours.encode(text)) == text
    assert ours.encode(text, special=True) == fast.encode(text, special=True)


def test_new_unicode_blocks_do_not_depend_on_this_pythons_tables(pair):
    # CJK extension H is from Unicode 15; Python 3.11 calls it unassigned, later ones a letter.
    text = "x\U00031350y \U00031351"
    assert unicodedata.category("\U00031350") in ("Cn", "Lo")
    assert pair[0].encode(text) == pair[1].encode(text)


def test_a_long_word_takes_no_quadratic_time(pair):
    ours, fast = pair
    text = "th" * 100_000
    started = time.perf_counter()
    ids = ours.encode(text)
    assert time.perf_counter() - started < 10
    assert ids == fast.encode(text)


def test_ties_prefer_older_tokens():
    # ab, ba and cd all occur twice
    merges = BPETokenizer.train(["cd cd ab ab"], 257, []).merges
    assert merges == learned(train_fast(["cd cd ab ab"], 257, []))[1] == [("a", "b")]


def test_ties_by_greatest_bytes():
    train = BPETokenizer.train
    assert train(["cd cd ab ab"], 257, [], tie_break="greatest_bytes").merges == [("c", "d")]
    # bytes, not characters of the spelling: byte 0x20 is less than "a" although its spelling Ġ is not
    assert train(["a b"], 257, [], tie_break="greatest_bytes").merges == [("Ġ", "b")]
    # a longer token is greater than its own beginning
    chosen = train(["ab", "ab", "abq", "abq", "aq", "aq", "x"], 259, [], tie_break="greatest_bytes").merges
    assert chosen[0] == ("a", "b") and chosen[1] == ("ab", "q")
    with pytest.raises(TokenizerError, match="tie_break"):
        train(["ab"], 300, tie_break="random")


def test_greatest_bytes_reproduces_an_independent_trainer(shared):
    folder = shared / "data/tokenizers/bpe_reference"
    text = (folder / "corpus.en").read_text(encoding="utf-8")
    tokenizer = BPETokenizer.train(text, 500, ["<|endoftext|>"], tie_break="greatest_bytes")
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    assert tokenizer.merges == [tuple(line.split(" ")) for line in lines]
    vocab = json.loads((folder / "train-bpe-reference-vocab.json").read_text(encoding="utf-8"))
    assert tokenizer.vocab == vocab
    # The tie rule matters on this corpus: the other one learns something else.
    assert BPETokenizer.train(text, 500, ["<|endoftext|>"]).merges != tokenizer.merges


def test_shakespeare_in_seconds(shared):
    text = (shared / "data/text/tinyshakespeare.txt").read_text(encoding="utf-8")
    started = time.perf_counter()
    ours = BPETokenizer.train(text, 36 + 256 + 2000)
    assert time.perf_counter() - started < 20  # about 1 s on an idle core
    fast = train_fast([text], 36 + 256 + 2000)
    assert (ours.vocab, ours.merges) == learned(fast)
    assert ours.encode(text) == fast.encode(text)


@pytest.mark.parametrize("name", ["tang300.txt", "songci300.txt"])
def test_chinese_poems(shared, name):
    lines = (shared / "data/text" / name).read_text(encoding="utf-8").splitlines()
    ours, fast = BPETokenizer.train(lines, 1500), train_fast(lines, 1500)
    assert (ours.vocab, ours.merges) == learned(fast)
    assert [ours.encode(line) for line in lines] == fast.encode_batch(lines)


def test_published_tokenizer_in_pure_python(shared):
    path = shared / "data/tokenizers/minimind3"
    ours, fast = BPETokenizer.load(path), load_tokenizer(path)
    text = (shared / "data/text/tang300.txt").read_text(encoding="utf-8") + "".join(MIXED)
    assert ours.encode(text) == fast.encode(text)
    assert ours.encode("<|im_start|>a<think>", special=True) == fast.encode(
        "<|im_start|>a<think>", special=True
    )
    assert ours.special_tokens == fast.special_tokens
    assert ours.vocab_size == fast.vocab_size == 6400


class TestEdges:
    @pytest.mark.parametrize("texts", [[], "", [""], ["", ""], iter([])])
    def test_no_text(self, texts):
        tokenizer = BPETokenizer.train(texts, 1000)
        assert tokenizer.vocab_size == 292 and tokenizer.merges == []
        assert tokenizer.decode(tokenizer.encode("héllo 你")) == "héllo 你"

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_vocabulary_too_small(self, train):
        with pytest.raises(TokenizerError, match="at least 292"):
            train(["abc"], 291)
        assert train(["abc"], 292).vocab_size == 292
        with pytest.raises(TokenizerError, match="at least 257"):
            train(["abc"], 256, ["<s>"])

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_vocabulary_never_reached(self, train):
        assert train(["abc abc"], 5000, []).vocab_size == 256 + 3  # ab, abc, Ġabc

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_min_frequency(self, train):
        assert train(["ab ab cd"], 5000, [], min_frequency=2).vocab_size == 257
        assert train(["ab ab cd"], 5000, [], min_frequency=3).vocab_size == 256

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    @pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "\udce9"])
    def test_lone_surrogates(self, train, text):
        with pytest.raises(TokenizerError, match="surrogate U\\+D"):
            train(["fine", text], 300, [])
        with pytest.raises(TokenizerError, match="surrogate U\\+D"):
            train(["fine"], 300, []).encode(text)

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_texts_that_are_none(self, train):
        with pytest.raises(TokenizerError, match="text 1"):
            train(["a", None], 300, [])
        with pytest.raises(TokenizerError, match="string"):
            train(["a"], 300, []).encode(b"a")

    @pytest.mark.parametrize("special", [["a"], [""], ["<s>", "<s>"], "<s>", [None], [3]])
    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_faulty_special_tokens(self, train, special):
        with pytest.raises(TokenizerError, match="special"):
            train(["abc"], 300, special)

    @pytest.mark.parametrize("train", [BPETokenizer.train, train_fast])
    def test_a_special_token_that_is_also_a_word(self, train):
        tokenizer = train(["user user user"] * 3, 300, ["user", "<x>"])
        assert 0 not in tokenizer.encode("user user")
        assert tokenizer.encode("user", special=True) == [0]

    def test_one_text_is_one_document(self):
        assert BPETokenizer.train("abab", 300, []).merges == BPETokenizer.train(["abab"], 300, []).merges
        assert learned(train_fast("abab", 300, [])) == learned(train_fast(["abab"], 300, []))

    def test_merges_stay_inside_documents_and_words(self):
        merges = BPETokenizer.train(["ab", "ab", "x y"], 300, []).merges
        assert ("b", "a") not in merges and ("x", "Ġ") not in merges

    def test_nested_special_tokens_longest_first(self):
        ours, fast = (
            train(["ab"], 300, ["<s>", "<s>x", "x<s"]) for train in (BPETokenizer.train, train_fast)
        )
        for text in ("<s>x", "x<s>", "<s><s>x<s", "ax<s>xb"):
            assert ours.encode(text, special=True) == fast.encode(text, special=True)
            assert not set(ours.encode(text)) & {0, 1, 2}


def test_random_corpora_with_many_ties():
    rng = random.Random(0)
    for _ in range(40):
        texts = ["".join(rng.choices("aab bc", k=60)) for _ in range(20)]
        assert BPETokenizer.train(texts, 400, []).merges == learned(train_fast(texts, 400, []))[1]
