"""The exercises on the loss and on lumps agree with the package, and unforeseen wrong answers get a hint."""

import pytest
import torch

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch08_loss import distill_loss, lumped_kl
from minimind_edu.course.exercises.checking import examine
from minimind_edu.stages import distill
from minimind_edu.stages.divergence import top_k_divergence
from minimind_edu.stages.teacher import top_k_log_probabilities


def test_the_loss_is_the_packages():
    """The package shifts the labels of whole rows; the exercise is given positions and their targets."""
    student, teacher = torch.randn(2, 3, 8, 11, generator=torch.Generator().manual_seed(2))
    labels = torch.randint(0, 11, (3, 8))
    labels[torch.rand(3, 8) < 0.4] = -100
    ours = distill_loss(
        student[:, :-1].flatten(0, 1), teacher[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), 0.3, 2.0
    )
    torch.testing.assert_close(ours, distill.distill_loss(student, teacher, labels, 0.3, 2.0))


@pytest.mark.parametrize("k", [1, 3, 9])
def test_the_lump_is_the_packages(k):
    teacher, student = torch.randn(2, 9, generator=torch.Generator().manual_seed(3))
    ids, log_probs = top_k_log_probabilities(teacher[None], k)
    whole = top_k_divergence(student[None], ids, log_probs, 1.0, "forward")[0]
    torch.testing.assert_close(lumped_kl(teacher.softmax(0), student.softmax(0), k), whole)


def test_unforeseen_answers_get_a_hint_that_fits():
    loss, lump = exercise("ch08.distill_loss"), exercise("ch08.lumped_kl")
    assert "alpha 1" in examine(loss, lambda s, t, y, a, T: distill_loss(s, t, y, a, T) + 0.5, 0)
    assert "one number" in examine(loss, lambda s, t, y, a, T: distill_loss(s, t, y, a, T)[None].repeat(2), 0)
    assert "k = V" in examine(lump, lambda p, q, k: lumped_kl(p, q, k) * 1.5, 0)
    shrunk = lambda p, q, k: lumped_kl(p, q, k) / (1 if k == len(p) else 2 + p.argmax())  # noqa: E731
    assert "order" in examine(lump, shrunk, 0)
