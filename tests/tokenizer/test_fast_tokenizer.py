"""The wrapper around the library, and tokenizers on disk."""

import copy
import json
import random
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerFast

from minimind_edu.tokenizer import (
    DEFAULT_CHAT_TEMPLATE,
    SPECIAL_TOKENS,
    BPETokenizer,
    Tokenizer,
    TokenizerError,
    load_tokenizer,
    train_fast,
)

TEXTS = ["The cat sat on the mat, isn't it?", "你好，世界。你好你好。", "🙂 x = 10 ** 2024\n\n  y"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_fast(TEXTS, 400)


@pytest.fixture
def published(shared):
    return shared / "data/tokenizers/minimind3"


class TestSpecialTokens:
    def test_default_ids_and_roles(self, tokenizer):
        assert len(SPECIAL_TOKENS) == len(tokenizer.special_tokens) == 36
        assert list(tokenizer.special_tokens) == list(SPECIAL_TOKENS)
        assert list(tokenizer.special_tokens.values()) == list(range(36))
        named = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
        assert [tokenizer.special_tokens[name] for name in named] == [0, 1, 2, 25, 26]
        roles = (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
            tokenizer.unk_token_id,
        )
        assert roles == (1, 2, 0, 0)

    def test_defaults_are_the_published_ones(self, published):
        config = json.loads((published / "tokenizer_config.json").read_text(encoding="utf-8"))
        decoder = config["added_tokens_decoder"]
        assert [token["content"] for token in decoder.values()] == list(SPECIAL_TOKENS)
        assert [token["special"] for token in decoder.values()] == list(SPECIAL_TOKENS.values())
        assert list(map(int, decoder)) == list(range(36))

    def test_plain_text_unless_asked(self, tokenizer):
        for name, id in tokenizer.special_tokens.items():
            text = f"a{name}b {name}"
            assert not set(tokenizer.encode(text)) & set(range(36))
            assert not set(tokenizer.encode_batch([text])[0]) & set(range(36))
            assert tokenizer.encode(text, special=True).count(id) == 2
            assert tokenizer.decode(tokenizer.encode(text)) == text
            assert tokenizer.decode(tokenizer.encode(text, special=True)) == text

    def test_skip_special_tokens_keeps_the_models_own(self, tokenizer):
        ids = tokenizer.encode("<|im_start|>hi<think>x</think><|im_end|>", special=True)
        assert tokenizer.decode(ids, skip_special_tokens=True) == "hi<think>x</think>"

    @pytest.mark.parametrize(
        ("special", "expected"),
        [
            (["<unk>", "<s>", "</s>"], ("<s>", "</s>", "<unk>", "<unk>")),
            (["<|endoftext|>"], ("<|endoftext|>",) * 4),
            (["[A]", "[B]"], ("[A]",) * 4),
            ([], (None,) * 4),
        ],
    )
    def test_roles_of_other_special_tokens(self, special, expected):
        t = train_fast(TEXTS, 300, special)
        assert (t.bos_token, t.eos_token, t.pad_token, t.unk_token) == expected
        assert t.bos_token_id == (special.index(expected[0]) if special else None)

    def test_flags_as_given(self):
        t = train_fast(TEXTS, 300, {"<s>": True, "<note>": False})
        assert t.control_tokens == {"<s>"}
        ids = t.encode("<s>x<note>", special=True)
        assert t.decode(ids, skip_special_tokens=True) == "x<note>"


class TestEncode:
    @settings(max_examples=100, deadline=None)
    @given(texts=st.lists(TEXT, max_size=8))
    def test_batch_is_each(self, tokenizer, texts):
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]

    def test_published_ids_are_transformers(self, published, shared):
        ours, theirs = load_tokenizer(published), AutoTokenizer.from_pretrained(published)
        text = (shared / "data/text/tang300.txt").read_text(encoding="utf-8")[:5000]
        for sample in [*TEXTS, text, "a  b\t\n"]:
            assert ours.encode(sample) == theirs.encode(sample, add_special_tokens=False)
        sample = "<|im_start|>user\nhi<|im_end|><think>"
        assert ours.encode(sample, special=True) == theirs.encode(sample, add_special_tokens=False)
        ids = random.Random(0).choices(range(6400), k=500)
        assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)

    @pytest.mark.parametrize("bad", ["\ud800", "ok\udfff", None, 5, b"x", ["x"], ("a", "b")])
    def test_not_a_text(self, tokenizer, bad):
        with pytest.raises(TokenizerError):
            tokenizer.encode(bad)
        with pytest.raises(TokenizerError, match="text 2"):
            tokenizer.encode_batch(["a", "b", bad])

    def test_one_string_is_no_batch(self, tokenizer):
        with pytest.raises(TokenizerError):
            tokenizer.encode_batch("abc")
        assert tokenizer.encode_batch([]) == []

    @pytest.mark.parametrize("ids", [[-1], [2**40], ["x"], 5, [None]])
    def test_not_ids(self, tokenizer, ids):
        with pytest.raises(TokenizerError):
            tokenizer.decode(ids)

    def test_ids_beyond_the_vocabulary_are_nothing(self, tokenizer):
        assert tokenizer.decode([10**6, tokenizer.encode("a")[0]]) == "a"
        assert tokenizer.decode([]) == ""

    def test_survives_pickling(self, tokenizer):
        twin = copy.deepcopy(tokenizer)  # goes the way that pickling does, and loads no pickle
        assert twin.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
        assert twin.fingerprint == tokenizer.fingerprint


class TestFiles:
    @pytest.mark.parametrize("split_digits", [False, True])
    @pytest.mark.parametrize("special", [SPECIAL_TOKENS, ["<unk>", "<s>", "</s>"]], ids=["new", "old"])
    def test_round_trip_and_transformers(self, tmp_path, split_digits, special):
        saved = train_fast(TEXTS, 400, special, split_digits)
        saved.save(tmp_path)
        loaded = load_tokenizer(tmp_path)
        theirs = AutoTokenizer.from_pretrained(tmp_path)
        also = PreTrainedTokenizerFast.from_pretrained(tmp_path)
        assert loaded.fingerprint == saved.fingerprint
        assert loaded.config == load_tokenizer(tmp_path / "tokenizer.json").config
        assert len(theirs) == saved.vocab_size
        for role in ("bos_token", "eos_token", "pad_token", "unk_token"):
            assert getattr(theirs, f"{role}_id") == getattr(loaded, f"{role}_id") is not None
        for text in [*TEXTS, "2024 <s>x</s> <think>", ""]:
            assert loaded.encode(text) == saved.encode(text)
            for other in (theirs, also):
                assert other.encode(text) == loaded.encode(text, special=True)
        assert theirs.chat_template == loaded.chat_template == DEFAULT_CHAT_TEMPLATE

    def test_every_field_of_the_published_config(self, tmp_path, published, tokenizer):
        tokenizer.save(tmp_path)
        ours = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
        theirs = json.loads((published / "tokenizer_config.json").read_text(encoding="utf-8"))
        assert theirs.keys() == ours.keys()
        assert {k: v for k, v in theirs.items() if v != ours[k]}.keys() == {"chat_template"}

    def test_published_saved_again(self, tmp_path, published):
        ours = load_tokenizer(published)
        ours.save(tmp_path)
        before, after = (json.loads((p / "tokenizer_config.json").read_text()) for p in (published, tmp_path))
        assert before == after
        assert load_tokenizer(tmp_path).fingerprint == ours.fingerprint

    def test_bpe_and_fast_share_their_files(self, tmp_path):
        ours, fast = (
            BPETokenizer.train(TEXTS, 400, split_digits=True),
            train_fast(TEXTS, 400, split_digits=True),
        )
        ours.save(tmp_path / "ours")
        fast.save(tmp_path / "fast")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "fast" / name).read_bytes()
        assert load_tokenizer(tmp_path / "ours").fingerprint == fast.fingerprint
        again = BPETokenizer.load(tmp_path / "fast")
        assert (again.vocab, again.merges, again.split_digits) == (ours.vocab, ours.merges, True)
        assert again.encode("it is 2024<think>", special=True) == fast.encode(
            "it is 2024<think>", special=True
        )
        assert again.to_fast().fingerprint == fast.fingerprint

    def test_bpe_without_special_tokens(self, tmp_path):
        BPETokenizer.train(TEXTS, 300, []).save(tmp_path)
        assert BPETokenizer.load(tmp_path).vocab_size == 300
        with pytest.raises(TokenizerError, match="bos_token"):
            load_tokenizer(tmp_path)

    def test_fingerprint_changes_with_what_decides_ids(self, tokenizer):
        base = tokenizer.fingerprint
        assert train_fast(TEXTS, 400).fingerprint == base
        assert train_fast(TEXTS, 300).fingerprint != base
        assert train_fast(TEXTS, 400, split_digits=True).fingerprint != base
        assert Tokenizer(tokenizer.library, tokenizer.config, "x").fingerprint != base
        swapped = dict(tokenizer.config, eos_token="<|endoftext|>")
        assert Tokenizer(tokenizer.library, swapped, tokenizer.chat_template).fingerprint != base

    def test_bare_tokenizer_json(self, tmp_path, tokenizer):
        tokenizer.save(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()
        for path in (tmp_path, tmp_path / "tokenizer.json", str(tmp_path)):
            loaded = load_tokenizer(path)
            assert (loaded.bos_token, loaded.eos_token, loaded.pad_token_id) == (
                "<|im_start|>",
                "<|im_end|>",
                0,
            )
            assert loaded.chat_template == DEFAULT_CHAT_TEMPLATE

    def test_template_in_its_own_file(self, tmp_path, tokenizer):
        tokenizer.save(tmp_path)
        (tmp_path / "chat_template.jinja").write_text("{{ bos_token }}!", encoding="utf-8")
        loaded = load_tokenizer(tmp_path)
        assert loaded.chat_template == "{{ bos_token }}!"
        loaded.save(tmp_path)
        assert load_tokenizer(tmp_path).chat_template == "{{ bos_token }}!"

    def test_whole_words_in_the_vocabulary(self, tmp_path):
        # With ignore_merges (Llama 3), a word that is an entry of the vocabulary is taken as it is.
        train_fast(["user", "users"] * 3, 300, ["<x>", "user"]).save(tmp_path)
        edit("tokenizer.json", lambda s: s["model"].update(ignore_merges=True))(tmp_path)
        loaded = load_tokenizer(tmp_path)
        assert 1 not in loaded.encode("user") and loaded.decode(loaded.encode("user")) == "user"
        assert loaded.encode("user", special=True) == [1]

    def test_no_pad_token(self, tmp_path, tokenizer):
        tokenizer.save(tmp_path)
        edit(CONFIG, lambda s: s.pop("pad_token"))(tmp_path)
        assert load_tokenizer(tmp_path).pad_token_id == 2  # the end token's

    def test_cannot_be_written(self, tmp_path, tokenizer):
        (tmp_path / "file").write_text("")
        for dir in (tmp_path / "file", tmp_path / "file" / "dir"):
            with pytest.raises(TokenizerError, match="cannot be written"):
                tokenizer.save(dir)

    def test_truncation_in_a_file_is_not_used(self, tmp_path, tokenizer):
        tokenizer.save(tmp_path)
        spec = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
        spec["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
        (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
        loaded = load_tokenizer(tmp_path)
        assert loaded.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])
        assert loaded.encode(TEXTS[0], special=True) == tokenizer.encode(TEXTS[0])


def spoil(name, content):
    return lambda folder: (folder / name).write_bytes(content)


def edit(name, change):
    def apply(folder):
        spec = json.loads((folder / name).read_text(encoding="utf-8"))
        change(spec)
        (folder / name).write_text(json.dumps(spec), encoding="utf-8")

    return apply


CONFIG = "tokenizer_config.json"
DAMAGES = {
    "folder missing": lambda folder: shutil.rmtree(folder),
    "tokenizer.json missing": lambda folder: (folder / "tokenizer.json").unlink(),
    "tokenizer.json empty": spoil("tokenizer.json", b""),
    "tokenizer.json no object": spoil("tokenizer.json", b"[]"),
    "tokenizer.json no model": spoil("tokenizer.json", b"{}"),
    "tokenizer.json cut off": spoil("tokenizer.json", b'{"version": "1.0", "model"'),
    "tokenizer.json not utf-8": spoil("tokenizer.json", b"\xff\xfe\x00"),
    "unknown model": edit("tokenizer.json", lambda s: s["model"].update(type="Nope")),
    "merge of unknown tokens": edit("tokenizer.json", lambda s: s["model"]["merges"].append(["zz", "qq"])),
    "merge of one token": edit("tokenizer.json", lambda s: s["model"].update(merges=["a"])),
    "config no json": spoil(CONFIG, b"nope"),
    "config no object": spoil(CONFIG, b"[1]"),
    "config too deep": spoil(CONFIG, b"[" * 100_000),
    "no eos": edit(CONFIG, lambda s: s.pop("eos_token")),
    "no bos": edit(CONFIG, lambda s: s.update(bos_token=None)),
    "unknown bos": edit(CONFIG, lambda s: s.update(bos_token="<zz>")),
    "template no text": edit(CONFIG, lambda s: s.update(chat_template=5)),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_folders_are_refused_in_one_line(tmp_path, tokenizer, damage):
    folder = tmp_path / "tok"
    tokenizer.save(folder)
    damage(folder)
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_bpe_refuses_other_kinds(tmp_path, tokenizer, shared):
    with pytest.raises(TokenizerError, match="byte-level"):
        BPETokenizer.load(shared / "data/tokenizers/bert_base_uncased_vocab.txt")
    tokenizer.save(tmp_path)
    edit("tokenizer.json", lambda s: s.update(pre_tokenizer={"type": "Whitespace"}))(tmp_path)
    with pytest.raises(TokenizerError, match="byte-level"):
        BPETokenizer.load(tmp_path)


class TestWordPiece:
    TEXTS = (
        "Hello, World! naïve café 你好 unbelievable tokenization",
        "a" * 150 + " x\x00y\u200b z\tE=mc²",
        "",
        "[SEP] is not [CLS]",
        "ﬁ Å ǅ İ ß Σίσυφος",
    )

    @pytest.fixture
    def path(self, shared):
        return shared / "data/tokenizers/bert_base_uncased_vocab.txt"

    def test_ids_are_transformers(self, path):
        ours, theirs = load_tokenizer(path), BertTokenizer(vocab=str(path), do_lower_case=True)
        assert ours.vocab_size == 30522
        assert (ours.bos_token, ours.eos_token, ours.pad_token, ours.unk_token) == (
            "[CLS]",
            "[SEP]",
            "[PAD]",
            "[UNK]",
        )
        assert (ours.bos_token_id, ours.eos_token_id, ours.pad_token_id, ours.unk_token_id) == (
            101,
            102,
            0,
            100,
        )
        for text in self.TEXTS:
            assert ours.encode(text, special=True) == theirs.encode(text, add_special_tokens=False)
        assert ours.encode("[SEP]") == ours.encode("[ sep ]") != [102]
        assert ours.decode(ours.encode("hello, unbelievable")) == "hello, unbelievable"

    def test_saves_for_transformers(self, path, tmp_path):
        ours = load_tokenizer(path)
        ours.save(tmp_path)
        theirs, again = AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)
        assert again.fingerprint == ours.fingerprint
        for text in self.TEXTS:
            assert theirs.encode(text, add_special_tokens=False) == ours.encode(text, special=True)

    def test_cased_vocabulary_keeps_case(self, tmp_path):
        file = tmp_path / "vocab.txt"
        entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "Paris", "paris", "##es"]
        file.write_text("\r\n".join(entries) + "\r\n", encoding="utf-8")
        t = load_tokenizer(tmp_path)
        assert t.encode("Paris parises Rome") == [5, 6, 7, 1]

    @pytest.mark.parametrize("content", ["", "a\nb\n", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\na\n"])
    def test_not_a_vocabulary(self, tmp_path, content):
        file = tmp_path / "vocab.txt"
        file.write_text(content, encoding="utf-8")
        with pytest.raises(TokenizerError, match="WordPiece"):
            load_tokenizer(file)
