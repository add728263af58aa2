"""The one training loop. It knows no stage: it drives ``loss(model, batch) -> (loss, metrics)``.

A step is a *window* of ``accumulation_steps`` batches. The loss of a batch is a mean over its labelled
tokens, so batches are weighed by how many they have: the gradient of a window equals the gradient of one
big batch, also where the batches differ in size, as the last ones of an epoch do.
"""

import dataclasses
import math
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from minimind_edu.config import ModelConfig
from minimind_edu.training.checkpoint import (
    Position,
    load_checkpoint,
    newest_good_checkpoint,
    save_checkpoint,
)
from minimind_edu.training.config import TrainConfig
from minimind_edu.training.evaluate import Batch, LossFunction, TrainingData, evaluate_loss
from minimind_edu.training.interrupt import Interrupted, stop_requests
from minimind_edu.training.logging import MetricsLog
from minimind_edu.training.memory import keep_freed_memory
from minimind_edu.training.optim import OptimizerSet, learning_rate_at
from minimind_edu.training.precision import resolve_device, resolve_precision

CHECKPOINTS = "checkpoints"  # inside a run's folder


class NonFiniteLossError(RuntimeError):
    """The loss or the gradient is NaN or infinite. Nothing was saved after the last good step."""


class RunExistsError(ValueError):
    """The folder already holds a run, or another process is writing to it."""


@dataclasses.dataclass(frozen=True)
class FitResult:
    """What a run came to.

    Attributes:
        step: optimizer steps taken, over all sittings.
        tokens: labelled tokens trained on.
        skipped_batches: batches without any labelled token, which were not trained on.
        seconds: time spent training.
        train_loss: mean loss over the last logging interval; nan if nothing was trained in this sitting.
        validation_loss: mean over the validation data after the last step, or None without such data.
        precision: why the number format is what it is.
        warnings: what the user should know, such as a damaged checkpoint that was passed over.
    """

    step: int
    tokens: int
    skipped_batches: int
    seconds: float
    train_loss: float
    validation_loss: float | None
    precision: str
    warnings: tuple[str, ...]


def fit(
    model: nn.Module,
    loss: LossFunction,
    train_data: TrainingData,
    config: TrainConfig,
    validation_data: TrainingData | None = None,
    data_identity: str = "",
    progress: bool = True,
    on_log: Callable[[dict[str, float]], None] | None = None,
) -> FitResult:
    """Train ``model`` in place.

    Args:
        loss: see ``LossFunction``.
        data_identity: a fingerprint of the data; a run is only continued on the same data.
        progress: show a progress bar.
        on_log: called with every line that goes to ``metrics.jsonl``.

    Raises:
        ValueError: a setting makes no sense, or the data are empty.
        RunExistsError: ``out_dir`` holds a run and neither ``from_resume`` nor ``overwrite`` is set, or
            another process trains into it.
        CheckpointError: the run to continue has other settings, or all its checkpoints are damaged.
        NonFiniteLossError: the loss is NaN or infinite; names the step and the records of the batch.
        Interrupted: Ctrl-C (or SIGTERM); a checkpoint was saved.
    """
    config.validate()
    keep_freed_memory()
    if len(train_data) == 0:
        raise ValueError("there are no training data: not one row of tokens")
    out_dir = Path(config.out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out_dir / ".lock", timeout=0), stop_requests() as stop_requested:
            run = Run(model, loss, train_data, config, validation_data, data_identity)
            return run.train(progress, on_log, stop_requested)
    except Timeout:
        raise RunExistsError(f"another process is training into {out_dir}") from None


def refuse_existing_run(config: TrainConfig) -> None:
    """Raise RunExistsError if ``out_dir`` holds a run that ``config`` neither continues nor replaces."""
    holds_run = any((Path(config.out_dir) / CHECKPOINTS).glob("step-*"))
    if holds_run and not (config.from_resume or config.overwrite):
        raise RunExistsError(
            f"{config.out_dir} already holds a run: continue it with --from_resume 1, "
            "replace it with --overwrite 1, or choose another --out_dir"
        )


class Run:
    """The state of one sitting: ``fit`` in parts, for those who want to time or watch single steps."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        train_data: TrainingData,
        config: TrainConfig,
        validation_data: TrainingData | None,
        data_identity: str,
    ) -> None:
        self.config, self.loss, self.train_data = config, loss, train_data
        self.validation_data = validation_data
        self.device = resolve_device(config.device)
        self.precision = resolve_precision(config.dtype, self.device)
        self.model = model.to(self.device)
        self.optimizers = OptimizerSet(self.model, config)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision.use_scaler)
        self.batches_per_epoch = math.ceil(len(train_data) / config.batch_size)
        self.steps_per_epoch = math.ceil(self.batches_per_epoch / config.accumulation_steps)
        self.total_steps = config.max_steps or config.epochs * self.steps_per_epoch
        self.identity = self._identity(data_identity)
        self.folder = Path(config.out_dir) / CHECKPOINTS
        self.warnings: list[str] = []
        self.position = self._start()

    def _identity(self, data_identity: str) -> dict[str, object]:
        """What decides the weights: a run may only be continued with all of it unchanged."""
        free = {
            "out_dir", "log_interval", "save_interval", "eval_interval", "keep_checkpoints", "device",
            "num_workers", "from_resume", "overwrite", "use_wandb", "logger",
        }  # fmt: skip
        names = [field.name for field in dataclasses.fields(TrainConfig) if field.name not in free]
        # Not all of a model's settings show in its tensors: dropout, for one, or the angles of RoPE.
        shape = getattr(self.model, "config", None)
        return {
            **{name: getattr(self.config, name) for name in names},
            **(shape.to_dict() if isinstance(shape, ModelConfig) else {}),
            "dtype": str(self.precision.dtype).removeprefix("torch."),
            "data": data_identity,
            "rows": len(self.train_data),
            "parameters": sum(p.numel() for p in self.model.parameters()),
        }

    def _start(self) -> Position:
        """Continue, start anew, or refuse."""
        newest, self.warnings = None, []
        if self.config.overwrite:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif self.config.from_resume:
            newest, self.warnings = newest_good_checkpoint(self.folder)
        else:
            refuse_existing_run(self.config)
        torch.manual_seed(self.config.seed)
        if newest is None:
            return Position()
        return load_checkpoint(newest, self.model, self.optimizers, self.scaler, self.identity)

    def train(
        self,
        progress: bool,
        on_log: Callable[[dict[str, float]], None] | None,
        stop_requested: threading.Event,
    ) -> FitResult:
        """Take all steps that are left."""
        config, recent = self.config, _Recent()
        validation_loss = None
        started = time.perf_counter() - self.position.seconds
        saved_step = self.position.step if self.position.step else -1
        windows = self._windows()
        self.model.train()
        with (
            MetricsLog(config, self.position.step) as log,
            tqdm(
                total=self.total_steps,
                initial=self.position.step,
                desc="training",
                unit="step",
                disable=not progress,
            ) as bar,
        ):
            while self.position.step < self.total_steps:
                window, epoch, batch = next(windows)
                learning_rate = learning_rate_at(self.position.step, self.total_steps, config)
                numbers = self.take_step(window, learning_rate)
                step = self.position.step + 1
                tokens, skipped = int(numbers.pop("tokens")), int(numbers.pop("skipped"))
                self.position = Position(
                    step=step,
                    epoch=epoch,
                    batch=batch,
                    tokens=self.position.tokens + tokens,
                    skipped=self.position.skipped + skipped,
                    seconds=time.perf_counter() - started,
                )
                recent.add(tokens, numbers)
                last = step == self.total_steps
                bar.update()
                if step % config.log_interval == 0 or last:
                    line = log.write(
                        step,
                        epoch=epoch,
                        lr=learning_rate,
                        trained_tokens=self.position.tokens,
                        **recent.mean(),
                    )
                    bar.set_postfix(
                        loss=f"{line.get('loss', math.nan):.3f}", tok_s=f"{line['tokens_per_second']:.0f}"
                    )
                    if on_log:
                        on_log(line)
                    recent = _Recent(recent)
                due = config.eval_interval and step % config.eval_interval == 0
                if self.validation_data is not None and (due or last):
                    validation_loss = self.evaluate()
                    line = log.write(step, validation_loss=validation_loss)
                    if on_log:
                        on_log(line)
                if last or (config.save_interval and step % config.save_interval == 0):
                    self._save()
                    saved_step = step
                if stop_requested.is_set():
                    if saved_step != step:
                        self._save()
                    raise Interrupted(f"stopped after step {step} of {self.total_steps}; the state is saved")
        if validation_loss is None and self.validation_data is not None:  # a finished run that was resumed
            validation_loss = self.evaluate()
        return FitResult(
            step=self.position.step,
            tokens=self.position.tokens,
            skipped_batches=self.position.skipped,
            seconds=self.position.seconds,
            train_loss=recent.last_loss,
            validation_loss=validation_loss,
            precision=self.precision.reason,
            warnings=tuple(self.warnings),
        )

    def _windows(self) -> Iterator[tuple[list[tuple[list[int], Batch]], int, int]]:
        """Yield (rows and batches of one step, epoch and batch number after it), from the position on.

        The remainder of an epoch is a window too: it has fewer batches.
        """
        size, epoch, done = self.config.batch_size, self.position.epoch, self.position.batch
        while True:
            self.train_data.set_epoch(epoch)
            rows = list(range(len(self.train_data)))
            batches = [rows[start : start + size] for start in range(0, len(rows), size)]
            # The loader has a generator of its own so that starting it draws nothing from the global one:
            # a resumed run starts it once more often than a run that was never stopped.
            loader = DataLoader(
                self.train_data,
                batch_sampler=batches[done:],
                num_workers=self.config.num_workers,
                generator=torch.Generator(),
                pin_memory=self.device.type == "cuda",
            )
            window = []
            for rows, batch in zip(batches[done:], loader, strict=True):
                window.append((rows, batch))
                done += 1
                if len(window) == self.config.accumulation_steps or done == len(batches):
                    ended = done == len(batches)
                    yield window, epoch + ended, 0 if ended else done
                    window = []
            epoch, done = epoch + 1, 0

    def take_step(self, window: list[tuple[list[int], Batch]], learning_rate: float) -> dict[str, float]:
        """One optimizer step over a window of batches. Returns the numbers to log."""
        self.optimizers.set_learning_rate(learning_rate)
        unit, total, skipped = 0, 0, 0
        sums: dict[str, torch.Tensor] = {}
        for _, batch in window:
            batch = {name: tensor.to(self.device, non_blocking=True) for name, tensor in batch.items()}
            with self.precision.autocast(self.device):
                loss, numbers = self.loss(self.model, batch)
            tokens = int(numbers["tokens"])
            if tokens == 0:  # a mean over nothing is NaN, and there is nothing to learn
                skipped += 1
                continue
            unit = unit or tokens
            total += tokens
            # Weights relative to the first batch: gradients keep their usual size, which float16 needs.
            self.scaler.scale(loss * (tokens / unit)).backward()
            logged = {"loss": loss.detach(), **{k: v for k, v in numbers.items() if k != "tokens"}}
            for name, value in logged.items():
                sums[name] = sums.get(name, 0) + torch.as_tensor(value).detach().float() * tokens
        means = {name: float(value) / total for name, value in sums.items()}
        if total:
            self._check_finite(means["loss"], window, "loss")
            means["grad_norm"] = self._update(unit / total, window)
        self.optimizers.zero_grad()
        return {**means, "tokens": total, "skipped": skipped}

    def _update(self, scale: float, window: list[tuple[list[int], Batch]]) -> float:
        """Scale and clip the gradient, change the weights; returns the norm before clipping."""
        parameters = self.optimizers.parameters()
        for optimizer in self.optimizers.optimizers:
            self.scaler.unscale_(optimizer)
        if scale != 1:
            torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], scale)
        limit = self.config.grad_clip or math.inf
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
        if not self.scaler.is_enabled():  # the scaler itself skips a step that overflowed in float16
            self._check_finite(norm, window, "gradient")
        for optimizer in self.optimizers.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def _check_finite(self, value: float, window: list[tuple[list[int], Batch]], what: str) -> None:
        if math.isfinite(value):
            return
        rows = [row for rows, _ in window for row in rows]
        records = sorted({record for row in rows for record in self.train_data.record_ids(row)})
        shown = ", ".join(map(str, records[:20])) + (
            f" and {len(records) - 20} more" if len(records) > 20 else ""
        )
        raise NonFiniteLossError(
            f"the {what} is {value} at step {self.position.step + 1}; the batch holds records {shown}. "
            "No checkpoint was written for this step; try a lower --learning_rate or --dtype float32"
        )

    def evaluate(self) -> float:
        """Mean validation loss over all labelled tokens."""
        return evaluate_loss(
            self.model, self.loss, self.validation_data, self.config.batch_size, self.device, self.precision
        )

    def _save(self) -> None:
        save_checkpoint(
            self.folder,
            self.model,
            self.optimizers,
            self.scaler,
            self.position,
            self.identity,
            self.config.keep_checkpoints,
        )


class _Recent:
    """Means over the steps since the last line of the log."""

    def __init__(self, before: "_Recent | None" = None) -> None:
        self.last_loss = before.last_loss if before else math.nan
        self.tokens, self.sums, self.started = 0, {}, time.perf_counter()

    def add(self, tokens: int, numbers: dict[str, float]) -> None:
        self.tokens += tokens
        for name, value in numbers.items():
            weighted, count = self.sums.get(name, (0.0, 0))
            self.sums[name] = (weighted + value * tokens, count + tokens)

    def mean(self) -> dict[str, float]:
        means = {name: total / count for name, (total, count) in self.sums.items() if count}
        self.last_loss = means.get("loss", self.last_loss)
        seconds = time.perf_counter() - self.started
        return {**means, "tokens_per_second": self.tokens / max(seconds, 1e-9)}
