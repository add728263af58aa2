"""The exercises on answers agree with the package, and unforeseen wrong answers get a fitting hint."""

import torch

from minimind_edu.config import ModelConfig
from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch07_answers import answer_logprobs, win_rate
from minimind_edu.course.exercises.checking import examine
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.reference import sequence_logprobs


def test_log_probabilities_are_the_packages():
    torch.manual_seed(0)
    model = MiniMind(
        ModelConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1)
    ).eval()
    ids = torch.randint(0, 40, (3, 9))
    labels = ids.clone()
    labels[:, :3] = -100
    labels[1, 6:] = -100
    with torch.no_grad():
        theirs = sequence_logprobs(model, ids, labels).total
        torch.testing.assert_close(answer_logprobs(model(ids).logits, labels), theirs)


def test_by_hand():
    assert win_rate([(1, 1), (1, 0), (0, 1)], [(1, 0), (1, 0), (1, 0)]) == 0.5


def test_unforeseen_answers_get_a_hint_that_fits():
    logprobs, rate = exercise("ch07.answer_logprobs"), exercise("ch07.win_rate")
    assert "each row" in examine(logprobs, lambda logits, labels: logits.log_softmax(-1)[:, :, 0], 0)
    assert "one half" in examine(rate, lambda ours, theirs: 1.0, 0)
    assert "gradient" in examine(logprobs, lambda *given: answer_logprobs(*given).detach(), 0)
    positive = lambda logits, labels: answer_logprobs(logits, labels.where(labels > 0, -100))  # noqa: E731
    assert "token 0" in examine(logprobs, positive, 0)
    totals = lambda ours, theirs: 1.0 if sum(ours, ()) > sum(theirs, ()) else 0.5  # noqa: E731
    assert examine(rate, totals, 0).startswith("hint:")
