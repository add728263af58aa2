"""Distillation: the loss against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from minimind_edu.model.transformer import next_token_loss
from minimind_edu.stages.distill import distill_loss

DIRECTIONS = ("forward", "reverse")


def random_case(seed, batch=3, length=9, vocab=30):
    random = torch.Generator().manual_seed(seed)
    student, teacher = (3 * torch.randn(batch, length, vocab, generator=random) for _ in range(2))
    labels = torch.randint(0, vocab, (batch, length), generator=random)
    labels[torch.rand(batch, length, generator=random) < 0.4] = -100
    return student.requires_grad_(), teacher.requires_grad_(), labels


def torch_loss(student, teacher, labels, alpha, temperature, direction):
    """The same with PyTorch's losses."""
    targets, vocab = labels[:, 1:].flatten(), student.shape[-1]
    keep = targets != -100
    student, teacher = (x[:, :-1].reshape(-1, vocab)[keep] for x in (student, teacher))
    cross_entropy = torch.nn.CrossEntropyLoss()(student, targets[keep])
    log_q, log_p = ((x / temperature).log_softmax(-1) for x in (student, teacher.detach()))
    if direction == "reverse":
        log_q, log_p = log_p, log_q
    divergence = torch.nn.KLDivLoss(reduction="batchmean", log_target=True)(log_q, log_p)
    return alpha * cross_entropy + (1 - alpha) * temperature**2 * divergence


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_values_and_gradients_equal_torchs(alpha, temperature, direction):
    for seed in range(3):
        student, teacher, labels = random_case(seed)
        ours = distill_loss(student, teacher, labels, alpha, temperature, direction)
        theirs = torch_loss(student, teacher, labels, alpha, temperature, direction)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=0)
        ours.backward()
        (gradient,) = torch.autograd.grad(theirs, student)
        torch.testing.assert_close(student.grad, gradient, rtol=1e-5, atol=1e-7)
        assert teacher.grad is None
        assert float(student.grad.abs().sum()) > 0.01


def test_defaults_are_half_and_half():
    student, teacher, labels = random_case(0)
    torch.testing.assert_close(
        distill_loss(student, teacher, labels), torch_loss(student, teacher, labels, 0.5, 1.0, "forward")
    )


def test_the_ends_of_alpha():
    student, teacher, labels = random_case(1)
    torch.testing.assert_close(
        distill_loss(student, teacher, labels, alpha=1.0), next_token_loss(student, labels)
    )
    same = distill_loss(student, student.detach(), labels, alpha=0.0)
    assert abs(float(same.detach())) < 1e-6


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_no_labelled_token_gives_zero(direction):
    student, teacher, labels = random_case(2)
    for nothing in (torch.full_like(labels, -100), labels[:, :1]):
        length = nothing.shape[1]
        loss = distill_loss(student[:, :length], teacher[:, :length], nothing, direction=direction)
        assert float(loss.detach()) == 0.0
        loss.backward()
        assert float(student.grad.abs().sum()) == 0.0


def test_the_first_label_and_unlabelled_positions_do_not_matter():
    student, teacher, labels = random_case(3)
    before = distill_loss(student, teacher, labels)
    changed = labels.clone()
    changed[:, 0] = 7
    noise = torch.where((labels[:, 1:] == -100)[..., None], 1000.0, 0.0)
    others = teacher + F.pad(noise, (0, 0, 0, 1), value=1000.0) * torch.randn_like(teacher)
    torch.testing.assert_close(distill_loss(student, others, changed), before)


def test_sixteen_bits_are_computed_in_thirty_two():
    student, teacher, labels = (x.detach() for x in random_case(4))
    half_student, half_teacher = student.bfloat16().requires_grad_(), teacher.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = distill_loss(half_student, half_teacher, labels, temperature=2.0)
    assert loss.dtype == torch.float32
    expected = torch_loss(half_student.float(), half_teacher.float(), labels, 0.5, 2.0, "forward")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    double = distill_loss(student.double(), teacher.double(), labels)
    assert double.dtype == torch.float64


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_large_logits_stay_finite(direction):
    student, teacher, labels = random_case(5)
    loss = distill_loss(1e4 * student, -1e4 * teacher, labels, temperature=0.1, direction=direction)
    loss.backward()
    assert bool(torch.isfinite(loss)) and bool(torch.isfinite(student.grad).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": 1.1}, "alpha"),
        ({"alpha": float("nan")}, "alpha"),
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"direction": "backward"}, "direction"),
        ({"teacher_logits": torch.zeros(3, 9, 31)}, "30 logits and the teacher 31"),
        ({"teacher_logits": torch.zeros(3, 8, 30)}, "B, T, V"),
        ({"labels": torch.zeros(3, 8, dtype=torch.int64)}, "B, T"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    student, teacher, labels = random_case(6)
    arguments = {"student_logits": student, "teacher_logits": teacher, "labels": labels}
    with pytest.raises(ValueError, match=message):
        distill_loss(**(arguments | change))
