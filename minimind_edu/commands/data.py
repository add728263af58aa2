"""Commands that make data: the small world's files, samples of files, tokenizers."""

from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from minimind_edu.data.records import load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import DEFAULT_DOCUMENTS, build_files, default_file
from minimind_edu.stages.pretrain import PretrainConfig
from minimind_edu.stages.setup import progress_callback
from minimind_edu.tokenizer import BPETokenizer, train_fast


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
