"""The grid of chapter 4: its record is whole, and its people and biographies are what the chapter says."""

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import ch04
from minimind_edu.data.world import SmallWorld
from minimind_edu.model.transformer import MiniMind


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("04").cells] == ch04.CELLS


def test_each_group_gets_its_number_of_biographies():
    groups = ch04.exposure_groups(seed=1)
    texts = ch04.biographies(groups, seed=1)
    people = [person.index for group in groups.values() for person in group]
    assert sorted(people) == list(range(len(ch04.EXPOSURES) * ch04.PEOPLE_PER_GROUP))
    assert len(texts) == ch04.PEOPLE_PER_GROUP * sum(ch04.EXPOSURES)
    name = groups[16][0].names["en"]
    # Five sentences of a biography name the person; friends are named too, once in each of theirs.
    assert sum(text.count(f"{name} ") + text.count(f"{name}.") >= 4 for text in texts) == 16


def test_recall_counts_only_right_completions(monkeypatch):
    tokenizer, world = artifacts.tokenizer(progress=False), SmallWorld()
    person = world.person(0)
    town = world.value(person, "home", "en")

    class Said:
        tokens = tokenizer.encode(f" {town}.")

    monkeypatch.setattr(ch04, "complete", lambda model, prompts, max_new_tokens: [Said()] * len(prompts))
    assert ch04.recalled(None, tokenizer, world, [person]) == 0.25  # the home, of four facts


def test_widths_differ_in_width_only():
    with torch.device("meta"):
        models = [MiniMind(ch04.new_model(width, seed=0).config) for width in ch04.WIDTHS]
    sizes = [model.num_parameters() for model in models]
    assert sizes == sorted(sizes)
    assert models[ch04.WIDTHS.index(128)].config == ModelConfig.preset("edu", vocab_size=2000)
