"""The table of commands. ``cli.py`` reads the options and turns failures into messages.

What a command needs is imported when it is used: `minimind-edu data sample` needs no torch, whose import
takes seconds and 200 MB.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """One command: where its options and its function are, and a line for ``--help``.

    Attributes:
        module: the module that has both.
        config_name: the dataclass of its options, there.
        run_name: the function that takes an instance of it, there.
        help: what it does.
        positional: the option that is given without its name, as in ``course build 02``.
    """

    module: str
    config_name: str
    run_name: str
    help: str
    positional: str = ""

    @property
    def config(self) -> type:
        """The dataclass of its options."""
        return getattr(importlib.import_module(self.module), self.config_name)

    @property
    def run(self) -> Callable[[object], None]:
        """What runs it."""
        return getattr(importlib.import_module(self.module), self.run_name)


_DATA, _TRAINING, _TALKING, _MEASURING = (
    f"{__name__}.{part}" for part in ("data", "training", "talking", "measuring")
)
_BUILD, _SWEEPS = "minimind_edu.course.build", "minimind_edu.course.sweeps"

COMMANDS = {
    "tour": Command(
        _TRAINING, "TourConfig", "run_tour", "from nothing to a small model that answers questions"
    ),
    "data build": Command(_DATA, "DataBuildConfig", "run_data_build", "build the files of a small world"),
    "data sample": Command(
        f"{__name__}.sampling", "SampleConfig", "run_data_sample", "draw a random sample of a data file"
    ),
    "data answers": Command(
        _DATA, "AnswersConfig", "run_data_answers", "let a model answer the questions of a file anew"
    ),
    "data problems": Command(
        f"{__name__}.problems", "ProblemsConfig", "run_data_problems", "write problems with right answers"
    ),
    "tokenizer train": Command(
        _DATA, "TokenizerTrainConfig", "run_tokenizer_train", "train a byte-level BPE tokenizer"
    ),
    "pretrain": Command(
        _TRAINING, "PretrainConfig", "run_pretrain", "train a model on documents or plain text"
    ),
    "sft": Command(_TRAINING, "SFTConfig", "run_sft", "teach a pretrained model to answer"),
    "lora": Command(_TRAINING, "LoRAConfig", "run_lora", "adapt a model with 1% of the weights"),
    "dpo": Command(_TRAINING, "DPOConfig", "run_dpo", "teach a model to prefer the better of two answers"),
    "distill": Command(
        _TRAINING, "DistillConfig", "run_distill", "train a small model on the distributions of a bigger one"
    ),
    "reason": Command(_TRAINING, "ReasonConfig", "run_reason", "teach a model to think before it answers"),
    "grpo": Command(_TRAINING, "GRPOConfig", "run_grpo", "reinforce the answers that turn out to be right"),
    "generate": Command(_TALKING, "GenerateConfig", "run_generate", "continue a text, or answer one message"),
    "chat": Command(_TALKING, "ChatConfig", "run_chat", "talk to a fine-tuned model"),
    "eval perplexity": Command(
        _MEASURING, "EvalConfig", "run_eval_perplexity", "loss on text, against its floor if known"
    ),
    "eval answers": Command(_MEASURING, "EvalAnswersConfig", "run_eval_answers", "exact match on questions"),
    "bench": Command(
        f"{__name__}.bench", "BenchCommandConfig", "run_bench", "measure this machine, or a step on it"
    ),
    "hardware": Command(
        f"{__name__}.hardware", "HardwareConfig", "run_hardware", "will it fit, and how long will it take?"
    ),
    "course build": Command(_BUILD, "BuildConfig", "build", "execute chapters from their sources", "chapter"),
    "course sweep": Command(_SWEEPS, "SweepConfig", "sweep", "run a chapter's long experiments", "chapter"),
}
