"""Advice: every command line that is given parses, trains what it says, and fits."""

import shlex

import pytest

from minimind_edu import ModelConfig
from minimind_edu.cli import parse
from minimind_edu.commands import COMMANDS
from minimind_edu.hardware.advice import advice, command_line, from_settings, preset_of, ways
from minimind_edu.hardware.cards import GIB, Card, find_card
from minimind_edu.hardware.estimate import estimate_work, needed, workload
from minimind_edu.hardware.workload import STAGES

SMALL = ModelConfig.preset("qwen3-tiny").replace(vocab_size=6400)
CARD = find_card("3090")


def small_card(usable, dtype=(8, 6)):
    return Card("small", usable, dtype, {"bfloat16": 1e13, "float16": 1e13}, 1e11, measured_capacity=usable)


def parsed(line, config, card):
    """The step that a command line leads to."""
    words = shlex.split(line)
    assert words[0] == "minimind-edu"
    name, settings = parse(words[1:], COMMANDS)
    settings.validate()
    return from_settings(name, settings, config, card)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("preset", ["edu", "minimind2", "minimind-3-moe", "miniqwen"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_command_lines_lead_to_the_step_they_are_for(stage, preset, checkpointing):
    work = workload(preset, stage, CARD, seq_len=384, gradient_checkpointing=checkpointing)
    if stage == "distill":
        work = work.replace(teacher=work.config)
    assert parsed(command_line(work), work.config, CARD) == work


def test_command_lines_of_settings_that_are_not_usual():
    work = workload("edu", "pretrain", CARD, 12, 96, "float32", optimizer="muon", accumulation_steps=3)
    line = command_line(work)
    assert parsed(line, work.config, CARD) == work
    assert "--optimizer" not in line  # the command's own default
    lora = workload("edu", "lora", CARD, 4, rank=3, targets=("o_proj", "up_proj"))
    assert parsed(command_line(lora), lora.config, CARD) == lora
    grpo = workload("edu", "grpo", CARD, 8, 300, rollout_rows=48, group_size=6, new_tokens=100)
    assert parsed(command_line(grpo), grpo.config, CARD) == grpo


@pytest.mark.parametrize("name", ModelConfig.presets())
def test_every_preset_is_known_by_its_shape(name):
    found = preset_of(ModelConfig.preset(name))
    assert ModelConfig.preset(found) == ModelConfig.preset(name)


def test_a_shape_that_is_no_preset_is_made_of_one():
    for changes in (
        {"num_hidden_layers": 5},
        {"hidden_size": 384, "num_attention_heads": 6},
        {"vocab_size": 999},
    ):
        config = ModelConfig.preset("minimind2-small").replace(**changes)
        work = workload(config, "pretrain", CARD)
        assert parsed(command_line(work), ModelConfig.preset("edu"), CARD) == work
    with pytest.raises(ValueError, match="no preset becomes this shape"):
        command_line(workload(config.replace(rope_theta=77.0), "pretrain", CARD))


@pytest.mark.parametrize("share", [0.02, 0.1, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("stage", STAGES)
def test_every_advice_fits_and_its_command_leads_there(stage, share):
    asked = workload(SMALL, stage, CARD, 16, 512)
    fixed = needed(asked.replace(batch_size=1)).total
    card = small_card(int(fixed + share * (needed(asked).total - fixed)))
    found = advice(asked, card)
    assert found
    for one in found:
        assert estimate_work(one.work, card).fits
        assert parsed(one.command, asked.config, card) == one.work
        assert one.change and one.harm


@pytest.mark.parametrize("stage", ["pretrain", "sft", "dpo", "grpo"])
def test_the_first_advice_changes_no_result(stage):
    """The same rows in a step, of the same length, in the same number format."""
    asked = workload(SMALL, stage, CARD, 16, 512)
    fixed = needed(asked.replace(batch_size=1)).total
    first = advice(asked, small_card(int(fixed + 0.4 * (needed(asked).total - fixed))))[0]
    assert first.harm.startswith("none")
    kept = first.work.replace(batch_size=16, accumulation_steps=asked.accumulation_steps)
    assert kept == asked and first.work.batch_size < 16
    if stage != "grpo":
        assert first.work.batch_size * first.work.accumulation_steps == 16
    else:
        assert first.work.batch_size * first.work.accumulation_steps >= asked.rollout_rows


def test_gradients_that_stay_between_passes_count():
    """A batch that just fits alone does not fit with accumulation."""
    config = ModelConfig.preset("minimind2-small")
    asked = workload(config, "pretrain", CARD, 16, 32)
    alone = asked.replace(batch_size=8)
    two = alone.replace(accumulation_steps=2)
    card = small_card((needed(alone).total + needed(two).total) // 2)
    assert needed(alone).total < card.usable < needed(two).total
    assert all(needed(one.work).total <= card.usable for one in advice(asked, card))


def test_what_fits_needs_no_advice():
    work = workload(SMALL, "pretrain", CARD, 2, 64)
    assert advice(work, CARD) == [] and list(ways(work, CARD)) == []


def test_what_is_hopeless_gets_none():
    assert advice(workload("minimind2-272m", "pretrain", find_card("1650")), find_card("1650")) == []


def test_sixteen_bits_are_advised_where_the_card_has_them():
    asked = workload(SMALL, "pretrain", CARD, 16, 512, "float32")
    changes = [one.change for one in advice(asked, small_card(needed(asked).total // 2))]
    assert any("bfloat16" in change for change in changes)
    old = advice(asked, small_card(needed(asked).total // 2, (6, 1)))
    assert not any("float16" in one.change for one in old)


def test_adapters_are_advised_for_fine_tuning_only():
    for stage, expected in {"sft": True, "reason": True, "pretrain": False, "dpo": False}.items():
        asked = workload(SMALL, stage, CARD, 16, 512)
        fixed = needed(asked.replace(batch_size=1)).total
        found = advice(asked, small_card((fixed + needed(asked).total) // 2))
        assert any("LoRA" in one.change for one in found) is expected


def test_a_prime_batch_keeps_a_sensible_size():
    asked = workload(SMALL, "pretrain", CARD, 31, 256)
    first = advice(asked, small_card(int(needed(asked).total * 0.8)))[0]
    assert first.work.batch_size > 15 and first.work.batch_size * first.work.accumulation_steps >= 31


@pytest.mark.parametrize("preset", ["minimind2-small", "minimind2", "minimind-3"])
def test_the_smallest_card_trains_the_published_models_with_advice(preset):
    card = find_card("1650")
    asked = workload(preset, "pretrain", card)
    assert needed(asked).total > card.usable
    first = next(ways(asked, card))
    assert needed(first.work).total <= card.usable == int(card.usable) < 4 * GIB
    assert parsed(first.command, asked.config, card) == first.work
