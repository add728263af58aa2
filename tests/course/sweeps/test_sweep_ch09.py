"""The grid of chapter 9: its record is whole, and its measures are what the chapter says."""

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import SweepRecord, ch09, ch09_figures, ch09_kinds, ch09_rl, ch09_start
from minimind_edu.data.problems import problems
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
    first, direct = (ch09_start.training_records(thinking, 20) for thinking in (True, False))
    for one, other in zip(first, direct, strict=True):
        asked, told = (record["conversations"] for record in (one, other))
        assert asked[0] == told[0] and len(asked[1]["content"]) > len(told[1]["content"])
        assert asked[1]["content"].split("<answer>")[1] == told[1]["content"].split("<answer>")[1]


def test_no_training_record_asks_for_a_held_out_sum():
    asked = {record["conversations"][0]["content"] for record in ch09_start.training_records(True, 500)}
    assert not asked & {problem.question for problem in ch09_start.held_out(500)}


def test_a_cold_start_changes_the_model_and_keeps_nothing(tokenizer):
    model = tiny(tokenizer)
    before = next(model.parameters()).clone()
    seen = []
    result = ch09_start.cold_start(
        model,
        tokenizer,
        ch09_start.training_records(True, 300),
        seen.append,
        max_steps=2,
        batch_size=1,
        log_interval=1,
    )
    assert result.step == 2 and len(seen) >= 2
    assert not torch.equal(before, next(model.parameters()))


def test_hedged_answers_fool_the_loose_verifier_only():
    for problem, record in zip(
        ch09_start.held_out(30), map(ch09_rl.hedged, ch09_start.held_out(30)), strict=True
    ):
        text = record["conversations"][1]["content"]
        assert follows_format(text) and loose_verify(text, problem.gt) and not verify(text, problem.gt)


def test_a_slip_is_one_digit_of_the_answer():
    for problem in ch09_start.held_out(30):
        text = ch09_rl.slip(problem)["conversations"][1]["content"]
        assert follows_format(text) and not verify(text, problem.gt)
        assert sum(a != b for a, b in zip(text, problem.response(), strict=True)) == 1
        assert extract_answer(text) == str(int(extract_answer(text)))


def test_a_guess_is_a_number_of_as_many_digits():
    found = [
        (problem, extract_answer(ch09_rl.guess(problem)["conversations"][1]["content"]))
        for problem in ch09_start.held_out(200)
    ]
    assert all(
        len(guessed) == len(problem.answer) and guessed == str(int(guessed)) for problem, guessed in found
    )
    assert sum(guessed == problem.answer for problem, guessed in found) <= 3


def test_bare_records_have_thoughts_and_answer_and_no_tag():
    for problem in ch09_start.held_out(10):
        text = ch09_start.bare(problem)["conversations"][1]["content"]
        assert "<" not in text and text.splitlines()[-1] == problem.answer
        assert text.splitlines()[:-1] == problem.trace.splitlines()


def test_the_layout_is_looked_at_by_step(tokenizer, monkeypatch):
    monkeypatch.setattr(ch09_start, "fluent_model", lambda: (tiny(tokenizer), tokenizer))
    monkeypatch.setattr(ch09_start, "LAYOUT", {"first": 2, "last": 3, "every": 1})
    found = ch09_start.learn_layout(weight=10, seed=1, count=2)
    assert found == {"steps": [2, 3], "greedy": [0.0, 0.0], "sampled": [0.0, 0.0]}


def test_only_right_traces_are_kept():
    problem, other = ch09_start.held_out(2)
    known = {problem.question: problem.gt}
    good, bad = (problem.record()["conversations"], ch09_rl.slip(problem)["conversations"])
    assert ch09_kinds._is_right(good, known) and not ch09_kinds._is_right(bad, known)
    assert not ch09_kinds._is_right([good[0], other.record()["conversations"][1]], known)


def test_a_kind_is_measured_by_difficulty(tokenizer, monkeypatch):
    monkeypatch.setattr(ch09_kinds.artifacts, "base_model", lambda progress: (tiny(tokenizer), tokenizer))
    monkeypatch.setattr(ch09_kinds, "KIND_STEPS", 1)
    monkeypatch.setattr(ch09_kinds, "LONGEST", 3)
    monkeypatch.setattr(ch09_kinds, "KIND_RECORDS", 300)
    found = ch09_kinds.learn_kind("words", thinking=False, seed=1, count=2)
    assert found["accuracy"] == {"2": 0.0, "3": 0.0} and found["steps"] == 1


def run_of(before, after):
    return {"before": {"accuracy": before}, "after": {"accuracy": after}}


def test_gains_by_where_they_start():
    cells = [({"experiment": "sparse", "guessed": share}, run_of(*pair)) for share, pair in
             ((0.2, (0.75, 1.0)), (0.9, (0.0, 0.0)), (0.5, (0.25, 0.75)))]  # fmt: skip
    assert ch09_figures.gains(SweepRecord("", {}, cells), "sparse") == [(0.0, 0.0), (0.25, 0.5), (0.75, 0.25)]


def test_the_gain_of_a_layout_is_the_least_of_the_seeds():
    cells = [
        ({"experiment": "layout", "weight": weight, "seed": seed}, {"greedy": [0.0, share]})
        for seed, light, heavy in ((1, 0.2, 0.8), (2, 0.4, 0.6))
        for weight, share in ((1, light), (10, heavy))
    ]
    assert ch09_figures.layout_gain(SweepRecord("", {}, cells), "greedy") == pytest.approx(0.1)


def group(rewards, texts):
    return Group(
        "1 < 2?", "3", tuple(texts), tuple(rewards), (1.0, -1.0), (True, False), (1, 1), (False, False)
    )


def test_groups_are_shown_with_their_text_escaped():
    shown = ch09_figures.group_html(7, group((0.0, 1.0), ("<answer>\n4", "<answer>\n3")))
    assert "step 7" in shown and "1 &lt; 2?" in shown and "<answer>" not in shown
    assert shown.index("&lt;answer&gt; 3") < shown.index("&lt;answer&gt; 4")  # the better one first
    assert shown.count("<tr") == shown.count('<tr style="background:') == 3  # readable in a dark theme too


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
    assert ch09_start.tag_gain(grid) == pytest.approx(0.1)
    assert ch09_start.tag_cost(grid) == pytest.approx(2.4 / 2.2)


def test_tags_that_are_known(tokenizer, monkeypatch):
    """A model that always says the right next token, and one that gets one token of a tag wrong."""
    problem = ch09_start.held_out(1)[0]
    ids = tokenizer.encode_chat(problem.record()["conversations"]).input_ids

    class Oracle(torch.nn.Module):
        wrong_at = None

        def forward(self, given):
            following = torch.cat([given[:, 1:], given[:, :1]], dim=1)
            if self.wrong_at is not None:
                following[:, self.wrong_at - 1] = 0
            return type("Output", (), {"logits": torch.nn.functional.one_hot(following, 3_000).float()})

    oracle = Oracle()
    monkeypatch.setattr(ch09_start, "held_out", lambda count: [problem])
    assert ch09_start.tags_known(oracle, tokenizer) == 1
    oracle.wrong_at = next(n for n, one in enumerate(ids) if tokenizer.decode([one]) == "</think>")
    assert ch09_start.tags_known(oracle, tokenizer) == 0
    oracle.wrong_at -= 5  # somewhere in the thoughts
    assert ch09_start.tags_known(oracle, tokenizer) == 1


def test_reinforcement_measures_before_and_after(tokenizer, monkeypatch):
    monkeypatch.setattr(ch09_rl, "start_model", lambda: (tiny(tokenizer), tokenizer))
    changes = {"prompts_per_step": 2, "group_size": 2, "max_steps": 2, "max_new_tokens": 5}
    monkeypatch.setattr(ch09_rl, "LONGEST", 5)
    monkeypatch.setattr(ch09_rl, "held_out", lambda count, digits=3: list(problems("sums", 3, digits)))
    numbers = ch09_rl.reinforce(1, **changes)
    assert numbers["before"]["accuracy"] == 0 and len(numbers["after"]["pass"]) == len(ch09_rl.KS)
    assert len(numbers["curves"]["reward"]) == 2 and len(numbers["curves"]["dead_groups"]) == 2
