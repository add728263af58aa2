"""Distillation: the stage from a teacher's folder to a student's."""

import json

import pytest
import torch
from small_stages import SENTENCES, interrupted, state

from minimind_edu.config import ModelConfig
from minimind_edu.evaluation import perplexity
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages import distill as distill_module
from minimind_edu.stages.distill import DistillConfig, distill, distill_loss, half, white_box_loss
from minimind_edu.stages.pretrain import causal_lm_loss
from minimind_edu.stages.setup import load_model, save_model
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import CheckpointError, Interrupted, read_metrics

DIRECTIONS = ("forward", "reverse")
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with documents and conversations, and two teachers that know nothing: dense and MoE."""
    folder = tmp_path_factory.mktemp("world")
    tokenizer = train_fast(SENTENCES, 300)
    (folder / "pretrain.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in SENTENCES))
    chats = [
        [{"role": "user", "content": f"Who are you, {n}?"}, {"role": "assistant", "content": text}]
        for n, text in enumerate(SENTENCES)
    ]
    (folder / "sft.jsonl").write_text("\n".join(json.dumps({"conversations": chat}) for chat in chats))
    for name, changes in (("dense", {}), ("moe", {"use_moe": True, "num_experts": 3})):
        torch.manual_seed(7)
        teacher = MiniMind(ModelConfig(**SHAPE, vocab_size=300, max_position_embeddings=64, **changes))
        for parameter in teacher.parameters():
            parameter.data *= 4  # so that it has opinions
        save_model(teacher, tokenizer, folder / name)
    return folder


def settings(world, out_dir, **changes):
    plain = {
        "data_path": str(world / "pretrain.jsonl"), "cache_dir": str(world / "cache"),
        "out_dir": str(out_dir), "teacher": str(world / "dense"), "max_seq_len": 32, "batch_size": 4,
        "epochs": 2, "device": "cpu", "dtype": "float32", "log_interval": 1, "temperature": 2.0,
    }  # fmt: skip
    return DistillConfig(**(plain | changes))


def losses(folder):
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl") if "loss" in line]


def a_batch(world, student, **changes):
    """The first batch of a run, and the run's loss on it."""
    config = settings(world, world / "unused", **changes)
    teacher, tokenizer = load_model(config.teacher)
    records = distill_module.read_records(config, "pretrain", "", False)
    rows = distill_module.packed_rows(config, "pretrain", records, tokenizer, False)
    data = distill_module.taught(config, rows, teacher.eval(), False)
    batch = torch.utils.data.default_collate([data.train[row] for row in range(4)])
    return batch, teacher, white_box_loss(config, teacher)(student, batch)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("teacher", ["dense", "moe"])
@pytest.mark.parametrize("top_k", [0, 300, 1000])
def test_the_stages_loss_is_distill_loss(world, direction, teacher, top_k):
    """With the teacher in every step, and with the whole of its distributions from the cache."""
    torch.manual_seed(1)
    student = MiniMind(half(ModelConfig(**SHAPE, vocab_size=300, max_position_embeddings=64))).train()
    options = {"teacher": str(world / teacher), "direction": direction, "alpha": 0.25, "top_k": top_k}
    batch, model, (loss, numbers) = a_batch(world, student, **options)
    inputs = {name: batch[name] for name in ("input_ids", "document_ids")}
    with torch.no_grad():
        expected = model(**inputs).logits
    whole = distill_loss(student(**inputs).logits, expected, batch["labels"], 0.25, 2.0, direction)
    tolerance = 1e-3 if top_k else 1e-5  # the cache keeps 16 bits
    torch.testing.assert_close(loss, whole, rtol=tolerance, atol=0)
    assert numbers["tokens"] == int((batch["labels"][:, 1:] != -100).sum())
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(one, list(student.parameters()))])
        for one in (loss, whole)
    ]
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < tolerance


def test_the_cached_loss_rises_to_the_whole_with_k(world):
    torch.manual_seed(1)
    student = MiniMind(half(ModelConfig(**SHAPE, vocab_size=300, max_position_embeddings=64))).train()
    found = [float(a_batch(world, student, alpha=0.0, top_k=k)[2][0].detach()) for k in (1, 4, 32, 128, 300)]
    online = float(a_batch(world, student, alpha=0.0)[2][0].detach())
    assert found == sorted(found) and found[0] < 0.8 * online
    assert found[-1] == pytest.approx(online, rel=1e-3)


@pytest.mark.parametrize("options", [{}, {"top_k": 300}, {"alpha": 0.0, "top_k": 8}])
def test_the_student_learns_the_teacher(world, tmp_path, options):
    result = distill(settings(world, tmp_path, **options, epochs=12), progress=False)
    found = losses(tmp_path)
    assert found[-1] < 0.7 * found[0]
    model, tokenizer = load_model(result.model_dir)
    assert torch.equal(state(model), state(result.model))
    assert model.config.hidden_size == 16 and model.config.num_hidden_layers == 1
    assert tokenizer.fingerprint == load_model(world / "dense")[1].fingerprint


def test_the_teacher_runs_without_a_gradient_under_the_students_autocast(world, tmp_path, monkeypatch):
    own, seen = MiniMind.head, set()

    def watch(model, hidden):
        logits = own(model, hidden)
        name = "teacher" if model.config.hidden_size == 32 else "student"
        seen.add((name, logits.requires_grad, logits.dtype))
        return logits

    monkeypatch.setattr(MiniMind, "head", watch)
    distill(settings(world, tmp_path / "a", dtype="bfloat16", max_steps=1), progress=False)
    distill(settings(world, tmp_path / "b", dtype="bfloat16", max_steps=1, top_k=2), progress=False)
    assert [kind for kind in seen if kind[0] == "teacher"] == [("teacher", False, torch.bfloat16)]
    assert ("student", True, torch.bfloat16) in seen


def test_alpha_one_is_pretraining_and_never_asks_the_teacher(world, tmp_path, monkeypatch):
    monkeypatch.setattr(distill_module, "teacher_top_k", None)
    student = distill(settings(world, tmp_path / "a", alpha=1.0, top_k=4), progress=False)
    monkeypatch.setattr(distill_module, "white_box_loss", lambda config, teacher: causal_lm_loss)
    same = distill(settings(world, tmp_path / "b", alpha=1.0), progress=False)
    assert torch.equal(state(student.model), state(same.model))


def test_the_validation_loss_is_cross_entropy(world, tmp_path):
    config = settings(world, tmp_path, alpha=0.0, max_steps=1, learning_rate=1e-9, val_fraction=0.5)
    result = distill(config, progress=False)
    assert result.fit.validation_loss == pytest.approx(float(torch.tensor(300.0).log()), rel=0.05)
    assert losses(tmp_path)[0] < 3  # T^2 KL, far from it


def test_the_cache_serves_a_second_run_without_the_teacher(world, tmp_path, monkeypatch):
    options = {"top_k": 5, "cache_dir": str(tmp_path / "cache")}
    first = distill(settings(world, tmp_path / "a", **options), progress=False)
    asked = []
    monkeypatch.setattr("minimind_edu.stages.teacher._ask", lambda *a: asked.append(1))
    own = MiniMind.hidden_states

    def refuse_the_teacher(model, *arguments, **options):
        assert model.config.hidden_size == 16, "the teacher ran"
        return own(model, *arguments, **options)

    monkeypatch.setattr(MiniMind, "hidden_states", refuse_the_teacher)
    second = distill(settings(world, tmp_path / "b", **options), progress=False)
    assert not asked and torch.equal(state(first.model), state(second.model))


@pytest.mark.parametrize("top_k", [0, 6])
def test_stopped_and_resumed(world, tmp_path, monkeypatch, top_k):
    options = {"top_k": top_k, "dropout": 0.2}
    whole = distill(settings(world, tmp_path / "whole", **options), progress=False)
    monkeypatch.setattr(
        distill_module, "white_box_loss", lambda *given: interrupted(white_box_loss(*given), call=3)
    )
    with pytest.raises(Interrupted):
        distill(settings(world, tmp_path / "parts", **options), progress=False)
    monkeypatch.undo()
    parts = distill(settings(world, tmp_path / "parts", from_resume=1, **options), progress=False)
    assert whole.fit.step > 3 and torch.equal(state(parts.model), state(whole.model))


def test_resume_refuses_another_lesson(world, tmp_path):
    distill(settings(world, tmp_path), progress=False)
    for change in (
        {"alpha": 0.4}, {"temperature": 1.0}, {"direction": "reverse"}, {"top_k": 3},
        {"teacher": str(world / "moe"), "hidden_size": 16, "num_hidden_layers": 1},
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match="data was .* and is now"):
            distill(settings(world, tmp_path, from_resume=1, **change), progress=False)


def test_conversations_teach_on_answers_only(world, tmp_path):
    options = {"data_kind": "sft", "data_path": str(world / "sft.jsonl"), "max_seq_len": 64, "epochs": 6}
    for top_k in (0, 300):
        folder = tmp_path / str(top_k)
        distill(settings(world, folder, top_k=top_k, **options), progress=False)
        assert losses(folder)[-1] < 0.8 * losses(folder)[0]
    assert losses(tmp_path / "0") == pytest.approx(losses(tmp_path / "300"), rel=5e-3)


def test_an_moe_teacher_gives_a_dense_student_and_shapes_are_free(world, tmp_path):
    student = distill(
        settings(world, tmp_path / "a", teacher=str(world / "moe"), max_steps=2), progress=False
    )
    assert not student.model.config.use_moe
    shape = {
        "preset": "edu",
        "hidden_size": 24,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "use_moe": 1,
    }
    other = distill(settings(world, tmp_path / "b", **shape, max_steps=2), progress=False)
    assert other.model.config.use_moe and other.model.config.hidden_size == 24
    assert any("aux_loss" in line for line in read_metrics(tmp_path / "b" / "metrics.jsonl"))


def test_going_on_with_a_student(world, tmp_path):
    first = distill(settings(world, tmp_path / "a", epochs=1), progress=False)
    config = settings(world, tmp_path / "b", from_weight=str(tmp_path / "a"), max_steps=1, learning_rate=1e-9)
    again = distill(config, progress=False)
    torch.testing.assert_close(state(again.model), state(first.model), rtol=1e-3, atol=1e-3)


def test_another_tokenizer_is_refused(world, tmp_path):
    tokenizer = train_fast([*SENTENCES, "something else altogether"] * 3, 296)
    save_model(MiniMind(ModelConfig(**SHAPE, vocab_size=300)), tokenizer, tmp_path / "other")
    with pytest.raises(ValueError, match="different tokenizers"):
        distill(settings(world, tmp_path / "run", from_weight=str(tmp_path / "other")), progress=False)
    same, wider = load_model(world / "dense")[1], MiniMind(ModelConfig(**SHAPE, vocab_size=310))
    save_model(wider, same, tmp_path / "wider")
    with pytest.raises(ValueError, match="different tokenizers"):
        distill(settings(world, tmp_path / "run", from_weight=str(tmp_path / "wider")), progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": 2.0}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"direction": "sideways"}, "direction"),
        ({"top_k": -1}, "top_k"),
        ({"data_kind": "dpo"}, "data_kind"),
        ({"teacher": "nowhere"}, "no model here"),
        ({"max_seq_len": 65}, "reads 64 tokens"),
        ({"use_moe": 1}, "use_moe"),
    ],
)
def test_settings_without_sense(world, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        distill(settings(world, tmp_path, **change), progress=False)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "expected"),
    [(2, 1, (1, 1)), (8, 2, (4, 1)), (10, 5, (5, 1)), (6, 2, (3, 1)), (1, 1, (1, 1))],
)
def test_half_of_a_shape(heads, kv_heads, expected):
    shape = ModelConfig(
        hidden_size=16 * heads, num_attention_heads=heads, num_key_value_heads=kv_heads, num_hidden_layers=5,
        use_moe=True,
    )  # fmt: skip
    small = half(shape)
    assert (small.num_attention_heads, small.num_key_value_heads) == expected
    assert small.hidden_size == 8 * heads and small.num_hidden_layers == 2 and not small.use_moe
    assert small.vocab_size == shape.vocab_size


@pytest.mark.parametrize(("kind", "name"), [("pretrain", "pretrain_demo.jsonl"), ("sft", "sft_demo.jsonl")])
def test_on_real_files_the_held_out_loss_falls(shared, tmp_path, kind, name):
    """MiniMind's own layouts; the teacher is trained on them too, as in life."""
    path = shared / "data" / "minimind_format" / name
    texts = path.read_text(encoding="utf-8").splitlines()
    tokenizer = train_fast(texts, 400, split_digits=True)
    torch.manual_seed(0)
    big = ModelConfig(hidden_size=64, num_hidden_layers=2, vocab_size=tokenizer.vocab_size)
    save_model(MiniMind(big), tokenizer, tmp_path / "start")
    common = {
        "data_path": str(path), "data_kind": kind, "cache_dir": str(tmp_path / "cache"), "max_seq_len": 128,
        "val_fraction": 0.2, "batch_size": 8, "device": "cpu", "dtype": "float32", "eval_interval": 1,
    }  # fmt: skip
    start = str(tmp_path / "start")
    config = DistillConfig(
        **common, teacher=start, from_weight=start, alpha=1.0, epochs=20, out_dir=str(tmp_path / "teacher")
    )
    distill(config, progress=False)
    config = DistillConfig(
        **common,
        teacher=str(tmp_path / "teacher"),
        alpha=0.0,
        top_k=16,
        epochs=20,
        out_dir=str(tmp_path / "run"),
    )
    result = distill(config, progress=False)
    lines = read_metrics(tmp_path / "run" / "metrics.jsonl")
    held_out = [line["validation_loss"] for line in lines if "validation_loss" in line]
    assert held_out[-1] < 0.7 * held_out[0]
    assert result.fit.validation_loss == pytest.approx(held_out[-1])
    if kind == "pretrain":
        assert (
            perplexity(result.model, result.tokenizer, path, 128, cache_dir=tmp_path / "cache").loss
            < held_out[0]
        )
