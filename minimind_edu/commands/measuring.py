"""Commands that measure models and machines."""

from dataclasses import dataclass

from minimind_edu.commands.loading import load
from minimind_edu.data.world.files import default_file
from minimind_edu.evaluation import answer_questions, exact_match, perplexity
from minimind_edu.stages.setup import progress_callback


@dataclass
class EvalConfig:
    """Measure a model.

    Args:
        from_weight: folder of a run or of a model.
        adapter: folder of a LoRA adapter to use with it; empty means none.
        data_path: the file to measure on; empty means the embedded world's.
        max_seq_len: tokens in a row.
        batch_size: rows, or questions, at a time.
        device: auto, cpu, cuda, cuda:1, mps.
    """

    from_weight: str = "out/pretrain"
    adapter: str = ""
    data_path: str = ""
    max_seq_len: int = 512
    batch_size: int = 16
    device: str = "auto"


@dataclass
class EvalAnswersConfig(EvalConfig):
    """Ask questions and compare the answers with the right ones."""

    from_weight: str = "out/sft"
    batch_size: int = 128


def run_eval_perplexity(config: EvalConfig) -> None:
    model, tokenizer = load(config)
    path = config.data_path or default_file("eval_pretrain.jsonl")
    result = perplexity(model, tokenizer, path, config.max_seq_len, config.batch_size)
    print(f"loss        {result.loss:.4f} nats a token ({result.tokens:,} tokens)")
    print(f"perplexity  {result.perplexity:.3f}")
    if result.floor is not None:
        print(f"floor       {result.floor:.4f} nats a token\nloss/floor  {result.ratio:.4f}")


def run_eval_answers(config: EvalAnswersConfig) -> None:
    model, tokenizer = load(config)
    path = config.data_path or default_file("eval_facts.jsonl")
    with progress_callback("asking", True) as report:
        answers = answer_questions(model, tokenizer, path, config.batch_size, progress=report)
    columns = [name for name in ("language", "seen") if all(name in a.record for a in answers)]
    for group, score in {**exact_match(answers), **exact_match(answers, *columns)}.items():
        named = ", ".join(f"{name} {value}" for name, value in zip(columns, group, strict=False))
        print(f"exact match {score:.3f}  {named or 'all'}")
