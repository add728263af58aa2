"""What every stage does before and after training: find the text, make rows of it, keep the result."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from minimind_edu.data.packing import PackedDataset
from minimind_edu.data.records import Records, load_records, train_val_split
from minimind_edu.data.tokenized import tokenize
from minimind_edu.data.world.files import default_file
from minimind_edu.model.transformer import MiniMind
from minimind_edu.model.weights import MODEL_TYPE
from minimind_edu.tokenizer import Tokenizer, load_tokenizer
from minimind_edu.training import FitResult, LossFunction, TrainConfig, TrainingData, fit
from minimind_edu.training.loop import refuse_existing_run
from minimind_edu.training.precision import resolve_device, resolve_precision

MODEL_FOLDER = "model"  # inside a run's folder


@dataclass
class StageConfig(TrainConfig):
    """Settings that every stage has besides those of the loop.

    Args:
        data_path: a file of records (.jsonl or .json), of plain text (.txt), or hf://owner/dataset/file;
            empty means the file of the embedded world.
        from_weight: folder of an earlier run, or of a model, to start from.
        max_seq_len: tokens in a row.
        val_fraction: part of the records that is kept for the validation loss (2,000 records at most).
        on_bad_record: stop at records with faults, or skip and count them.
        cache_dir: where checked records and token ids are kept; empty means the user's cache folder.
        gradient_checkpointing: 1 keeps only every layer's input and computes the rest anew in the backward
            pass: less memory, about a third more time, the same weights.
    """

    data_path: str = ""
    from_weight: str = ""
    max_seq_len: int = 256
    val_fraction: float = 0.02
    on_bad_record: Literal["stop", "skip"] = "stop"
    cache_dir: str = ""
    gradient_checkpointing: int = 0

    def validate(self) -> None:
        """Raise ValueError, naming the setting and the remedy, if a setting makes no sense."""
        super().validate()
        if self.max_seq_len < 2:
            raise ValueError(f"max_seq_len must be 2 or more, not {self.max_seq_len}")
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction must be between 0 and 1, not {self.val_fraction}")
        if self.gradient_checkpointing not in (0, 1):
            raise ValueError(f"gradient_checkpointing must be 0 or 1, not {self.gradient_checkpointing}")


@dataclass(frozen=True)
class StageResult:
    """A trained model with its tokenizer, and how training went.

    Attributes:
        model_dir: the folder that holds both; ``load_model`` and ``--from_weight`` take it.
        notes: what the user should know, such as skipped records or a damaged checkpoint.
    """

    model: MiniMind
    tokenizer: Tokenizer
    fit: FitResult
    model_dir: Path
    notes: tuple[str, ...]


@contextlib.contextmanager
def progress_callback(description: str, show: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar moved by calls of (done, total); it appears only for work that takes a while."""
    with tqdm(desc=description, disable=not show, unit_scale=True, delay=1.0, leave=False) as bar:

        def move(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield move


def check_before_work(config: StageConfig) -> None:
    """Find out what would fail after minutes of preparation, before it.

    Raises:
        ValueError: a setting makes no sense here, or ``out_dir/model`` holds something else than a model.
        RunExistsError: ``out_dir`` already holds a run.
    """
    config.validate()
    resolve_precision(config.dtype, resolve_device(config.device))
    refuse_existing_run(config)
    folder = Path(config.out_dir) / MODEL_FOLDER
    if folder.exists() and not is_model(folder):
        raise ValueError(f"{folder} is not a model of ours and would be replaced: choose another --out_dir")


def is_model(folder: Path) -> bool:
    """Whether a folder is empty, or holds what ``save_model`` wrote."""
    if not folder.is_dir():
        return False
    try:
        written = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return not any(folder.iterdir())
    return isinstance(written, dict) and written.get("model_type") == MODEL_TYPE


def read_records(config: StageConfig, kind: str, default: str, show: bool) -> Records:
    """The stage's records, checked; those of the embedded world's file ``default`` where no file is named.

    Raises:
        DataError: see ``load_records``.
    """
    path = config.data_path or default_file(default, config.cache_dir or None)
    with progress_callback("checking records", show) as report:
        return load_records(
            path,
            kind,
            on_bad_record=config.on_bad_record,
            cache_dir=config.cache_dir or None,
            progress=report,
        )


@dataclass(frozen=True)
class StageData:
    """What a stage trains on.

    Attributes:
        train, validation: rows; see ``TrainingData``.
        identity: names the data; a run is only continued on the same.
        notes: what the user should know, such as records that were skipped or cut.
    """

    train: TrainingData
    validation: TrainingData
    identity: str
    notes: tuple[str, ...] = ()


def packed_rows(
    config: StageConfig, kind: str, records: Records, tokenizer: Tokenizer, show: bool
) -> StageData:
    """Hold records back for validation, tokenize all, and pack both parts into rows.

    Raises:
        DataError: too few records, or none has anything to learn.
    """
    parts = train_val_split(records, config.val_fraction, config.seed)
    rows = []
    for part, fill in zip(parts, (True, False), strict=True):
        with progress_callback("tokenizing", show) as report:
            documents = tokenize(part, tokenizer, kind, config.cache_dir or None, progress=report)
        rows.append(PackedDataset(documents, config.max_seq_len, seed=config.seed, fill=fill))
    notes = notes_on(records)
    if rows[0].truncated:
        notes.append(f"{rows[0].truncated} records are longer than {config.max_seq_len} tokens and were cut")
    if rows[0].dropped:
        notes.append(f"{rows[0].dropped} records have nothing to learn within {config.max_seq_len} tokens")
    identity = (
        f"{parts[0].fingerprint[:16]} tokenized by {tokenizer.fingerprint[:16]} "
        f"in rows of max_seq_len {config.max_seq_len}"
    )
    return StageData(rows[0], rows[1], identity, tuple(notes))


def notes_on(records: Records) -> list[str]:
    """What the user should know about the records as they were read."""
    if not records.dropped:
        return []
    return [f"{records.dropped} faulty records were skipped; the first: {records.faults[0]}"]


def fit_stage(
    config: StageConfig,
    data: StageData,
    model: MiniMind,
    loss: LossFunction,
    show: bool,
    on_log: Callable[[dict[str, float]], None] | None,
) -> tuple[FitResult, tuple[str, ...]]:
    """Train a model in place. Returns how it went, and all notes for the user."""
    model.gradient_checkpointing = bool(config.gradient_checkpointing)
    result = fit(
        model,
        loss,
        data.train,
        config,
        validation_data=data.validation,
        data_identity=f"{data.identity}, from weights {model_digest(model)[:16]}",
        progress=show,
        on_log=on_log,
    )
    notes = [*result.warnings, *data.notes]
    if result.skipped_batches:
        notes.append(f"{result.skipped_batches} batches had no labelled token and were skipped")
    return result, tuple(notes)


def train_stage(
    config: StageConfig,
    kind: str,
    records: Records,
    model: MiniMind,
    tokenizer: Tokenizer,
    loss: LossFunction,
    show: bool,
    on_log: Callable[[dict[str, float]], None] | None,
) -> StageResult:
    """Tokenize, pack, train, and keep model and tokenizer in ``out_dir/model``."""
    data = packed_rows(config, kind, records, tokenizer, show)
    result, notes = fit_stage(config, data, model, loss, show, on_log)
    return save_result(config, model, tokenizer, result, notes)


def save_result(
    config: StageConfig, model: MiniMind, tokenizer: Tokenizer, result: FitResult, notes: Sequence[str]
) -> StageResult:
    """The end of every stage: model and tokenizer are written to ``out_dir/model``."""
    model_dir = save_model(model, tokenizer, Path(config.out_dir) / MODEL_FOLDER)
    return StageResult(model, tokenizer, result, model_dir, tuple(notes))


def model_digest(model: MiniMind) -> str:
    """SHA-256 of a model's shape and weights: names a model to resumed runs and to caches."""
    digest = hashlib.sha256(repr(sorted(model.config.to_dict().items())).encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_model(model: MiniMind, tokenizer: Tokenizer, folder: Path) -> Path:
    """Write model and tokenizer beside ``folder`` and put them in its place."""
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    model.save_pretrained(beside)
    tokenizer.save(beside)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    return folder


def load_model(path: str | Path, device: str = "cpu") -> tuple[MiniMind, Tokenizer]:
    """A model and its tokenizer from the folder of a run, or from the folder of a model.

    Raises:
        ValueError: there is no model; ``WeightsError`` or ``TokenizerError`` where its files are damaged.
    """
    folder = Path(path)
    if (folder / MODEL_FOLDER / "config.json").is_file():
        folder = folder / MODEL_FOLDER
    if not (folder / "config.json").is_file():
        raise ValueError(f"{path}: no model here (a folder with config.json, or a finished run, is needed)")
    return MiniMind.from_pretrained(folder).to(device), load_tokenizer(folder)
