"""The grid of chapter 8: its record is whole, and its measures are what the chapter says."""

import math
from types import SimpleNamespace

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import ch08
from minimind_edu.data.world.files import default_file
from minimind_edu.generation import Completion
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.setup import load_model, model_digest


@pytest.fixture(scope="module")
def tokenizer():
    return artifacts.tokenizer(progress=False)


def tiny(tokenizer, seed=0, scale=1.0):
    torch.manual_seed(seed)
    shape = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1)
    model = MiniMind(shape)
    for parameter in model.parameters():
        parameter.data *= scale
    return model


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("08").cells] == ch08.CELLS


def test_the_part_of_the_gap():
    assert ch08.closed(1.0, labels=1.0, teacher=0.5) == 0
    assert ch08.closed(0.5, labels=1.0, teacher=0.5) == 1
    assert ch08.closed(0.85, labels=1.0, teacher=0.5) == pytest.approx(0.3)
    assert ch08.closed(1.25, labels=1.0, teacher=0.5) == -0.5


def test_some_documents_are_the_first(tmp_path):
    lines = ch08.some_documents(7, tmp_path).read_text(encoding="utf-8").splitlines()
    with default_file("pretrain.jsonl").open(encoding="utf-8") as file:
        assert lines == [next(file).rstrip("\n") for _ in range(7)]


def test_predictions_of_equal_and_of_different_models(tokenizer, tmp_path):
    held_out = ch08.some_documents(20, tmp_path)
    one, other = tiny(tokenizer, scale=4.0), tiny(tokenizer, seed=1)
    same = ch08.predictions(one, one, tokenizer, held_out)
    assert same["forward"] == same["reverse"] == 0 and same["entropy"] == same["teacher_entropy"] > 0
    different = ch08.predictions(other, one, tokenizer, held_out)
    assert different["forward"] > 0 and different["reverse"] > 0
    assert different["teacher_entropy"] == same["entropy"] < different["entropy"] < math.log(2_000)


def test_entropy_by_hand():
    logits = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]]).log()
    assert ch08.entropy(logits).tolist() == pytest.approx([1.5 * math.log(2), math.log(3)])


def test_written_documents_have_an_end(tokenizer, monkeypatch):
    seeds = []

    def complete(model, prompts, seed, **options):
        seeds.append(seed)
        assert all(prompt == [tokenizer.bos_token_id] for prompt in prompts)
        said = (("A whole one.", "stop"), ("cut in the", "length"), (" ", "stop"))
        return [Completion(tokenizer.encode(text), [], reason) for text, reason in said][: len(prompts)]

    monkeypatch.setattr(ch08, "complete", complete)
    assert ch08.write_documents(tiny(tokenizer), tokenizer, 3) == ["A whole one."] * 3
    assert len(set(seeds)) == 3


def test_the_toy():
    assert float(ch08.two_modes().exp().sum()) == pytest.approx(1, abs=1e-5)
    mean, width = ch08.best_peak("forward")
    assert mean == 10 and width > 4
    mean, width = ch08.best_peak("reverse")
    assert mean in (5, 15) and width == pytest.approx(1, abs=0.15)


def test_a_student_has_half_of_everything_and_a_lesson(tokenizer):
    teacher = tiny(tokenizer)
    result, asked = ch08.train_student(
        teacher, tokenizer, "teacher", seed=1, documents=40, steps=1, top_k=3, max_seq_len=64
    )
    assert result.model.config.hidden_size == 8 and result.fit.step == 1 and asked > 0
    result, asked = ch08.train_student(teacher, tokenizer, "labels", seed=1, documents=40, steps=1)
    assert asked == 0


def test_both_ways_differ_in_the_direction_alone(monkeypatch, tokenizer):
    """Both start from the same stored student."""
    asked = []

    def train_student(teacher, tokenizer, lesson, seed, direction, from_weight, **settings):
        start, _ = load_model(from_weight)
        asked.append((lesson, seed, model_digest(start), settings))
        return SimpleNamespace(model=direction), 0.0

    monkeypatch.setattr(ch08, "train_student", train_student)
    monkeypatch.setattr(ch08, "held_out_loss", lambda model, tokenizer: SimpleNamespace(loss=len(model)))
    monkeypatch.setattr(ch08, "predictions", lambda model, teacher, tokenizer: {"entropy": model.upper()})
    start = tiny(tokenizer)
    assert ch08.both_ways(start, None, tokenizer, seed=3) == {
        "forward": {"loss": 7, "entropy": "FORWARD"},
        "reverse": {"loss": 7, "entropy": "REVERSE"},
    }
    assert asked[0] == asked[1] and asked[0][:3] == ("teacher", 3, model_digest(start))
