"""The first cell of a chapter makes the same conditions for every reader."""

import random
import warnings
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch

from minimind_edu.course import session
from minimind_edu.course.figures import CARD, STYLE

OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@pytest.fixture(autouse=True)
def undo(monkeypatch):
    """What `start` changes for the whole process is put back."""
    for name in (*OFFLINE, "TOKENIZERS_PARALLELISM"):
        monkeypatch.delenv(name, raising=False)
    with warnings.catch_warnings(), matplotlib.rc_context(), torch.random.fork_rng(devices=[]):
        yield


def draw():
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_every_generator_is_seeded():
    session.start()
    first = draw()
    session.start()
    assert draw() == first
    session.start(seed=43)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_a_seed_may_be_larger_than_numpys():
    session.start(seed=2**40)
    draw()


def test_libraries_are_told_to_stay_offline(monkeypatch):
    session.start()
    assert [session.os.environ[name] for name in OFFLINE] == ["1"] * 3
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    session.start()
    assert session.os.environ["HF_HUB_OFFLINE"] == "0", "who chose otherwise is not overruled"


@pytest.mark.parametrize(("found", "expected"), [("cpu", "cpu"), ("cuda", "cuda"), ("mps", "cpu")])
def test_the_device(monkeypatch, found, expected):
    asked = []
    monkeypatch.setattr(
        session, "resolve_device", lambda name: (asked.append(name), SimpleNamespace(type=found))[1]
    )
    device = session.start()
    assert device.type == expected and asked == ["auto"]


def test_what_cells_add_to_figures_has_the_courses_look():
    session.start()
    assert matplotlib.rcParams["axes.facecolor"] == STYLE["axes.facecolor"] == CARD


def test_a_warning_that_readers_cannot_act_on_is_not_shown():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session.start()
        warnings.warn("IProgress not found. Please update jupyter", stacklevel=1)
        warnings.warn("something else", stacklevel=1)
    assert [str(one.message) for one in caught] == ["something else"]
