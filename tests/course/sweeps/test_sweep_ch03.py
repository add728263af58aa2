"""The grid of chapter 3: what it compares is comparable, and what it measures is measured right."""

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import sweeps
from minimind_edu.course.sweeps import ch03
from minimind_edu.course.sweeps.ch03 import CLASSES, busiest, class_bits
from minimind_edu.model.transformer import MiniMind


def test_the_record_has_every_cell():
    recorded = [settings for settings, _ in sweeps.load("03").cells]
    assert recorded == ch03.CELLS


def test_models_differ_in_experts_only():
    sizes = {}
    for name, changes in ch03.MODELS.items():
        with torch.device("meta"):
            model = MiniMind(ModelConfig(vocab_size=2000, **ch03.DENSE, **changes))
        sizes[name] = (model.num_parameters(active=True), model.num_parameters())
    routers = 2 * 64 * 8  # two layers with at most eight rows of 64
    active, total = sizes.pop("dense, active")[0], sizes.pop("dense, total")[1]
    for one in sizes.values():
        assert 0 < one[0] - active <= routers and 0 < one[1] - total <= routers


def test_busiest_and_bits_on_counts_by_hand():
    even = torch.ones(1, 5, 4).double()
    assert busiest(even) == 1.0 and abs(class_bits(even)) < 1e-9
    # Each of two classes has an expert of its own: one bit, and each busy expert has twice the mean load.
    apart = torch.tensor([[[6, 0, 0, 0], [0, 6, 0, 0]]]).double()
    assert busiest(apart) == 2.0 and abs(class_bits(apart) - 1.0) < 1e-9


def test_classes_of_texts():
    texts = {" the": 0, "Lily": 1, " W": 1, "园": 2, "\ufffd": 2, "7": 3, " 12": 3, ".": 4, "。": 4, "": 4}
    assert {text: ch03._class_of(text) for text in texts} == texts
    assert len(CLASSES) == 5
