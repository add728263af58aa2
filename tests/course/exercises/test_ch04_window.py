"""The exercises on windows and top-p agree with the package, and unforeseen wrong answers get a hint."""

import torch

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch04_window import top_p, window_gradient
from minimind_edu.course.exercises.checking import examine
from minimind_edu.sampling import sampling_probabilities


def test_top_p_is_the_packages():
    for seed in range(20):
        logits = torch.randn(30, generator=torch.Generator().manual_seed(seed))
        torch.testing.assert_close(top_p(logits.softmax(0), 0.8), sampling_probabilities(logits, top_p=0.8))


def test_a_window_is_the_big_batch():
    weight, x = torch.randn(4, requires_grad=True), torch.randn(9, 4)
    parts = [torch.autograd.grad((x[a:b] @ weight).square().mean(), weight)[0] for a, b in ((0, 6), (6, 9))]
    whole = torch.autograd.grad((x @ weight).square().mean(), weight)[0]
    torch.testing.assert_close(window_gradient(parts, [6, 3]), whole)


def test_unforeseen_answers_get_a_hint_that_fits():
    window, nucleus = exercise("ch04.window_gradient"), exercise("ch04.top_p")
    assert "shape" in examine(window, lambda g, n: torch.stack(g), 0)
    assert "sum" in examine(nucleus, lambda probabilities, p: probabilities * p, 0)
    assert "reach" in examine(nucleus, lambda q, p: (q > 0.2) * q / ((q > 0.2) * q).sum(), 0)
