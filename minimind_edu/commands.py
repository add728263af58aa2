"""What each command does and says. ``cli.py`` reads the options and turns failures into messages."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

from minimind_edu.course.build import BuildConfig, build
from minimind_edu.course.sweeps import SweepConfig, sweep
from minimind_edu.course.tour import TourConfig, format_report, tour
from minimind_edu.data.records import load_records
from minimind_edu.data.world import SmallWorld
from minimind_edu.data.world.files import DEFAULT_DOCUMENTS, build_files, default_file
from minimind_edu.evaluation import answer_questions, exact_match, perplexity
from minimind_edu.generation import Sampling, stream
from minimind_edu.hardware import BenchConfig, bench
from minimind_edu.stages.pretrain import PretrainConfig, pretrain
from minimind_edu.stages.setup import StageResult, load_model, progress_callback
from minimind_edu.stages.sft import SFTConfig, sft
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
class SamplingConfig:
    """How to write text.

    Args:
        from_weight: folder of a run or of a model.
        max_new_tokens: most tokens to write.
        temperature: 0 takes the likeliest token; larger is more varied.
        top_k: choose among the k likeliest tokens only; 0 means all.
        top_p: choose among the likeliest tokens that together have this probability.
        repetition_penalty: more than 1 makes tokens that were there already less likely.
        seed: seed of the choices.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    from_weight: str = "out/sft"
    max_new_tokens: int = 200
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 42
    device: str = "auto"

    def sampling(self) -> Sampling:
        """The part that decides the next token."""
        return Sampling(self.temperature, self.top_k, self.top_p, self.repetition_penalty)


@dataclass
class GenerateConfig(SamplingConfig):
    """Continue a text.

    Args:
        prompt: the text; empty reads it from standard input.
        chat: treat the prompt as a user's message and answer it.
    """

    prompt: str = ""
    chat: bool = False


@dataclass
class ChatConfig(SamplingConfig):
    """Talk to a fine-tuned model.

    Args:
        system: a system message to begin with.
        remember: how many earlier questions and answers the model sees.
    """

    system: str = ""
    remember: int = 0


@dataclass
class EvalConfig:
    """Measure a model.

    Args:
        from_weight: folder of a run or of a model.
        data_path: the file to measure on; empty means the embedded world's.
        max_seq_len: tokens in a row.
        batch_size: rows, or questions, at a time.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    from_weight: str = "out/pretrain"
    data_path: str = ""
    max_seq_len: int = 512
    batch_size: int = 16
    device: str = "auto"


@dataclass
class EvalAnswersConfig(EvalConfig):
    """Ask questions and compare the answers with the right ones."""

    from_weight: str = "out/sft"
    batch_size: int = 128


def run_tour(config: TourConfig) -> None:
    print(format_report(tour(config)))


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


def run_pretrain(config: PretrainConfig) -> None:
    _report(pretrain(config), f"minimind-edu sft --from_weight {config.out_dir}")


def run_sft(config: SFTConfig) -> None:
    _report(sft(config), f"minimind-edu chat --from_weight {config.out_dir}")


def run_generate(config: GenerateConfig) -> None:
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    prompt = config.prompt or sys.stdin.read()
    if config.chat:
        chat = [{"role": "user", "content": prompt}]
        ids = tokenizer.encode_chat(chat, add_generation_prompt=True).input_ids
    else:
        ids = [tokenizer.bos_token_id, *tokenizer.encode(prompt)]
        print(prompt, end="")
    _write(model, tokenizer, ids, config)


def run_chat(config: ChatConfig) -> None:
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    system = [{"role": "system", "content": config.system}] if config.system else []
    history: list[dict[str, str]] = []
    print("Type a question; an empty line or Ctrl-D ends the chat.")
    while True:
        try:
            question = input("you    > ").strip()
        except EOFError:
            question = ""
        if not question:
            return
        history = history[len(history) - 2 * config.remember :] if config.remember else []
        history.append({"role": "user", "content": question})
        ids = tokenizer.encode_chat(system + history, add_generation_prompt=True).input_ids
        print("model  > ", end="")
        history.append({"role": "assistant", "content": _write(model, tokenizer, ids, config)})


def run_eval_perplexity(config: EvalConfig) -> None:
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    path = config.data_path or default_file("eval_pretrain.jsonl")
    result = perplexity(model, tokenizer, path, config.max_seq_len, config.batch_size)
    print(f"loss        {result.loss:.4f} nats a token ({result.tokens:,} tokens)")
    print(f"perplexity  {result.perplexity:.3f}")
    if result.floor is not None:
        print(f"floor       {result.floor:.4f} nats a token\nloss/floor  {result.ratio:.4f}")


def run_eval_answers(config: EvalAnswersConfig) -> None:
    model, tokenizer = load_model(config.from_weight, str(resolve_device(config.device)))
    path = config.data_path or default_file("eval_facts.jsonl")
    with progress_callback("asking", True) as report:
        answers = answer_questions(model, tokenizer, path, config.batch_size, progress=report)
    columns = [name for name in ("language", "seen") if all(name in a.record for a in answers)]
    for group, score in {**exact_match(answers), **exact_match(answers, *columns)}.items():
        named = ", ".join(f"{name} {value}" for name, value in zip(columns, group, strict=False))
        print(f"exact match {score:.3f}  {named or 'all'}")


def run_bench(config: BenchConfig) -> None:
    result = bench(config, report=lambda line: print(line, flush=True))
    print(result.summary())


def _write(model: object, tokenizer: object, ids: list[int], config: SamplingConfig) -> str:
    """Print the model's tokens as they come; returns the text."""
    tokens: list[int] = []
    shown = ""
    for token in stream(
        model,
        ids,
        max_new_tokens=config.max_new_tokens,
        sampling=config.sampling(),
        eos_token_id=tokenizer.eos_token_id,
        seed=config.seed,
    ):
        tokens.append(token)
        text = tokenizer.decode(tokens, skip_special_tokens=True)
        if not text.endswith("\N{REPLACEMENT CHARACTER}"):  # a character may be spread over several tokens
            print(text[len(shown) :], end="", flush=True)
            shown = text
    text = tokenizer.decode(tokens, skip_special_tokens=True)
    print(text[len(shown) :], flush=True)
    return text


def _report(result: StageResult, next_command: str) -> None:
    fit = result.fit
    print(
        f"{fit.step} steps, {fit.tokens:,} tokens, {fit.seconds:.0f} s ({fit.precision}); "
        f"validation loss {fit.validation_loss:.4f}"
    )
    for note in result.notes:
        print(f"note: {note}")
    print(f"model and tokenizer are in {result.model_dir}\nnext: {next_command}")


@dataclass(frozen=True)
class Command:
    """One command: the dataclass of its options, what runs it, and a line for ``--help``.

    ``positional`` is the option that is given without its name, as in ``course build 02``.
    """

    config: type
    run: Callable[[object], None]
    help: str
    positional: str = ""


COMMANDS = {
    "tour": Command(TourConfig, run_tour, "from nothing to a small model that answers questions"),
    "data build": Command(DataBuildConfig, run_data_build, "build the files of a small world"),
    "tokenizer train": Command(TokenizerTrainConfig, run_tokenizer_train, "train a byte-level BPE tokenizer"),
    "pretrain": Command(PretrainConfig, run_pretrain, "train a model on documents or plain text"),
    "sft": Command(SFTConfig, run_sft, "teach a pretrained model to answer"),
    "generate": Command(GenerateConfig, run_generate, "continue a text, or answer one message"),
    "chat": Command(ChatConfig, run_chat, "talk to a fine-tuned model"),
    "eval perplexity": Command(EvalConfig, run_eval_perplexity, "loss on text, against its floor if known"),
    "eval answers": Command(EvalAnswersConfig, run_eval_answers, "exact match on questions"),
    "bench": Command(BenchConfig, run_bench, "training speed on this machine"),
    "course build": Command(BuildConfig, build, "execute chapters from their sources", "chapter"),
    "course sweep": Command(SweepConfig, sweep, "run a chapter's long experiments", "chapter"),
}
