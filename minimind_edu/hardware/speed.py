"""What a machine can do: training speed, measured.

Speeds on a shared machine differ from minute to minute, so contestants take turns in one run, each in a
process of its own that waits while the others work, and what is compared are the ratios within a round.
"""

import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal

import torch
from torch import nn

from minimind_edu.config import ModelConfig
from minimind_edu.data.packing import PackedDataset, PaddedDataset, collate
from minimind_edu.data.tokenized import TokenizedDocuments
from minimind_edu.data.world import SmallWorld
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import PretrainConfig, causal_lm_loss
from minimind_edu.tokenizer import train_fast
from minimind_edu.training import Batch, TrainConfig
from minimind_edu.training.loop import Run
from minimind_edu.training.memory import keep_freed_memory

OURS = "minimind_edu"


@dataclass
class BenchConfig:
    """Measure training speed.

    Args:
        preset: shape of the model.
        vs: also train the same shape in another library, alternating with ours.
        batch_size: rows in a batch.
        max_seq_len: tokens in a row.
        steps: steps in a round.
        rounds: rounds; each contestant runs once in each.
        dtype: number format of all contestants; auto as in training.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    preset: str = "edu"
    vs: Literal["none", "transformers"] = "none"
    batch_size: int = PretrainConfig.batch_size
    max_seq_len: int = PretrainConfig.max_seq_len
    steps: int = 8
    rounds: int = 5
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"


@dataclass(frozen=True)
class Contestant:
    """One way to train.

    Attributes:
        library: ours, or ``transformers``.
        packed: rows of several documents with a document mask, or one document a row, padded to the longest.
        dtype: see ``TrainConfig.dtype``.
    """

    library: str
    packed: bool
    dtype: str

    @property
    def name(self) -> str:
        """A label for tables."""
        return f"{self.library}, {'packed' if self.packed else 'padded'}, {self.dtype}"


@dataclass(frozen=True)
class BenchResult:
    """Labelled tokens a second of each contestant, one number a round; the first contestant is ours."""

    config: BenchConfig
    speeds: Mapping[Contestant, list[float]]

    def ratio(self, other: Contestant) -> float:
        """How many times faster ours is: the median of the ratios within rounds."""
        ours = next(iter(self.speeds.values()))
        return statistics.median(a / b for a, b in zip(ours, self.speeds[other], strict=True))

    def summary(self) -> str:
        """A table."""
        lines = [f"{'':42}{'tokens/s (median)':>18}{'ours is faster by':>20}"]
        for contestant, speeds in self.speeds.items():
            lines.append(
                f"{contestant.name:42}{statistics.median(speeds):>18,.0f}{self.ratio(contestant):>19.2f}x"
            )
        return "\n".join(lines)


def bench(config: BenchConfig, report: Callable[[str], None] = lambda line: None) -> BenchResult:
    """Train on documents of the small world and measure, in turns.

    The tokens counted are labelled ones: padding is no progress. Against transformers there are three
    contests: the same packed batches in the same number format; the same format with padded rows, which is
    how libraries commonly batch documents; and padded rows in float32, their default.

    Raises:
        ValueError: an unknown preset, a number below 1, or transformers is asked for and not installed.
    """
    for name in ("batch_size", "steps", "rounds"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be 1 or more, not {getattr(config, name)}")
    contestants = [Contestant(OURS, True, config.dtype)]
    if config.vs == "transformers":
        contestants += [
            Contestant("transformers", True, config.dtype),
            Contestant("transformers", False, config.dtype),
            Contestant("transformers", False, "float32"),
        ]
    ModelConfig.preset(config.preset)
    speeds: dict[Contestant, list[float]] = {contestant: [] for contestant in contestants}
    workers = [_Worker(contestant, config) for contestant in contestants]
    try:
        for worker in workers:
            worker.receive()  # built and warmed up
        for number in range(config.rounds):
            for contestant, worker in zip(contestants, workers, strict=True):
                worker.pipe.send(config.steps)
                speeds[contestant].append(worker.receive())
            latest = ", ".join(f"{values[-1]:,.0f}" for values in speeds.values())
            report(f"round {number + 1} of {config.rounds}: {latest} tokens/s")
    finally:
        for worker in workers:
            worker.process.terminate()
    return BenchResult(config, speeds)


class _Worker:
    """A process that trains on request."""

    def __init__(self, contestant: Contestant, config: BenchConfig) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(contestant, config, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def receive(self) -> float:
        """The next number the worker sends.

        Raises:
            ValueError: the worker failed; the message says why.
        """
        try:
            answer = self.pipe.recv()
        except EOFError:
            raise ValueError("a benchmark process ended early; is there enough memory?") from None
        if isinstance(answer, str):
            raise ValueError(answer)
        return answer


def _work(contestant: Contestant, config: BenchConfig, pipe: Connection) -> None:
    """Train whenever a number of steps arrives, and answer with the tokens a second."""
    try:
        if contestant.library == OURS:
            keep_freed_memory()  # as ``fit`` does
        with tempfile.TemporaryDirectory() as folder:
            run, batches = _prepare(contestant, config, folder)
            for _ in range(3):
                run.take_step([next(batches)], 1e-3)
            pipe.send(0.0)
            while True:
                steps = pipe.recv()
                window, tokens, started = [next(batches) for _ in range(steps)], 0, time.perf_counter()
                for batch in window:
                    tokens += run.take_step([batch], 1e-3)["tokens"]
                pipe.send(tokens / (time.perf_counter() - started))
    except (EOFError, KeyboardInterrupt):
        pass
    except Exception as error:
        pipe.send(f"{contestant.name}: {type(error).__name__}: {error}")


def _prepare(
    contestant: Contestant, config: BenchConfig, folder: str
) -> tuple[Run, Iterator[tuple[list[int], Batch]]]:
    """A run that can take steps, and an endless supply of its batches."""
    texts = [document.text for document in SmallWorld().documents(4_000)]
    tokenizer = train_fast(texts, PretrainConfig.vocab_size, split_digits=True)
    ids = [[tokenizer.bos_token_id, *text, tokenizer.eos_token_id] for text in tokenizer.encode_batch(texts)]
    documents = TokenizedDocuments.from_lists(ids, pad_token_id=tokenizer.pad_token_id)
    rows = (PackedDataset if contestant.packed else PaddedDataset)(documents, config.max_seq_len)
    torch.manual_seed(0)
    model: nn.Module = MiniMind(ModelConfig.preset(config.preset).replace(vocab_size=tokenizer.vocab_size))
    loss = causal_lm_loss
    if contestant.library == "transformers":
        model, loss = _to_transformers(model), transformers_loss
    settings = TrainConfig(out_dir=folder, dtype=contestant.dtype, device=config.device, max_steps=10**6)
    run = Run(model, loss, rows, settings, None, "")
    model.train()

    def batches() -> Iterator[tuple[list[int], Batch]]:
        # Padded rows hold one document each: as many of them as hold the tokens of a packed batch.
        size = config.batch_size
        if not contestant.packed:
            size = max(1, round(size * config.max_seq_len / float(documents.lengths.mean())))
        endless = itertools.cycle(range(len(rows)))
        while True:
            numbers = list(itertools.islice(endless, size))
            yield numbers, collate([rows[n] for n in numbers], trim_padding=not contestant.packed)

    return run, batches()


def _to_transformers(model: MiniMind) -> nn.Module:
    try:
        return model.to_transformers()
    except ImportError:
        raise ValueError(
            "transformers is not installed: pip install -c constraints.txt -e '.[compare]'"
        ) from None


def transformers_loss(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, Mapping[str, object]]:
    """The loss of ``causal_lm_loss`` computed by a transformers model, so that the loop can drive it too.

    A packed batch gets a mask of its documents (B, 1, T, T); a padded one the usual (B, T) mask.
    """
    documents = batch["document_ids"]
    if int(documents.max()) > 0:
        same = documents[:, None, :, None] == documents[:, None, None, :]
        mask = same & torch.ones(same.shape[-2:], dtype=torch.bool, device=same.device).tril()
    else:
        mask = (documents >= 0).long()
    out = model(input_ids=batch["input_ids"], attention_mask=mask, labels=batch["labels"], use_cache=False)
    return out.loss, {"tokens": int((batch["labels"][:, 1:] != -100).sum())}
