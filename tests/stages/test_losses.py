"""The stages' loss against the model's own, and against transformers driven by the same loop."""

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import load_records
from minimind_edu.data.tokenized import TokenizedDocuments, tokenize
from minimind_edu.hardware.speed import transformers_loss
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import TrainConfig, fit, read_metrics

SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 50}


def make_model(**changes):
    torch.manual_seed(0)
    return MiniMind(ModelConfig(**(SHAPE | changes)))


def packed_batch(seed, rows=3, length=24):
    """Documents of random lengths and random labels, with padding at the end of some rows."""
    random = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 50, (rows, length), generator=random)
    labels = ids.masked_fill(torch.rand(rows, length, generator=random) < 0.4, -100)
    begins = torch.rand(rows, length, generator=random) < 0.2
    begins[:, 0] = False
    documents = begins.long().cumsum(1)
    labels[begins] = -100
    labels[:, 0] = -100
    for row in range(1, rows):
        padding = int(torch.randint(0, length // 2, (), generator=random))
        if padding:
            documents[row, -padding:] = -1
            labels[row, -padding:] = -100
    return {"input_ids": ids, "labels": labels, "document_ids": documents}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("shape", [{}, {"tie_word_embeddings": False, "qk_norm": False}, {"use_moe": True}])
def test_the_loss_is_the_models_own(seed, shape):
    model, batch = make_model(**shape), packed_batch(seed)
    out = model(**batch)
    model.eval()
    loss, numbers = causal_lm_loss(model, batch)
    assert numbers["tokens"] == int((batch["labels"][:, 1:] != -100).sum())
    torch.testing.assert_close(loss, out.loss, rtol=0, atol=1e-6)
    model.train()
    loss, numbers = causal_lm_loss(model, batch)
    torch.testing.assert_close(loss, out.loss + out.aux_loss, rtol=0, atol=1e-6)
    assert ("aux_loss" in numbers) == bool(shape.get("use_moe"))
    loss.backward()
    ours = [parameter.grad for parameter in model.parameters()]
    other = make_model(**shape)
    out = other(**batch)
    (out.loss + out.aux_loss).backward()
    for gradient, parameter in zip(ours, other.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [{}, {"use_moe": True}])
def test_no_labelled_token_is_no_nan(shape):
    model, batch = make_model(**shape), packed_batch(0)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    loss, numbers = causal_lm_loss(model.eval(), batch)
    assert numbers["tokens"] == 0 and float(loss.detach()) == 0.0


def test_a_packed_batch_costs_what_its_documents_cost_alone():
    documents = [[1, 2, 3, 4], [5, 6, 7], [8, 9, 10, 11, 12, 13], [14, 15]]
    rows = PackedDataset(TokenizedDocuments.from_lists(documents), max_seq_len=9, fill=False)
    model, total, count = make_model().eval(), 0.0, 0
    for row in range(len(rows)):
        loss, numbers = causal_lm_loss(model, {name: tensor[None] for name, tensor in rows[row].items()})
        total, count = total + float(loss.detach()) * numbers["tokens"], count + numbers["tokens"]
    alone = 0.0
    for document in documents:
        ids = torch.tensor([document])
        alone += float(model(ids, labels=ids).loss.detach()) * (len(document) - 1)
    assert count == sum(len(document) - 1 for document in documents)
    assert total == pytest.approx(alone, rel=1e-5)


@pytest.fixture
def play(shared, tmp_path):
    """50 kB of Tiny Shakespeare as rows of 64 tokens, with the size of its vocabulary."""
    source, folder = shared / "data" / "text" / "tinyshakespeare.txt", tmp_path
    (folder / "play.txt").write_text(source.read_text(encoding="utf-8")[:50_000], encoding="utf-8")
    records = load_records(folder / "play.txt", "pretrain", cache_dir=folder)
    texts = (text for batch in records.batches(1_000) for text in batch["text"])
    tokenizer = train_fast(texts, 400)
    documents = tokenize(records, tokenizer, "pretrain", folder)
    return PackedDataset(documents, 64, seed=1), tokenizer.vocab_size


@pytest.mark.parametrize(
    ("family", "shape"),
    [("llama", {"qk_norm": False}), ("qwen3", {}), ("qwen2", {"qk_norm": False, "attention_bias": True})],
)
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_equals_transformers(play, tmp_path, family, shape, optimizer):
    """The same weights, batches and loop: every logged loss agrees within 1% over 30 steps."""
    pytest.importorskip("transformers")
    rows, vocab_size = play
    shape = {"hidden_size": 64, "intermediate_size": 128, "vocab_size": vocab_size, **shape}
    ours = make_model(**shape)
    theirs = ours.to_transformers()
    assert theirs.config.model_type == family
    losses = []
    for name, model, loss in (("ours", ours, causal_lm_loss), ("theirs", theirs, transformers_loss)):
        config = TrainConfig(
            out_dir=str(tmp_path / name), batch_size=4, accumulation_steps=2, learning_rate=4e-3,
            max_steps=30, warmup_iters=5, optimizer=optimizer, log_interval=1, dtype="float32", device="cpu",
        )  # fmt: skip
        fit(model, loss, rows, config, progress=False)
        losses.append([line["loss"] for line in read_metrics(tmp_path / name / "metrics.jsonl")])
    assert len(losses[0]) == 30 and losses[0][-1] < 0.9 * losses[0][0], "something was learned"
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert losses[0][0] == pytest.approx(losses[1][0], rel=1e-5)
