"""The grid of chapter 7: its record is whole, and its held-out questions and pairs are what it says."""

import numpy as np

from minimind_edu.course import artifacts, sweeps
from minimind_edu.course.sweeps import ch07
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.stages import dpo_records
from minimind_edu.evaluation import Answer
from minimind_edu.generation import Completion


def test_the_record_has_every_cell():
    assert [settings for settings, _ in sweeps.load("07").cells] == ch07.CELLS


def test_the_other_half_is_the_other_half():
    """Held-out pairs are about people of whom no pair of the training file asks, and there are as many."""
    world, other = SmallWorld(), ch07.OtherHalf()
    taught = {item.person for item in world.questions(seen=True)}
    held_out = {item.person for item in other.questions(seen=True)}
    assert not taught & held_out and taught | held_out == set(range(100))
    trained, kept = ({r["chosen"][0]["content"] for r in dpo_records(one)} for one in (world, other))
    assert not trained & kept and len(kept) > 900


def test_every_fourth_held_out_pair_is_scored():
    rows = ch07.held_out_pairs(artifacts.tokenizer(progress=False))
    assert len(rows) == len(list(dpo_records(ch07.OtherHalf()))[::4]) and rows.dropped == 0


def test_measuring_a_model_against_itself(monkeypatch):
    """Nothing won, nothing lost; with polite words in front of a truth everything is won."""
    truths = [
        Answer("?", "A.", "A.", {"language": language, "conversations": []}) for language in ch07.LANGUAGES
    ]
    polite = [
        Answer("?", "A.", text + "A.", {"language": language, "conversations": []})
        for language, text in (("en", "Of course! "), ("zh", "问得好！"))
    ]
    monkeypatch.setattr(ch07, "chat_answers", lambda: truths)
    monkeypatch.setattr(ch07, "kl", lambda *models: 0.0)
    monkeypatch.setattr(ch07, "held_out_pairs", lambda tokenizer: None)
    monkeypatch.setattr(ch07, "reference_logprobs", lambda model, rows: np.eye(2))
    for said, expected in ((truths, 0.5), (polite, 1.0)):
        monkeypatch.setattr(ch07, "ask", lambda model, tokenizer, said=said: said)
        numbers = ch07.measure(None, None, None)
        assert numbers["win_rate"] == {"en": expected, "zh": expected}
        assert numbers["exact"] == {"en": 1.0, "zh": 1.0}
        assert numbers["polite"] == dict.fromkeys(("en", "zh"), float(said is polite))
        assert numbers["prefers"] == 0.5


def test_the_columns_of_a_curve():
    line = {"loss": 1.0, **dict.fromkeys(ch07.CURVE, 0.123456)}
    assert ch07.curve([line, {"step": 2, "validation_loss": 1.0}]) == dict.fromkeys(ch07.CURVE, [0.1235])


def test_curt_pairs_are_about_half():
    """Each rejected answer is part of its chosen one; the other pairs have an invention instead."""
    pairs = ch07.curt_pairs()
    assert 900 < len(pairs) < 1100
    assert all(pair["rejected"][1]["content"] in pair["chosen"][1]["content"] for pair in pairs)
    assert not any("!" in pair["rejected"][1]["content"] for pair in pairs)


def test_what_is_written_after_a_phrase(monkeypatch):
    """Of two questions one is answered rightly after the phrase, and one not at all."""
    tokenizer = artifacts.tokenizer(progress=False)
    asked = [{"role": "user", "content": "Where?"}]
    answers = [
        Answer("Where?", text, "", {"language": "en", "conversations": asked}) for text in ("Here.", "There.")
    ]
    prompts = []

    def complete(model, rows, **settings):
        prompts.append(rows)
        return [Completion(tokenizer.encode(text), finish_reason="stop") for text in ("Here.", "")]

    monkeypatch.setattr(ch07, "chat_answers", lambda: answers)
    monkeypatch.setattr(ch07, "complete", complete)
    found = ch07.after_phrases(None, tokenizer, "en")
    assert list(found)[0] == "Of course! …" and len(found) == 3
    assert set(found.values()) == {ch07.Forced(share=0.5, first="Here.", empty=0.5)}
    assert tokenizer.decode(prompts[0][0]).endswith("assistant\nOf course!")
