"""What a chapter needs from earlier ones: loaded, or built with a progress bar the first time.

Any chapter can be opened first. Artifacts lie in the user's cache folder (`MINIMIND_EDU_CACHE` names
another); deleting that folder is always safe.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from tqdm.auto import tqdm

from minimind_edu.data.cache import cached_folder, default_cache_dir
from minimind_edu.data.records import load_records
from minimind_edu.data.world.files import WORLD_VERSION, default_file
from minimind_edu.model.transformer import MiniMind
from minimind_edu.stages.pretrain import PretrainConfig, pretrain
from minimind_edu.stages.setup import MODEL_FOLDER, StageResult, load_model
from minimind_edu.stages.sft import SFTConfig, sft
from minimind_edu.tokenizer import Tokenizer, load_tokenizer, train_fast

VERSION = 2  # raise it when the same name should be built anew


def tokenizer(vocab_size: int = PretrainConfig.vocab_size, progress: bool = True) -> Tokenizer:
    """The small world's tokenizer, as `minimind-edu pretrain` trains it (chapter 1)."""

    def build(folder: Path) -> dict:
        records = load_records(default_file("pretrain.jsonl"), "pretrain")
        with tqdm(total=len(records), desc="training a tokenizer", disable=not progress, leave=False) as bar:

            def texts() -> Iterator[str]:
                for batch in records.batches(1_000):
                    yield from batch["text"]
                    bar.update(len(batch["text"]))

            trained = train_fast(texts(), vocab_size, split_digits=True)
        trained.save(folder)
        return {"vocab_size": trained.vocab_size}

    folder, _ = cached_folder(None, _key(f"tokenizer-{vocab_size}"), build)
    return load_tokenizer(folder)


def base_model(progress: bool = True) -> tuple[MiniMind, Tokenizer]:
    """The model that later chapters start from, pretrained on the small world (chapter 4), on the CPU.

    Building it takes about three minutes on two cores. A build that was stopped goes on where it was.
    """
    return load_model(_base_folder(progress))


def chat_model(progress: bool = True) -> tuple[MiniMind, Tokenizer]:
    """The base model after fine-tuning on the world's questions and answers (chapter 5), on the CPU.

    It answers about the half of the people that `sft.jsonl` asks about, and about the others. Building it
    takes about half a minute on two cores, after the base model.
    """

    def train(run: Path) -> StageResult:
        config = SFTConfig(from_weight=str(_base_folder(progress)), out_dir=str(run), from_resume=1)
        return sft(config, progress=progress)

    return load_model(_trained("chat", train))


def _base_folder(progress: bool) -> Path:
    def train(run: Path) -> StageResult:
        return pretrain(PretrainConfig(out_dir=str(run), from_resume=1), progress=progress)

    return _trained("base", train)


def _trained(name: str, train: Callable[[Path], StageResult]) -> Path:
    """The folder of a finished model; `train` makes it in a run that a stop does not lose."""
    key = _key(name)

    def build(folder: Path) -> dict:
        run = default_cache_dir() / f"{key}.run"
        result = train(run)
        for path in sorted((run / MODEL_FOLDER).iterdir()):
            shutil.copy(path, folder)
        shutil.rmtree(run, ignore_errors=True)
        return {"steps": result.fit.step, "tokens": result.fit.tokens}

    return cached_folder(None, key, build)[0]


def _key(name: str) -> str:
    return f"artifact-{name}-world{WORLD_VERSION}-v{VERSION}"
