"""Two processes that exchange gradients come to the weights of one; what they send is counted."""

import time

import pytest
import torch

from minimind_edu.config import ModelConfig
from minimind_edu.hardware import parallel
from minimind_edu.hardware.parallel import (
    ParallelResult,
    bytes_kept,
    bytes_sent,
    rows_of,
    speedup,
    train_parallel,
)
from minimind_edu.hardware.workload import Workload
from minimind_edu.model.transformer import MiniMind

TINY = ModelConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, max_position_embeddings=64)
WORK = Workload(TINY, batch_size=2, seq_len=24)


def test_the_volume_on_paper():
    """Two workers: each sends half of the 40 bytes to be added up, and half to be handed round."""
    assert bytes_sent(10, 2) == 40
    assert [bytes_sent(10, 1, stage) for stage in range(4)] == [0, 0, 0, 0]
    assert bytes_sent(10, 4) == 2 * 3 / 4 * 40 == bytes_sent(10, 4, 2)
    assert bytes_sent(10, 4, 3) == 1.5 * bytes_sent(10, 4)
    # A hundred workers send hardly more than two each: that is what a ring is for.
    assert bytes_sent(10, 100) < 2 * bytes_sent(10, 2)


def test_what_sharding_saves():
    """The figure of the ZeRO paper for our float32: 16 bytes a parameter, divided further by each stage."""
    assert [bytes_kept(1000, 1, stage) for stage in range(4)] == [16_000] * 4
    assert [bytes_kept(1000, 4, stage) for stage in range(4)] == [16_000, 10_000, 7_000, 4_000]


@pytest.mark.parametrize("function", [bytes_sent, bytes_kept])
def test_what_makes_no_sense_is_refused(function):
    with pytest.raises(ValueError, match="workers must be 1 or more"):
        function(10, 0)
    with pytest.raises(ValueError, match="unknown stage 4"):
        function(10, 2, 4)


def test_workers_draw_the_same_batch_and_take_different_rows():
    parts = [rows_of(WORK, 2, rank, seed=5)["input_ids"] for rank in (0, 1)]
    alone = rows_of(WORK.replace(batch_size=4), 1, 0, seed=5)["input_ids"]
    assert torch.equal(torch.cat(parts), alone) and not torch.equal(*parts)


def test_two_processes_come_to_the_weights_of_one_with_twice_the_batch():
    together = train_parallel(WORK, 2, steps=3)
    alone = train_parallel(WORK.replace(batch_size=4), 1, steps=3)
    torch.testing.assert_close(together.weights, alone.weights, rtol=0, atol=1e-7)
    start = train_parallel(WORK.replace(batch_size=4), 1, steps=1)
    # The comparison means something: the weights moved by far more than they differ.
    assert (alone.weights - start.weights).abs().max() > 5e-6
    # Without the exchange, a worker would have learned from its own rows.
    own = train_parallel(WORK, 1, steps=3)
    assert (own.weights - alone.weights).abs().max() > 1e-6
    parameters = MiniMind(TINY).num_parameters()
    assert together.bytes == bytes_sent(parameters, 2) == 4 * parameters and alone.bytes == 0
    assert len(together.step_seconds) == 3 and 0 < together.exchange_seconds < sum(together.step_seconds)


def test_the_speedup_compares_the_shortest_steps():
    one, two = (ParallelResult(1, steps, 0.0, 0.0, torch.zeros(1)) for steps in ((2.0, 1.0), (0.5, 3.0)))
    assert speedup(one, two) == 2


def test_a_worker_that_fails_ends_them_all_at_once(monkeypatch):
    """The second finds no rows of its own; the first would wait for it in the exchange."""
    monkeypatch.setattr(parallel, "_work", fail_as_second)
    with pytest.raises(ValueError, match="ended early"):
        train_parallel(WORK, 2, steps=1)


def fail_as_second(work, rank, *others):
    if rank == 1:
        raise SystemExit(1)
    time.sleep(600)


@pytest.mark.parametrize(
    ("work", "workers", "message"),
    [
        (Workload(TINY, "grpo"), 2, "of another stage than grpo"),
        (Workload(ModelConfig.preset("edu-moe")), 2, "divide a dense model"),
        (WORK, 0, "must be 1 or more"),
        (WORK.replace(seq_len=100), 2, "but the model reads 64 tokens"),
    ],
)
def test_what_cannot_be_divided_is_told(work, workers, message):
    with pytest.raises(ValueError, match=message):
        train_parallel(work, workers, steps=1)
