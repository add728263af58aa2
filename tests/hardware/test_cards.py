"""Cards: published totals follow from the table, names are found, a card's limits are those of training."""

import types

import pytest
import torch

from minimind_edu.hardware import cards
from minimind_edu.hardware.cards import (
    CAPACITIES,
    CARDS,
    GIB,
    THE_FOUR,
    Card,
    find_card,
    this_cpu,
    this_machine,
)
from minimind_edu.training.precision import resolve_precision

# TFLOP/s with dense matrices and sums in float32, and float32 on CUDA cores, as white papers and data sheets
# print them.
PUBLISHED = {
    "GeForce RTX 3090": (71, 35.6), "A40": (149.7, 37.4), "GeForce RTX 2080 Ti": (53.8, 13.4),
    "GeForce RTX 4090": (165.2, 82.6), "GeForce RTX 5090": (209.5, 104.8), "A100 40 GB": (312, 19.5),
    "A100 80 GB": (312, 19.5), "V100": (125, 15.7), "T4": (65, 8.1), "L4": (121, 30.3), "H100": (989.4, 61.8),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_totals_follow_from_multiprocessors_and_clock(name):
    half, plain = PUBLISHED[name]
    peak = find_card(name).peak
    assert peak["float16"] == pytest.approx(half * 1e12, rel=0.01)
    assert peak["float32"] == pytest.approx(plain * 1e12, rel=0.01)


def test_geforce_cards_run_at_half_rate_with_float32_sums():
    """The same chip, sold for servers, does twice as much for each SM and clock."""
    geforce, server = find_card("3090"), find_card("A40")
    assert geforce.peak["bfloat16"] / (82 * 1.695e9) * 2 == pytest.approx(
        server.peak["bfloat16"] / (84 * 1.74e9)
    )


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_every_card_has_sources_and_sensible_numbers(card):
    assert card.sources and all(len(source) > 10 for source in card.sources)
    assert 1e11 < card.bandwidth < 1e13 and 1e12 < card.peak["float32"] < card.peak["float16"] < 1.2e15
    assert ("bfloat16" in card.peak) == (card.capability >= (8, 0))
    assert 0.85 * card.memory - 0.6 * GIB < card.usable <= card.capacity < card.memory
    assert card.price is None or (card.price.source and card.price.date)


def test_names_are_unique_and_the_four_are_there():
    assert len({card.name for card in CARDS}) == len(CARDS)
    assert {find_card(name).name for name in THE_FOUR} == set(THE_FOUR)
    for card in CARDS:
        assert find_card(card.name) is card


@pytest.mark.parametrize(("gib", "ecc", "reported", "source"), CAPACITIES)
def test_the_drivers_share_agrees_with_reported_capacities(gib, ecc, reported, source):
    card = Card("any", gib * GIB, (8, 0), inline_ecc=ecc)
    assert card.capacity / GIB == pytest.approx(reported, rel=0.015), source


def test_capacities_that_are_not_in_the_fit():
    """An RTX 2080 Ti, an RTX 3090 and a T4 as PyTorch's messages give them in other threads."""
    for name, gib in {"2080 ti": 10.76, "3090": 23.69, "t4": 14.75}.items():
        assert find_card(name).capacity / GIB == pytest.approx(gib, rel=0.01)


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("3090", "GeForce RTX 3090"), ("rtx3090", "GeForce RTX 3090"), ("RTX 3090", "GeForce RTX 3090"),
        ("NVIDIA GeForce RTX 3090", "GeForce RTX 3090"), ("1650", "GeForce GTX 1650"),
        ("gtx 1650 laptop", "GeForce GTX 1650 Laptop"), ("a40", "A40"), ("NVIDIA A40", "A40"),
        ("a100-80", "A100 80 GB"), ("NVIDIA A100-SXM4-80GB", "A100 80 GB"), ("Tesla T4", "T4"),
        ("2080ti", "GeForce RTX 2080 Ti"), ("NVIDIA GeForce RTX 5060 Laptop GPU", "GeForce RTX 5060 Laptop"),
        ("NVIDIA H100 80GB HBM3", "H100"), ("Tesla V100-SXM2-16GB", "V100"), ("  L4 ", "L4"),
    ],
)  # fmt: skip
def test_names_as_people_and_drivers_write_them(written, name):
    assert find_card(written).name == name


@pytest.mark.parametrize(
    "written", ["3080", "4090 D", "", "   ", "rtx", "GB", "geforce", "!!", "24", "V100 32GB", "3090 laptop"]
)
def test_unknown_cards_list_the_known_ones(written):
    with pytest.raises(ValueError, match="unknown card .*RTX 3090.*A40"):
        find_card(written)


def test_an_ambiguous_name_says_which():
    with pytest.raises(ValueError, match="A100 40 GB or A100 80 GB"):
        find_card("A100")


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.name)
def test_auto_follows_the_rules_of_training(card, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: card.capability)
    precision = resolve_precision("auto", torch.device("cuda"))
    assert card.check_dtype("auto") == str(precision.dtype).removeprefix("torch.")


def test_a_dtype_that_a_card_lacks():
    with pytest.raises(ValueError, match="no bfloat16.*use float16"):
        find_card("1650").check_dtype("bfloat16")
    with pytest.raises(ValueError, match="GPU only"):
        this_cpu().check_dtype("float16")
    with pytest.raises(ValueError, match="unknown dtype 'int8'"):
        find_card("3090").check_dtype("int8")
    assert find_card("1650").check_dtype("float16") == "float16"
    assert this_cpu().check_dtype("auto") in ("float32", "bfloat16")


def test_this_cpu_has_a_name_and_memory():
    cpu = find_card("cpu")
    assert cpu.device == "cpu" and cpu.name and cpu.memory > 2**28 and cpu.usable == cpu.memory


def test_a_containers_limit_counts(monkeypatch):
    monkeypatch.setattr(cards, "_container_limit", lambda: 2**30)
    assert this_cpu().memory == 2**30
    monkeypatch.setattr(cards, "_container_limit", lambda: 2**60)
    assert 2**28 < this_cpu().memory < 2**60


def pretend(monkeypatch, name, capability, total):
    properties = types.SimpleNamespace(
        name=name, major=capability[0], minor=capability[1], total_memory=total
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)


def test_the_readers_own_card_keeps_what_its_driver_says(monkeypatch):
    pretend(monkeypatch, "NVIDIA GeForce RTX 3090", (8, 6), 25_000_000_000)
    card = this_machine()
    assert card.capacity == 25_000_000_000 and card.peak == find_card("3090").peak
    assert card.device == "cuda" and card.name == "NVIDIA GeForce RTX 3090"


def test_a_version_with_other_memory_on_the_readers_machine(monkeypatch):
    pretend(monkeypatch, "Tesla V100-SXM2-32GB", (7, 0), 34_000_000_000)
    card = this_machine()
    assert card.peak == find_card("V100").peak and card.usable == 34_000_000_000


def test_a_card_that_is_not_in_the_table_has_no_peak(monkeypatch):
    pretend(monkeypatch, "Quadro P2000", (6, 1), 5_000_000_000)
    card = find_card("auto")
    assert card.peak == {} and card.capacity == 5_000_000_000 and card.auto_dtype == "float32"


def test_without_cuda_auto_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_card("auto").device == "cpu"
