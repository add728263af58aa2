"""The exercises on KL and its gradient agree with PyTorch, and unforeseen wrong answers get a hint."""

import torch
import torch.nn.functional as F

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch08 import gradient, kl
from minimind_edu.course.exercises.checking import examine
from minimind_edu.stages.divergence import full_divergence


def test_kl_is_the_packages_and_torchs():
    for seed in range(5):
        teacher, student = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(seed))
        ours = kl(teacher, student, 2.0)
        log_q, log_p = (student / 2).log_softmax(-1), (teacher / 2).log_softmax(-1)
        torch.testing.assert_close(ours, full_divergence(student, teacher, 2.0, "forward"))
        torch.testing.assert_close(ours, F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1))


def test_the_gradient_is_autograds():
    for temperature in (0.5, 1.0, 4.0):
        teacher, student = torch.randn(2, 4, 9, generator=torch.Generator().manual_seed(1))
        student.requires_grad_()
        (temperature**2 * kl(teacher, student, temperature)).sum().backward()
        torch.testing.assert_close(gradient(teacher, student.detach(), temperature), student.grad)


def test_unforeseen_answers_get_a_hint_that_fits():
    divergence, slope = exercise("ch08.kl"), exercise("ch08.gradient")
    assert "agree" in examine(divergence, lambda t, s, T: kl(t, s, T) + 0.1, 0)
    assert "shape" in examine(divergence, lambda t, s, T: kl(t, s, T)[:, None].repeat(1, 2), 0)
    assert "sum to 0" in examine(slope, lambda t, s, T: gradient(t, s, T) + 0.01, 0)
    assert "times the right one" in examine(slope, lambda t, s, T: 5 * gradient(t, s, T), 0)
