"""The exercises of chapter 4 agree with the package, and unforeseen wrong answers get a fitting hint."""

import torch

from minimind_edu.course.exercises import exercise
from minimind_edu.course.exercises.ch04 import next_token_loss, wsd
from minimind_edu.course.exercises.checking import examine
from minimind_edu.model import transformer
from minimind_edu.training import TrainConfig
from minimind_edu.training.optim import learning_rate_at


def test_the_loss_is_the_models():
    logits, labels = torch.randn(3, 9, 11), torch.randint(0, 11, (3, 9))
    labels[1, 4:] = -100
    torch.testing.assert_close(next_token_loss(logits, labels), transformer.next_token_loss(logits, labels))


def test_wsd_is_the_loops():
    config = TrainConfig(learning_rate=0.02, warmup_iters=7, lr_schedule="wsd", min_lr_ratio=0.25)
    for step in range(100):
        assert abs(wsd(step, 100, 7, 0.02, 0.005) - learning_rate_at(step, 100, config)) < 1e-12


def test_unforeseen_answers_get_a_hint_that_fits():
    def every_position(logits, labels):
        return transformer.next_token_loss(logits, labels).expand(logits.shape[0])

    def random_targets(logits, labels):
        return -logits.log_softmax(-1)[:, :-1].mean()

    def warmup_squared(step, total, warmup, peak, last):
        right = wsd(step, total, warmup, peak, last)
        return right**2 / peak if step < warmup else right

    loss = exercise("ch04.next_token_loss")
    assert "one number" in examine(loss, every_position, 0)
    assert "-100" in examine(loss, random_targets, 0)
    assert "warm-up" in examine(exercise("ch04.wsd"), warmup_squared, 0)
