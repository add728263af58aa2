"""Estimates: what they add up to, what is asked of whom, and where they agree with reports."""

import math

import pytest

from minimind_edu import ModelConfig
from minimind_edu.hardware import speeds
from minimind_edu.hardware.cards import CARDS, GIB, Card, find_card
from minimind_edu.hardware.estimate import (
    FULL_SIZE,
    estimate,
    estimate_work,
    largest_batch,
    needed,
    rows_of_step,
    workload,
)
from minimind_edu.hardware.flops import flops
from minimind_edu.hardware.memory import memory
from minimind_edu.hardware.reported import REPORTED, known_runs
from minimind_edu.hardware.wording import duration
from minimind_edu.hardware.workload import STAGES, Workload

EDU = ModelConfig.preset("edu")


@pytest.fixture(autouse=True)
def no_calibration(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path))


def test_memory_and_flops_are_those_of_the_models():
    found = estimate(EDU, "pretrain", 4, 64, card="3090", optimizer="muon")
    work = Workload(EDU, "pretrain", 4, 64, "bfloat16", "cuda", optimizer="muon")
    assert found.work == work
    assert found.memory_bytes == {**memory(work).parts, "total": memory(work).total}
    assert sum(size for name, size in found.memory_bytes.items() if name != "total") == found.memory.total
    assert found.flops_per_token == flops(work).per_token and found.moment == memory(work).moment


def test_hours_follow_from_rows_epochs_and_steps():
    found = estimate(EDU, "pretrain", 4, 64, card="3090", rows=1001, epochs=3, accumulation_steps=2)
    assert found.steps == 3 * math.ceil(1001 / 8) and found.tokens == 3 * 1001 * 64
    low, mid, high = found.step_seconds
    assert found.hours == tuple(found.steps * value / 3600 for value in (low, mid, high))
    assert 0 < low < mid < high
    assert found.padding is None and estimate(EDU, card="3090").hours is None


def test_cost_is_hours_times_price():
    found = estimate(EDU, "pretrain", 4, 64, card="A40", rows=1000, price_per_hour=2.5)
    assert found.cost == pytest.approx([2.5 * hours for hours in found.hours])
    assert estimate(EDU, card="A40", rows=1000).cost is None  # no price without a source
    rented = estimate(EDU, card="3090", rows=1000)
    assert rented.cost[1] == pytest.approx(1.3 * rented.hours[1]) and "README" in rented.summary()


def test_the_published_file_is_known_by_its_rows():
    found = estimate("minimind-3", card="3090", rows=1_270_238)
    assert found.work.seq_len == 340 and found.padding == pytest.approx(0.236, abs=0.001)
    assert "24% padding" in found.summary() and "1,270,238 rows" in found.summary()
    packed = duration(found.hours[1] * 3600 * 0.33e9 / (1_270_238 * 340))
    assert f"the same texts take {packed}" in found.summary()
    assert estimate("minimind-3", card="3090", rows=1_270_238, seq_len=256).padding is None
    assert estimate("minimind-3", "sft", card="3090", rows=1_270_238).work.seq_len == 512


@pytest.mark.parametrize("name", ["minimind-3", "minimind-3-moe"])
@pytest.mark.parametrize("packed", [False, True])
def test_estimates_against_reports_whose_tokens_are_known(name, packed):
    """1.21 h and 1.69 h for 1,270,238 rows of 340 tokens on an RTX 3090; no report predicts itself."""
    found = estimate(name, "pretrain", 32, 340, card="RTX 3090", rows=1_270_238, packed=packed)
    reported = next(row.hours for row in REPORTED if row.preset == name and row.file == "pretrain_mini")
    assert 0.5 < found.hours[1] / reported < 2
    assert found.hours[0] < reported < found.hours[2]
    assert "reported runs on RTX 3090" in found.source


def test_a_report_is_left_out_of_its_own_estimate():
    for run in known_runs():
        _, known = speeds.step_time(run.work, find_card(run.card))
        _, everything = speeds.step_time(run.work, find_card(run.card), leave_out=lambda one: False)
        assert everything.speed.rows == known.speed.rows + 1


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_not_said_is_as_at_full_size(stage):
    work = workload("minimind2-small", stage, find_card("3090"))
    assert (work.batch_size, work.seq_len) == (
        FULL_SIZE[stage]["batch_size"],
        FULL_SIZE[stage].get("seq_len", 512),
    )
    assert work.optimizer == "adamw" and work.dtype == "bfloat16" and work.device == "cuda"
    assert work.accumulation_steps == (4 if stage == "grpo" else 1)


def test_a_step_of_reinforcement_uses_up_prompts():
    work = workload(EDU, "grpo", find_card("3090"))
    assert (work.rollout_rows, work.group_size, rows_of_step(work)) == (128, 8, 16)
    assert rows_of_step(workload(EDU, "dpo", find_card("3090"))) == 8
    found = estimate(EDU, "grpo", card="3090", rows=160)
    assert found.steps == 10 and "160 prompts" in found.summary()
    pairs = estimate(EDU, "dpo", card="3090", rows=100)
    assert pairs.tokens == 2 * 100 * 512 and "100 pairs" in pairs.summary()


def test_dtypes_are_those_of_the_card():
    assert estimate(EDU, card="1650").work.dtype == "float16"
    assert estimate(EDU, card="A40").work.dtype == "bfloat16"
    assert estimate(EDU, card="A40", dtype="float32").work.dtype == "float32"
    with pytest.raises(ValueError, match="no bfloat16"):
        estimate(EDU, card="1650", dtype="bfloat16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stage": "rlhf"}, "unknown stage"), ({"rows": 0}, "rows must be 1"), ({"epochs": -1}, "epochs m"),
        ({"batch_size": 0}, "batch_size must"), ({"seq_len": -3}, "seq_len must"), ({"card": "x"}, "unknown"),
        ({"price_per_hour": -1.0}, "price_per_hour"), ({"colour": 1}, "no setting called colour"),
        ({"price_per_hour": math.nan}, "price_per_hour"), ({"dtype": "int4"}, "unknown dtype"),
        ({"rows": 10, "seq_len": 32, "real_tokens": 321}, "321 tokens do not fit into 10 rows"),
    ],
)  # fmt: skip
def test_what_makes_no_sense(arguments, message):
    with pytest.raises(ValueError, match=message):
        estimate(EDU, **{"card": "3090"} | arguments)
    with pytest.raises(ValueError, match="nonsense"):
        estimate("nonsense", card="3090")


# -- fitting -----------------------------------------------------------------------------------------------


def card_with(usable):
    return Card("small", usable, (8, 6), {"bfloat16": 1e13}, 1e11, measured_capacity=usable)


@pytest.mark.parametrize("share", [0.4, 1.0, 1.7, 3.0, 9.0])
@pytest.mark.parametrize("stage", ["pretrain", "lora", "grpo"])
def test_the_largest_batch_is_the_largest(stage, share):
    work = workload(EDU, stage, find_card("3090"), 16, 128, rollout_rows=32 if stage == "grpo" else None)
    card = card_with(int(needed(work).total * share))
    rows = largest_batch(work, card)
    assert rows == 0 or needed(work.replace(batch_size=rows)).total <= card.usable
    assert needed(work.replace(batch_size=rows + 1)).total > card.usable
    assert (rows >= 16) == (share >= 1)


def test_the_search_for_a_batch_ends():
    work = workload(EDU, "pretrain", find_card("3090"), 1, 16)
    assert largest_batch(work, card_with(10**15), most=200) == 200
    assert largest_batch(work, card_with(10**15), most=1) == 1
    assert largest_batch(work, card_with(10**15), most=3) == 3
    assert largest_batch(work, card_with(1000)) == 0


def test_fits_is_a_matter_of_usable_memory():
    work = workload(EDU, "pretrain", find_card("3090"), 8, 128)
    need = needed(work).total
    assert estimate_work(work, card_with(need)).fits and not estimate_work(work, card_with(need - 1)).fits


def test_more_passes_than_two_need_no_more():
    work = workload(EDU, "pretrain", find_card("3090"), 2, 64)
    one, two, eight = (memory(work.replace(accumulation_steps=n)).total for n in (1, 2, 8))
    assert one <= two and eight == pytest.approx(two, rel=0.01)
    assert needed(work.replace(accumulation_steps=8)).total == two


def test_larger_cards_hold_larger_batches():
    by_memory = sorted(CARDS, key=lambda card: card.usable)
    by_memory = [card for card in by_memory if card.auto_dtype == "bfloat16"]
    rows = [largest_batch(workload(EDU, "pretrain", card, seq_len=1024), card) for card in by_memory]
    assert rows == sorted(rows) and rows[0] > 0


# -- text --------------------------------------------------------------------------------------------------


def test_the_summary_says_whether_it_fits():
    fits = estimate(EDU, card="3090", rows=1000).summary()
    assert fits.startswith("fits: needs ") and "the largest batch is" in fits and "padding unknown" in fits
    work = workload("minimind2", "pretrain", find_card("1650"))
    no = estimate_work(work, find_card("1650"))
    assert f"does not fit: needs {no.memory.total / GIB:.1f} GB of 3.3 GB; the largest" in no.summary()
    hopeless = estimate("minimind2-272m", card="1650").summary()
    assert "even one row is too much" in hopeless


def test_without_any_measurement_the_time_is_unknown(monkeypatch):
    monkeypatch.setattr(speeds, "_rows", tuple)
    found = estimate_work(Workload(EDU), Card("nobody's CPU", 2**34, None))
    assert found.step_seconds is None and found.hours is None and found.cost is None
    assert "unknown: run `minimind-edu bench`" in found.source and found.source in found.summary()
    stranger = Card("nobody's card", 2**34, (8, 0))
    assert estimate_work(Workload(EDU, device="cuda"), stranger).step_seconds is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0421, "0.042 s"), (1.26, "1.3 s"), (60, "60 s"), (125, "2.1 min"), (7260, "2.0 h"), (90000, "25 h"),
     (200000, "2.3 days"), (1e7, "116 days")],
)  # fmt: skip
def test_times_in_words(seconds, text):
    assert duration(seconds) == text
