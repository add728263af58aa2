"""The grid of chapter 9: its record is whole, and its measures are what the chapter says."""

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import SweepRecord, ch09, ch09_figures
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.grpo import Group
from minimind_edu.stages.verify import extract_answer, follows_format, loose_verify, verify


@pytest.fixture(scope="module")
def tokenizer():
    return artifacts.tokenizer(progress=False)


def tiny(tokenizer):
    torch.manual_seed(0)
    shape = ModelConfig(vocab_size=tokenizer.vocab_size, hidden_size=16, num_hidden_layers=1)
    return MiniMind(shape)


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("09").cells] == ch09.CELLS


def test_both_lessons_are_about_the_same_sums():
    first, direct = (ch09.training_records(thinking, 20) for thinking in (True, False))
    for one, other in zip(first, direct, strict=True):
        asked, told = (record["conversations"] for record in (one, other))
        assert asked[0] == told[0] and len(asked[1]["content"]) > len(told[1]["content"])
        assert asked[1]["content"].split("<answer>")[1] == told[1]["content"].split("<answer>")[1]


def test_no_training_record_asks_for_a_held_out_sum():
    asked = {record["conversations"][0]["content"] for record in ch09.training_records(True, 500)}
    assert not asked & {problem.question for problem in ch09.held_out(500)}


def test_a_cold_start_changes_the_model_and_keeps_nothing(tokenizer):
    model = tiny(tokenizer)
    before = next(model.parameters()).clone()
    seen = []
    result = ch09.cold_start(
        model,
        tokenizer,
        ch09.training_records(True, 300),
        seen.append,
        max_steps=2,
        batch_size=1,
        log_interval=1,
    )
    assert result.step == 2 and len(seen) >= 2
    assert not torch.equal(before, next(model.parameters()))


def test_hedged_answers_fool_the_loose_verifier_only():
    for problem, record in zip(ch09.held_out(30), map(ch09.hedged, ch09.held_out(30)), strict=True):
        text = record["conversations"][1]["content"]
        assert follows_format(text) and loose_verify(text, problem.gt) and not verify(text, problem.gt)


def test_a_slip_is_one_digit_of_the_answer():
    for problem in ch09.held_out(30):
        text = ch09.slip(problem)["conversations"][1]["content"]
        assert follows_format(text) and not verify(text, problem.gt)
        assert sum(a != b for a, b in zip(text, problem.response(), strict=True)) == 1
        assert extract_answer(text) == str(int(extract_answer(text)))


def group(rewards, texts):
    return Group(
        "1 < 2?", "3", tuple(texts), tuple(rewards), (1.0, -1.0), (True, False), (1, 1), (False, False)
    )


def test_groups_are_shown_with_their_text_escaped():
    shown = ch09_figures.group_html(7, group((0.0, 1.0), ("<answer>\n4", "<answer>\n3")))
    assert "step 7" in shown and "1 &lt; 2?" in shown and "<answer>" not in shown
    assert shown.index("&lt;answer&gt; 3") < shown.index("&lt;answer&gt; 4")  # the better one first


def test_smoothing():
    assert ch09_figures.smooth([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]


def test_gain_and_cost_of_a_weight_are_the_least_of_the_seeds():
    cells = [
        (
            {"experiment": "tags", "weight": weight, "seed": seed},
            {"tags": [0.0, share], "cross_entropy": [2.0, 2.0 + 2 * share]},
        )
        for seed, light, heavy in ((1, 0.2, 0.8), (2, 0.2, 0.4), (3, 0.0, 1.0))
        for weight, share in ((1, light), (10, heavy))
    ]
    grid = SweepRecord("", {}, cells)
    assert ch09.tag_gain(grid) == pytest.approx(0.1)
    assert ch09.tag_cost(grid) == pytest.approx(2.4 / 2.2)


def test_tags_that_are_known(tokenizer, monkeypatch):
    """A model that always says the right next token, and one that gets one token of a tag wrong."""
    problem = ch09.held_out(1)[0]
    ids = tokenizer.encode_chat(problem.record()["conversations"]).input_ids

    class Oracle(torch.nn.Module):
        wrong_at = None

        def forward(self, given):
            following = torch.cat([given[:, 1:], given[:, :1]], dim=1)
            if self.wrong_at is not None:
                following[:, self.wrong_at - 1] = 0
            return type("Output", (), {"logits": torch.nn.functional.one_hot(following, 3_000).float()})

    oracle = Oracle()
    monkeypatch.setattr(ch09, "held_out", lambda count: [problem])
    assert ch09.tags_known(oracle, tokenizer) == 1
    oracle.wrong_at = next(n for n, one in enumerate(ids) if tokenizer.decode([one]) == "</think>")
    assert ch09.tags_known(oracle, tokenizer) == 0
    oracle.wrong_at -= 5  # somewhere in the thoughts
    assert ch09.tags_known(oracle, tokenizer) == 1


def test_reinforcement_measures_before_and_after(tokenizer, monkeypatch):
    monkeypatch.setattr(ch09, "start_model", lambda: (tiny(tokenizer), tokenizer))
    changes = {"prompts_per_step": 2, "group_size": 2, "max_steps": 2, "max_new_tokens": 5}
    monkeypatch.setattr(ch09, "LONGEST", 5)
    monkeypatch.setattr(ch09, "held_out", lambda count, digits=3: list(ch09.problems("sums", 3, digits)))
    numbers = ch09.reinforce(1, **changes)
    assert numbers["before"]["accuracy"] == 0 and len(numbers["after"]["pass"]) == len(ch09.KS)
    assert len(numbers["curves"]["reward"]) == 2 and len(numbers["curves"]["dead_groups"]) == 2
