"""More than one card: what they must tell each other, on paper and measured with two processes.

Data parallel training gives every worker the whole model and a part of the batch; after the backward pass all
need the mean gradient. A ring does it with least traffic (Patarasuk and Yuan, 2009): each worker sends n-1
of n parts once to add them up (reduce-scatter), once to hand them round (all-gather). Sharded training (ZeRO:
Rajbhandari et al., 2020, arXiv:1910.02054, sections 5 and 7) keeps a part of the states only on each worker,
and from stage 3 on has to fetch the weights when they are needed.
"""

import multiprocessing
import os
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
import torch.distributed as dist

from minimind_edu.hardware.steps import LEARNING_RATE, random_batch, real_step
from minimind_edu.hardware.workload import Workload
from minimind_edu.training import Batch
from minimind_edu.training.loop import Run

FLOAT = 4  # bytes: weights, gradients and both moments of AdamW are float32
PATIENCE = 60  # seconds in which a step, or the meeting of the workers, has to be over
STAGES = (0, 1, 2, 3)  # of ZeRO; 0 is plain data parallel


def bytes_sent(parameters: int, workers: int, stage: int = 0) -> float:
    """Bytes that each worker sends in a step (and receives as many).

    An exchange of all gradients, or of all weights, is (n-1)/n of their bytes. Stages 0 to 2 make two:
    gradients are added up, and gradients or new weights handed round. Stage 3 fetches the weights twice, for
    the forward and for the backward pass, and adds up gradients once.

    Raises:
        ValueError: no worker, or an unknown stage.
    """
    _check(workers, stage)
    exchanges = 3 if stage == 3 else 2
    return exchanges * (workers - 1) / workers * FLOAT * parameters


def bytes_kept(parameters: int, workers: int, stage: int = 0) -> float:
    """Bytes of weights, gradients and optimizer states on each worker.

    They are 16 a parameter, of which stage 1 divides the optimizer's 8 by the number of workers, stage 2 also
    the gradient's 4, and stage 3 all.

    Raises:
        ValueError: no worker, or an unknown stage.
    """
    _check(workers, stage)
    weights, gradients, moments = FLOAT, FLOAT, 2 * FLOAT
    shared = (stage >= 3) * weights + (stage >= 2) * gradients + (stage >= 1) * moments
    return parameters * (weights + gradients + moments - shared + shared / workers)


def _check(workers: int, stage: int) -> None:
    if workers < 1:
        raise ValueError(f"workers must be 1 or more, not {workers}")
    if stage not in STAGES:
        raise ValueError(f"unknown stage {stage}: use 0 (data parallel), 1, 2 or 3 (ZeRO)")


class ParallelRun(Run):
    """A run whose gradients are averaged over all workers before the weights change.

    The mean is right where all workers have equally many labelled tokens.

    Attributes:
        counted: bytes that this worker has sent in exchanges, by the ring's formula.
        waited: seconds spent in them.
    """

    counted = 0.0
    waited = 0.0

    def _update(self, scale: float, window: list[tuple[list[int], Batch]]) -> float:
        gradients = [one.grad for one in self.optimizers.parameters() if one.grad is not None]
        started = time.perf_counter()
        # One message instead of one for each tensor: every message has a latency of its own.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(gradients, flat.split([one.numel() for one in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))
        self.waited += time.perf_counter() - started
        self.counted += bytes_sent(flat.numel(), dist.get_world_size())
        return super()._update(scale, window)


@dataclass(frozen=True)
class ParallelResult:
    """What some workers did, each with ``work.batch_size`` rows of a common batch.

    Attributes:
        workers: how many; 1 is the comparison, with all rows in one process.
        step_seconds: of each step, the slowest worker's.
        exchange_seconds: the part of the mean step that the gradients' exchange took.
        bytes: sent by each worker in a step, by the ring's formula.
        weights: all parameters after the last step, one after the other (N,).
    """

    workers: int
    step_seconds: tuple[float, ...]
    exchange_seconds: float
    bytes: float
    weights: torch.Tensor


def train_parallel(work: Workload, workers: int = 2, steps: int = 4, seed: int = 0) -> ParallelResult:
    """Take steps in several processes of one thread each, that exchange gradients over gloo on this machine.

    One worker with n times the rows reads the same batches as n workers do, for comparison.

    Args:
        work: a worker's part; a dense model and a stage without a rollout.

    Raises:
        ValueError: such a workload cannot be divided, or a process failed.
    """
    if work.stage == "grpo" or work.config.use_moe or work.device != "cpu":
        raise ValueError("divide a dense model's workload on the CPU, of another stage than grpo")
    if workers < 1 or steps < 1:
        raise ValueError(f"workers and steps must be 1 or more, not {workers} and {steps}")
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(workers):
            ours, theirs = context.Pipe()
            arguments = (work, rank, workers, steps, seed, Path(folder) / "rendezvous", theirs)
            processes.append(context.Process(target=_work, args=arguments, daemon=True))
            processes[-1].start()
            theirs.close()
            pipes.append(ours)
        answers: dict[int, dict] = {}
        try:
            while len(answers) < workers:  # whoever fails says so first, while the others still wait for it
                silent = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
                for pipe in wait(silent):
                    answers[pipes.index(pipe)] = _receive(pipe)
        finally:
            for process in processes:
                process.terminate()
                process.join()
    slowest = tuple(max(times) for times in zip(*(one["seconds"] for one in answers.values()), strict=True))
    first = answers[0]
    return ParallelResult(
        workers, slowest, first["waited"] / steps, first["counted"] / steps, torch.tensor(first["weights"])
    )


def _receive(pipe: Connection) -> dict:
    try:
        answer = pipe.recv()
    except EOFError:
        raise ValueError("a worker ended early; is there enough memory?") from None
    if isinstance(answer, str):
        raise ValueError(answer)
    return answer


def _work(
    work: Workload, rank: int, workers: int, steps: int, seed: int, meeting: Path, pipe: Connection
) -> None:
    """One worker: build the same model as all others, read its rows of each batch."""
    try:
        torch.set_num_threads(1)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # this machine only
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=workers,
            timeout=timedelta(
                seconds=PATIENCE
            ),  # of every exchange: if another worker dies, this one ends too
        )
        step = real_step(work, seed=seed, run_class=ParallelRun)
        seconds = []
        for number in range(steps):
            batch = rows_of(work, workers, rank, seed + 1 + number)
            dist.barrier()
            started = time.perf_counter()
            step.run.take_step([([], batch)], LEARNING_RATE)
            seconds.append(time.perf_counter() - started)
        weights = torch.cat([one.detach().flatten() for one in step.run.model.parameters()]).tolist()
        run = step.run
        pipe.send({"seconds": seconds, "waited": run.waited, "counted": run.counted, "weights": weights})
        dist.destroy_process_group()
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}")


def rows_of(work: Workload, workers: int, rank: int, seed: int) -> Batch:
    """A worker's rows of a batch that all workers draw alike."""
    torch.manual_seed(seed)
    whole = random_batch(work.replace(batch_size=work.batch_size * workers))
    mine = slice(rank * work.batch_size, (rank + 1) * work.batch_size)
    return {name: tensor[mine] for name, tensor in whole.items()}


def speedup(alone: ParallelResult, together: ParallelResult) -> float:
    """How many times faster the same rows were trained on, by the shortest steps of both."""
    return min(alone.step_seconds) / min(together.step_seconds)
