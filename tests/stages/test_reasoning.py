"""The cold start: which tokens are tags, and the weighted loss against PyTorch's own by hand."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import PackedDataset, collate
from minimind_edu.data.problems import problems
from minimind_edu.data.records import Records
from minimind_edu.data.tokenized import TokenizedDocuments, tokenize
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.reasoning import (
    ReasonConfig,
    TaggedRows,
    TagPositions,
    reason,
    tag_spans,
    verify,
    weighted_lm_loss,
)
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import load_tokenizer, train_fast
from minimind_edu.training import CheckpointError, TrainConfig, fit, read_metrics

PROBLEMS = [*problems("sums", 24, (1, 2)), *problems("words", 8, 2)]
TAGS = ("<think>", "</think>", "<answer>", "</answer>")


@pytest.fixture(scope="module")
def tokenizer():
    texts = [text for problem in PROBLEMS for text in (problem.question, problem.response())]
    return train_fast(texts * 3, 600, split_digits=True)


@pytest.fixture(scope="module")
def positions(tokenizer):
    return TagPositions(tokenizer)


def small_model(vocab_size, **changes):
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    return MiniMind(ModelConfig(vocab_size=vocab_size, num_key_value_heads=1, **(shape | changes)))


def tagged_text(tokenizer, positions, messages):
    """The tags found in a conversation, as text; one after the other with a bar between."""
    chat = tokenizer.encode_chat(messages)
    found = positions(chat.input_ids, chat.assistant_mask)
    pieces = [""]
    for token, is_tag in zip(chat.input_ids, found, strict=True):
        if is_tag:
            pieces[-1] += tokenizer.decode([token])
        elif pieces[-1]:
            pieces.append("")
    return "|".join(filter(None, pieces))


def chat(answer, question="?"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


# -- which tokens are tags -----------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", PROBLEMS[::4])
def test_the_four_tags_of_an_answer(tokenizer, positions, problem):
    found = tagged_text(tokenizer, positions, problem.record()["conversations"])
    assert found.replace("|", "") == "".join(TAGS)


LOOK_ALIKES = {
    "a user's tags": (
        chat("<answer>\n5\n</answer>", "say <think>x</think> <answer>6</answer>"),
        "<answer>|</answer>",
    ),
    "other words of the same letters": (
        chat("<think>\nthe swan < er > answers think\n</think>\n<answer>\n5\n</answer>"),
        "<think>|</think>|<answer>|</answer>",
    ),
    "named in the thoughts": (
        chat("<think>\nwrite <answer> 5 </answer> now\n</think>\n<answer>\n5\n</answer>"),
        "<think>|</think>|<answer>|</answer>",
    ),
    "named in the answer": (
        chat("<think>\nx\n</think>\n<answer>\na </answer> b <think> c\n</answer>"),
        "<think>|</think>|<answer>|</answer>",
    ),
    "no tags": (chat("The answer is 5."), ""),
    "text first": (chat("Well, <answer>\n5\n</answer>"), ""),
    "no thoughts": (chat("<answer>\n5\n</answer>"), "<answer>|</answer>"),
    "no answer block": (chat("<think>\nx\n</think>\n\nIt is 5."), "<think>|</think>"),
    "thoughts without end": (chat("<think>\nx <answer>5</answer>"), "<think>"),
    "answer without end": (chat("<think>\nx\n</think>\n<answer>\n5"), "<think>|</think>|<answer>"),
    "empty thoughts": (chat("<think>\n\n</think>\n\n<answer>\n5\n</answer>"), "<answer>|</answer>"),
    "text after": (chat("<answer>\n5\n</answer> or so"), "<answer>"),
    "two turns": (
        chat("<answer>\n5\n</answer>") + chat("<think>\ny\n</think>\n<answer>\n6\n</answer>"),
        "<answer>|</answer>|<think>|</think>|<answer>|</answer>",
    ),
    "in a field of its own": (
        [chat("")[0], {"role": "assistant", "reasoning_content": "x", "content": "<answer>\n5\n</answer>"}],
        "<think>|</think>|<answer>|</answer>",
    ),
}


@pytest.mark.parametrize(("messages", "tags"), LOOK_ALIKES.values(), ids=LOOK_ALIKES.keys())
def test_tags_by_their_place(tokenizer, positions, messages, tags):
    assert tagged_text(tokenizer, positions, messages) == tags


def test_spans_by_hand():
    assert tag_spans("<answer>5</answer>\n") == [(0, 8), (9, 18)]
    assert tag_spans("<think>a</think> <answer>") == [(0, 7), (8, 16), (17, 25)]
    assert tag_spans("") == tag_spans("a <think>") == []


def test_a_token_across_a_tags_end_counts_as_tag():
    """A tokenizer may have learned ">" and what follows as one token."""
    texts = ["<answer>5</answer>"] * 50
    merged = train_fast(texts, 420)
    found = tagged_text(merged, TagPositions(merged), chat("<answer>5</answer>"))
    assert "<answer>" in found and "</answer>" in found
    assert len(merged.encode("<answer>5</answer>")) < len("<answer>5</answer>")


def test_published_tokenizers(shared):
    for name in ("minimind3", "bert_base_uncased_vocab.txt"):
        published = load_tokenizer(shared / "data" / "tokenizers" / name)
        found = tagged_text(published, TagPositions(published), PROBLEMS[0].record()["conversations"])
        assert found.replace("|", "").replace(" ", "") == "".join(TAGS)


# -- rows ----------------------------------------------------------------------------------------------------


def documents(tokenizer, tmp_path, thinking=True):
    records = Records.from_list([problem.record(thinking) for problem in PROBLEMS], "sft")
    return tokenize(records, tokenizer, "sft", tmp_path)


def test_rows_are_the_packed_ones_with_weights(tokenizer, positions, tmp_path):
    docs = documents(tokenizer, tmp_path)
    plain, rows = PackedDataset(docs, 300, seed=3), TaggedRows(docs, positions, 7.0, 300, seed=3)
    assert len(plain) == len(rows)
    for epoch in (0, 1):
        plain.set_epoch(epoch), rows.set_epoch(epoch)
        for number in range(len(rows)):
            row, weights = rows[number], rows[number]["weights"]
            assert all(torch.equal(row[name], value) for name, value in plain[number].items())
            assert weights.dtype == torch.float32 and set(weights.tolist()) <= {1.0, 7.0}
            # Each document of the row by itself, as it was tokenized.
            for document in range(int(row["document_ids"].max()) + 1):
                here = row["document_ids"] == document
                ids = row["input_ids"][here].tolist()
                if ids[-2:] != [tokenizer.eos_token_id, *tokenizer.encode("\n")]:
                    continue  # a filler that was cut
                text = "".join(
                    tokenizer.decode([token])
                    for token, weight in zip(ids, weights[here].tolist(), strict=True)
                    if weight > 1
                )
                assert text == "".join(TAGS)
            assert bool((weights[row["labels"] == -100] == 1).all()), "only what is learned has a weight"


def test_a_direct_answer_is_learned_from_where_its_prompt_ends(tokenizer, positions, tmp_path):
    """By `reason` and `sft`. Else a model would write an empty block into one that its prompt has opened."""
    docs = documents(tokenizer, tmp_path, thinking=False)
    tagged_rows, plain = TaggedRows(docs, positions, 7.0, 80, fill=False), PackedDataset(docs, 80, fill=False)
    for row in (rows[number] for rows in (tagged_rows, plain) for number in range(len(rows))):
        for document in range(int(row["document_ids"].max()) + 1):
            here = row["document_ids"] == document
            ids, labels = row["input_ids"][here], row["labels"][here]
            begin = int((labels != -100).nonzero()[0, 0])
            assert tokenizer.decode(ids[:begin].tolist()).endswith("assistant\n<think>\n\n</think>\n\n")
            assert tokenizer.decode(labels[begin:-1].tolist()).startswith("<answer>\n")
            assert torch.equal(labels[begin:-1], ids[begin:-1])


def test_an_answer_that_is_cut_keeps_its_tags(tokenizer, positions, tmp_path):
    docs = documents(tokenizer, tmp_path)
    rows = TaggedRows(docs, positions, 5.0, 60)
    assert rows.truncated
    for row in (rows[number] for number in range(len(rows))):
        tags = row["weights"] > 1
        assert tokenizer.special_tokens["<think>"] in row["input_ids"][tags].tolist()


# -- the loss ------------------------------------------------------------------------------------------------


def random_batch(seed, tag_weight=10.0):
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (3, 20), generator=random)
    labels = ids.masked_fill(torch.rand(3, 20, generator=random) < 0.4, -100)
    documents_ = (torch.rand(3, 20, generator=random) < 0.15).long().cumsum(1)
    weights = torch.where(torch.rand(3, 20, generator=random) < 0.2, tag_weight, 1.0)
    return {"input_ids": ids, "labels": labels, "document_ids": documents_, "weights": weights}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tag_weight", [1.0, 3.0, 10.0, 30.0])
def test_the_loss_by_hand(seed, tag_weight):
    model, batch = small_model(50).train(), random_batch(seed, tag_weight)
    loss, numbers = weighted_lm_loss(model, batch)
    loss.backward()
    ours = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    logits = model(batch["input_ids"], document_ids=batch["document_ids"]).logits[:, :-1]
    losses = F.cross_entropy(
        logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none", ignore_index=-100
    )
    weights = batch["weights"][:, 1:] * (batch["labels"][:, 1:] != -100)
    expected = (weights * losses).sum() / weights.sum()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    assert numbers["tokens"] == int(weights.sum())
    expected.backward()
    for gradient, parameter in zip(ours, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-7)
    labelled = batch["labels"][:, 1:] != -100
    torch.testing.assert_close(numbers["cross_entropy"], losses.detach()[labelled].mean())
    is_tag = labelled & (batch["weights"][:, 1:] > 1)
    if tag_weight > 1:
        torch.testing.assert_close(numbers["tag_loss"], losses.detach()[is_tag].mean())
    else:
        assert "tag_loss" not in numbers


def test_weight_one_is_the_plain_loss():
    model, batch = small_model(50).train(), random_batch(0, 1.0)
    torch.testing.assert_close(weighted_lm_loss(model, batch)[0], causal_lm_loss(model, batch)[0])


def test_weights_that_are_all_alike_change_nothing():
    """Normalised by their sum, not by the number of tokens: else the learning rate would grow with them."""
    model, batch = small_model(50).train(), random_batch(0)
    batch["weights"] = torch.full_like(batch["weights"], 30.0)
    torch.testing.assert_close(weighted_lm_loss(model, batch)[0], causal_lm_loss(model, batch)[0])


def test_validation_is_unweighted():
    model, batch = small_model(50).eval(), random_batch(0, 30.0)
    assert torch.equal(weighted_lm_loss(model, batch)[0], causal_lm_loss(model, batch)[0])


def test_a_batch_without_labels_is_zero_and_not_nan():
    model, batch = small_model(50).train(), random_batch(0)
    batch["labels"][:] = -100
    loss, numbers = weighted_lm_loss(model, batch)
    assert float(loss.detach()) == 0 and numbers["tokens"] == 0


def test_experts_add_their_balance_loss():
    model, batch = small_model(50, use_moe=True).train(), random_batch(0)
    loss, numbers = weighted_lm_loss(model, batch)
    model.eval()
    without = dict(batch, weights=torch.ones_like(batch["weights"]))
    assert float(numbers["aux_loss"].detach()) > 0 and torch.isfinite(loss)
    model.train()
    torch.testing.assert_close(weighted_lm_loss(model, without)[0], causal_lm_loss(model, without)[0])


def test_a_window_of_small_batches_is_one_big_batch(tokenizer, positions, tmp_path):
    """Accumulated over batches with different numbers of tags, the gradient is that of all rows at once."""
    answers = ["<answer>\n5\n</answer>", "no tags at all here, but more words", "<think>\nx\n</think>\n5"]
    encoded = [tokenizer.encode_chat(chat(answer)) for answer in answers]
    docs = TokenizedDocuments.from_lists(
        [one.input_ids for one in encoded], [one.assistant_mask for one in encoded], tokenizer.pad_token_id
    )
    results = []
    for batch_size, window in ((3, 1), (1, 3)):
        rows = TaggedRows(docs, positions, 10.0, 40, fill=False)
        model = small_model(tokenizer.vocab_size)
        config = TrainConfig(
            out_dir=str(tmp_path / f"run{batch_size}"), max_steps=1, batch_size=batch_size, optimizer="adamw",
            accumulation_steps=window, learning_rate=1e-3, device="cpu", dtype="float32", weight_decay=0.0,
        )  # fmt: skip
        if batch_size == 3:
            batch = collate([rows[number] for number in range(len(rows))])
            assert len({int(batch["weights"][n].sum()) for n in range(len(rows))}) == len(rows) > 1
        fit(model, weighted_lm_loss, rows, config, progress=False)
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.allclose(*results, rtol=0, atol=2e-5)


# -- the stage -----------------------------------------------------------------------------------------------


@pytest.fixture
def settings(tokenizer, tmp_path):
    save_model(small_model(tokenizer.vocab_size, max_position_embeddings=256), tokenizer, tmp_path / "base")
    lines = [json.dumps(problem.record(), ensure_ascii=False) for problem in PROBLEMS]
    (tmp_path / "data.jsonl").write_text("\n".join(lines), encoding="utf-8")
    plain = {
        "data_path": str(tmp_path / "data.jsonl"), "from_weight": str(tmp_path / "base"), "max_seq_len": 200,
        "batch_size": 4, "max_steps": 4, "device": "cpu", "dtype": "float32", "log_interval": 1,
        "cache_dir": str(tmp_path / "cache"),
    }  # fmt: skip

    def make(name, **changes):
        return ReasonConfig(out_dir=str(tmp_path / name), **(plain | changes))

    return make


def logged(config):
    return [line for line in read_metrics(f"{config.out_dir}/metrics.jsonl") if "tag_loss" in line]


def test_the_stage_lowers_the_loss_and_keeps_the_model(settings):
    config = settings("run", max_steps=60, learning_rate=2e-2)
    result = reason(config, progress=False)
    lines = logged(config)
    assert lines[-1]["tag_loss"] < 0.3 * lines[0]["tag_loss"]
    assert 0 < lines[-1]["cross_entropy"] < lines[0]["cross_entropy"]
    loaded, _ = load_model(config.out_dir)
    assert all(
        torch.equal(a, b)
        for a, b in zip(loaded.state_dict().values(), result.model.cpu().state_dict().values(), strict=True)
    )


def test_a_weight_teaches_tags_first(settings):
    """After the same few steps, heavier tags have a lower loss; other tokens pay for it."""
    found = []
    for seed in range(3):
        last = {}
        for weight in (1.0001, 30.0):  # just above 1, so that the log tells the loss at the tags
            config = settings(
                f"run{seed}-{weight}", tag_weight=weight, max_steps=12, seed=seed, learning_rate=5e-3
            )
            reason(config, progress=False)
            last[weight] = logged(config)[-1]["tag_loss"]
        found.append(last[30.0] < last[1.0001])
    assert all(found)


def test_another_weight_is_another_run(settings):
    reason(settings("run"), progress=False)
    with pytest.raises(CheckpointError):
        reason(settings("run", tag_weight=3.0, from_resume=1, max_steps=6), progress=False)


def test_answers_without_tags_are_noted(settings, tmp_path):
    lines = [json.dumps({"conversations": chat(f"It is {n}.")}) for n in range(20)]
    (tmp_path / "plain.jsonl").write_text("\n".join(lines))
    path = str(tmp_path / "plain.jsonl")
    assert any("tag_weight" in note for note in reason(settings("a", data_path=path), progress=False).notes)
    quiet = reason(settings("b", data_path=path, tag_weight=1.0), progress=False).notes
    assert not any("tag_weight" in note for note in quiet)


@pytest.mark.parametrize("weight", [0, 0.5, -1, float("nan"), float("inf")])
def test_weights_without_sense(settings, weight):
    with pytest.raises(ValueError, match="tag_weight"):
        reason(settings("run", tag_weight=weight), progress=False)


def test_real_problems_are_a_cold_start_too(settings, shared):
    path = shared / "data" / "math" / "gsm8k_test.jsonl"
    result = reason(settings("gsm", data_path=str(path), max_steps=2), progress=False)
    assert result.fit.step == 2 and np.isfinite(result.fit.validation_loss)


def test_the_verifier_can_be_had_here():
    assert verify("<answer>\n5\n</answer>", "5") and not verify("5", "5")
    assert verify("5", "5", loose=True)
