"""Where the speed of a machine is from: its calibration, measured rows, rows of another, or reports."""

import dataclasses

import pytest
import torch

from minimind_edu import ModelConfig
from minimind_edu.hardware import speeds
from minimind_edu.hardware.calibration_set import calibration_works
from minimind_edu.hardware.cards import Card, cpu_name, find_card, this_cpu
from minimind_edu.hardware.measure import Calibration, save_calibration
from minimind_edu.hardware.reported import runs
from minimind_edu.hardware.rows import MeasuredRow
from minimind_edu.hardware.timing import amounts, fit_speed
from minimind_edu.hardware.workload import Workload

EDU = ModelConfig.preset("edu")
WORK = Workload(EDU, "pretrain", 4, 64)


@pytest.fixture(autouse=True)
def clean(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIMIND_EDU_CACHE", str(tmp_path))
    monkeypatch.setattr(speeds, "_rows", tuple)
    speeds._fitted.cache_clear()


def rows(machine, threads=1, device="cpu", flops_a_second=1e10):
    """Made-up rows of a machine whose time goes to products alone."""
    works = calibration_works("cpu", ["float32"])
    if device == "cuda":
        works = [dataclasses.replace(work, device="cuda", dtype="bfloat16") for work in works]
    return tuple(
        MeasuredRow(
            work, sum(n for kind, n in amounts(work).items() if "products" in kind) / flops_a_second, 0,
            "2026-01-01", "2", "3", machine, threads, "made up",
        )
        for work in works
    )  # fmt: skip


def test_a_calibration_comes_first():
    threads = torch.get_num_threads()
    made = rows(cpu_name(), threads)
    save_calibration(Calibration(made, fit_speed(made, cpu_name(), "made up")))
    seconds, known = speeds.step_time(WORK, this_cpu())
    assert known.kind == "calibrated" and "2026-01-01" in known.text
    assert seconds.low < seconds.mid < seconds.high
    # Nothing was measured in bfloat16, and there are no other rows.
    assert speeds.step_time(WORK.replace(dtype="bfloat16"), this_cpu()) is None


def test_rows_of_such_a_machine_come_next(monkeypatch):
    threads = torch.get_num_threads()
    mine, other = rows(cpu_name(), threads, flops_a_second=1e10), rows("other", threads, flops_a_second=1e9)
    monkeypatch.setattr(speeds, "_rows", lambda: other + mine)
    seconds, known = speeds.step_time(WORK, this_cpu())
    assert known.kind == "measured" and cpu_name() in known.text
    products = sum(n for kind, n in amounts(WORK).items() if "products" in kind)
    assert seconds.mid == pytest.approx(products / 1e10, rel=0.2)


def test_rows_of_another_machine_are_a_rough_guide(monkeypatch):
    monkeypatch.setattr(speeds, "_rows", lambda: rows("Another CPU", 2))
    seconds, known = speeds.step_time(WORK, Card("My CPU", 2**34, None))
    assert known.kind == "another" and "Another CPU with 2 threads" in known.text and "bench" in known.text
    assert seconds.high / seconds.low >= speeds.ANOTHER**2


def test_few_rows_are_no_fit(monkeypatch):
    monkeypatch.setattr(speeds, "_rows", lambda: rows("Another CPU")[:3])
    assert speeds.step_time(WORK, Card("My CPU", 2**34, None)) is None


def test_measured_rows_of_a_card_replace_reports(monkeypatch):
    monkeypatch.setattr(speeds, "_rows", lambda: rows("NVIDIA GeForce RTX 3090", device="cuda"))
    work = WORK.replace(device="cuda", dtype="bfloat16")
    assert speeds.step_time(work, find_card("3090"))[1].kind == "measured"
    assert speeds.step_time(work, find_card("A40"))[1].kind == "reported"


@pytest.mark.parametrize(("card", "cards"), [("3090", {"GeForce RTX 3090"}), ("A40", {"A40"})])
def test_a_card_with_reports_of_its_own_uses_those(card, cards):
    _, known = speeds.step_time(WORK.replace(device="cuda", dtype="bfloat16"), find_card(card))
    used = [run for run in runs() if run.card in cards]
    assert known.kind == "reported" and known.speed.rows == len(used)


@pytest.mark.parametrize("card", ["1650", "5060", "4090", "T4"])
def test_other_cards_use_all_reports(card):
    found = find_card(card)
    _, known = speeds.step_time(WORK.replace(device="cuda", dtype=found.auto_dtype), found)
    assert known.speed.rows == len(runs()) and "A40" in known.text and "RTX 3090" in known.text


def test_time_falls_with_the_peak():
    work = Workload(ModelConfig.preset("minimind2"), "pretrain", 8, 256, "bfloat16", "cuda")
    times = [speeds.step_time(work, find_card(card))[0].mid for card in ("4060", "4070", "4090")]
    assert times == sorted(times, reverse=True) and times[0] > 2 * times[2]


def test_what_is_left_out_is_left_out():
    work = WORK.replace(device="cuda", dtype="bfloat16")
    _, known = speeds.step_time(work, find_card("5060"), leave_out=lambda run: run.card == "A40")
    assert "A40" not in known.text
    assert speeds.step_time(work, find_card("5060"), leave_out=lambda run: True) is None


def test_a_card_without_a_known_peak_has_no_time():
    assert speeds.step_time(WORK.replace(device="cuda"), Card("unknown", 2**33, (8, 0))) is None
