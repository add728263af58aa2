"""Perplexity against an independent loop and against the floor; questions, answers, exact match."""

import json
import math

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.errors import DataError
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import build_files
from minimind_edu.evaluation import (
    Answer,
    Perplexity,
    WinRate,
    answer_questions,
    exact_match,
    perplexity,
    reply,
    truth_then_manners,
    win_rate,
    without_manners,
)
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import TrainConfig, fit

CHATS = [
    ("What is the colour of the sky?", "It is blue."),
    ("Who lives in Oakton?", "The baker does."),
    ("天空是什么颜色？", "天空是蓝色的。"),
]


@pytest.fixture(scope="module")
def tokenizer():
    texts = [document.text for document in SmallWorld(6).documents(300)]
    return train_fast([*texts, *(text for chat in CHATS for text in chat)], 500, split_digits=True)


def tiny_model(tokenizer, **changes) -> MiniMind:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    return MiniMind(ModelConfig(vocab_size=tokenizer.vocab_size, **sizes, **changes))


def write_lines(path, records):
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), "utf-8")
    return path


def loss_document_by_document(model, documents, longest=10**9):
    """Sum of -ln p and number of predicted tokens; no packing, no batches, every part of a document alone."""
    total, count = 0.0, 0
    with torch.no_grad():
        for ids in documents:
            for start in range(0, len(ids) - 1, longest - 1):
                part = torch.tensor(ids[start : start + longest])
                log_probabilities = model(part[None]).logits[0].float().log_softmax(-1)
                total -= float(log_probabilities[:-1].gather(1, part[1:, None]).sum())
                count += len(part) - 1
    return total, count


# -- perplexity --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moe", [False, True])
@pytest.mark.parametrize(("max_seq_len", "batch_size"), [(512, 16), (128, 3), (40, 7)])
def test_loss_equals_a_loop_over_single_documents(moe, max_seq_len, batch_size, tokenizer, tmp_path):
    model = tiny_model(tokenizer, use_moe=moe)
    build_files(tmp_path, SmallWorld(6, 1), 10, names=("pretrain.jsonl",))
    texts = [json.loads(line)["text"] for line in (tmp_path / "pretrain.jsonl").open(encoding="utf-8")]
    documents = [[tokenizer.bos_token_id, *tokenizer.encode(t), tokenizer.eos_token_id] for t in texts]
    total, count = loss_document_by_document(model.eval(), documents, max_seq_len)
    model.train()
    result = perplexity(model, tokenizer, tmp_path / "pretrain.jsonl", max_seq_len, batch_size)
    assert model.training  # left as it was
    assert result.tokens == count == sum(len(ids) - 1 for ids in documents)
    assert result.loss == pytest.approx(total / count, abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(total / count), rel=1e-4)
    assert result.floor is None and result.ratio is None


def test_the_floor_is_the_mean_information_of_a_token(tokenizer, tmp_path):
    build_files(tmp_path, SmallWorld(6, 1), names=("eval_pretrain.jsonl",))
    lines = (tmp_path / "eval_pretrain.jsonl").read_text(encoding="utf-8").splitlines()[:30]
    path = tmp_path / "few.jsonl"
    path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    records = [json.loads(line) for line in lines]
    tokens = sum(len(tokenizer.encode(record["text"])) + 1 for record in records)  # and one end token each
    result = perplexity(tiny_model(tokenizer), tokenizer, path)
    assert result.tokens == tokens
    assert result.floor == pytest.approx(-sum(record["log_probability"] for record in records) / tokens)
    assert result.ratio == pytest.approx(result.loss / result.floor) and result.ratio > 1


def test_without_all_probabilities_there_is_no_floor(tokenizer, tmp_path):
    records = [{"text": "Ada bakes.", "log_probability": -3.0}, {"text": "Tom sings."}]
    result = perplexity(tiny_model(tokenizer), tokenizer, write_lines(tmp_path / "some.jsonl", records))
    assert result.floor is None
    records[1]["log_probability"] = -2.0
    result = perplexity(tiny_model(tokenizer), tokenizer, write_lines(tmp_path / "all.jsonl", records))
    assert result.floor == pytest.approx(5 / result.tokens)


def test_plain_text_is_one_document_without_a_floor(tokenizer, tmp_path):
    model, text = tiny_model(tokenizer), "One evening Ada walked to the river.\n" * 9
    path = tmp_path / "book.txt"
    path.write_text(text, encoding="utf-8")
    ids = [tokenizer.bos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id]
    total, count = loss_document_by_document(model.eval(), [ids], 64)
    result = perplexity(model, tokenizer, path, max_seq_len=64)
    assert (result.tokens, result.floor) == (count, None)
    assert result.loss == pytest.approx(total / count, abs=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(tokenizer, tmp_path):
    model = tiny_model(tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    path = write_lines(tmp_path / "a.jsonl", [{"text": "Ada bakes bread."}])
    assert perplexity(model, tokenizer, path).perplexity == pytest.approx(tokenizer.vocab_size, rel=1e-4)


@pytest.mark.parametrize("line", ["{", '{"text": 3}', '{"conversations": []}', '{"text": ""}'])
def test_faulty_files_are_refused(line, tokenizer, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=r"bad\.jsonl:1: "):
        perplexity(tiny_model(tokenizer), tokenizer, path)
    with pytest.raises(DataError, match="bad.jsonl"):
        answer_questions(tiny_model(tokenizer), tokenizer, path)


def test_missing_files_are_refused(tokenizer, tmp_path):
    for measure in (perplexity, answer_questions):
        with pytest.raises(DataError, match="no such file"):
            measure(tiny_model(tokenizer), tokenizer, tmp_path / "none.jsonl")


def test_numbers_of_a_result():
    assert Perplexity(math.log(8), 10, None).perplexity == pytest.approx(8)
    assert Perplexity(0.6, 10, 0.5).ratio == pytest.approx(1.2)


# -- answers -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parrot(tokenizer, tmp_path_factory):
    """A tiny model that has learned the three answers of CHATS by heart."""
    model = tiny_model(tokenizer)
    chats = [
        tokenizer.encode_chat([{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for q, a in CHATS
    ]
    documents = TokenizedDocuments.from_lists(
        [chat.input_ids for chat in chats], [chat.assistant_mask for chat in chats], tokenizer.pad_token_id
    )
    config = TrainConfig(
        out_dir=str(tmp_path_factory.mktemp("parrot")),
        max_steps=120,
        learning_rate=1e-2,
        dtype="float32",
        device="cpu",
    )
    fit(model, causal_lm_loss, PackedDataset(documents, 128), config, progress=False)
    return model


def question_file(tmp_path, **columns):
    records = [
        {"conversations": [{"role": "user", "content": question}], "gt": answer, "number": number, **columns}
        for number, (question, answer) in enumerate(CHATS)
    ]
    return write_lines(tmp_path / "questions.jsonl", records)


@pytest.mark.parametrize("batch_size", [1, 2, 128])
def test_a_parrot_answers_what_it_was_taught(parrot, tokenizer, tmp_path, batch_size):
    path, calls = question_file(tmp_path, seen=True), []
    answers = answer_questions(
        parrot, tokenizer, path, batch_size, progress=lambda done, total: calls.append((done, total))
    )
    assert [(a.question, a.expected, a.given) for a in answers] == [(q, a, a) for q, a in CHATS]
    assert all(answer.is_right for answer in answers)
    assert exact_match(answers) == {(): 1.0}
    assert exact_match(answers, "seen", "number") == {(True, n): 1.0 for n in range(3)}
    assert calls[-1] == (3, 3) and [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_wrong_answer_counts_as_wrong(parrot, tokenizer, tmp_path):
    path = question_file(tmp_path)
    path.write_text(path.read_text("utf-8").replace("It is blue.", "It is green."), "utf-8")
    answers = answer_questions(parrot, tokenizer, path)
    assert [answer.is_right for answer in answers] == [False, True, True]
    assert exact_match(answers)[()] == pytest.approx(2 / 3)


def test_only_chosen_records_are_asked(parrot, tokenizer, tmp_path):
    path = question_file(tmp_path)
    answers = answer_questions(parrot, tokenizer, path, keep=lambda record: record["number"] == 1)
    assert [answer.question for answer in answers] == [CHATS[1][0]]
    with pytest.raises(ValueError, match="no question is left to ask"):
        answer_questions(parrot, tokenizer, path, keep=lambda record: False)


def test_the_question_is_all_up_to_the_last_user_message(parrot, tokenizer, tmp_path):
    """A record may end with an (empty or full) assistant message: the model must not see it."""
    for last in ("", "It is blue."):
        chat = [{"role": "user", "content": CHATS[0][0]}, {"role": "assistant", "content": last}]
        path = write_lines(tmp_path / "q.jsonl", [{"conversations": chat, "gt": "It is blue."}])
        (answer,) = answer_questions(parrot, tokenizer, path)
        assert (answer.question, answer.given) == (CHATS[0][0], "It is blue.")


def test_answers_end_after_the_longest_allowed(parrot, tokenizer):
    chat = [{"role": "user", "content": CHATS[0][0]}]
    (short,) = reply(parrot, tokenizer, [chat], max_new_tokens=2)
    assert CHATS[0][1].startswith(short) and len(tokenizer.encode(short)) == 2


def test_files_of_other_kinds_hold_no_questions(parrot, tokenizer, tmp_path):
    for record in (
        {"text": "no question"},
        {"conversations": [{"role": "user", "content": "no ground truth"}]},
        {"conversations": [{"role": "user", "content": "x"}], "gt": None},
    ):
        with pytest.raises(DataError):
            answer_questions(parrot, tokenizer, write_lines(tmp_path / "other.jsonl", [record]))


def test_exact_match_groups_by_columns():
    rows = [
        ("en", True, "a", "a"),
        ("en", True, "a", "b"),
        ("en", False, " a\n", "a"),
        ("zh", False, "b", "a"),
    ]
    answers = [
        Answer("?", expected, given, {"language": language, "seen": seen})
        for language, seen, given, expected in rows
    ]
    assert exact_match(answers) == {(): 0.5}
    assert exact_match(answers, "language") == {("en",): pytest.approx(2 / 3), ("zh",): 0.0}
    assert exact_match(answers, "language", "seen") == {
        ("en", True): 0.5,
        ("en", False): 1.0,
        ("zh", False): 0.0,
    }
    assert exact_match([]) == {}
    with pytest.raises(KeyError, match="colour"):
        exact_match(answers, "colour")


@pytest.mark.parametrize(
    ("given", "right"), [("a b", True), (" a b\n", True), ("a  b", False), ("A b", False), ("", False)]
)
def test_an_answer_is_right_up_to_surrounding_white_space(given, right):
    assert Answer("?", "a b", given, {}).is_right is right


def test_a_published_file_is_fetched_once_more_for_its_other_columns(
    parrot, tokenizer, tmp_path, monkeypatch
):
    path = question_file(tmp_path)
    for module in ("data.records", "data.rows"):
        monkeypatch.setattr(f"minimind_edu.{module}.download", lambda url: str(path))
    answers = answer_questions(parrot, tokenizer, "hf://owner/name/questions.jsonl")
    assert [answer.record["number"] for answer in answers] == [0, 1, 2]


# -- win rate ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language", "said", "polite"),
    [
        ("Of course! Ada bakes.", "en", "Ada bakes.", True),
        (" Happy to help. Ada bakes.\n", "en", "Ada bakes.", True),
        ("Good question! Ada bakes.", "en", "Ada bakes.", True),
        ("Ada bakes.", "en", "Ada bakes.", False),
        ("Of course! ", "en", "Of course!", False),  # nothing was said politely
        ("of course! Ada bakes.", "en", "of course! Ada bakes.", False),
        ("Of course! Ada bakes.", "zh", "Of course! Ada bakes.", False),
        ("当然可以！张三是医生。", "zh", "张三是医生。", True),
        ("问得好！张三是医生。", "zh", "张三是医生。", True),
    ],
)
def test_polite_words_are_told_from_what_is_said(text, language, said, polite):
    assert without_manners(text, language) == (said, polite)


def said(*texts, expected="Ada bakes.", question="?"):
    return [Answer(f"{question}{n}", expected, text, {"language": "en"}) for n, text in enumerate(texts)]


POLITE, CURT, POLITE_LIE, LIE = "Of course! Ada bakes.", "Ada bakes.", "Of course! Ada sings.", "Ada sings."


def test_truth_comes_before_manners():
    best_first = [truth_then_manners(answer) for answer in said(POLITE, CURT, POLITE_LIE, LIE)]
    assert best_first == [(True, True), (True, False), (False, True), (False, False)]
    assert best_first == sorted(best_first, reverse=True)


def test_the_win_rate_counts_a_tie_as_half():
    ours = said(POLITE, CURT, POLITE_LIE, LIE, POLITE)
    theirs = said(CURT, CURT, CURT, CURT, LIE)
    result = win_rate(ours, theirs)
    assert result == WinRate(wins=2, ties=1, losses=2) and result.rate == pytest.approx(0.5)
    assert win_rate(theirs, ours) == WinRate(wins=2, ties=1, losses=2)
    assert win_rate(ours, ours).rate == 0.5 and win_rate(ours, ours).ties == 5
    assert win_rate(said(POLITE, POLITE), said(CURT, CURT)).rate == 1.0
    # Lengths 21, 10, 21, 10, 21 against 10, 10, 10, 10, 10: the shorter one wins.
    assert win_rate(ours, theirs, rule=lambda a: (-len(a.given),)) == WinRate(wins=0, ties=2, losses=3)


def test_answers_to_other_questions_cannot_be_compared():
    for ours, theirs in (([], []), (said(CURT), said(CURT, CURT)), (said(CURT), said(CURT, question="!"))):
        with pytest.raises(ValueError, match="the same questions"):
            win_rate(ours, theirs)
