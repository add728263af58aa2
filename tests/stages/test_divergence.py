"""The divergences against PyTorch's, on random, extreme and merged distributions."""

import math

import pytest
import torch
import torch.nn.functional as F

from minimind_edu.stages.divergence import divergence_of, full_divergence, top_k_divergence
from minimind_edu.stages.teacher import top_k_log_probabilities

DIRECTIONS = ("forward", "reverse")


def random_logits(seed, rows=7, vocab=40, scale=3.0):
    random = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(rows, vocab, generator=random) for _ in range(2)]


def torch_kl(student, teacher, temperature, direction):
    log_q, log_p = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    if direction == "reverse":
        log_q, log_p = log_p, log_q
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)


def test_by_hand():
    """p = (1/2, 1/2), q = (3/4, 1/4): forward ln 2 - ln(3)/2, reverse 3/4 ln 3 - ln 2."""
    p, q = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log()
    assert divergence_of(p, q, "forward") == pytest.approx(math.log(2) - math.log(3) / 2, abs=1e-6)
    assert divergence_of(p, q, "reverse") == pytest.approx(0.75 * math.log(3) - math.log(2), abs=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_equals_torch(direction, temperature):
    for seed in range(5):
        student, teacher = random_logits(seed)
        ours = full_divergence(student, teacher, temperature, direction)
        torch.testing.assert_close(
            ours, torch_kl(student, teacher, temperature, direction), rtol=1e-5, atol=0
        )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_top_k_rises_to_the_whole(direction):
    student, teacher = random_logits(1)
    student.requires_grad_()
    whole = full_divergence(student, teacher, 2.0, direction)
    found = []
    for k in (1, 2, 5, 20, 39, 40):
        found.append(top_k_divergence(student, *top_k_log_probabilities(teacher, k, 2.0), 2.0, direction))
    for fewer, more in zip(found, found[1:], strict=False):
        assert bool((fewer <= more + 1e-6).all())
    assert bool((found[0] < 0.9 * whole).any())
    # With 39 of 40 tokens the lump is the one that is left, so it is whole already.
    for last in found[-2:]:
        torch.testing.assert_close(last, whole, rtol=1e-5, atol=1e-6)
        gradients = [torch.autograd.grad(one.sum(), student, retain_graph=True)[0] for one in (last, whole)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("k", [3, 39, 40])
def test_top_k_by_probabilities(direction, k):
    """The same from probabilities in float64: k outcomes and a lump."""
    student, teacher = (logits.double() for logits in random_logits(2))
    ids, log_probs = top_k_log_probabilities(teacher.float(), k)
    p, q = (logits.softmax(-1).gather(-1, ids) for logits in (teacher, student))
    if k < 40:
        p, q = (torch.cat((x, 1 - x.sum(-1, keepdim=True)), -1) for x in (p, q))
    if direction == "reverse":
        p, q = q, p
    expected = (p * (p / q).log()).sum(-1)
    torch.testing.assert_close(
        top_k_divergence(student, ids, log_probs, 1.0, direction), expected, rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_extreme_logits_stay_finite(direction):
    student = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 0.0, 1e4], [3e4, 0.0, 0.0]])
    whole = full_divergence(student, teacher, 1.0, direction)
    lumped = top_k_divergence(student, *top_k_log_probabilities(teacher, 1), 1.0, direction)
    costs = [float(one[0].detach()) for one in (whole, lumped)]
    # Merged with the token between, the student's favourite costs 1e4 only.
    assert costs == pytest.approx([2e4, 2e4 if direction == "forward" else 1e4], rel=1e-3)
    (whole + lumped).sum().backward()
    assert bool(torch.isfinite(student.grad).all())


def test_impossible_tokens_cost_nothing_forward_and_everything_reverse():
    teacher = torch.tensor([[0.0, 0.0, -torch.inf]])
    student = torch.zeros(1, 3, requires_grad=True)
    forward = full_divergence(student, teacher, 1.0, "forward")
    forward.sum().backward()
    assert float(forward.detach()) == pytest.approx(math.log(1.5))
    torch.testing.assert_close(student.grad, torch.tensor([[-1 / 6, -1 / 6, 1 / 3]]))
    assert math.isinf(float(full_divergence(student, teacher, 1.0, "reverse").detach()))


def test_the_lump_is_exact_where_it_is_tiny():
    """1 - sum of the others would be rounding here; its gradient would be noise."""
    student = torch.tensor([[0.0, -30.0, -31.0]], requires_grad=True)
    teacher = torch.tensor([[0.0, -28.0, -32.0]])
    ids, log_probs = top_k_log_probabilities(teacher, 1)
    assert float(log_probs[0, 1]) == pytest.approx(-28 + math.log1p(math.exp(-4)), rel=1e-6)
    log_q = top_k_divergence(student, ids, log_probs, 1.0, "forward")
    log_q.sum().backward()
    assert bool(torch.isfinite(student.grad).all()) and float(student.grad.abs().max()) < 1e-9
