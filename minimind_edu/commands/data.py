"""Commands that make data: the small world's files, samples of files, tokenizers."""

from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from minimind_edu.data.records import load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import DEFAULT_DOCUMENTS, build_files, default_file
from minimind_edu.stages.answers import write_answers
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.stages.setup import load_model, progress_callback
from minimind_edu.tokenizer import BPETokenizer, train_fast
from minimind_edu.training.precision import resolve_device


@dataclass
class DataBuildConfig:
    """Build the files of a small world.

    Args:
        out_dir: folder for the files.
        people: how many people live in the world.
        documents: how many pretraining documents to write; 0 means 300 for each person.
        seed: another seed gives another world.
        languages: en, zh, or en,zh.
    """

    out_dir: str = "datasets"
    people: int = 100
    documents: int = 0
    seed: int = 0
    languages: str = "en,zh"


@dataclass
class TokenizerTrainConfig:
    """Train a byte-level BPE tokenizer.

    Args:
        data_path: a .jsonl with "text" fields or a .txt; empty means the embedded world.
        out_dir: folder for the tokenizer, in the layout that transformers loads.
        vocab_size: entries, special tokens and the 256 bytes included.
        split_digits: 1 makes every digit a token of its own, as pretrain does; 0 keeps numbers together.
        readable: train with the course's own BPETokenizer instead of the tokenizers library (same result).
    """

    data_path: str = ""
    out_dir: str = "out/tokenizer"
    vocab_size: int = PretrainConfig.vocab_size
    split_digits: int = 1
    readable: bool = False


@dataclass
class AnswersConfig:
    """Let a model answer the questions of a file: data for a student of another tokenizer or architecture.

    Args:
        from_weight: folder of the model that answers.
        data_path: conversations, whose last answers are replaced; empty means the embedded world's sft.jsonl.
        out_path: the file to write.
        temperature: 0 takes the likeliest token; larger is more varied.
        answers_per_prompt: answers to each question; more than one needs a temperature.
        max_new_tokens: answers that do not end within so many tokens are left out.
        batch_size: questions at a time.
        seed: seed of the choices.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    from_weight: str = "out/sft"
    data_path: str = ""
    out_path: str = "out/answers.jsonl"
    temperature: float = 0.0
    answers_per_prompt: int = 1
    max_new_tokens: int = 128
    batch_size: int = 64
    seed: int = 42
    device: str = "auto"


def run_data_build(config: DataBuildConfig) -> None:
    world = SmallWorld(config.people, config.seed, tuple(config.languages.split(",")))
    documents = config.documents or DEFAULT_DOCUMENTS * config.people // 100
    with tqdm(desc="writing", unit=" records", delay=1.0, leave=False) as bar:
        counts = build_files(config.out_dir, world, documents, progress=lambda name, count: bar.update())
    for name, count in counts.items():
        size = (Path(config.out_dir) / name).stat().st_size
        print(f"{name:<22}{count:>10,} records {size / 1e6:>9.2f} MB")


def run_tokenizer_train(config: TokenizerTrainConfig) -> None:
    path = config.data_path or default_file("pretrain.jsonl")
    with progress_callback("reading", True) as report:
        records = load_records(path, "pretrain", progress=report)
    texts = (text for batch in records.batches(1_000) for text in batch["text"])
    train = BPETokenizer.train if config.readable else train_fast
    tokenizer = train(texts, config.vocab_size, split_digits=bool(config.split_digits))
    tokenizer.save(config.out_dir)
    print(f"{tokenizer.vocab_size} tokens learned from {len(records):,} records; saved in {config.out_dir}")


def run_data_answers(config: AnswersConfig) -> None:
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    with progress_callback("answering", True) as report:
        written = write_answers(
            model,
            tokenizer,
            config.data_path or default_file("sft.jsonl"),
            config.out_path,
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            answers_per_prompt=config.answers_per_prompt,
            batch_size=config.batch_size,
            seed=config.seed,
            progress=report,
        )
    print(f"{written.answers:,} answers of {written.tokens:,} tokens are in {config.out_path}")
    if written.skipped:
        print(
            f"note: {written.skipped:,} were left out: empty, or longer than {config.max_new_tokens} tokens"
        )
    print(f"next: minimind-edu sft --data_path {config.out_path}")
