"""Tables of options say what the docstrings say, and tell what is left."""

import dataclasses
import re

import pytest

from minimind_edu.course.options import OptionTables
from minimind_edu.stages.distill import DistillConfig
from minimind_edu.stages.pretrain import PretrainConfig


def test_a_table_has_default_and_explanation_whole():
    text = OptionTables(PretrainConfig)("epochs", "lr_schedule").data
    assert "| `--epochs` | `4` | passes over the training data. |" in text
    assert "a straight line down; or constant. |" in text  # the entry goes on over three lines
    assert len(text.splitlines()) == 4


def test_a_stroke_in_an_explanation_does_not_end_its_cell():
    row = OptionTables(DistillConfig)("direction").data.splitlines()[2]
    assert r"KL(teacher \|\| student)" in row and len(re.findall(r"(?<!\\)\|", row)) == 4


def test_every_option_has_an_explanation_and_is_counted():
    options = OptionTables(PretrainConfig)
    names = [field.name for field in dataclasses.fields(PretrainConfig)]
    assert options.left == names
    for line in options(*names).data.splitlines()[2:]:
        assert len(line.split("|")[3]) > 10, line
    assert options.left == []


def test_an_unknown_option_is_refused():
    with pytest.raises(ValueError, match="has no option 'speed'"):
        OptionTables(PretrainConfig)("speed")
