"""Black-box distillation: a teacher that shows only its text writes the answers a student is trained on.

Kim and Rush, "Sequence-Level Knowledge Distillation" (2016). The student learns by plain `sft` from the file
that is written here, so it may have another tokenizer than the teacher.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from minimind_edu.data.records import chat_of, load_records
from minimind_edu.generation import Sampling, complete
from minimind_edu.model.transformer import MiniMind
from minimind_edu.tokenizer import Tokenizer


@dataclass(frozen=True)
class Written:
    """How many answers a teacher wrote.

    Attributes:
        answers: conversations in the file.
        skipped: answers that had no end after ``max_new_tokens``, were empty, or had no room for a token: a
            student would learn to stop in the middle of a sentence.
        tokens: tokens of all answers, the end tokens included.
    """

    answers: int
    skipped: int
    tokens: int


def write_answers(
    teacher: MiniMind,
    tokenizer: Tokenizer,
    path_in: str | Path,
    path_out: str | Path,
    max_new_tokens: int = 128,
    temperature: float = 0.0,
    answers_per_prompt: int = 1,
    batch_size: int = 64,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Written:
    """Write conversations anew, each with the teacher's own last answer in place of the one it had.

    Args:
        path_in: a file of conversations (.jsonl, as for `sft`).
        path_out: gets the new conversations, in the same form; an existing file is replaced whole.
        temperature: 0 is greedy, the teacher's likeliest answer; 1 samples from its distribution.
        answers_per_prompt: how often each prompt is answered; more than one needs a temperature above 0.
        seed: of the sampling; the same seed and batch size give the same file.
        progress: called with (prompts done, prompts in all).

    Raises:
        DataError: the file has faults.
        ValueError: a setting makes no sense, or no answer came to an end.
    """
    if batch_size < 1 or answers_per_prompt < 1:
        raise ValueError("batch_size and answers_per_prompt must be 1 or more")
    if answers_per_prompt > 1 and temperature == 0:
        raise ValueError("greedy answers to one prompt are all the same: set a temperature above 0")
    records = load_records(path_in, "sft", cache_dir=cache_dir)
    generator = torch.Generator().manual_seed(seed)
    path_out = Path(path_out)
    path_out.parent.mkdir(parents=True, exist_ok=True)
    beside = path_out.with_name(f".{path_out.name}.{os.getpid()}.tmp")
    answers = skipped = tokens = 0
    try:
        with beside.open("w", encoding="utf-8", newline="\n") as file:
            for start in range(0, len(records), batch_size):
                asked = [
                    records[index]["conversations"][:-1]  # all but the last answer
                    for index in range(start, min(start + batch_size, len(records)))
                    for _ in range(answers_per_prompt)
                ]
                for messages, ids in zip(
                    asked,
                    _answer(teacher, tokenizer, asked, max_new_tokens, temperature, generator),
                    strict=True,
                ):
                    content = tokenizer.decode(ids or [], skip_special_tokens=True)
                    if not content.strip():
                        skipped += 1
                        continue
                    answers, tokens = answers + 1, tokens + len(ids)
                    conversation = [*messages, {"role": "assistant", "content": content}]
                    file.write(json.dumps({"conversations": conversation}, ensure_ascii=False) + "\n")
                progress(min(start + batch_size, len(records)), len(records))
        if not answers:
            raise ValueError(
                f"none of {skipped} answers came to an end within {max_new_tokens} tokens: is this a teacher "
                "that was fine-tuned to answer?"
            )
        os.replace(beside, path_out)
    finally:
        beside.unlink(missing_ok=True)
    return Written(answers, skipped, tokens)


def _answer(
    teacher: MiniMind,
    tokenizer: Tokenizer,
    conversations: list[list[dict]],
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator,
) -> list[list[int] | None]:
    """The tokens of each answer; None for one without an end, and for a prompt that leaves no room."""
    prompts = []
    for conversation in conversations:
        messages, tools = chat_of(conversation)
        chat = tokenizer.encode_chat(messages, add_generation_prompt=True, tools=tools)
        prompts.append(chat.input_ids)
    fitting = [n for n, ids in enumerate(prompts) if len(ids) < teacher.config.max_position_embeddings]
    if not fitting:
        return [None] * len(prompts)
    completions = complete(
        teacher,
        [prompts[n] for n in fitting],
        max_new_tokens=max_new_tokens,
        sampling=Sampling(temperature),
        eos_token_id=tokenizer.eos_token_id,
        generator=generator,
    )
    answers: list[list[int] | None] = [None] * len(prompts)
    for n, completion in zip(fitting, completions, strict=True):
        if completion.finish_reason == "stop":
            answers[n] = completion.tokens
    return answers
